"""How are blocks of token ids kept, so that training reads them at the speed of a copy?

A `datasets` directory (Arrow streams, columns input_ids and position_ids as lists of one fixed length), written as the
blocks come and opened by `datasets.load_from_disk`. `PackedSplit` maps the files once, and a row is a view into them.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from lm_recipes.artifacts import read_json, write_json
from lm_recipes.launch import UserError

COLUMNS = ("input_ids", "position_ids")
SHARD_BYTES = 500_000_000
BATCH_BYTES = 4_000_000  # of an Arrow record batch


class PackedSplit:
    """Blocks as a map-style dataset: `split[7]` is `{"input_ids": [L], "position_ids": [L]}`, numpy views of the files.

    `split["input_ids"]` is a whole column `[N, L]` (a copy where the split has several record batches),
    `split.select(rows)` some rows as a split in memory.

    Args:
        parts: per record batch the columns, each `[n, L]`, unsigned ints.
        path: the directory they are mapped from; a pickled split is opened there again.
    """

    column_names = COLUMNS

    def __init__(self, parts: list[dict[str, np.ndarray]], path: Path | None = None) -> None:
        self.parts, self.path = parts, path
        self.starts = np.cumsum([0, *(len(part["input_ids"]) for part in parts)]).tolist()

    @classmethod
    def open(cls, path: str | Path) -> "PackedSplit":
        """Map a directory that `write_blocks` or `datasets.Dataset.save_to_disk` wrote.

        Raises:
            UserError: there is none, a column is missing or its rows differ in length, or there are no rows.
        """
        path = Path(path)
        if not (path / "state.json").is_file():
            raise UserError(f"{path}: no packed blocks here; make them with `python recipes/corpus/pack.py`")
        files = [path / entry["filename"] for entry in read_json(path / "state.json", "packed blocks")["_data_files"]]
        parts = [part for file in files for part in _mapped(file) if len(part["input_ids"])]
        if not parts:
            raise UserError(f"{path}: the {path.name} split is empty")
        return cls(parts, path)

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, key: int | str | slice):
        if isinstance(key, str):
            columns = [part[key] for part in self.parts]
            return columns[0] if len(columns) == 1 else np.concatenate(columns)
        if isinstance(key, slice):
            rows = [self[row] for row in range(*key.indices(len(self)))]
            return {name: np.array([row[name] for row in rows]) for name in COLUMNS}
        row = key + len(self) if key < 0 else key
        if not 0 <= row < len(self):
            raise IndexError(f"row {key} of {len(self)}")
        number = bisect_right(self.starts, row) - 1
        part, row = self.parts[number], row - self.starts[number]
        return {"input_ids": part["input_ids"][row], "position_ids": part["position_ids"][row]}

    def __getitems__(self, rows: list[int]) -> list[dict[str, np.ndarray]]:
        """What PyTorch's loader asks for: the rows of a batch, for the collator."""
        return [self[row] for row in rows]

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return (self[row] for row in range(len(self)))

    def __reduce__(self):
        return (PackedSplit.open, (self.path,)) if self.path else (PackedSplit, (self.parts,))

    def select(self, rows: Iterable[int]) -> "PackedSplit":
        picked = [self[int(row)] for row in rows]
        return PackedSplit([{name: np.stack([row[name] for row in picked]) for name in COLUMNS}])


def _mapped(file: Path) -> Iterator[dict[str, np.ndarray]]:
    """The record batches of an Arrow stream as `[n, L]` views of the mapped file."""
    import pyarrow as pa

    try:
        reader = pa.ipc.open_stream(pa.memory_map(str(file)))
        missing = [name for name in COLUMNS if name not in reader.schema.names]
        batches = list(reader)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{file}: cannot be read ({' '.join(str(error).split())}); pack the corpus again") from error
    if missing:
        raise UserError(f"{file.parent}: column `{missing[0]}` is missing; pack the corpus with recipes/corpus/pack.py")
    for name in COLUMNS:
        if not pa.types.is_fixed_size_list(reader.schema.field(name).type):
            raise UserError(f"{file.parent}: rows of `{name}` have no fixed length; pack with recipes/corpus/pack.py")
    for batch in batches:
        columns = (batch.column(name) for name in COLUMNS)
        yield {
            name: column.flatten().to_numpy(zero_copy_only=True).reshape(len(column), -1)
            for name, column in zip(COLUMNS, columns, strict=True)
        }


