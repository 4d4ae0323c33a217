"""How is a corpus that nobody wants to tokenise first read while training goes on, and found again after a stop?

Row i of the run is a pure function of i: batches go round the readers (one per process and loader worker), each reads
its own share of the documents, window by window, and a window is tokenised, packed and shuffled by itself. So the
loader needs no state: Trainer goes on at a row number, as it does with packed blocks, and the stream finds the place.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset, get_worker_info

from lm_recipes.launch import UserError
from lm_recipes.objectives.packing import Packer
from lm_recipes.sources import files

logger = logging.getLogger(__name__)

Row = dict[str, np.ndarray]

# With this many files for each reader, files are dealt whole: shares then differ by an eighth at most. With fewer,
# every reader reads all of them and keeps each n-th document.
FILES_PER_READER = 8
# Rows are shuffled within a window. A reader works while the batches that its loader has fetched before are trained on:
# larger windows mix better and take longer.
WINDOW_CHARACTERS = 2_000_000


class Landmark(NamedTuple):
    """Where a reader stands before a window."""

    row: int = 0  # rows it has given
    epoch: int = 0  # times it has gone through its share
    file: int = 0  # files of this pass that it has finished
    document: int = 0  # documents of its share that it has taken from the file it is in


@dataclass(eq=False)
class StreamedBlocks(Dataset):
    """The blocks that a run trains on, in order: `stream[7]` is `{"input_ids": [L], "position_ids": [L]}`, numpy.

    A map-style dataset that is to be asked for its rows one after the other (a row elsewhere costs a search): Trainer
    deals and skips batches of row numbers, so processes get equal numbers of them and a skipped one costs nothing.

    Each pass reads every document once over all readers, in an order of its own: files permuted by `(seed, epoch)`,
    rows permuted within a window. A reader that has come to the end of its share begins the next pass.

    Args:
        urls: of the files, in a fixed order.
        batch_size: rows per process and forward pass.
        readers: processes x loader workers (at least 1 each).
        rows: length of the run.
        window_characters: text to tokenise, pack and shuffle at a time.
        collator: where it has an `epoch`, it is told the pass that a row comes from, so that masks change with it.
        landmarks: a directory in which readers note where their windows begin, to find a row without tokenising what
            is before it. Only speed depends on it.
    """

    urls: list[str]
    tokenizer: object
    packer: Packer
    batch_size: int
    readers: int
    rows: int
    seed: int = 0
    text_column: str = "text"
    window_characters: int = WINDOW_CHARACTERS
    collator: object = None
    landmarks: Path | None = None
    fingerprint: str = ""  # of all that decides what a reader gives but `readers`: texts, tokenizer, packing, seed
    _reading: dict = field(init=False, repr=False, default_factory=dict)

    @classmethod
    def for_run(
        cls, source: str, tokenizer, block_size: int, args, text_column: str = "text", collator: object = None
    ) -> "StreamedBlocks":
        """The stream that a run with these `TrainingArguments` trains on: rows for all of its `max_steps`.

        Raises:
            UserError: the source has no files of rows, or the run no `max_steps`.
        """
        if args.max_steps <= 0:
            raise UserError("a stream has no end that is known before; say how far to train with --max_steps")
        found = training_files(source)
        readers = args.world_size * max(args.dataloader_num_workers, 1)
        packer = Packer.for_tokenizer(tokenizer, block_size)
        shape = [[(file.id, file.bytes) for file in found], text_column, repr(packer), args.seed, WINDOW_CHARACTERS]
        key = json.dumps(shape).encode() + tokenizer.backend_tokenizer.to_str().encode()
        whole = len(found) >= FILES_PER_READER * readers
        share = "files of its own" if whole or readers == 1 else f"all files, and keeps 1 document in {readers}"
        logger.info("stream  %d files, %d readers: each reads %s", len(found), readers, share)
        return cls(
            urls=[file.fs.unstrip_protocol(file.path) for file in found],  # file systems do not survive a fork
            tokenizer=tokenizer,
            packer=packer,
            batch_size=args.train_batch_size,
            readers=readers,
            rows=args.max_steps * args.gradient_accumulation_steps * args.train_batch_size * args.world_size,
            seed=args.seed,
            text_column=text_column,
            collator=collator,
            landmarks=Path(args.output_dir, ".stream"),
            fingerprint=hashlib.sha256(key).hexdigest()[:16],
        )

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> Row:
        if not 0 <= row < self.rows:
            raise IndexError(f"row {row} of {self.rows}")
        batch, within = divmod(row, self.batch_size)
        turn, reader = divmod(batch, self.readers)
        position = turn * self.batch_size + within
        # By process: what a parent has open (threads, file handles) is of no use to the worker forked from it.
        place, blocks = self._reading.get((os.getpid(), reader), (None, None))
        if place != position:
            blocks = self.read(reader, position)
        self._reading[os.getpid(), reader] = position + 1, blocks
        epoch, block = next(blocks)
        if hasattr(self.collator, "epoch"):
            self.collator.epoch = epoch
        return block

    def __getitems__(self, rows: list[int]) -> list[Row]:
        """What PyTorch's loader asks for: the rows of a batch, for the collator."""
        if rows != list(range(rows[0], rows[0] + len(rows))):
            raise UserError("a stream is read in order; set --train_sampling_strategy sequential")
        return [self[row] for row in rows]

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_reading": {}}

    def read(self, reader: int, start: int = 0) -> Iterator[tuple[int, Row]]:
        """The endless rows of one reader from its row `start` on, each with the pass (from 0) that it comes from.

        Raises:
            UserError: while iterating, for a file or row that cannot be read, or no text at all.
        """
        if get_worker_info() is not None:
            os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads hang in a fork of a process that has used them
        noted = self._noted(reader)
        mark = max((mark for mark in noted if mark.row <= start), default=Landmark())
        furthest = max((mark.row for mark in noted), default=0)
        row, pack = mark.row, _WindowPacker(self.tokenizer, self.packer)
        for window, texts in self._windows(reader, mark):
            if row > furthest:
                self._note(reader, window._replace(row=row))
            ids, positions = pack(texts)
            order = np.random.default_rng([self.seed, reader, *window[1:]]).permutation(len(ids))
            for number in order[max(start - row, 0) :]:
                yield window.epoch, {"input_ids": ids[number], "position_ids": positions[number]}
            row += len(ids)

    def _windows(self, reader: int, mark: Landmark) -> Iterator[tuple[Landmark, list[str]]]:
        """The reader's documents from a landmark on, some at a time; a window never reaches into the next pass."""
        for epoch in count(mark.epoch):
            texts, size = [], 0
            seen = mark.file or mark.document  # a landmark inside a pass is there because there was text before it
            for file, document, text in self._documents(reader, epoch, mark):
                texts.append(text)
                size += len(text) + 64  # empty documents end a window, too
                seen = seen or text.strip()
                if size >= self.window_characters:
                    yield mark, texts
                    texts, size, mark = [], 0, Landmark(0, epoch, file, document + 1)
            if texts:
                yield mark, texts
            if not seen:
                raise UserError(f"{self.urls[0]}: no text for reader {reader} of {self.readers}; use fewer workers")
            mark = Landmark(0, epoch + 1)
            if reader == 0:
                logger.info("stream  pass %d begins", epoch + 2)

    def _documents(self, reader: int, epoch: int, begin: Landmark) -> Iterator[tuple[int, int, str]]:
        """A reader's share in a pass: `(file of the pass, document of the share in that file, text)`, both from 0."""
        urls = [self.urls[file] for file in np.random.default_rng([self.seed, epoch]).permutation(len(self.urls))]
        first, step = reader, self.readers
        if len(urls) >= FILES_PER_READER * self.readers:
            urls, first, step = urls[reader :: self.readers], 0, 1
        for file in range(begin.file, len(urls)):
            taken = begin.document if file == begin.file else 0
            documents = files.read_documents(urls[file], self.text_column)
            share = islice(documents, first + taken * step, None, step)
            yield from ((file, number, document.text) for number, document in enumerate(share, start=taken))

    def _noted(self, reader: int) -> list[Landmark]:
        file = self._notes(reader)
        lines = file.read_text().splitlines() if file and file.exists() else []
        return [Landmark(*json.loads(line)) for line in lines if line.endswith("]")]  # not one whose writer was killed

    def _note(self, reader: int, mark: Landmark) -> None:
        if file := self._notes(reader):
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a") as stream:
                stream.write(f"\n{json.dumps(mark)}")  # first the line end: a line that was cut off spoils no other

    def _notes(self, reader: int) -> Path | None:
        return self.landmarks and self.landmarks / f"{self.fingerprint}-{reader}-of-{self.readers}.jsonl"


