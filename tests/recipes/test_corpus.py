"""clean.py and train_tokenizer.py as they are launched: on a small folder of mixed files, and on mistakes."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import load_dataset
from transformers import AutoTokenizer

from lm_recipes.artifacts import fingerprint

ROOT = Path(__file__).parents[2]
PROSE = (
    "The old harbour lies at the mouth of the river, and most of the town was built with stone that ships brought "
    "as ballast. In spring the market opens again, and people from the villages come to sell bread, cheese and wool. "
    "Nobody knows who built the tower; letters that have been found say it was standing before the church was."
)


def launch(script: str, *flags: str, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "recipes" / "corpus" / script, *map(str, flags)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ, "COLUMNS": "100"})


# Rows that differ in a number are near-duplicates; tests/unit/test_text_pipeline.py is about those.
STEPS = "--steps redirect markup normalize length quality language inappropriate pii exact_duplicates"


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """A folder: 20 HTML pages, 20 texts, 60 rows; of the rows 5 are duplicates of others, 4 short, 1 abusive."""
    folder = tmp_path_factory.mktemp("raw")
    for i in range(20):
        (folder / f"page{i:02}.html").write_text(f"<html><nav>Home</nav><p>Page {i}. {PROSE}</p></html>")
        (folder / f"text{i:02}.txt").write_text(f"Text {i}.\u200b\u200b {PROSE}")
    texts = [f"Row {i}. {PROSE}" for i in range(50)] + [f"Row {i}.  {PROSE}" for i in range(5)] + ["Too short."] * 4
    texts.append("You are a stupid idiot and a complete moron, and all of you should shut up, and that was it. " * 5)
    with gzip.open(folder / "rows.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"text": text, "n": i}) + "\n" for i, text in enumerate(texts))
    (folder / "notes.pdf").write_bytes(b"not read")
    return folder


@pytest.fixture(scope="module")
def corpus(raw) -> Path:
    output = raw.parent / "corpus"
    flags = f"--source {raw} --output_dir {output} --validation 0.1 --test 0.1 --num_processes 1 {STEPS}"
    result = launch("clean.py", *flags.split(), cwd=raw.parent)
    assert result.returncode == 0, result.stderr
    assert "exact_duplicates" in result.stderr
    assert "idiot" not in result.stderr
    return output


def test_the_ledger_accounts_for_every_document(corpus):
    metrics = json.loads((corpus / "results.json").read_text())["metrics"]
    ledger = {record["step"]: record for record in metrics["ledger"]}
    dropped = {step: r["documents_in"] - r["documents_out"] for step, r in ledger.items()}
    assert ledger["redirect"]["documents_in"] == 100
    assert {step: n for step, n in dropped.items() if n} == {"length": 4, "inappropriate": 1, "exact_duplicates": 5}
    assert ledger["length"]["reasons"] == {"too few words": 4}
    assert ledger["markup"]["bytes_out"] == ledger["markup"]["bytes_in"] - 20 * len(
        "<html><nav>Home</nav><p></p></html>"
    )
    assert ledger["normalize"]["bytes_in"] - ledger["normalize"]["bytes_out"] == 20 * 6 + 5 + 1
    assert sum(split["documents"] for split in metrics["splits"].values()) == 90
    assert ledger["exact_duplicates"]["bytes_out"] == sum(split["bytes"] for split in metrics["splits"].values())


def test_the_corpus_loads_as_a_dataset_with_its_splits(corpus):
    dataset = load_dataset(str(corpus))
    assert set(dataset) == {"train", "validation", "test"}
    assert all(split.column_names == ["id", "text"] for split in dataset.values())
    assert sum(map(len, dataset.values())) == 90
    assert min(map(len, dataset.values())) > 0
    texts = [text for split in dataset.values() for text in split["text"]]
    assert f"Page 3. {PROSE}" in texts
    assert f"Text 3. {PROSE}" in texts
    assert len(set(texts)) == 90
    ids = [name for split in dataset.values() for name in split["id"]]
    assert "rows.jsonl.gz:1" in ids


def test_the_card_names_source_counts_and_hashes(corpus):
    card = (corpus / "README.md").read_text()
    splits = json.loads((corpus / "results.json").read_text())["metrics"]["splits"]
    assert "41 files" in card
    for split in splits.values():
        assert split["sha256"] in card
        assert f"{split['documents']:,}" in card


def test_two_processes_make_the_same_corpus_as_one(raw, corpus, tmp_path):
    flags = f"--source {raw} --output_dir {tmp_path}/two --validation 0.1 --test 0.1 --num_processes 2 {STEPS}"
    result = launch("clean.py", *flags.split(), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert fingerprint(tmp_path / "two") == fingerprint(corpus)


@pytest.mark.parametrize(("model_type", "vocab_size"), [("bpe", 290), ("wordpiece", 150)])
def test_a_tokenizer_is_trained_measured_and_loaded(corpus, tmp_path, model_type, vocab_size):
    flags = f"--data {corpus} --model_type {model_type} --vocab_size {vocab_size} --output_dir {tmp_path}/tokenizer"
    result = launch("train_tokenizer.py", *flags.split(), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "tokenizer" / "results.json").read_text())["metrics"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert metrics["vocab_size"] == len(tokenizer) <= vocab_size
    assert metrics["tokens_per_word"] >= 1
    assert metrics["bytes_per_token"] > 1
    assert 0 <= metrics["unknown_rate"] < 0.01
    assert "tokens per word" in result.stderr
    assert "|".join(metrics["example"]) in result.stderr
    assert (tmp_path / "tokenizer" / "README.md").exists()


MISTAKES = [
    ("--source missing.jsonl", "missing.jsonl: no such file or folder"),
    ("--source missing/", "missing"),
    ("--source rows.jsonl --text_column body", "row 1: no column `body`; it has text"),
    ("--source rows.jsonl --min_word 3", "unknown flag --min_word; did you mean `min_words`?"),
    ("--source rows.jsonl --config bad.yaml", "bad.yaml: unknown key `languges`; did you mean `languages`?"),
    ("--source rows.jsonl --steps polish", "steps: unknown step `polish`"),
    ("--source rows.jsonl --validation 0.6 --test 0.6", "validation, test"),
    ("--source empty.jsonl", "nothing is left to train on (0 documents read, 1 not readable)"),
    ("--source rows.jsonl", "rows.jsonl: nothing is left to train on (1 documents read, 0 not readable)"),
    ("--source demo:nothing", "demo:nothing: no such demo set"),
    ("--source nobody/nothing", "not to be had from the Hub"),
    ("--source rows.jsonl --output_dir taken", "taken: exists and is not a result of ours"),
]


@pytest.mark.parametrize(("flags", "message"), MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(tmp_path, flags, message):
    (tmp_path / "rows.jsonl").write_text('{"text": "short"}\n')
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "bad.yaml").write_text("languges: [en]\n")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("mine")
    output = [] if "output_dir" in flags else ["--output_dir", "out"]
    before = sorted(tmp_path.iterdir())
    result = launch("clean.py", *flags.split(), *output, "--num_processes", "1", cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert message in error
    assert "Traceback" not in result.stderr
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "taken" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--data missing --model_type bpe", "missing"),
        ("--data . --model_type sentencepiece", "model_type: `sentencepiece`"),
        ("--data . --model_type bpe --vocab_size 12", "vocab_size: 12 is too small"),
        ("--data . --model_type bpe --text_column body", "no column `body`"),
    ],
)
def test_a_mistake_with_a_tokenizer_is_one_line(corpus, flags, message):
    result = launch("train_tokenizer.py", *flags.split(), "--output_dir", "tokenizer", cwd=corpus)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert not (corpus / "tokenizer").exists()
