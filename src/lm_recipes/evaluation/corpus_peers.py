"""How do other libraries go from text to token ids, and do they come to the same ids as we do?"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lm_recipes.launch import UserError
from lm_recipes.objectives.packed import PackedSplit, write_blocks
from lm_recipes.objectives.packing import Packer
from lm_recipes.tokenization.fast import encode_batches

WORKERS = 2
ROWS = 1000  # that `datasets.map` hands over at a time


def write_text(texts: Iterator[str], megabytes: float, directory: Path) -> int:
    """The first `megabytes` of the texts as train.parquet and, in two files, as JSONL; their UTF-8 bytes."""
    kept, size = [], 0
    while size < megabytes * 1e6 and (text := next(texts, None)) is not None:
        kept.append(text)
        size += len(text.encode())
    (directory / "jsonl").mkdir(parents=True)
    pq.write_table(pa.table({"text": kept}), directory / "train.parquet")
    for number, half in enumerate((kept[: len(kept) // 2], kept[len(kept) // 2 :])):
        lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in half)
        (directory / "jsonl" / f"part-{number}.jsonl").write_text(lines, encoding="utf-8")
    return size


def framed(tokenizer):
    """A copy of a tokenizer that puts bos and eos around every text, as our packing does."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    copy = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    special = [(token, copy.convert_tokens_to_ids(token)) for token in (copy.bos_token, copy.eos_token)]
    copy.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{copy.bos_token} $A {copy.eos_token}", special_tokens=special
    )
    return copy


def grouped(parquet: Path, tokenizer, block_size: int, num_proc: int | None, output: Path):
    """What run_clm does: map the tokenizer over the rows, join a thousand rows, cut blocks, drop what is left.

    Args:
        output: where `datasets` keeps its Arrow files; nothing is taken from an earlier run.
    """
    from datasets import load_dataset

    def tokenize(rows: dict) -> dict:
        return tokenizer(rows["text"])

    def group(rows: dict) -> dict:
        joined = {name: list(chain.from_iterable(values)) for name, values in rows.items()}
        end = len(joined["input_ids"]) // block_size * block_size
        cut = {name: [row[i : i + block_size] for i in range(0, end, block_size)] for name, row in joined.items()}
        return cut | {"labels": [list(block) for block in cut["input_ids"]]}

    rows = load_dataset("parquet", data_files=str(parquet), split="train", cache_dir=str(output))
    ids = rows.map(tokenize, batched=True, num_proc=num_proc, remove_columns=rows.column_names)
    return ids.map(group, batched=True, num_proc=num_proc)


def check_grouped(ours: Path, theirs, texts: Iterable[str], tokenizer, num_proc: int) -> int:
    """Compare our concatenated blocks with `grouped`'s, token by token; how many tokens theirs dropped.

    Raises:
        UserError: they differ.
    """
    lengths = np.concatenate([np.diff(offsets) for _, offsets in encode_batches(tokenizer, texts)]) + 2  # bos, eos
    ends = np.concatenate([[0], np.cumsum(lengths)])
    stream = PackedSplit.open(ours)["input_ids"].reshape(-1)[: ends[-1]]
    blocks = theirs.with_format("numpy")["input_ids"][:]
    shards = np.array_split(np.arange(len(lengths)), num_proc)
    starts = [*ends[np.concatenate([shard[::ROWS] for shard in shards])], ends[-1]]
    size = blocks.shape[1]
    kept = np.concatenate([stream[a : a + (b - a) // size * size] for a, b in pairwise(starts)])
    if not np.array_equal(kept, blocks.reshape(-1)):
        raise UserError(f"{ours}: not the ids of datasets.map; the times of the two cannot be compared")
    return len(stream) - len(kept)


def datatrove_tokens(jsonl: Path, tokenizer, steps: list, output: Path) -> Path:
    """datatrove's reader, the steps given and its tokenizer, an eos after every text; the directory of the ids."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    file = str(Path(tokenizer.name_or_path, "tokenizer.json"))
    tokens = DocumentTokenizer(str(output / "tokens"), file, eos_token=tokenizer.eos_token, shuffle_documents=False)
    pipeline = [JsonlReader(str(jsonl), compression=None), *steps, tokens]
    LocalPipelineExecutor(pipeline, tasks=WORKERS, workers=WORKERS, logging_dir=str(output / "logs")).run()
    return output / "tokens"


def check_datatrove(tokens: Path, texts: Iterable[str], tokenizer) -> None:
    """Compare the ids that datatrove wrote with ours, token by token.

    Raises:
        UserError: they differ.
    """
    batches = encode_batches(tokenizer, texts)
    ours = np.concatenate([np.insert(ids, offsets[1:], tokenizer.eos_token_id) for ids, offsets in batches])
    kind = np.uint16 if tokenizer.backend_tokenizer.get_vocab_size() < 2**16 else np.uint32
    theirs = np.concatenate([np.fromfile(file, kind) for file in sorted(tokens.glob("*.ds"))])
    if not np.array_equal(ours, theirs):
        raise UserError(f"{tokens}: not our ids; the times of the two cannot be compared")


def datatrove_chain(jsonl: Path, tokenizer, output: Path) -> dict[str, float]:
    """datatrove's MinHash example, its Gopher filters before and its tokenizer after it; seconds per stage."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter
    from datatrove.utils.hashing import HashConfig

    kept, signatures, buckets, remove = (str(output / name) for name in ("kept", "signatures", "buckets", "remove"))
    # its default, xxhash, is handed strings, which xxhash 4 refuses (datatrove 0.10.1)
    config, seconds = MinhashConfig(hash_config=HashConfig(hash_fc="sha1")), {}
    reader, writer = JsonlReader(str(jsonl), compression=None), JsonlWriter(kept, compression=None)
    gopher = [GopherQualityFilter(), GopherRepetitionFilter()]
    stages = {
        "filters and signatures": ([reader, *gopher, writer, MinhashDedupSignature(signatures, config)], WORKERS),
        "buckets": ([MinhashDedupBuckets(signatures, buckets, config=config)], config.num_buckets),
        "clusters": ([MinhashDedupCluster(buckets, remove, config=config)], 1),
    }
    for name, (pipeline, tasks) in stages.items():
        start = time.perf_counter()
        LocalPipelineExecutor(pipeline, tasks, WORKERS, logging_dir=str(output / f"logs-{name}")).run()
        seconds[name] = time.perf_counter() - start
    start = time.perf_counter()
    datatrove_tokens(Path(kept), tokenizer, [MinhashDedupFilter(remove)], output)
    return seconds | {"duplicates out and tokens": time.perf_counter() - start}


def our_stages(texts: Callable[[], Iterable[str]], tokenizer, block_size: int, output: Path) -> dict[str, float]:
    """Seconds of our own stages one after the other, everything held in memory in between."""
    packer = Packer.for_tokenizer(tokenizer, block_size)
    dtype = np.uint16 if len(tokenizer) <= 2**16 else np.uint32
    stages: dict[str, Callable] = {
        "read": lambda _: list(texts()),
        "tokenize": lambda texts: [(ids.astype(dtype), offsets) for ids, offsets in encode_batches(tokenizer, texts)],
        "pack": lambda batches: list(packer.pack(batches)),
        "write": lambda blocks: write_blocks(output, blocks, block_size, dtype),
    }
    seconds, made = {}, None
    for name, stage in stages.items():
        start = time.perf_counter()
        made = stage(made)
        seconds[name] = time.perf_counter() - start
    return seconds
