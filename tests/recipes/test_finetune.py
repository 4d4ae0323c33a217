"""classify.py, sft.py and merge_adapter.py with shipped configs: two steps on small data, and what they leave."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from objectives import RECIPES, launch
from tiny_models import bert_config, bert_tokenizer, gpt, gpt_tokenizer, save
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers import pipeline as transformers_pipeline

TWO_STEPS = "--max_steps 2 --logging_steps 1 --seed 3 --disable_tqdm True"
SMOLLM2_STYLE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou "
    "are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\n' }}{% endif %}"
)


def results(script: str, flags: str, output_dir: Path) -> dict:
    launch([str(RECIPES / script), *flags.split(), "--output_dir", str(output_dir)])
    return json.loads((output_dir / "results.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> dict[str, str]:
    """A tiny encoder and decoders, reviews in three classes, dialogues of which some are too long for one window."""
    directory = tmp_path_factory.mktemp("inputs")
    encoder = AutoModelForMaskedLM.from_config(
        bert_config("modernbert", len(bert_tokenizer()), classifier_pooling="mean")
    )
    smollm2_like = gpt_tokenizer()
    smollm2_like.chat_template = SMOLLM2_STYLE
    rows = [
        {"text": f"{'the quick fox' if i % 3 else 'a doctor asks'} {i}", "label": ["bad", "good", "fair"][i % 3]}
        for i in range(90)
    ]
    turns = [{"role": ("user", "assistant")[i % 2], "content": "the lazy dog"} for i in range(12)]
    chats = [
        {"messages": [{"role": "user", "content": f"my knee {i}"}, *turns[1 : 2 + 2 * (i % 6)]]} for i in range(40)
    ]
    for name, content in (("reviews", rows), ("chats", chats), ("bad", [*chats[:20], {"messages": turns[:1]}])):
        (directory / f"{name}.jsonl").write_text("\n".join(map(json.dumps, content)))
    return {
        "encoder": save(directory / "encoder", encoder, bert_tokenizer()),
        "decoder": save(directory / "decoder", gpt("nanochat", context=256), gpt_tokenizer()),
        "smollm2": save(directory / "smollm2", gpt("llama", context=512), smollm2_like),
        **{name: str(directory / f"{name}.jsonl") for name in ("reviews", "chats", "bad")},
    }


@pytest.fixture(scope="module")
def classified(inputs, tmp_path_factory) -> Path:
    output_dir = tmp_path_factory.mktemp("runs") / "sentiment"
    results(
        "bert/classify.py",
        f"--config {RECIPES}/bert/configs/classify-quickstart.yaml --model_name_or_path {inputs['encoder']} "
        f"--source {inputs['reviews']} --max_length 32 --num_seeds 2 {TWO_STEPS}",
        output_dir,
    )
    return output_dir


@pytest.fixture(scope="module")
def chatting(inputs, tmp_path_factory) -> Path:
    output_dir = tmp_path_factory.mktemp("runs") / "chat"
    results(
        "gpt/sft.py",
        f"--config {RECIPES}/gpt/configs/sft-quickstart.yaml --model_name_or_path {inputs['decoder']} "
        f"--source {inputs['chats']} --max_length 120 {TWO_STEPS}",
        output_dir,
    )
    return output_dir


def test_classify_reports_seeds_intervals_baselines_and_a_confusion_matrix(classified):
    metrics = json.loads((classified / "results.json").read_text())["metrics"]
    assert [run["seed"] for run in metrics["per_seed"]] == [3, 4]
    assert metrics["test"]["accuracy_low"] <= metrics["test"]["accuracy"] <= metrics["test"]["accuracy_high"]
    assert metrics["test"]["accuracy"] == pytest.approx(sum(run["test"] for run in metrics["per_seed"]) / 2)
    assert sum(map(sum, metrics["confusion"])) == metrics["test"]["rows"]
    assert metrics["labels"] == ["bad", "fair", "good"]
    assert metrics["baselines"]["majority"] < 1
    assert metrics["parameters"] == metrics["trainable_parameters"] > 10_000
    card = (classified / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card
    assert f"{metrics['test']['accuracy']:.4g} (95 %:" in card


def test_the_saved_classifier_gives_the_reported_numbers_to_plain_transformers(classified, inputs):
    metrics = json.loads((classified / "results.json").read_text())["metrics"]
    from lm_recipes.sources.labelled import load_labelled

    test = load_labelled(inputs["reviews"])[0]["test"]
    pipe = transformers_pipeline("text-classification", model=str(classified), device="cpu")
    answers = [metrics["labels"].index(answer["label"]) for answer in pipe(list(test["text"]))]
    right = sum(answer == label for answer, label in zip(answers, test["labels"], strict=True)) / len(test)
    assert right == {run["seed"]: run["test"] for run in metrics["per_seed"]}[metrics["saved_seed"]]


def test_from_scratch_and_frozen_are_what_they_say(inputs, tmp_path):
    base = AutoModelForSequenceClassification.from_pretrained(inputs["encoder"], num_labels=3)
    config = f"--config {RECIPES}/bert/configs/classify-quickstart-minilm.yaml --model_name_or_path {inputs['encoder']}"
    flags = f"{config} --source {inputs['reviews']} --max_length 32 --baselines false --warmup_steps 0 {TWO_STEPS}"
    frozen = results("bert/classify.py", f"{flags} --freeze_encoder", tmp_path / "frozen")
    scratch = results("bert/classify.py", f"{flags} --from_scratch", tmp_path / "scratch")
    assert "baselines" not in frozen["metrics"]
    assert 0 < frozen["metrics"]["trainable_parameters"] < frozen["metrics"]["parameters"] / 4
    assert scratch["metrics"]["trainable_parameters"] == scratch["metrics"]["parameters"]
    name = "model.layers.1.attn.Wqkv.weight"
    weights = {
        run: AutoModelForSequenceClassification.from_pretrained(tmp_path / run).state_dict()[name]
        for run in ("frozen", "scratch")
    }
    assert torch.equal(weights["frozen"], base.state_dict()[name])
    assert (weights["scratch"] - base.state_dict()[name]).abs().mean() > 0.01


def test_classify_lora_leaves_an_adapter_and_the_same_model_merged(inputs, tmp_path):
    config = f"--config {RECIPES}/bert/configs/classify-minilm-lora.yaml --model_name_or_path {inputs['encoder']}"
    found = results(
        "bert/classify.py", f"{config} --source {inputs['reviews']} --max_length 32 {TWO_STEPS}", tmp_path / "lora"
    )
    assert found["metrics"]["trainable_parameters"] < found["metrics"]["parameters"] / 2
    assert (tmp_path / "lora" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "lora" / "model.safetensors").exists()
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "lora" / "merged").eval()
    assert list(merged.config.id2label.values()) == ["bad", "fair", "good"]
    adapted = AutoModelForSequenceClassification.from_pretrained(tmp_path / "lora", num_labels=3).eval()
    batch = AutoTokenizer.from_pretrained(tmp_path / "lora")("the lazy dog", return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(merged(**batch).logits, adapted(**batch).logits, atol=1e-5, rtol=1e-5)


def test_sft_counts_windows_and_measures_answers_before_and_after(chatting):
    metrics = json.loads((chatting / "results.json").read_text())["metrics"]
    assert metrics["train_windows"] > metrics["train_dialogues"]
    assert metrics["train_exchanges_longer_than_max_length"] == 0
    assert metrics["test"]["bits_per_byte"] < metrics["test"]["bits_per_byte_before"]
    assert set(metrics["sample"]) == {"prompt", "reference", "before", "after"}
    assert "pipeline_tag: text-generation" in (chatting / "README.md").read_text()


def test_the_chat_model_is_a_plain_directory_that_stops_at_the_end_of_a_turn(chatting):
    tokenizer, model = AutoTokenizer.from_pretrained(chatting), AutoModelForCausalLM.from_pretrained(chatting)
    end_of_turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert tokenizer.eos_token == "<|im_end|>"
    assert end_of_turn in model.generation_config.eos_token_id
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert "{%- generation %}" in tokenizer.chat_template


def test_sft_lora_adapter_and_merged_model_agree(inputs, tmp_path):
    config = f"--config {RECIPES}/gpt/configs/sft-smollm2-lora.yaml --model_name_or_path {inputs['smollm2']}"
    results("gpt/sft.py", f"{config} --source {inputs['chats']} --max_length 400 {TWO_STEPS}", tmp_path / "lora")
    launch([str(RECIPES / "merge_adapter.py"), *f"--adapter {tmp_path}/lora --output_dir {tmp_path}/again".split()])
    ids = torch.arange(5, 45).reshape(2, 20)
    models = [
        AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        for directory in (tmp_path / "lora", tmp_path / "lora" / "merged", tmp_path / "again")
    ]
    with torch.no_grad():
        adapted, merged, again = (model(ids, use_cache=False).logits for model in models)
    assert (merged - adapted).abs().max() <= 1e-5 * max(1.0, float(adapted.abs().max()))
    assert torch.equal(merged, again)
    assert models[1].generation_config.eos_token_id == 4


def test_results_load_where_lm_recipes_was_never_imported(classified, chatting):
    code = f"""
