"""Make a clean corpus from raw text: markup out, Unicode normalised, bad documents and duplicates removed.

Writes <output_dir>/{train,validation,test}.parquet (columns id, text), and a dataset card, report.html and results.json
with the ledger: what each step dropped and changed, why, with examples. What could not be read is listed in
quarantine.jsonl. A killed run goes on where it was when the same command is run again.
"""

import logging
import os
import shutil
import time
from dataclasses import asdict, dataclass, field

from lm_recipes.launch import UserError, done, parse, recipe
from lm_recipes.text.settings import CleaningSettings

logger = logging.getLogger("lm_recipes")


@dataclass
class CleanArguments:
    """Where text comes from, where the corpus goes, and where the work is done."""

    source: str = field(
        metadata={
            "help": "demo:enwik8, a file, folder or glob (txt md html xml jsonl csv parquet, .gz .zst; also s3:// and "
            "the like), or a Hub id"
        }
    )
    output_dir: str = field(metadata={"help": "directory or URL for the corpus; an earlier corpus there is replaced"})
    text_column: str = field(default="text", metadata={"help": "the column that holds the text, in tables"})
    limit: int | None = field(default=None, metadata={"help": "read only this many documents"})
    validation: float = field(default=0.02, metadata={"help": "share of documents"})
    test: float = field(default=0.02, metadata={"help": "share of documents"})
    seed: int = field(default=0, metadata={"help": "another seed draws other splits"})
    executor: str = field(default="processes", metadata={"help": "processes of this machine, or ray"})
    num_processes: int | None = field(default=None, metadata={"help": "workers; default: all cores"})

    def __post_init__(self) -> None:
        if min(self.validation, self.test) < 0 or self.validation + self.test >= 1:
            raise UserError("validation, test: shares of the documents, 0 or more, with a sum below 1")
        if any(value is not None and value < 1 for value in (self.num_processes, self.limit)):
            raise UserError("num_processes, limit: must be 1 or more")
        if self.executor not in ("processes", "ray"):
            raise UserError(f"executor: `{self.executor}` is neither processes nor ray")


def main() -> None:
    args, settings = parse(CleanArguments, CleaningSettings, description=__doc__)

    from tqdm import tqdm

    from lm_recipes.artifacts import atomic_directory, work_directory, write_results
    from lm_recipes.reporting.corpus import write_corpus_report
    from lm_recipes.reporting.dataset_card import dataset_card
    from lm_recipes.sources import describe, load_documents, split_of
    from lm_recipes.sources.archives import sha256
    from lm_recipes.text.corpus import CorpusWriter, write_quarantine
    from lm_recipes.text.ledger import StepRecord, format_ledger
    from lm_recipes.text.pipeline import clean_documents
    from lm_recipes.text.steps import PACKAGES

    start = time.perf_counter()
    source = describe(args.source)
    ledger: list[StepRecord] = []
    quarantine: list[tuple[str, str]] = []
    workers = args.num_processes or os.cpu_count()
    with work_directory(args.output_dir) as work, atomic_directory(args.output_dir) as directory:
        # 1. Read, clean, filter and deduplicate; 2. split by a hash of the text.
        with tqdm(desc="cleaning") as bar, CorpusWriter(directory) as corpus:
            raw = load_documents(args.source, args.text_column, args.limit, lambda *f: quarantine.append(f), bar)
            for document in clean_documents(raw, settings, ledger, work, args.executor, workers):
                split = split_of(document.key.hex(), args.validation, args.test, args.seed)
                corpus.write(split, document.id, document.text)

        # 3. Account for everything that came in.
        logger.info("\n%s\n", format_ledger(ledger))
        write_quarantine(directory, quarantine)
        for where, reason in quarantine[:3]:
            logger.warning("not read: %s: %s", where, reason)
        if not corpus.splits["train"]["documents"]:
            shutil.rmtree(work)
            read = f"{ledger[0].documents_in:,} documents read, {len(quarantine):,} not readable"
            raise UserError(f"{args.source}: nothing is left to train on ({read}); what is above says why")
        splits = {
            name: counts | {"sha256": sha256(directory / f"{name}.parquet")} for name, counts in corpus.splits.items()
        }
        record = write_results(
            directory,
            config=asdict(args) | asdict(settings),
            inputs={"source": args.source},
            metrics={
                "ledger": [asdict(step) for step in ledger],
                "splits": splits,
                "lengths": corpus.lengths,
                "quarantined": len(quarantine),
            },
            seconds={"clean": time.perf_counter() - start},
            more_versions=PACKAGES,
        )
        dataset_card(directory, source, record)
        write_corpus_report(directory, source, record)
    made = ", ".join(f"{counts['documents']:,} {name}" for name, counts in splits.items())
    done(
        f"a corpus: {made} documents" + (f"; {len(quarantine):,} entries in quarantine.jsonl" if quarantine else ""),
        args.output_dir,
        f"python recipes/corpus/train_tokenizer.py --data {args.output_dir} --model_type bpe --output_dir ...",
    )


if __name__ == "__main__":
    recipe(main)