def write_blocks(
    directory: str | Path, blocks: Iterable[tuple[np.ndarray, np.ndarray]], block_size: int, dtype: type
) -> None:
    """Write blocks as they come into a `datasets` directory of one or more Arrow files; the same blocks give the same
    bytes, however many come at a time.

    Args:
        blocks: `(input_ids, position_ids)`, `[n, block_size]` ints each.
        dtype: numpy type of the ids on disk. Positions take two bytes where the block allows it.
    """
    import pyarrow as pa

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    types = {"input_ids": np.dtype(dtype), "position_ids": np.dtype(np.uint16 if block_size <= 2**16 else np.uint32)}
    schema = pa.schema({name: pa.list_(pa.from_numpy_dtype(kind), block_size) for name, kind in types.items()})
    row_bytes = block_size * sum(kind.itemsize for kind in types.values())
    rows = max(BATCH_BYTES // row_bytes, 1)
    batches_per_shard = max(SHARD_BYTES // (rows * row_bytes), 1)

    shards, digest, writer = [], hashlib.sha256(repr(schema).encode()), None
    for number, columns in enumerate(_in_batches(blocks, rows, list(types.values()))):
        if number % batches_per_shard == 0:
            writer = _next_shard(directory, shards, schema, writer)
        for column in columns:
            digest.update(column)
        arrays = [pa.FixedSizeListArray.from_arrays(pa.array(column.reshape(-1)), block_size) for column in columns]
        writer.write_batch(pa.record_batch(arrays, schema=schema))
    writer = writer or _next_shard(directory, shards, schema, None)
    writer.close()

    names = [f"data-{number:05d}-of-{len(shards):05d}.arrow" for number in range(len(shards))]
    for shard, name in zip(shards, names, strict=True):
        shard.rename(directory / name)
    # What `datasets.DatasetInfo` would write, without the second that importing `datasets` takes.
    features = {
        name: {"feature": {"dtype": kind.name, "_type": "Value"}, "length": block_size, "_type": "List"}
        for name, kind in types.items()
    }
    write_json(directory / "dataset_info.json", {"features": features})
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": digest.hexdigest()[:16]}
    state |= {"_format_columns": None, "_format_kwargs": {}, "_format_type": None}
    write_json(directory / "state.json", state | {"_output_all_columns": False, "_split": None})


def _next_shard(directory: Path, shards: list[Path], schema, previous):
    import pyarrow as pa

    if previous is not None:
        previous.close()
    shards.append(directory / f"data-{len(shards):05d}.arrow")
    return pa.ipc.new_stream(str(shards[-1]), schema)


def _in_batches(
    blocks: Iterable[tuple[np.ndarray, np.ndarray]], rows: int, types: list[np.dtype]
) -> Iterator[list[np.ndarray]]:
    """The same blocks, `rows` at a time, in the types they have on disk."""
    held, count = [], 0
    for pair in blocks:
        held.append([column.astype(kind, order="C") for column, kind in zip(pair, types, strict=True)])
        count += len(pair[0])
        if count >= rows:
            joined = [np.concatenate(columns) for columns in zip(*held, strict=True)]
            for start in range(0, count - rows + 1, rows):
                yield [column[start : start + rows] for column in joined]
            held, count = [[column[count - count % rows :] for column in joined]], count % rows
    if count:
        yield [np.concatenate(columns) for columns in zip(*held, strict=True)]
