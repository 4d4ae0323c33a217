"""predict.py and generate.py, as they are launched, on models and texts made here."""

import csv
import json
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from tiny_adapters import make_adapter
from tiny_models import CHAT_TEMPLATE, bert_config, bert_tokenizer, gpt, gpt_tokenizer, save
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    pipeline,
    set_seed,
)

from lm_recipes.training.saved_adapters import merge_adapter

RECIPES = Path(__file__).parents[2] / "recipes"
LABELS = ["negative", "neutral", "positive"]
TEXTS = [
    "the dog",
    "paris is the capital of france; rome is the capital of italy.",
    "a doctor asks the patient how the knee has been since the fall. " * 8,
    "the quick brown fox jumps over the lazy dog",
    "knee",
]


def label_names() -> dict:
    return {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}


@pytest.fixture(scope="module", params=["bert", "modernbert"])
def classifier(request, tmp_path_factory):
    set_seed(1)
    tokenizer = bert_tokenizer()
    config = bert_config(request.param, len(tokenizer), num_labels=3, **label_names())
    model = AutoModelForSequenceClassification.from_config(config)
    return save(tmp_path_factory.mktemp(request.param), model, tokenizer)


@pytest.fixture(scope="module")
def continuer(tmp_path_factory):
    return save(tmp_path_factory.mktemp("gpt"), gpt("nanochat"), gpt_tokenizer())


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


# --- predict.py ---


def test_predictions_equal_those_of_the_transformers_pipeline_in_the_order_given(classifier, launch, tmp_path):
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"review": text}) for text in TEXTS))
    flags = ("--texts_file", tmp_path / "texts.jsonl", "--text_column", "review", "--batch_size", 2)
    code, out, _ = launch(
        "bert/predict.py", "--model_name_or_path", classifier, *flags, "--output", tmp_path / "o.jsonl"
    )
    assert code == 0
    answers = read_jsonl(tmp_path / "o.jsonl")
    expected = pipeline("text-classification", model=classifier, top_k=None)(TEXTS, truncation=True, max_length=64)
    assert [answer["text"] for answer in answers] == TEXTS
    for answer, classes in zip(answers, expected, strict=True):
        wanted = {entry["label"]: entry["score"] for entry in classes}
        assert answer["probabilities"] == pytest.approx(wanted, abs=1e-5)
        assert answer["label"] == classes[0]["label"]
        assert f"{answer['label']} {answer['score']:.4f}" in out
    assert len({answer["score"] for answer in answers}) == len(TEXTS)


def test_texts_that_were_cut_are_named(classifier, launch, caplog, tmp_path):
    _, out, _ = launch(
        "bert/predict.py", "--model_name_or_path", classifier, "--text", *TEXTS, "--output", tmp_path / "o.csv"
    )
    assert "1 of 5 texts cut to 64 tokens: row 3" in caplog.text
    rows = list(csv.DictReader((tmp_path / "o.csv").open(encoding="utf-8", newline="")))
    assert [row["truncated"] for row in rows] == ["False", "False", "True", "False", "False"]
    assert set(rows[0]) == {"text", "label", "score", "truncated", *(f"probabilities.{name}" for name in LABELS)}
    assert out.count("(cut)") == 1


def test_an_adapter_predicts_what_its_merged_model_predicts_under_the_same_names(launch, tmp_path):
    adapter, _, _ = make_adapter("modernbert", tmp_path)
    merge_adapter(adapter, tmp_path / "merged")
    answers = {}
    for kind in ("adapter", "merged"):
        flags = ("--model_name_or_path", tmp_path / kind, "--text", *TEXTS, "--output", tmp_path / f"{kind}.jsonl")
        assert launch("bert/predict.py", *flags)[0] == 0
        answers[kind] = [row["probabilities"] for row in read_jsonl(tmp_path / f"{kind}.jsonl")]
        assert set(answers[kind][0]) == set(LABELS)
    for one, other in zip(answers["adapter"], answers["merged"], strict=True):
        assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_masks_are_filled_as_the_transformers_pipeline_fills_them(kind, launch, tmp_path):
    set_seed(3)
    tokenizer = bert_tokenizer()
    model = save(tmp_path / "m", AutoModelForMaskedLM.from_config(bert_config(kind, len(tokenizer))), tokenizer)
    texts = ["the quick [MASK] fox", "[MASK] is the capital of [MASK]."]
    flags = ("--task", "fill-mask", "--text", *texts, "--top_k", 3, "--output", tmp_path / "o.json")
    code, out, _ = launch("bert/predict.py", "--model_name_or_path", model, *flags)
    assert code == 0
    one, two = json.loads((tmp_path / "o.json").read_text("utf-8"))
    expected = pipeline("fill-mask", model=model)(texts, top_k=3)
    assert one["mask_1"] == pytest.approx({e["token_str"]: e["score"] for e in expected[0]}, abs=1e-5)
    assert two["mask_2"] == pytest.approx({e["token_str"]: e["score"] for e in expected[1][1]}, abs=1e-5)
    assert len(one["mask_1"]) == 3
    assert all(word in out for word in two["mask_1"])
    for hopeless in ("a dog", "dog " * 80 + "[MASK]"):
        flags = ("--model_name_or_path", model, "--task", "fill-mask", "--text", "[MASK]", hopeless)
        assert "error: text 2 has no [MASK] in its first 64 tokens" in launch("bert/predict.py", *flags)[2]


