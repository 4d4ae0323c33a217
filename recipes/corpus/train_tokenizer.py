"""Train a tokenizer on a corpus: BPE or Unigram over bytes for the GPT track, parity-aware BPE for several languages,
WordPiece for the BERT track.

Writes a tokenizer directory for `AutoTokenizer.from_pretrained` and results.json with its fertility.
"""

import logging
import time
from dataclasses import asdict, dataclass, field

from lm_recipes.launch import UserError, done, parse, recipe

logger = logging.getLogger("lm_recipes")

SENTENCE = "The AI researcher's breakthrough was unexpected"


@dataclass
class TokenizerArguments:
    """What to learn from, and how large a vocabulary."""

    data: list[str] = field(
        metadata={
            "help": "corpus directories from clean.py, Hub ids with train and validation splits, or demo tables; "
            "without --language_column each is a language to parity_bpe"
        }
    )
    output_dir: str = field(metadata={"help": "directory for the tokenizer; an earlier one there is replaced"})
    model_type: str = field(
        metadata={
            "help": "bpe or unigram (byte-level, for GPT), parity_bpe (BPE that treats languages alike), or wordpiece "
            "(lower case, for BERT)"
        }
    )
    vocab_size: int = field(default=4096, metadata={"help": "entries, special and reserved tokens included"})
    reserved_tokens: list[str] = field(
        default_factory=list,
        metadata={
            "help": "tokens to put aside for later training: fim (3), mask (for hybrid training), sentinels "
            "(100, for spans as in T5), sentinels=32, or a token such as '<|tool|>'"
        },
    )
    pre_tokenizer: str = field(
        default="gpt2",
        metadata={"help": "what no token crosses: gpt2 (runs of digits), gpt4 (groups of three), qwen2 (digits)"},
    )
    text_column: str = field(default="text", metadata={"help": "the column that holds the text, in tables"})
    language_column: str | None = field(default=None, metadata={"help": "the column that names a row's language"})
    parity_ratios: list[float] | None = field(
        default=None, metadata={"help": "parity_bpe: wanted bytes per token of each language; default: equal"}
    )
    sample_megabytes: float = field(
        default=20.0, metadata={"help": "learn from about this much text, drawn evenly from the whole"}
    )


def main() -> None:
    (args,) = parse(TokenizerArguments, description=__doc__)

    from itertools import chain

    from lm_recipes.artifacts import atomic_directory, write_results
    from lm_recipes.reporting.cards import tokenizer_card
    from lm_recipes.tokenization.fertility import cut, measure_fertility
    from lm_recipes.tokenization.samples import texts_by_language
    from lm_recipes.tokenization.training import train_tokenizer

    start = time.perf_counter()
    data = [args.data] if isinstance(args.data, str) else args.data  # a YAML may name one without brackets
    columns = {"text_column": args.text_column, "language_column": args.language_column}
    validation = texts_by_language(data, "validation", **columns)
    if not validation:
        raise UserError(f"{', '.join(data)}: no validation documents; make the corpus with a larger --validation share")

    # 1. A sample from all over the corpus: every n-th document.
    sample = texts_by_language(data, "train", **columns, megabytes=args.sample_megabytes)
    if not sample:
        raise UserError(f"{', '.join(data)}: no documents to learn from")
    sample_bytes = sum(len(text.encode()) for text in chain.from_iterable(sample.values()))
    logger.info("learning %d %s entries from %.1f MB", args.vocab_size, args.model_type, sample_bytes / 1e6)

    # 2. Train; 3. measure on text it has not seen.
    options = {"reserved": args.reserved_tokens, "pre_tokenizer": args.pre_tokenizer}
    tokenizer = train_tokenizer(sample, args.model_type, args.vocab_size, parity_ratios=args.parity_ratios, **options)
    trained = time.perf_counter()
    metrics = {
        "vocab_size": len(tokenizer),
        "sample_bytes": sample_bytes,
        **measure_fertility(tokenizer, chain.from_iterable(validation.values())),
        "example": cut(tokenizer, SENTENCE),
    }
    languages = validation.items() if len(validation) > 1 else ()
    by_language = {language: measure_fertility(tokenizer, texts) for language, texts in languages}
    for name, fit in {"validation text": metrics, **by_language}.items():
        logger.info(
            "on %s: %.2f tokens per word, %.2f bytes per token, %.3f %% unknown",
            name, fit["tokens_per_word"], fit["bytes_per_token"], 100 * fit["unknown_rate"],
        )  # fmt: skip
    logger.info("%s\n  -> %s", SENTENCE, "|".join(metrics["example"]))

    with atomic_directory(args.output_dir) as directory:
        tokenizer.save_pretrained(directory)
        title = f"{args.model_type} tokenizer, {len(tokenizer):,} entries"
        tokenizer_card(directory, title=title, data=", ".join(data), metrics=metrics)
        write_results(
            directory,
            config=asdict(args),
            inputs={"data" if len(data) == 1 else source: source for source in data},
            metrics=metrics | {"languages": by_language},
            seconds={"train": trained - start, "measure": time.perf_counter() - trained},
        )
    done(
        f"a {args.model_type} tokenizer of {len(tokenizer):,} entries",
        args.output_dir,
        f"python recipes/corpus/pack.py --data {data[0]} --tokenizer_name_or_path {args.output_dir} --output_dir ...",
    )


if __name__ == "__main__":
    recipe(main)
