"""A stream reads every document once a pass, in an order that depends on the seed alone, and goes on from any row."""

import json
import pickle
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice, pairwise, takewhile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from accelerate import skip_first_batches
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, SequentialSampler

from lm_recipes.launch import UserError
from lm_recipes.objectives import MaskedLanguageModeling
from lm_recipes.objectives.packing import Packer
from lm_recipes.objectives.streaming import StreamedBlocks, training_files

BLOCK = 128


def write_shards(directory: Path, texts: list[str], shards: int) -> Path:
    directory.mkdir()
    for shard in range(shards):
        pq.write_table(pa.table({"text": texts[shard::shards]}), directory / f"part-{shard:03d}.parquet")
    return directory


@pytest.fixture(scope="session")
def texts(documents) -> list[str]:
    """Different ones, each short enough for a block; some are empty."""
    different = dict.fromkeys(text[:100] for text in documents)
    return [text if number % 50 else "" for number, text in enumerate(different)]


@pytest.fixture(scope="session")
def few(tmp_path_factory, texts) -> Path:
    return write_shards(tmp_path_factory.mktemp("few") / "shards", texts, 3)


@pytest.fixture(scope="session")
def many(tmp_path_factory, texts) -> Path:
    return write_shards(tmp_path_factory.mktemp("many") / "shards", texts, 40)


def stream(source: Path | str, tokenizer, readers: int = 1, **settings) -> StreamedBlocks:
    fixed = {"batch_size": 4, "rows": 10**6, "window_characters": 6_000}
    urls = [file.fs.unstrip_protocol(file.path) for file in training_files(str(source))]
    return StreamedBlocks(urls, tokenizer, Packer.for_tokenizer(tokenizer, BLOCK), readers=readers, **fixed | settings)


def passes(blocks: StreamedBlocks, number: int = 0) -> Iterator[list[dict]]:
    """Per reader the rows of its pass `number`."""
    for reader in range(blocks.readers):
        rows = takewhile(lambda row: row[0] <= number, blocks.read(reader))
        yield [row for epoch, row in rows if epoch == number]


def pieces(rows: list[dict]) -> list[tuple[int, ...]]:
    """The documents in blocks, without padding."""
    found = []
    for row in rows:
        starts = [*np.flatnonzero(row["position_ids"] == 0), BLOCK]
        found += [tuple(row["input_ids"][a:b].tolist()) for a, b in pairwise(starts)]
    return [piece for piece in found if any(piece)]


def encoded(texts: list[str], tokenizer) -> Counter:
    around = (tokenizer.cls_token_id, tokenizer.sep_token_id) if tokenizer.mask_token else (1, 2)
    ids = (tokenizer.encode(text, add_special_tokens=False) for text in texts)
    return Counter((around[0], *some, around[1]) for some in ids if some)


def same(rows, others) -> bool:
    pairs = zip(rows, others, strict=True)
    return all(np.array_equal(a[name], b[name]) for a, b in pairs for name in ("input_ids", "position_ids"))


@pytest.mark.parametrize("readers", [1, 2, 4])
@pytest.mark.parametrize("shards", ["few", "many"])  # each reader reads all files, or files of its own
@pytest.mark.parametrize("track", ["gpt", "bert"])
def test_every_document_is_read_once_a_pass(track, shards, readers, texts, request):
    tokenizer = request.getfixturevalue(f"{track}_tokenizer")
    blocks = stream(request.getfixturevalue(shards), tokenizer, readers)
    expected = encoded(texts, tokenizer)
    for number in range(2):
        shares = [pieces(rows) for rows in passes(blocks, number)]
        assert Counter(chain(*shares)) == expected
        assert min(map(len, shares)) > 0.6 * len(texts) / readers


def test_documents_longer_than_a_block_come_whole(documents, gpt_tokenizer, tmp_path):
    blocks = stream(write_shards(tmp_path / "long", documents, 2), gpt_tokenizer)
    rows = chain(*passes(blocks))
    got = np.concatenate([row["input_ids"][(row["position_ids"] > 0)] for row in rows])  # no bos, no repeated token
    expected = chain(*gpt_tokenizer(documents, add_special_tokens=False)["input_ids"], [2] * len(documents))
    np.testing.assert_array_equal(np.bincount(got[got != 0]), np.bincount([*expected]))


