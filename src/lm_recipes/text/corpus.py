"""How does a clean corpus lie on disk? `train.parquet`, `validation.parquet`, `test.parquet`; columns id and text.

Beside them, where something could not be read, `quarantine.jsonl`: `where` (file and row) and `reason`, one a line.
"""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet

SPLITS = ("train", "validation", "test")
SCHEMA = pyarrow.schema([("id", pyarrow.string()), ("text", pyarrow.string())])
# Rows are flushed at either bound: memory stays flat, and the files depend on the documents alone.
GROUP_DOCUMENTS = 1_000
GROUP_BYTES = 8_000_000


def write_quarantine(directory: Path, faults: list[tuple[str, str]]) -> None:
    if faults:
        with (directory / "quarantine.jsonl").open("w", encoding="utf-8", errors="backslashreplace") as file:
            for where, reason in faults:
                file.write(json.dumps({"where": where, "reason": reason}, ensure_ascii=False) + "\n")


class CorpusWriter:
    """Writes documents to the three split files of a directory as they come; a context manager.

    Attributes:
        splits: split -> {"documents": int, "bytes": int} (bytes of UTF-8 text) written so far.
        lengths: how many documents have `edges[i]` words or more, but fewer than `edges[i + 1]`.
    """

    def __init__(self, directory: Path) -> None:
        self.splits = {split: {"documents": 0, "bytes": 0} for split in SPLITS}
        self.lengths = {"edges": [2**power for power in range(24)], "documents": [0] * 24}
        self._files = {
            split: pyarrow.parquet.ParquetWriter(directory / f"{split}.parquet", SCHEMA, compression="zstd")
            for split in SPLITS
        }
        self._rows: dict[str, list[dict]] = {split: [] for split in SPLITS}
        self._waiting = dict.fromkeys(SPLITS, 0)

    def write(self, split: str, id: str, text: str) -> None:
        size = len(text.encode())
        self._rows[split].append({"id": id, "text": text})
        self._waiting[split] += size
        self.splits[split]["documents"] += 1
        self.splits[split]["bytes"] += size
        self.lengths["documents"][min(max(len(text.split()).bit_length() - 1, 0), 23)] += 1
        if len(self._rows[split]) >= GROUP_DOCUMENTS or self._waiting[split] >= GROUP_BYTES:
            self._flush(split)

    def _flush(self, split: str) -> None:
        if not self._rows[split]:
            return
        self._files[split].write_table(pyarrow.Table.from_pylist(self._rows[split], schema=SCHEMA))
        self._rows[split].clear()
        self._waiting[split] = 0

    def __enter__(self) -> "CorpusWriter":
        return self

    def __exit__(self, *error: object) -> None:
        for split, file in self._files.items():
            if error[0] is None:
                self._flush(split)
            file.close()
