"""Train a tokenizer on a corpus: WordPiece for the BERT track, byte-level BPE for the GPT track.

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

    data: str = field(
        metadata={"help": "a corpus directory from clean.py, or a Hub id with train and validation splits"}
    )
    output_dir: str = field(metadata={"help": "directory for the tokenizer; an earlier one there is replaced"})
    model_type: str = field(metadata={"help": "bpe (byte-level, for GPT) or wordpiece (lower case, for BERT)"})
    vocab_size: int = field(default=4096, metadata={"help": "entries, special tokens included"})
    text_column: str = field(default="text", metadata={"help": "the column that holds the text, in tables"})
    sample_megabytes: float = field(
        default=20.0, metadata={"help": "learn from about this much text, drawn evenly from the whole"}
    )


def main() -> None:
    (args,) = parse(TokenizerArguments, description=__doc__)

    from itertools import islice

    from lm_recipes.artifacts import atomic_directory, write_results
    from lm_recipes.reporting.cards import tokenizer_card
    from lm_recipes.sources import load_texts
    from lm_recipes.tokenization.fertility import cut, measure_fertility
    from lm_recipes.tokenization.training import train_tokenizer

    validation = list(load_texts(args.data, "validation", args.text_column))
    if not validation:
        raise UserError(f"{args.data}: no validation documents; make the corpus with a larger --validation share")

    # 1. A sample from all over the corpus: every n-th document.
    start = time.perf_counter()
    sizes = [len(text.encode()) for text in load_texts(args.data, "train", args.text_column)]
    if not sizes:
        raise UserError(f"{args.data}: no documents to learn from")
    stride = max(1, round(sum(sizes) / (args.sample_megabytes * 1e6)))
    sample = islice(load_texts(args.data, "train", args.text_column), None, None, stride)
    logger.info("learning %d %s entries from %.1f MB", args.vocab_size, args.model_type, sum(sizes[::stride]) / 1e6)

    # 2. Train; 3. measure on text it has not seen.
    tokenizer = train_tokenizer(sample, args.model_type, args.vocab_size)
    trained = time.perf_counter()
    metrics = {
        "vocab_size": len(tokenizer),
        "sample_bytes": sum(sizes[::stride]),
        **measure_fertility(tokenizer, validation),
        "example": cut(tokenizer, SENTENCE),
    }
    logger.info(
        "on validation text: %.2f tokens per word, %.2f bytes per token, %.3f %% unknown",
        metrics["tokens_per_word"],
        metrics["bytes_per_token"],
        100 * metrics["unknown_rate"],
    )
    logger.info("%s\n  -> %s", SENTENCE, "|".join(metrics["example"]))

    with atomic_directory(args.output_dir) as directory:
        tokenizer.save_pretrained(directory)
        title = f"{args.model_type} tokenizer, {len(tokenizer):,} entries"
        tokenizer_card(directory, title=title, data=args.data, metrics=metrics)
        write_results(
            directory,
            config=asdict(args),
            inputs={"data": args.data},
            metrics=metrics,
            seconds={"train": trained - start, "measure": time.perf_counter() - trained},
        )
    done(
        f"a {args.model_type} tokenizer of {len(tokenizer):,} entries",
        args.output_dir,
        f"python recipes/corpus/pack.py --data {args.data} --tokenizer_name_or_path {args.output_dir} --output_dir ...",
    )


if __name__ == "__main__":
    recipe(main)