def test_the_order_depends_on_the_seed_and_the_pass(few, many, gpt_tokenizer):
    for source in (few, many):
        first, again, other = (next(passes(stream(source, gpt_tokenizer, seed=seed))) for seed in (0, 0, 1))
        (second,) = passes(stream(source, gpt_tokenizer), 1)
        assert same(first, again)
        in_order = pieces(first)
        assert Counter(in_order) == Counter(pieces(other)) == Counter(pieces(second))
        assert in_order != pieces(other)
        assert in_order != pieces(second)
    shares = [Counter(pieces(next(passes(stream(many, gpt_tokenizer, 2), number)))) for number in range(2)]
    assert shares[0] != shares[1]  # files are dealt anew


def test_rows_are_shuffled_within_a_window(few, texts, gpt_tokenizer):
    (rows,) = passes(stream(few, gpt_tokenizer, window_characters=10**7))
    place = {ids: number for number, ids in enumerate(encoded(texts, gpt_tokenizer))}
    order = np.array([place[piece] for piece in pieces(rows)])
    assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.2


@pytest.mark.parametrize("shards", ["few", "many"])
def test_a_reader_goes_on_from_any_row(shards, request, gpt_tokenizer, tmp_path):
    source = request.getfixturevalue(shards)
    whole = [row for _, row in islice(stream(source, gpt_tokenizer, 2).read(1), 150)]
    noting = stream(source, gpt_tokenizer, 2, landmarks=tmp_path)
    assert same((row for _, row in islice(noting.read(1), 120)), whole[:120])
    (notes,) = tmp_path.iterdir()
    assert len(notes.read_text().splitlines()) > 4
    with notes.open("a") as lines:
        lines.write("\n[119, 0, 9")  # its writer was killed
    for start in (0, 1, 17, 60, 119, 120, 149):
        for blocks in (noting, stream(source, gpt_tokenizer, 2)):
            assert same((row for _, row in islice(blocks.read(1, start), 150 - start)), whole[start:])
    marks = [json.loads(line)[0] for line in notes.read_text().splitlines() if line.endswith("]")]
    assert marks == sorted(set(marks))  # nothing is noted twice


def test_with_landmarks_what_lies_before_is_not_read_again(texts, gpt_tokenizer, tmp_path):
    source = write_shards(tmp_path / "shards", texts, 40)
    blocks = stream(source, gpt_tokenizer, landmarks=tmp_path / "notes")
    (whole,) = passes(blocks)
    order = np.random.default_rng([0, 0]).permutation(40)
    for number in order[:10]:
        (source / f"part-{number:03d}.parquet").unlink()
    half = len(whole) // 2
    assert same((row for _, row in islice(blocks.read(0, half), len(whole) - half)), whole[half:])
    with pytest.raises(UserError, match="no such file"):
        next(replace(blocks, landmarks=None).read(0, half))


def loader(blocks: StreamedBlocks, processes: int, process: int, workers: int, collate=list) -> DataLoader:
    """What Trainer makes of a dataset on one of its processes."""
    plain = DataLoader(
        blocks, batch_size=blocks.batch_size, sampler=SequentialSampler(blocks), num_workers=workers, collate_fn=collate
    )
    return prepare_data_loader(plain, num_processes=processes, process_index=process)


@pytest.mark.parametrize(("processes", "workers"), [(1, 0), (2, 0), (1, 2), (2, 2)])
def test_processes_and_workers_read_their_own_shares_and_go_on_from_any_batch(processes, workers, few, bert_tokenizer):
    readers = processes * max(workers, 1)
    blocks = stream(few, bert_tokenizer, readers, rows=4 * 10 * processes)
    blocks.__getitems__([0, 1, 2, 3])  # what a parent has open (here with threads) is left alone by its workers
    read = []
    for process in range(processes):
        batches = [*loader(blocks, processes, process, workers)]
        assert len(batches) == 10
        for worker in range(max(workers, 1)):
            mine = chain(*batches[worker :: max(workers, 1)])
            read.append([*mine])
            alone = (row for _, row in blocks.read(worker * processes + process))
            assert same(read[-1], islice(alone, len(read[-1])))
        for skipped in (1, 7) if process else (max(workers, 1),):
            rest = skip_first_batches(loader(blocks, processes, process, workers), skipped)
            assert same(chain(*rest), chain(*batches[skipped:]))
    assert max(Counter(chain(*map(pieces, read))).values()) == 1  # no document twice


