"""Continue prompts with a causal language model, under one decoding strategy or several side by side.

python recipes/gpt/generate.py --model_name_or_path runs/gpt --prompt "A city" --strategy greedy beam nucleus
"""

from dataclasses import asdict, dataclass, field

from lm_recipes.launch import UserError, parse, recipe


@dataclass
class GenerateArguments:
    """What to continue, and how. Prompts: `--prompt`, a file, or standard input (one a line)."""

    model_name_or_path: str = field(metadata={"help": "Model or adapter directory, demo:smollm2, or Hub id."})
    prompt: list[str] | None = field(default=None, metadata={"help": "One or more prompts."})
    prompts_file: str | None = field(default=None, metadata={"help": "A .txt (a prompt a line), .jsonl or .csv file."})
    text_column: str = field(default="text", metadata={"help": "Where .jsonl and .csv rows hold the prompt."})
    chat: bool = field(default=False, metadata={"help": "Put each prompt as a user's turn of a chat."})
    strategy: list[str] = field(
        default_factory=lambda: ["nucleus"],
        metadata={"help": "One or more of: greedy beam sample top_k nucleus min_p typical."},
    )
    max_new_tokens: int = field(default=64, metadata={"help": "Tokens after which a continuation is cut."})
    repetition_penalty: float = field(default=1.0, metadata={"help": "Above 1: repeat less."})
    temperature: float | None = field(default=None, metadata={"help": "Below 1 sharpens, above flattens (1)."})
    top_k: int | None = field(default=None, metadata={"help": "top_k: keep the k likeliest tokens (50)."})
    top_p: float | None = field(default=None, metadata={"help": "nucleus: keep the fewest of mass p (0.9)."})
    min_p: float | None = field(default=None, metadata={"help": "min_p: keep what has p x the best (0.05)."})
    typical_p: float | None = field(default=None, metadata={"help": "typical: typical mass kept (0.9)."})
    num_beams: int | None = field(default=None, metadata={"help": "beam: hypotheses kept alive (4)."})
    length_penalty: float | None = field(default=None, metadata={"help": "beam: above 0 favours length (1)."})
    seed: int = field(default=0, metadata={"help": "Every strategy starts its draws from this seed."})
    batch_size: int = field(default=8, metadata={"help": "Prompts continued at a time."})
    show_probabilities: bool = field(default=False, metadata={"help": "Print the distributions drawn from."})
    stream: bool = field(default=False, metadata={"help": "Print words as they come (not with beam)."})
    output: str | None = field(
        default=None, metadata={"help": "A .jsonl, .json or .csv file for texts, tokens, log-probabilities."}
    )


def main() -> None:
    (args,) = parse(GenerateArguments, description=__doc__)
    from transformers import AutoModelForCausalLM, TextStreamer

    from lm_recipes.decoding.generation import continue_prompts, encode_prompts, refuse_too_long
    from lm_recipes.decoding.loading import load_for_inference
    from lm_recipes.decoding.probabilities import explain, render
    from lm_recipes.decoding.records import read_texts, refuse_output, write_records
    from lm_recipes.decoding.strategies import STRATEGIES, refuse_unread, strategy

    # strategies: every option is checked before a model is loaded
    options = {option: getattr(args, option) for known in STRATEGIES.values() for option in known}
    refuse_unread(args.strategy, options)
    shared = {"max_new_tokens": args.max_new_tokens, "repetition_penalty": args.repetition_penalty}
    settings = {name: strategy(name, **shared, **options) for name in args.strategy}
    if args.stream and "beam" in settings:
        raise UserError("--stream shows words as they are chosen, beam search chooses at the end: drop one")
    if args.batch_size < 1:
        raise UserError(f"--batch_size {args.batch_size}: must be at least 1")
    refuse_output(args.output)

    # prompts and model
    prompts = read_texts(args.prompt, args.prompts_file, args.text_column)
    model, tokenizer = load_for_inference(AutoModelForCausalLM, args.model_name_or_path)
    encoded = encode_prompts(tokenizer, prompts, args.chat)
    refuse_too_long(model, encoded, args.max_new_tokens)

    # continuations: in batches, or one by one where words are shown as they come
    draws = {"seed": args.seed, "batch_size": args.batch_size}
    streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True) if args.stream else None
    ready = {}
    if not args.stream:
        ready = {name: continue_prompts(model, tokenizer, encoded, settings[name], **draws) for name in settings}

    # what the model believed at each step
    records = []
    for row, prompt in enumerate(prompts):
        print(f"\n=== {prompt}")
        for name, setting in settings.items():
            print(f"\n--- {name}")
            if args.stream:
                continued = continue_prompts(model, tokenizer, [encoded[row]], setting, **draws, streamer=streamer)[0]
            else:
                continued = ready[name][row]
            continuation = explain(model, tokenizer, encoded[row], continued, setting)
            print(render(continuation, text=not args.stream, probabilities=args.show_probabilities))
            about = {"model": args.model_name_or_path, "prompt": prompt, "strategy": name}
            used = {**setting.to_diff_dict(), "seed": args.seed}
            records.append({**about, **asdict(continuation), "settings": used})
    if args.output:
        write_records(args.output, records)


if __name__ == "__main__":
    recipe(main)