def test_what_predict_cannot_do_is_refused_in_one_line(classifier, launch, tmp_path):
    headless = save(tmp_path / "m", AutoModel.from_config(bert_config("bert", len(bert_tokenizer()))), bert_tokenizer())
    (tmp_path / "empty").mkdir()
    (tmp_path / "e.csv").write_text("text\n")
    for flags, complaint in [
        (("--model_name_or_path", "runs/gone", "--text", "a"), "runs/gone: no such model directory"),
        (("--model_name_or_path", tmp_path / "empty", "--text", "a"), "holds no model"),
        (("--model_name_or_path", headless, "--text", "a"), "not trained for this task (there is no classifier"),
        (("--model_name_or_path", classifier, "--texts_file", tmp_path / "e.csv"), "e.csv: holds no text"),
        (("--model_name_or_path", classifier, "--text", "a", "--task", "poetry"), "--task poetry: must be one of"),
        (("--model_name_or_path", classifier, "--text", "a", "--max_length", 65), "reads at most 64 tokens"),
        (("--model_name_or_path", classifier, "--text", "a", "--output", "o.xlsx"), "must end in .jsonl"),
        (("--model_name_or_path", classifier, "--texts", "a"), "did you mean"),
    ]:
        code, out, error = launch("bert/predict.py", *flags)
        assert code == 2, flags
        assert error.startswith("error: ")
        assert complaint in error
        assert out == ""


# --- generate.py ---


def test_strategies_stand_side_by_side_with_their_probabilities(continuer, launch, tmp_path):
    flags = ("--strategy", "greedy", "beam", "nucleus", "--max_new_tokens", 6, "--top_p", 0.5, "--show_probabilities")
    prompts = ("--prompt", "the dog", "paris is the capital", "--output", tmp_path / "o.jsonl")
    code, out, _ = launch("gpt/generate.py", "--model_name_or_path", continuer, *prompts, *flags)
    assert code == 0
    rows = read_jsonl(tmp_path / "o.jsonl")
    assert [(row["prompt"], row["strategy"]) for row in rows] == [
        (prompt, name) for prompt in prompts[1:3] for name in ("greedy", "beam", "nucleus")
    ]
    for row in rows:
        assert row["logprob"] == pytest.approx(sum(token["logprob"] for token in row["tokens"]))
        assert row["text"] in out
        assert all(token["head"][0]["probability"] >= token["head"][-1]["probability"] for token in row["tokens"])
    assert rows[1]["logprob"] >= rows[0]["logprob"]
    assert out.count("next token (") == len(rows)
    assert " cut" in out.split("--- nucleus")[1]


def test_the_config_that_ships_runs_on_another_model(continuer, launch, tmp_path):
    config = ("--config", RECIPES / "gpt" / "configs" / "generate.yaml", "--max_new_tokens", 3)
    flags = ("--model_name_or_path", continuer, "--output", tmp_path / "o.jsonl")
    assert launch("gpt/generate.py", *config, *flags)[0] == 0
    rows = read_jsonl(tmp_path / "o.jsonl")
    assert len(rows) == 9
    assert {row["settings"]["max_new_tokens"] for row in rows} == {3}


