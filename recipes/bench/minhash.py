"""Near-duplicate removal by lm_recipes, rensa, datasketch and datatrove, side by side on the same documents.

Real documents, and copies of some with words replaced, whose exact similarity to the originals (Jaccard, sets of five
words in a row) is known and lies from 0.5 to 1. Each library runs in a process of its own, in turn (A B C D A B ...);
medians. A ratio is the median over rounds of a library's seconds to ours in the same round. Memory is the process's,
documents and libraries included. Ours, rensa and datasketch cut signatures into the same bands; datatrove has its
defaults (14 bands of 8) but for SHA-1 in place of xxHash, and works with files.
"""

import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from multiprocessing import get_context
from statistics import median

from lm_recipes.evaluation.near_duplicates import planted_copies, recall_and_precision, shingle_texts
from lm_recipes.launch import done, parse, recipe

THRESHOLD, BANDS, ROWS = 0.8, 21, 6


@dataclass
class MinHashBench:
    """Which documents, how many rounds, and where the record goes."""

    data: str = field(default="runs/quickstart/corpus", metadata={"help": "A corpus made by recipes/corpus/clean.py."})
    documents: int = field(default=20_000, metadata={"help": "At most so many; copies of one in four are added."})
    rounds: int = field(default=3, metadata={"help": "Times that each library runs."})
    output_dir: str = field(default="runs/bench-minhash", metadata={"help": "Directory for results.json."})


# One library each: when the signatures were there, and which texts it removes.


def ours(texts: list[str]) -> tuple[float, set[int]]:
    import numpy as np

    from lm_recipes.text.dedup import jaccard, near_duplicates, shingles, signature

    signatures, signed = np.stack([signature(text, THRESHOLD) for text in texts]), time.perf_counter()
    similarity = lambda i, j: jaccard(shingles(texts[i]), shingles(texts[j]))  # noqa: E731
    return signed, set(np.flatnonzero(near_duplicates(signatures.T, THRESHOLD, similarity) >= 0).tolist())


def rensa(texts: list[str]) -> tuple[float, set[int]]:
    from rensa import RMinHash, RMinHashDeduplicator

    signatures = RMinHash.from_token_sets(map(shingle_texts, texts), BANDS * ROWS, 1)
    signed, index = time.perf_counter(), RMinHashDeduplicator(THRESHOLD, BANDS * ROWS, True, BANDS, 1)
    return signed, {i for i, signature in enumerate(signatures) if not index.add(str(i), signature)}


def datasketch(texts: list[str]) -> tuple[float, set[int]]:
    from datasketch import MinHash, MinHashLSH

    encoded = ([shingle.encode() for shingle in shingle_texts(text)] for text in texts)
    signatures = list(MinHash.generator(encoded, num_perm=BANDS * ROWS))
    signed, index, removed = time.perf_counter(), MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS)), set()
    for i, signature in enumerate(signatures):
        if any(signature.jaccard(signatures[j]) >= THRESHOLD for j in index.query(signature)):
            removed.add(i)
        else:
            index.insert(i, signature)
    return signed, removed


def datatrove(texts: list[str]) -> tuple[float, set[int]]:
    from datatrove.data import Document
    from datatrove.pipeline import dedup
    from datatrove.utils.hashing import HashConfig
    from loguru import logger

    logger.disable("datatrove")
    config = dedup.MinhashConfig(hash_config=HashConfig(hash_fc="sha1"))  # its xxHash needs xxhash < 4
    with tempfile.TemporaryDirectory() as folder:
        documents = [Document(text=text, id=str(i)) for i, text in enumerate(texts)]
        dedup.MinhashDedupSignature(f"{folder}/signatures", config).run(documents)
        signed = time.perf_counter()
        buckets = dedup.MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets", config=config)
        for bucket in range(config.num_buckets):
            buckets.run(None, bucket, config.num_buckets)
        dedup.MinhashDedupCluster(f"{folder}/buckets", f"{folder}/remove", config).run(None)
        kept = {int(document.id) for document in dedup.MinhashDedupFilter(f"{folder}/remove").run(documents)}
    return signed, set(range(len(texts))) - kept


def measured(library, texts: list[str]) -> dict:
    library(texts[:2])  # imports and tables
    start = time.perf_counter()
    signed, removed = library(texts)
    seconds = {"signatures": signed - start, "removal": time.perf_counter() - start}
    return seconds | {"removed": removed, "kilobytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def main() -> None:
    (args,) = parse(MinHashBench, description=__doc__)

    from tqdm import tqdm

    from lm_recipes.artifacts import atomic_directory, write_results
    from lm_recipes.sources import load_texts

    start = time.perf_counter()
    originals = list(islice(load_texts(args.data, "train"), args.documents))
    copies, similarities = planted_copies(originals, seed=0)
    texts = originals + copies
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    runs = {library: [] for library in (ours, rensa, datasketch, datatrove)}
    for library in tqdm([*runs] * args.rounds):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            runs[library].append(process.submit(measured, library, texts).result())
    metrics = {"documents": len(texts), "megabytes": megabytes, "planted": len(copies)}
    for library, results in runs.items():
        removed = [number in results[0]["removed"] for number in range(len(texts))]
        found = recall_and_precision(removed[len(originals) :], similarities, THRESHOLD)
        metrics[library.__name__] = found | {"originals_removed": sum(removed[: len(originals)])}
        for what in ("signatures", "removal"):
            ratio = median(run[what] / our[what] for run, our in zip(results, runs[ours], strict=True))
            speed = megabytes / median(run[what] for run in results)
            metrics[library.__name__] |= {f"{what}_megabytes_per_second": speed, f"{what}_ratio": ratio}
        metrics[library.__name__]["peak_memory_megabytes"] = median(run["kilobytes"] for run in results) / 1024
    with atomic_directory(args.output_dir) as directory:
        write_results(
            directory,
            config=asdict(args) | {"threshold": THRESHOLD, "bands": BANDS, "rows": ROWS},
            inputs={"data": args.data},
            metrics=metrics,
            seconds={"total": time.perf_counter() - start},
        )
    done("MinHash libraries side by side", args.output_dir, f"python recipes/report.py --keep {args.output_dir}")


if __name__ == "__main__":
    recipe(main)
