"""Rows in, the same rows out with answers: in their order, in their types, once each, whatever is killed on the way."""

import csv
import json

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_recipes.decoding import batches
from lm_recipes.decoding.batches import Task, answer_file, answer_rows
from lm_recipes.launch import UserError

SCHEMA = pyarrow.schema(
    [
        ("letters", pyarrow.int64()),
        ("share", pyarrow.struct([("a", pyarrow.float64()), ("b", pyarrow.float64())])),
        ("words", pyarrow.list_(pyarrow.string())),
        ("places", pyarrow.list_(pyarrow.int64())),
    ]
)
TEXTS = ["abba", "b", "a cab", "no such letter", "aa bb aa", "bbb", "babble on", "x", "a", "banana split"]


def described(text: str) -> dict:
    share = {letter: text.count(letter) / len(text) for letter in "ab"}
    places = [place for place, letter in enumerate(text) if letter != " "]
    return {"letters": len(text), "share": share, "words": text.split(), "places": places}


def counting(column: str = "text", longest: int | None = None) -> tuple[Task, list]:
    """A task that any reader can check, and the batches it was asked for."""
    asked = []

    def answer(rows, seed):
        asked.append([row["text"] for row in rows])
        return [described(row["text"]) for row in rows]

    return Task({"text": column}, SCHEMA, lambda rows: [len(row["text"]) for row in rows], answer, longest), asked


def write(path, rows):
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


def read(path):
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t" if path.suffix == ".tsv" else ","))