class _WindowPacker:
    """Texts to their blocks, `[n, L]` ids and positions; one fast encoder (and its cache) for all windows."""

    def __init__(self, tokenizer, packer: Packer) -> None:
        self.tokenizer, self.packer, self.encode = tokenizer, packer, None
        self.dtype = np.uint16 if len(tokenizer) <= 2**16 else np.uint32

    def __call__(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        from lm_recipes.tokenization.fast import exact_encoder

        self.encode = self.encode or exact_encoder(self.tokenizer, texts)
        ids, offsets = self.encode(texts)
        none = np.empty((0, self.packer.block_size), self.dtype)
        blocks = [(none, none), *self.packer.pack([(ids.astype(self.dtype), offsets)])]
        ids, positions = map(np.concatenate, zip(*blocks, strict=True))
        return ids, positions


def training_files(source: str) -> list[files.File]:
    """The files of rows that a folder, glob or URL (s3://, hf://datasets/...) names; of a folder with splits, `train`.

    Raises:
        UserError: there are none, or the source is not one of files.
    """
    if source.startswith("demo:") or not files.names_files(source):
        raise UserError(
            f"{source}: a stream reads files; name a folder, glob or URL (of a Hub dataset: hf://datasets/{source}/...)"
        )
    found = [file for file in files.list_files(source) if file.format in files.ROWS]
    if not found:
        raise UserError(f"{source}: no files of rows here ({', '.join(files.ROWS)}); make them with clean.py")
    if not files.is_folder(source):
        return found
    # As for load_table: train.parquet, train-00000-of-00002.parquet and train/0.parquet are parts of the split "train".
    names = [{re.split("[.-]", part)[0] for part in file.id.split("/")} for file in found]
    return [file for file, parts in zip(found, names, strict=True) if "train" in parts] or found
