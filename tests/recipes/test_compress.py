"""The scripts of recipes/compress as they are launched, and the YAML that ships, on models and texts made here."""

import json
from pathlib import Path

import pytest
import torch
from tiny_models import TEXT, bert_config, bert_tokenizer, gpt, gpt_tokenizer, save
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, set_seed

RECIPES = Path(__file__).parents[2] / "recipes" / "compress"
LABELS = {0: "bad", 1: "good"}


WIDTH = 64  # nf4 takes nothing narrower


@pytest.fixture(scope="module")
def decoder(tmp_path_factory) -> str:
    narrow = gpt("llama")
    narrow.config.update({"hidden_size": WIDTH, "head_dim": WIDTH // 2})
    return save(tmp_path_factory.mktemp("gpt"), type(narrow)(narrow.config), gpt_tokenizer())


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> str:
    set_seed(0)
    tokenizer = bert_tokenizer()
    labels = {"id2label": LABELS, "label2id": {name: number for number, name in LABELS.items()}}
    config = bert_config("bert", len(tokenizer), **labels)
    config.hidden_size = WIDTH
    model = AutoModelForSequenceClassification.from_config(config)
    return save(tmp_path_factory.mktemp("bert"), model, tokenizer)


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    rows = [{"text": f"{TEXT[n % 3]} {n}", "label": LABELS[n % 2]} for n in range(120)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def metrics(directory: Path) -> dict:
    return json.loads((directory / "results.json").read_text())["metrics"]


def test_the_pruning_config_prunes_another_model_and_says_what_was_lost(decoder, texts, launch, tmp_path):
    config = ("--config", RECIPES / "configs" / "prune-smollm2.yaml", "--source", texts)
    flags = ("--model_name_or_path", decoder, "--output_dir", tmp_path / "small", "--block_size", 64, "--share", 0.5)
    assert launch("compress/prune.py", *config, *flags)[0] == 0
    found = metrics(tmp_path / "small")
    assert found["parameters"] < found["parameters_before"]
    assert found["change"] == pytest.approx(found["bits_per_byte"] / found["bits_per_byte_before"] - 1)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "small").config.intermediate_size == 32


@pytest.mark.parametrize("method", ["layers", "neurons", "weights"])
def test_a_classifier_is_pruned_by_each_method(method, classifier, texts, launch, tmp_path):
    flags = ("--model_name_or_path", classifier, "--output_dir", tmp_path / "small", "--source", texts)
    assert launch("compress/prune.py", *flags, "--method", method, "--share", 0.5)[0] == 0
    found = metrics(tmp_path / "small")
    assert 0 <= found["same_decisions"] <= 1
    assert found["max_difference"] > 0


# the length of a layer's error over that of its weights
ROUNDED = {"int8-weights": ("torchao", 0.01), "int8-dynamic": ("torchao", 0.01), "nf4": ("bitsandbytes", 0.12)}


@pytest.mark.parametrize("method", ROUNDED)
@pytest.mark.parametrize("kind", ["decoder", "classifier"])
def test_rounded_weights_are_plain_directories_whose_layers_answer_nearly_alike(
    method, kind, request, texts, launch, tmp_path
):
    pytest.importorskip(ROUNDED[method][0])
    model = request.getfixturevalue(kind)
    flags = ("--model_name_or_path", model, "--output_dir", tmp_path / "small", "--source", texts)
    assert launch("compress/quantize.py", *flags, "--method", method)[0] == 0
    found = metrics(tmp_path / "small")
    assert found["bytes"] < found["bytes_before"]
    auto_class = AutoModelForCausalLM if kind == "decoder" else AutoModelForSequenceClassification
    small, original = (auto_class.from_pretrained(path).eval() for path in (tmp_path / "small", model))
    heads = ("lm_head", "classifier", "pooler")
    for name, layer in original.named_modules():
        if isinstance(layer, nn.Linear):
            units = torch.eye(layer.in_features)
            with torch.no_grad():
                exact, rounded = layer(units), small.get_submodule(name)(units)
            error = float((rounded - exact).norm() / exact.norm())
            assert error == 0 if any(head in name for head in heads) else 0 < error < ROUNDED[method][1], name
    assert {file.suffix for file in (tmp_path / "small").iterdir()} <= {".json", ".safetensors", ".jinja", ".md"}
    code, _, error = launch(
        "compress/export_onnx.py", "--model_name_or_path", tmp_path / "small", "--output_dir", tmp_path / "o"
    )
    assert code == 2
    assert "rounded already; start from the model that it was made of" in error


def test_a_model_in_16_bits_is_every_weight_of_it_rounded(decoder, texts, launch, tmp_path):
    flags = ("--model_name_or_path", decoder, "--output_dir", tmp_path / "small", "--source", texts)
    assert launch("compress/quantize.py", *flags, "--method", "bfloat16")[0] == 0
    small, original = (
        AutoModelForCausalLM.from_pretrained(path, dtype="auto") for path in (tmp_path / "small", decoder)
    )
    for name, weight in original.named_parameters():
        assert torch.equal(small.get_parameter(name), weight.bfloat16()), name
    assert metrics(tmp_path / "small")["same_decisions"] > 0.9


def test_4_bits_are_refused_to_a_model_too_narrow_for_their_kernel(launch, tmp_path):
    pytest.importorskip("bitsandbytes")
    narrow = save(tmp_path / "m", gpt("llama"), gpt_tokenizer())
    code, _, error = launch(
        "compress/quantize.py", "--model_name_or_path", narrow, "--method", "nf4", "--output_dir", tmp_path / "o"
    )
    assert code == 2
    assert "q_proj is 32 x 32; on a CPU it must read a multiple of 64" in error
    assert not (tmp_path / "o").exists()


def test_the_comparison_config_measures_variants_of_another_decoder(decoder, texts, launch, tmp_path):
    config = ("--config", RECIPES / "configs" / "compare-smollm2.yaml", "--source", texts, "--block_size", 32)
    small = ("--new_tokens", 4, "--batch_size", 3, "--rounds", 1, "--eval_documents", 3)
    flags = ("--model_name_or_path", decoder, "--output_dir", tmp_path, "--variants", "int8-at-load", f"twin={decoder}")
    assert launch("compress/compare.py", *config, *flags, *small)[0] == 0
    found = metrics(tmp_path)["compressed"]
    assert list(found) == ["original", "int8-at-load", "twin"]
    assert found["twin"]["bits_per_byte"] == pytest.approx(found["original"]["bits_per_byte"])
    assert all(one["milliseconds_per_token"] > 0 and one["tokens_per_second"] > 0 for one in found.values())
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert [line.split(" |")[0] for line in lines[2:]] == ["| original", "| int8-at-load", "| twin"]


def test_every_form_of_a_decoder_scores_alike_in_the_comparison(decoder, texts, launch, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    where = ("--model_name_or_path", decoder)
    assert launch("compress/export_onnx.py", *where, "--output_dir", tmp_path / "onnx", "--new_tokens", 2)[0] == 0
    assert launch("compress/export_gguf.py", *where, "--output_dir", tmp_path / "gguf", "--type", "f32")[0] == 0
    small = ("--new_tokens", 4, "--batch_size", 2, "--rounds", 1, "--eval_documents", 2, "--block_size", 32)
    flags = ("--output_dir", tmp_path / "c", "--variants", tmp_path / "onnx", tmp_path / "gguf", "--source", texts)
    assert launch("compress/compare.py", *where, *flags, *small)[0] == 0
    found = metrics(tmp_path / "c")["compressed"]
    scores = [one["bits_per_byte"] for one in found.values()]
    assert scores == pytest.approx([scores[0]] * 3, rel=1e-4)
    assert "milliseconds_per_token" in found["onnx"]


def test_classifiers_are_compared_by_the_accuracy_on_their_test_split(classifier, texts, launch, tmp_path):
    flags = (
        "--output_dir",
        tmp_path,
        "--source",
        texts,
        "--batch_size",
        4,
        "--rounds",
        1,
        "--variants",
        f"twin={classifier}",
    )
    assert launch("compress/compare.py", "--model_name_or_path", classifier, *flags)[0] == 0
    found = metrics(tmp_path)["compressed"]
    assert found["twin"]["accuracy"] == found["original"]["accuracy"]
    assert 0 <= found["original"]["accuracy"] <= 1


def test_what_cannot_be_compressed_is_refused_in_one_line(decoder, classifier, texts, launch, tmp_path):
    out = ("--output_dir", tmp_path / "o")
    one = tmp_path / "one.jsonl"
    one.write_text(json.dumps({"text": TEXT[0]}) + "\n")
    for script, flags, complaint in [
        ("prune.py", ("--model_name_or_path", decoder, "--share", 1.5, *out), "--share 1.5: must be between 0 and 1"),
        ("prune.py", ("--model_name_or_path", decoder, "--method", "magic", *out), "invalid choice"),
        ("quantize.py", ("--model_name_or_path", decoder, "--method", "int2", *out), "invalid choice"),
        ("prune.py", ("--model_name_or_path", decoder, "--source", one, *out), "is in the test split"),
        ("export_gguf.py", ("--model_name_or_path", classifier, *out), "bert: no GGUF"),
        ("export_onnx.py", ("--model_name_or_path", "runs/gone", *out), "no such model directory"),
        ("compare.py", ("--model_name_or_path", decoder, "--variants", "a=x", "a=y", *out), "two are called a"),
        ("compare.py", ("--model_name_or_path", decoder, "--variants", "runs/gone", *out), "no such model directory"),
    ]:
        code, _, error = launch(f"compress/{script}", *flags)
        assert code == 2, (script, flags)
        assert error.startswith("error: ")
        assert complaint in error
        assert not (tmp_path / "o").exists()