def test_greedy_generation_is_what_plain_transformers_generates(continuer, launch, tmp_path):
    flags = ("--prompt", "the dog", "--strategy", "greedy", "--max_new_tokens", 12, "--output", tmp_path / "o.json")
    launch("gpt/generate.py", "--model_name_or_path", continuer, *flags)
    (row,) = json.loads((tmp_path / "o.json").read_text("utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(continuer)
    ids = tokenizer("<|bos|>the dog", return_tensors="pt")
    output = AutoModelForCausalLM.from_pretrained(continuer).generate(**ids, max_new_tokens=12, do_sample=False)
    assert [token["id"] for token in row["tokens"]] == output[0, ids["input_ids"].shape[1] :].tolist()


def test_streamed_words_are_those_that_come_at_once(continuer, launch, tmp_path):
    outputs = []
    for stream in ((), ("--stream",)):
        flags = ("--prompt", "the dog", "--strategy", "nucleus", "--seed", 3, "--max_new_tokens", 20, *stream)
        code, out, _ = launch("gpt/generate.py", "--model_name_or_path", continuer, *flags)
        assert code == 0
        outputs.append("".join(out.split("--- nucleus\n")[1].split()))
    assert outputs[0] == outputs[1]


def test_an_adapter_generates_what_its_merged_model_generates(continuer, launch, tmp_path):
    set_seed(4)
    base = AutoModelForCausalLM.from_pretrained(continuer)
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
    adapted = get_peft_model(base, lora)
    save(tmp_path / "adapter", adapted, gpt_tokenizer())
    save(tmp_path / "merged", adapted.merge_and_unload(), gpt_tokenizer())
    rows = {}
    for kind, path in [("base", continuer), ("adapter", tmp_path / "adapter"), ("merged", tmp_path / "merged")]:
        flags = ("--prompt", "the dog", "--strategy", "greedy", "beam", "--max_new_tokens", 8)
        launch("gpt/generate.py", "--model_name_or_path", path, *flags, "--output", tmp_path / "o.jsonl")
        rows[kind] = [[token["id"] for token in row["tokens"]] for row in read_jsonl(tmp_path / "o.jsonl")]
    assert rows["adapter"] == rows["merged"] != rows["base"]


def test_a_chat_model_is_asked_in_its_template(launch, tmp_path):
    tokenizer = gpt_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    model = gpt("llama")
    path = save(tmp_path / "chat", model, tokenizer)
    (tmp_path / "questions.txt").write_text("how is the knee?\nis it the fall?\n")
    flags = ("--prompts_file", tmp_path / "questions.txt", "--chat", "--strategy", "greedy", "--max_new_tokens", 5)
    code, *_ = launch("gpt/generate.py", "--model_name_or_path", path, *flags, "--output", tmp_path / "o.jsonl")
    assert code == 0
    rows = read_jsonl(tmp_path / "o.jsonl")
    for row, question in zip(rows, ["how is the knee?", "is it the fall?"], strict=True):
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt"
        )
        output = model.generate(**ids, max_new_tokens=5, do_sample=False)
        assert [token["id"] for token in row["tokens"]] == output[0, ids["input_ids"].shape[1] :].tolist()


def test_what_generate_cannot_do_is_refused_in_one_line(continuer, launch, tmp_path):
    (tmp_path / "e.txt").write_text("\n")
    model = ("--model_name_or_path", continuer)
    for flags, complaint in [
        (("--model_name_or_path", "./gone", "--prompt", "a"), "./gone: no such model directory"),
        ((*model, "--prompts_file", tmp_path / "e.txt"), "e.txt: holds no text"),
        ((*model, "--prompt", "the dog " * 60), "do not fit the context of 128"),
        ((*model, "--prompt", "a", "--strategy", "magic"), "--strategy magic: not one of greedy, beam"),
        ((*model, "--prompt", "a", "--strategy", "greedy", "--top_p", 0.5), "--top_p 0.5 changes nothing"),
        ((*model, "--prompt", "a", "--top_p", 1.5), "--top_p 1.5: must be above 0, at most 1"),
        ((*model, "--prompt", "a", "--strategy", "beam", "--stream"), "drop one"),
        ((*model, "--prompt", "a", "--chat"), "no chat template"),
        ((*model, "--prompt", "a", "--output", "o.txt"), "must end in .jsonl"),
        (("--prompt", "a"), "--model_name_or_path"),
    ]:
        code, out, error = launch("gpt/generate.py", *flags)
        assert code == 2, flags
        assert error.startswith("error: ")
        assert complaint in error
        assert out == ""
