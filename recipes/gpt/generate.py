"""Continue prompts with a causal language model, under one decoding strategy or several one after the other.

python recipes/gpt/generate.py --model_name_or_path runs/gpt --prompt "A city" --strategy greedy beam nucleus
compare_decoding.py makes a table and a page of it.
"""

import logging
from dataclasses import asdict, dataclass, field

from lm_recipes.decoding.options import StrategyOptions
from lm_recipes.launch import UserError, parse, recipe

logger = logging.getLogger("lm_recipes")


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
        metadata={
            "help": "One or more of: greedy beam beam_sample diverse_beam constrained_beam sample top_k nucleus min_p "
            "typical eta contrastive dola assisted prompt_lookup."
        },
    )
    seed: int = field(default=0, metadata={"help": "Every strategy starts its draws from this seed."})
    batch_size: int = field(default=8, metadata={"help": "Prompts continued at a time."})
    show_probabilities: bool = field(default=False, metadata={"help": "Print the distributions drawn from."})
    compile: bool = field(
        default=False, metadata={"help": "The same texts by compiled steps: sooner, after half a minute."}
    )
    stream: bool = field(default=False, metadata={"help": "Print words as they come (not with beams)."})
    output: str | None = field(
        default=None, metadata={"help": "A .jsonl, .json or .csv file for texts, tokens, log-probabilities."}
    )


def main() -> None:
    args, options = parse(GenerateArguments, StrategyOptions, description=__doc__)
    from transformers import AutoModelForCausalLM, TextStreamer

    from lm_recipes.decoding.compiled import with_compiled_steps
    from lm_recipes.decoding.drafts import with_draft
    from lm_recipes.decoding.generation import continue_prompts, encode_prompts, refuse_too_long
    from lm_recipes.decoding.loading import load_for_inference
    from lm_recipes.decoding.probabilities import explain, render
    from lm_recipes.decoding.records import read_texts, refuse_output, write_records
    from lm_recipes.decoding.strategies import strategies

    # strategies: every option is checked before a model is loaded
    ways = strategies(args.strategy, asdict(options))
    if args.stream and (late := [name for name, way in ways.items() if not way.streams]):
        raise UserError(
            f"--stream shows words as they are chosen, {late[0]} chooses at the end or gives several texts: drop one"
        )
    if args.compile:
        ways = {name: with_compiled_steps(way) for name, way in ways.items()}
    if args.batch_size < 1:
        raise UserError(f"--batch_size {args.batch_size}: must be at least 1")
    refuse_output(args.output)

    # prompts and model
    prompts = read_texts(args.prompt, args.prompts_file, args.text_column)
    model, tokenizer = load_for_inference(AutoModelForCausalLM, args.model_name_or_path)
    ways = {name: with_draft(way, model, tokenizer) for name, way in ways.items()}
    encoded = encode_prompts(tokenizer, prompts, args.chat)
    refuse_too_long(model, encoded, options.max_new_tokens)

    # continuations: in batches, or one by one where words are shown as they come
    draws = {"seed": args.seed, "batch_size": args.batch_size}
    streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True) if args.stream else None
    ready = {}
    if not args.stream:
        ready = {name: continue_prompts(model, tokenizer, encoded, way, **draws) for name, way in ways.items()}

    # what the model believed at each step
    records = []
    for row, prompt in enumerate(prompts):
        print(f"\n=== {prompt}")
        for name, way in ways.items():
            print(f"\n--- {name}")
            if args.stream:
                texts = continue_prompts(model, tokenizer, [encoded[row]], way, **draws, streamer=streamer)
            else:
                texts = ready[name][row * way.texts : (row + 1) * way.texts]
            for tokens in texts:
                continuation = explain(model, tokenizer, encoded[row], tokens, way)
                print(render(continuation, text=not args.stream, probabilities=args.show_probabilities))
                if "structure" in way.extra and not continuation.ended:
                    logger.warning("cut at --max_new_tokens %d before it was whole", options.max_new_tokens)
                about = {"model": args.model_name_or_path, "prompt": prompt, "strategy": name}
                records.append({**about, **asdict(continuation), "settings": {**way.options, "seed": args.seed}})
    if args.output:
        write_records(args.output, records)


if __name__ == "__main__":
    recipe(main)
