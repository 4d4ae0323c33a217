"""Pack a corpus into blocks of token ids that pretraining reads by memory map.

A directory with train/, validation/ and test/ (Arrow; columns input_ids and position_ids), documents kept apart.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

from lm_recipes.launch import UserError, done, parse, recipe


@dataclass
class PackArguments:
    """Which corpus, which tokenizer, which block."""

    data: str = field(metadata={"help": "Corpus directory made by clean.py (train/validation/test.parquet)."})
    tokenizer_name_or_path: str = field(metadata={"help": "Tokenizer directory or Hub id."})
    output_dir: str = field(metadata={"help": "Where the packed blocks go."})
    block_size: int = field(default=256, metadata={"help": "Tokens per block: the model's training context."})
    text_column: str = field(default="text", metadata={"help": "Column that holds the text."})


def main() -> None:
    (args,) = parse(PackArguments, description=__doc__)

    from tqdm import tqdm
    from transformers import AutoTokenizer

    from lm_recipes.artifacts import atomic_directory, read_json, write_results
    from lm_recipes.evaluation.language_baselines import compressed_bits_per_byte
    from lm_recipes.objectives.packing import Packer, write_packed
    from lm_recipes.sources import load_texts

    start = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer_name_or_path)
    packer = Packer.for_tokenizer(tokenizer, args.block_size)
    cleaned = Path(args.data, "results.json")  # of clean.py; other data is its own source
    source = read_json(cleaned, "results")["config"]["source"] if cleaned.exists() else args.data

    with atomic_directory(args.output_dir) as directory:
        splits = {}
        for split in ("train", "validation", "test"):
            texts = tqdm(load_texts(args.data, split, args.text_column), desc=f"pack {split}", unit=" documents")
            splits[split] = write_packed(texts, tokenizer, packer, directory / split)
            if not splits[split]["blocks"]:
                raise UserError(f"{args.data}: no text in the {split} split; give it a larger share in clean.py")
        # what any language model of this text has to beat
        splits["test"] |= compressed_bits_per_byte(load_texts(args.data, "test", args.text_column))
        write_results(
            directory,
            config={"block_size": args.block_size, "vocab_size": len(tokenizer), "source": source},
            inputs={"data": args.data, "tokenizer": args.tokenizer_name_or_path},
            metrics=splits,
            seconds={"total": time.perf_counter() - start},
        )
    train = splits["train"]
    done(
        f"{train['blocks']:,} blocks of {args.block_size} tokens ({train['tokens']:,} tokens, "
        f"{train['padding_share']:.2%} padding) for training",
        args.output_dir,
        f"python recipes/{'bert' if packer.suffix else 'gpt'}/pretrain.py --data {args.output_dir} "
        f"--tokenizer_name_or_path {args.tokenizer_name_or_path}",
    )


if __name__ == "__main__":
    recipe(main)