import sys
from transformers import pipeline
print(pipeline("text-classification", model={str(classified)!r}, device="cpu")("the fox")[0]["label"])
chat = pipeline("text-generation", model={str(chatting)!r}, device="cpu")
print(chat([{{"role": "user", "content": "my knee"}}], max_new_tokens=4)[0]["generated_text"][-1]["role"])
assert not any(name.startswith("lm_recipes") for name in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split()[1] == "assistant"


@pytest.mark.parametrize(
    ("script", "flags", "complaint"),
    [
        (
            "bert/classify.py",
            "--source {reviews} --model_name_or_path {encoder} --max_length 32 --label_column stars",
            "no column `stars`",
        ),
        ("bert/classify.py", "--source {reviews}", "--model_name_or_path: which model?"),
        (
            "bert/classify.py",
            "--source {reviews} --model_name_or_path {encoder} --max_length 65",
            "reads at most 64 tokens",
        ),
        ("bert/classify.py", "--source {reviews} --model_name_or_path who/knows", "who/knows: cannot be loaded"),
        (
            "gpt/sft.py",
            "--source {bad} --model_name_or_path {decoder} --max_length 99",
            "row 21: messages: no assistant turn",
        ),
        ("gpt/sft.py", "--source {chats} --model_name_or_path {decoder} --max_length 257", "reads at most 256 tokens"),
        ("merge_adapter.py", "--adapter {decoder}", "no adapter here"),
    ],
)
def test_mistakes_end_in_one_line_and_exit_code_2_before_training(
    script, flags, complaint, inputs, tmp_path, monkeypatch, capsys
):
    arguments = [script, *flags.format(**inputs).split(), "--output_dir", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(RECIPES / script), run_name="__main__")
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert end.value.code == 2
    assert last.startswith("error: ")
    assert complaint in last
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("script", ["bert/classify.py", "gpt/sft.py"])
def test_two_processes_train_and_report(script, inputs, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    model, source, length = ("encoder", "reviews", 32) if "classify" in script else ("decoder", "chats", 120)
    flags = f"--model_name_or_path {inputs[model]} --source {inputs[source]} --max_length {length} {TWO_STEPS}"
    command = [*launcher, str(RECIPES / script), *flags.split(), "--output_dir", str(tmp_path / "out")]
    ended = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert json.loads((tmp_path / "out" / "results.json").read_text())["metrics"]["test"]
