"""infer.py, as it is launched: what it writes for a file is what transformers says of each row alone."""

import json
import runpy
import sys
from pathlib import Path

import pyarrow.parquet
import pytest
from tiny_models import bert_config, bert_tokenizer, gpt, gpt_tokenizer, save
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    pipeline,
    set_seed,
)

from lm_recipes.decoding.tagging import tag_texts
from lm_recipes.evaluation.answers import answer
from lm_recipes.training.embeddings import embeddings_of

RECIPES = Path(__file__).parents[2] / "recipes"
TEXTS = [
    "the dog",
    "paris is the capital of france; rome is the capital of italy.",
    "a doctor asks the patient how the knee has been since the fall. " * 8,
    "",
    "the quick brown fox jumps over the lazy dog",
]


@pytest.fixture
def infer(monkeypatch, capsys, tmp_path):
    """Run infer.py on rows: (exit code, rows written, last line of stderr)."""

    def run(task: str, model: str, rows: list[dict], *flags: object) -> tuple[int, list[dict], str]:
        source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        flags = ("--task", task, "--model_name_or_path", model, "--input", source, "--output", output, *flags)
        monkeypatch.setattr(sys, "argv", ["infer.py", *map(str, flags)])
        capsys.readouterr()
        try:
            runpy.run_path(str(RECIPES / "infer.py"), run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code
        written = [json.loads(line) for line in output.read_text("utf-8").splitlines()] if output.exists() else []
        return code, written, capsys.readouterr().err.strip().split("\n")[-1]

    return run


def encoder(directory, auto_class, **settings) -> str:
    set_seed(1)
    tokenizer = bert_tokenizer()
    return save(directory, auto_class.from_config(bert_config("modernbert", len(tokenizer), **settings)), tokenizer)


def rows_of(texts) -> list[dict]:
    return [{"id": number, "text": text} for number, text in enumerate(texts)]


def test_classes_are_those_of_the_pipeline_row_by_row(infer, tmp_path):
    labels = {0: "bad", 1: "good"}
    model = encoder(tmp_path / "m", AutoModelForSequenceClassification, id2label=labels, label2id={"bad": 0, "good": 1})
    code, rows, _ = infer("text-classification", model, rows_of(TEXTS), "--batch_size", 2)
    assert code == 0
    assert [row["id"] for row in rows] == list(range(len(TEXTS)))
    assert rows[3] == {"id": 3, "text": "", "label": None, "score": None, "probabilities": None, "truncated": None}
    alone = pipeline("text-classification", model=model, top_k=None)
    for row, text in zip(rows, TEXTS, strict=True):
        if text:
            expected = {one["label"]: one["score"] for one in alone([text], truncation=True, max_length=64)[0]}
            assert row["probabilities"] == pytest.approx(expected, abs=1e-5)
            assert row["label"] == max(expected, key=expected.get)
    assert [row["truncated"] for row in rows] == [False, False, True, None, False]


def test_embeddings_are_the_sentence_vectors(infer, tmp_path):
    model = encoder(tmp_path / "m", AutoModel)
    code, rows, _ = infer("feature-extraction", model, rows_of(TEXTS[:2]), "--prefix", "x_")
    assert code == 0
    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = tokenizer(TEXTS[:2])["input_ids"]
    expected = embeddings_of(AutoModel.from_pretrained(model), tokenizer, ids)
    for row, vector in zip(rows, expected.tolist(), strict=True):
        assert row["x_embedding"] == pytest.approx(vector, abs=1e-5)


def test_tags_are_those_of_one_text_alone(infer, tmp_path):
    names = {0: "O", 1: "B-LOC", 2: "I-LOC"}
    model = encoder(tmp_path / "m", AutoModelForTokenClassification, id2label=names, label2id={})
    code, rows, _ = infer("token-classification", model, rows_of(TEXTS), "--batch_size", 2)
    assert code == 0
    loaded, tokenizer = (
        AutoModelForTokenClassification.from_pretrained(model).eval(),
        AutoTokenizer.from_pretrained(model),
    )
    for row, text in zip(rows, TEXTS, strict=True):
        if text:
            (alone,) = tag_texts([text], loaded, tokenizer, 64, 1)
            assert [word["tag"] for word in row["words"]] == [word["tag"] for word in alone["words"]]
            assert [one["text"] for one in row["entities"]] == [one["text"] for one in alone["entities"]]


def test_masks_are_filled_and_a_text_without_one_has_none(infer, tmp_path):
    model = encoder(tmp_path / "m", AutoModelForMaskedLM)
    texts = ["the quick [MASK] fox", "no gap here", "[MASK] is the capital of [MASK]."]
    code, rows, _ = infer("fill-mask", model, rows_of(texts), "--top_k", 2)
    assert code == 0
    expected = pipeline("fill-mask", model=model)(texts[0], top_k=2)
    assert [one["token"] for one in rows[0]["masks"][0]] == [one["token_str"] for one in expected]
    assert [len(row["masks"]) for row in rows] == [1, 0, 2]


def test_answers_are_those_of_one_question_alone(infer, tmp_path):
    model = encoder(tmp_path / "m", AutoModelForQuestionAnswering)
    asked = [{"question": "the capital of italy?", "context": text} for text in TEXTS if text]
    code, rows, _ = infer("question-answering", model, asked, "--n_best", 2)
    assert code == 0
    loaded, tokenizer = AutoModelForQuestionAnswering.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    for row in rows:
        alone = answer(loaded, tokenizer, row["question"], row["context"], n_best=2)
        assert [one["text"] for one in row["n_best"]] == [one.text for one in alone.spans]
        assert row["context"][row["start"] : row["end"]] == row["answer"]


def test_continuations_are_those_of_generate_and_long_prompts_are_refused_first(infer, tmp_path):
    tokenizer, model = gpt_tokenizer(), gpt("llama")
    path = save(tmp_path / "m", model, tokenizer)
    texts = ["the dog", "paris is the capital of france", "a"]
    code, rows, _ = infer("text-generation", path, rows_of(texts), "--max_new_tokens", 6, "--batch_size", 2)
    assert code == 0
    for row in rows:
        ids = tokenizer("<|bos|>" + row["text"], return_tensors="pt")
        output = model.generate(**ids, max_new_tokens=6, do_sample=False)[0, ids["input_ids"].shape[1] :]
        assert row["continuation"] == tokenizer.decode(output, skip_special_tokens=True)
        assert row["tokens"] == len(output)
    code, _, error = infer("text-generation", path, rows_of(["a", "the dog " * 90]), "--max_new_tokens", 6)
    assert code == 2
    assert "row 2:" in error
    assert "at most 122 fit" in error


def test_parquet_comes_out_as_parquet(tmp_path, monkeypatch):
    model = encoder(tmp_path / "m", AutoModel)
    table = pyarrow.table({"text": TEXTS, "n": pyarrow.array(range(len(TEXTS)), pyarrow.int8())})
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    flags = f"--task feature-extraction --model_name_or_path {model} --input {tmp_path}/in.parquet"
    monkeypatch.setattr(sys, "argv", ["infer.py", *flags.split(), "--output", f"{tmp_path}/out.parquet"])
    runpy.run_path(str(RECIPES / "infer.py"), run_name="__main__")
    out = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert out.schema.field("n").type == pyarrow.int8()
    assert out.schema.field("embedding").type == pyarrow.list_(pyarrow.float32())
    assert out["embedding"].null_count == 1


def test_what_infer_cannot_do_is_refused_in_one_line(infer, tmp_path):
    model = encoder(tmp_path / "m", AutoModelForSequenceClassification)
    for task, flags, complaint in [
        ("poetry", (), "invalid choice"),
        ("text-classification", ("--batch_size", 0), "--batch_size 0: must be at least 1"),
        ("text-classification", ("--text_column", "body"), "no column `body`"),
        ("text-classification", ("--max_length", 65), "reads at most 64 tokens"),
        ("text-generation", ("--strategy", "magic"), "--strategy magic"),
        ("fill-mask", (), "not trained for this task"),
    ]:
        code, rows, error = infer(task, model, rows_of(TEXTS[:2]), *flags)
        assert code == 2, task
        assert error.startswith("error: ")
        assert complaint in error
        assert rows == []