@given(texts=st.lists(st.text("ab ", min_size=1), min_size=1, max_size=20), batch_size=st.integers(1, 7))
@settings(max_examples=50, deadline=None)
def test_answers_keep_the_order_of_the_rows_and_batches_hold_rows_of_like_length(texts, batch_size):
    task, asked = counting()
    answers = answer_rows([{"text": text} for text in texts], task, batch_size)
    assert answers == [described(text) for text in texts]
    lengths = [len(text) for batch in asked for text in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert all(len(batch) == batch_size for batch in asked[:-1])


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_rows_come_out_as_they_went_in_with_their_answers(suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "PART_ROWS", 4)
    rows = [{"id": number, "review": text, "tags": [text[0]]} for number, text in enumerate(TEXTS)]
    source = write(tmp_path / f"in{suffix}", rows)
    task, _ = counting("review")
    assert answer_file(source, str(tmp_path / f"out{suffix}"), task, identity={})["rows"] == len(TEXTS)
    assert read(tmp_path / f"out{suffix}") == [row | described(row["review"]) for row in rows]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"in{suffix}", f"out{suffix}"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_in_a_table_of_cells_an_answer_that_is_a_table_or_a_list_has_a_place(suffix, tmp_path):
    source = write(tmp_path / f"in{suffix}", [{"text": text, "n": "1"} for text in TEXTS])
    answer_file(source, str(tmp_path / f"out{suffix}"), counting()[0], identity={}, prefix="new_")
    rows = read(tmp_path / f"out{suffix}")
    assert list(rows[0]) == ["text", "n", "new_letters", "new_share.a", "new_share.b", "new_words", "new_places"]
    for row, text in zip(rows, TEXTS, strict=True):
        assert row["text"] == text
        assert float(row["new_share.a"]) == described(text)["share"]["a"]
        assert row["new_words"] == "|".join(text.split())
        assert json.loads(row["new_places"]) == described(text)["places"]


def test_parquet_keeps_types_that_json_does_not_know(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "PART_ROWS", 3)
    table = pyarrow.table(
        {
            "when": pyarrow.array(range(len(TEXTS)), pyarrow.timestamp("ms")),
            "text": TEXTS,
            "small": pyarrow.array(range(len(TEXTS)), pyarrow.int8()),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet", row_group_size=4)
    answer_file(str(tmp_path / "in.parquet"), str(tmp_path / "out.parquet"), counting()[0], identity={})
    out = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert out.select(["when", "text", "small"]).equals(table)
    assert out["letters"].to_pylist() == [len(text) for text in TEXTS]


def test_a_run_that_was_killed_goes_on_and_answers_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "PART_ROWS", 3)
    source, output = write(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS]), str(tmp_path / "out.jsonl")
    task, asked = counting()

    def dies(rows, seed):
        if len(asked) == 2:
            raise KeyboardInterrupt
        return task.answer(rows, seed)

    dying = Task(task.columns, task.schema, task.lengths, dies)
    with pytest.raises(KeyboardInterrupt):
        answer_file(source, output, dying, identity={"model": 1})
    assert not (tmp_path / "out.jsonl").exists()
    before = sum(map(len, asked))
    assert before == 6
    answer_file(source, output, task, identity={"model": 1})
    assert sum(map(len, asked)) == len(TEXTS)
    assert [row["letters"] for row in read(tmp_path / "out.jsonl")] == [len(text) for text in TEXTS]


@pytest.mark.parametrize("change", ["model", "row"])
def test_parts_of_another_model_or_other_rows_are_not_taken(change, tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "PART_ROWS", 3)
    rows = [{"text": text} for text in TEXTS]
    source, output = write(tmp_path / "in.jsonl", rows), str(tmp_path / "out.jsonl")
    task, asked = counting()

    def dies(some, seed):
        if len(asked) == 3:
            raise KeyboardInterrupt
        return task.answer(some, seed)

    with pytest.raises(KeyboardInterrupt):
        answer_file(source, output, Task(task.columns, task.schema, task.lengths, dies), identity={"model": 1})
    asked.clear()
    if change == "row":
        write(tmp_path / "in.jsonl", [{"text": "other"}, *rows[1:]])
    answer_file(source, output, task, identity={"model": 2 if change == "model" else 1})
    assert sum(map(len, asked)) == (10 if change == "model" else 3 + 1)


def test_a_row_without_a_text_has_an_empty_answer_and_is_counted(tmp_path, caplog):
    source = write(
        tmp_path / "in.jsonl", [{"text": "abc"}, {"text": "  "}, {"text": None}, {"other": 1}, {"text": "b"}]
    )
    counts = answer_file(source, str(tmp_path / "out.jsonl"), counting()[0], identity={})
    assert counts == {"rows": 5, "rows_without_text": 3}
    assert "3 rows have no text" in caplog.text
    assert [row["letters"] for row in read(tmp_path / "out.jsonl")] == [3, None, None, None, 1]


def test_mistakes_are_one_line_with_their_row_before_anything_is_answered(tmp_path):
    rows = [{"text": "abc", "letters": 1}, {"text": "abcdefgh", "letters": 2}]
    source = write(tmp_path / "in.jsonl", rows)
    (tmp_path / "empty.csv").write_text("text\n")
    write(tmp_path / "number.jsonl", [{"text": "a"}, {"text": 7}])
    for arguments, task, complaint in [
        ((source, "out.csv"), counting(), "must end in .jsonl"),
        ((source, source), counting(), "is the file that is read"),
        ((source, "out.jsonl"), counting(), "has a column `letters` already; give the new ones other names"),
        ((source, "out.jsonl"), counting("body"), "no column `body`; it has text, letters"),
        ((str(tmp_path / "gone.jsonl"), "out.jsonl"), counting(), "no such file"),
        ((str(tmp_path / "empty.csv"), "out.csv"), counting(), "empty.csv: no rows"),
        ((str(tmp_path / "number.jsonl"), "out.jsonl"), counting(), "row 2: `text` is a int, not a text"),
    ]:
        output = str(tmp_path / arguments[1])
        with pytest.raises(UserError, match=complaint):
            answer_file(arguments[0], output, task[0], identity={})
        assert task[1] == []
    task, asked = counting(longest=5)
    with pytest.raises(UserError, match="row 2: 8 tokens, at most 5 fit the model"):
        answer_file(source, str(tmp_path / "out.jsonl"), task, identity={}, prefix="new_")
    assert asked == []