def test_masks_change_with_the_pass(texts, bert_tokenizer, tmp_path):
    source = write_shards(tmp_path / "one", texts[1:10], 1)
    collator = MaskedLanguageModeling(bert_tokenizer, mlm_probability=0.5)
    (rows,) = passes(stream(source, bert_tokenizer))
    blocks = stream(source, bert_tokenizer, batch_size=1, rows=2 * len(rows), collator=collator)
    labels = [batch["labels"][0] for batch in loader(blocks, 1, 0, 0, collator)]
    ids = [blocks[row]["input_ids"].tolist() for row in range(2 * len(rows))]
    assert sorted(ids[: len(rows)]) == sorted(ids[len(rows) :])
    for number, row in enumerate(ids[: len(rows)]):
        assert not labels[number].equal(labels[len(rows) + ids[len(rows) :].index(row)])


def test_behind_a_url_the_rows_are_those_of_local_files(few, gpt_tokenizer, bucket):
    for file in few.iterdir():
        bucket.pipe(f"/bucket/corpus/{file.name}", file.read_bytes())
    local, remote = stream(few, gpt_tokenizer), stream("memory://bucket/corpus/*.parquet", gpt_tokenizer)
    assert remote.urls[0] == "memory:///bucket/corpus/part-000.parquet"
    assert same([local[row] for row in range(20)], [remote[row] for row in range(20)])


def test_json_lines_stream_too_and_a_stream_can_be_sent_to_a_process(texts, gpt_tokenizer, few, tmp_path):
    for shard in range(3):
        lines = [json.dumps({"text": text}) for text in texts[shard::3]]
        (tmp_path / f"part-{shard}.jsonl").write_text("\n".join(lines))
    parquet, lines = stream(few, gpt_tokenizer), stream(tmp_path, gpt_tokenizer)
    lines[3]
    sent = pickle.loads(pickle.dumps(lines))
    assert same([parquet[row] for row in range(9)], [sent[row] for row in range(9)])


def run_arguments(tmp_path: Path, **settings) -> SimpleNamespace:
    fixed = {"max_steps": 5, "world_size": 2, "dataloader_num_workers": 3, "train_batch_size": 4, "seed": 0}
    return SimpleNamespace(output_dir=tmp_path, gradient_accumulation_steps=2, **fixed | settings)


def test_a_runs_stream_has_the_rows_it_needs_and_is_known_by_what_decides_them(few, many, gpt_tokenizer, tmp_path):
    def of_run(source, block_size=BLOCK, **settings):
        return StreamedBlocks.for_run(str(source), gpt_tokenizer, block_size, run_arguments(tmp_path, **settings))

    blocks = of_run(few)
    assert (len(blocks), blocks.readers) == (5 * 2 * 4 * 2, 6)
    assert of_run(few, world_size=1, max_steps=9).fingerprint == blocks.fingerprint
    others = [of_run(many), of_run(few, 64), of_run(few, seed=1)]
    gpt_tokenizer.add_tokens(["a new token"])
    others.append(of_run(few))
    assert len({blocks.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_refusals(few, texts, gpt_tokenizer, tmp_path):
    for source, reason in (("owner/name", "hf://datasets/owner/name"), ("demo:enwik8", "reads files")):
        with pytest.raises(UserError, match=reason):
            training_files(source)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("prose")
    with pytest.raises(UserError, match="no files of rows"):
        training_files(str(tmp_path / "text"))
    for max_steps in (-1, 0):
        with pytest.raises(UserError, match="--max_steps"):
            StreamedBlocks.for_run(str(few), gpt_tokenizer, BLOCK, run_arguments(tmp_path, max_steps=max_steps))
    with pytest.raises(UserError, match="sequential"):
        stream(few, gpt_tokenizer).__getitems__([3, 1, 2])
    with pytest.raises(UserError, match="no column `body`"):
        stream(few, gpt_tokenizer, text_column="body")[0]
    two = write_shards(tmp_path / "two", texts[1:3], 1)
    with pytest.raises(UserError, match="no text for reader 2 of 3; use fewer workers"):
        stream(two, gpt_tokenizer, 3)[8]


def test_of_a_folder_with_splits_only_train_is_streamed(corpus_dir, tmp_path):
    assert [file.id for file in training_files(str(corpus_dir))] == ["train.parquet"]
    for split in ("test", "train"):
        write_shards(tmp_path / split, ["text"], 2)
    assert {file.id for file in training_files(str(tmp_path))} == {"train/part-000.parquet", "train/part-001.parquet"}
    assert len(training_files(f"{corpus_dir}/*.parquet")) == 3  # a glob means what it says
