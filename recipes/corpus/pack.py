"""Pack a corpus into blocks of token ids that pretraining reads by memory map.

A directory with train/, validation/ and test/ (Arrow; columns input_ids and position_ids), documents kept apart.
"""

import time
from concurrent.futures import ThreadPoolExecutor
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
    packing: str = field(
        default="best_fit",
        metadata={
            "help": "best_fit: short pieces share a block, few documents are cut, every token is predicted. "
            "concatenate: one document after the other, cut every block_size tokens."
        },
    )
    text_column: str = field(default="text", metadata={"help": "Column that holds the text."})


def main() -> None:
    (args,) = parse(PackArguments, description=__doc__)

    from tqdm import tqdm

    from lm_recipes.artifacts import atomic_directory, read_json, write_results
    from lm_recipes.evaluation.language_baselines import compressed_bits_per_byte
    from lm_recipes.objectives.packing import Packer, write_packed
    from lm_recipes.sources import load_texts
    from lm_recipes.tokenization.fast import load_tokenizer

    start = time.perf_counter()
    tokenizer = load_tokenizer(args.tokenizer_name_or_path)
    packer = Packer.for_tokenizer(tokenizer, args.block_size, args.packing)
    cleaned = Path(args.data, "results.json")  # of clean.py; other data is its own source
    source = read_json(cleaned, "results")["config"]["source"] if cleaned.exists() else args.data

    with atomic_directory(args.output_dir) as directory, ThreadPoolExecutor(1) as beside:
        # What any language model of this text has to beat; it takes longer than packing.
        test = load_texts(args.data, "test", args.text_column)
        compressed = beside.submit(compressed_bits_per_byte, test)
        splits, seconds = {}, {}
        for split in ("train", "validation", "test"):
            begun = time.perf_counter()
            texts = tqdm(load_texts(args.data, split, args.text_column), desc=f"pack {split}", unit=" documents")
            splits[split] = write_packed(texts, tokenizer, packer, directory / split)
            if not splits[split]["blocks"]:
                raise UserError(f"{args.data}: no text in the {split} split; give it a larger share in clean.py")
            seconds[split] = time.perf_counter() - begun
        splits["test"] |= compressed.result()
        write_results(
            directory,
            config={
                "block_size": args.block_size,
                "packing": args.packing,
                "vocab_size": len(tokenizer),
                "source": source,
            },
            inputs={"data": args.data, "tokenizer": args.tokenizer_name_or_path},
            metrics=splits,
            seconds=seconds | {"total": time.perf_counter() - start},
        )
    train = splits["train"]
    done(
        f"{train['blocks']:,} blocks of {args.block_size} tokens ({train['tokens']:,} tokens, "
        f"{train['padding_share']:.2%} padding, {train['documents_cut']:,} of {train['documents']:,} documents in "
        f"{train['pieces_per_document']:.1f} pieces on average) for training",
        args.output_dir,
        f"python recipes/{'bert' if tokenizer.cls_token else 'gpt'}/pretrain.py --data {args.output_dir} "
        f"--tokenizer_name_or_path {args.tokenizer_name_or_path}",
    )


if __name__ == "__main__":
    recipe(main)
