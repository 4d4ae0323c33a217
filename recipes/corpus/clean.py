"""Make a clean corpus from raw text: markup out, Unicode normalised, bad documents and duplicates removed.

Writes <output_dir>/{train,validation,test}.parquet (columns id, text), a dataset card and results.json,
which holds
the ledger: what each step dropped, why, with examples.
"""

import logging
import os
import time
from dataclasses import asdict, dataclass, field

from lm_recipes.launch import UserError, done, parse, recipe
from lm_recipes.text.settings import CleaningSettings

logger = logging.getLogger("lm_recipes")

LIMITS = [
    "Filters are rules and small models: some bad documents stay, and some good ones (lists, tables of numbers, "
    "frank articles about sex or abuse) are gone.",
    "Personal data has not been removed; near-duplicates have not been removed.",
    "It says what its source said when it was collected, true or not.",
]


@dataclass
class CleanArguments:
    """Where text comes from and where the corpus goes."""

    source: str = field(
        metadata={
            "help": "demo:enwik8, a file, folder or glob (txt md html xml jsonl csv parquet, .gz .zst), or a Hub id"
        }
    )
    output_dir: str = field(metadata={"help": "directory for the corpus; an earlier corpus there is replaced"})
    text_column: str = field(default="text", metadata={"help": "the column that holds the text, in tables"})
    limit: int | None = field(default=None, metadata={"help": "read only this many documents"})
    validation: float = field(default=0.02, metadata={"help": "share of documents"})
    test: float = field(default=0.02, metadata={"help": "share of documents"})
    seed: int = field(default=0, metadata={"help": "another seed draws other splits"})
    num_processes: int | None = field(default=None, metadata={"help": "worker processes; default: all cores"})

    def __post_init__(self) -> None:
        if min(self.validation, self.test) < 0 or self.validation + self.test >= 1:
            raise UserError("validation, test: shares of the documents, 0 or more, with a sum below 1")
        if any(value is not None and value < 1 for value in (self.num_processes, self.limit)):
            raise UserError("num_processes, limit: must be 1 or more")


def main() -> None:
    args, settings = parse(CleanArguments, CleaningSettings, description=__doc__)

    from tqdm.auto import tqdm

    from lm_recipes.artifacts import atomic_directory, write_results
    from lm_recipes.reporting.cards import dataset_card
    from lm_recipes.sources import count_documents, describe, load_documents, split_of
    from lm_recipes.sources.archives import sha256
    from lm_recipes.text.corpus import CorpusWriter
    from lm_recipes.text.ledger import StepRecord, format_ledger
    from lm_recipes.text.pipeline import clean_documents

    start = time.perf_counter()
    source = describe(args.source)
    ledger: list[StepRecord] = []
    with atomic_directory(args.output_dir) as directory:
        # 1. Read, clean, filter and deduplicate, a stream from end to end; 2. split by a hash of the text.
        raw = load_documents(args.source, args.text_column, args.limit)
        raw = tqdm(raw, total=count_documents(args.source, args.limit), desc="cleaning", unit=" documents")
        with CorpusWriter(directory) as corpus:
            for document in clean_documents(raw, settings, ledger, args.num_processes or os.cpu_count()):
                split = split_of(document.key.hex(), args.validation, args.test, args.seed)
                corpus.write(split, document.id, document.text)

        # 3. Account for everything that came in.
        logger.info("\n%s\n", format_ledger(ledger))
        if not raw.n:
            raise UserError(f"{args.source}: no documents in it")
        if not corpus.splits["train"]["documents"]:
            raise UserError(f"{args.source}: no document of {raw.n:,} is left to train on; the ledger above says why")
        splits = {
            name: counts | {"sha256": sha256(directory / f"{name}.parquet")} for name, counts in corpus.splits.items()
        }
        records = [asdict(record) for record in ledger]
        dataset_card(
            directory, title=f"{args.source}, cleaned", source=source, ledger=records, splits=splits, limits=LIMITS
        )
        write_results(
            directory,
            config=asdict(args) | asdict(settings),
            inputs={"source": args.source},
            metrics={"ledger": records, "splits": splits},
            seconds={"clean": time.perf_counter() - start},
        )
    made = ", ".join(f"{counts['documents']:,} {name}" for name, counts in splits.items())
    done(
        f"a corpus: {made} documents",
        args.output_dir,
        f"python recipes/corpus/train_tokenizer.py --data {args.output_dir} --model_type bpe --output_dir ...",
    )


if __name__ == "__main__":
    recipe(main)
