"""One model, many ways to decode: the same prompts under many strategies, as a table and as a page that explains them.

Makes comparison.html (self-contained: texts, the probability of every token, what each strategy could have taken),
texts.jsonl and results.json.
python recipes/gpt/compare_decoding.py --model_name_or_path demo:smollm2 --prompt "The old lighthouse" "A fever is"
"""

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lm_recipes.decoding.options import StrategyOptions
from lm_recipes.launch import UserError, done, parse, recipe


@dataclass
class ComparisonArguments:
    """Which model, which prompts, which strategies. Prompts: `--prompt`, a file, or standard input (one a line)."""

    model_name_or_path: str = field(metadata={"help": "Model or adapter directory, demo:smollm2, or Hub id."})
    output_dir: str = field(default="runs/decoding", metadata={"help": "For the page, the texts and results.json."})
    prompt: list[str] | None = field(default=None, metadata={"help": "One or more prompts."})
    prompts_file: str | None = field(default=None, metadata={"help": "A .txt (a prompt a line), .jsonl or .csv file."})
    text_column: str = field(default="text", metadata={"help": "Where .jsonl and .csv rows hold the prompt."})
    chat: bool = field(default=False, metadata={"help": "Put each prompt as a user's turn of a chat."})
    strategy: list[str] = field(
        default_factory=lambda: [
            *("greedy", "beam", "diverse_beam", "contrastive", "dola"),
            *("sample", "top_k", "nucleus", "min_p", "typical", "eta"),
        ],
        metadata={"help": "Which ones: see generate.py. Options are shared by all that read them."},
    )
    samples: int = field(default=5, metadata={"help": "Texts drawn per prompt by strategies that draw."})
    seed: int = field(default=0, metadata={"help": "Every strategy starts its draws from this seed."})
    batch_size: int = field(default=4, metadata={"help": "Prompts continued at a time."})


def main() -> None:
    args, options = parse(ComparisonArguments, StrategyOptions, description=__doc__)

    from tqdm import tqdm
    from transformers import AutoModelForCausalLM

    from lm_recipes.artifacts import atomic_directory, write_results, write_text
    from lm_recipes.decoding.drafts import with_draft
    from lm_recipes.decoding.generation import continue_prompts, encode_prompts, refuse_too_long
    from lm_recipes.decoding.loading import load_for_inference
    from lm_recipes.decoding.probabilities import explain
    from lm_recipes.decoding.records import read_texts, write_records
    from lm_recipes.decoding.strategies import strategies, strategy
    from lm_recipes.evaluation.diversity import summary
    from lm_recipes.reporting.decoding import HEAD, comparison_page, terminal_table

    start = time.perf_counter()
    # 1. Strategies: every option is checked before a model is loaded
    asked = asdict(options)
    ways = strategies(args.strategy, asked)
    if args.samples < 1 or args.batch_size < 1:
        raise UserError(f"--samples {args.samples}, --batch_size {args.batch_size}: both must be at least 1")

    # 2. Prompts and model
    prompts = read_texts(args.prompt, args.prompts_file, args.text_column)
    model, tokenizer = load_for_inference(AutoModelForCausalLM, args.model_name_or_path)
    ways = {name: with_draft(way, model, tokenizer) for name, way in ways.items()}
    encoded = encode_prompts(tokenizer, prompts, args.chat)
    refuse_too_long(model, encoded, options.max_new_tokens)
    # The first call pays for what is made once; it should not be the first strategy's.
    continue_prompts(model, tokenizer, encoded[:1], strategy("greedy", max_new_tokens=2))

    with atomic_directory(args.output_dir) as directory:
        # 3. Texts, timed, and then what the model believed at each step. What is drawn is drawn again, several times:
        # the time is that of one text a prompt, which is all that the others write.
        several = {}
        if asked["num_return_sequences"] is None:
            drawn = [name for name, way in ways.items() if way.settings.do_sample and way.streams]
            several = {name: strategy(name, **asked | {"num_return_sequences": args.samples}) for name in drawn}
        draws = {"seed": args.seed, "batch_size": args.batch_size}
        found, seconds, speed = {}, {}, {}
        bar = tqdm(ways.items(), unit="strategy")
        for name, way in bar:
            bar.set_description(name)
            began = time.perf_counter()
            texts = continue_prompts(model, tokenizer, encoded, way, **draws)
            seconds[name] = time.perf_counter() - began
            speed[name] = sum(map(len, texts)) / seconds[name]
            if name in several:
                way = several[name]
                texts = continue_prompts(model, tokenizer, encoded, way, **draws)
            told = [
                explain(model, tokenizer, encoded[row // way.texts], tokens, way, HEAD)
                for row, tokens in enumerate(texts)
            ]
            found[name] = [told[row : row + way.texts] for row in range(0, len(told), way.texts)]

        # 4. What they come to
        summaries = {name: summary(found[name], speed[name]) for name in ways}
        records = [
            {"prompt": prompt, "strategy": name, "sample": number, **asdict(text)}
            for row, prompt in enumerate(prompts)
            for name in ways
            for number, text in enumerate(found[name][row])
        ]
        write_records(str(directory / "texts.jsonl"), records)
        written = write_results(
            directory,
            config=asdict(args) | asked | {"strategies": {name: way.options for name, way in (ways | several).items()}},
            inputs={"model": args.model_name_or_path},
            metrics={"decoding": summaries},
            seconds={**seconds, "total": time.perf_counter() - start},
        )
        write_text(directory / "comparison.html", comparison_page(written, prompts, found))
    print(terminal_table(summaries))
    page = Path(args.output_dir, "comparison.html")
    done(f"{len(records)} texts by {len(ways)} strategies on {len(prompts)} prompts", page, f"open {page}")


if __name__ == "__main__":
    recipe(main)
