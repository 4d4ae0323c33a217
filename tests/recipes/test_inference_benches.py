"""The benches of generation, encoders and the server run as they are launched, on tiny models."""

import json

import pytest
from tiny_adapters import make_adapter
from tiny_models import TEXT, bert_config, bert_tokenizer, gpt, gpt_tokenizer, save
from transformers import AutoModelForSequenceClassification, set_seed

pytestmark = pytest.mark.slow  # compilers, exporters and servers start


def ways(directory) -> dict[str, dict]:
    (found,) = json.loads((directory / "results.json").read_text())["metrics"]["side_by_side"].values()
    return found


def rows(path) -> str:
    path.write_text("".join(json.dumps({"text": f"{TEXT[i % 3]} {i}", "label": i % 2}) + "\n" for i in range(200)))
    return str(path)


def test_generation_gives_every_way_the_same_texts(launch, tmp_path):
    model = save(tmp_path / "gpt", gpt("llama"), gpt_tokenizer())
    texts = rows(tmp_path / "texts.jsonl")
    sizes = ("--batch_sizes", 1, "--prompt_tokens", 8, "--new_tokens", 8, "--rounds", 1)
    flags = ("--models", model, "--prompts", texts, *sizes, "--output_dir", tmp_path / "o")
    assert launch("bench/generation.py", *flags)[0] == 0
    found = ways(tmp_path / "o")
    limit = found.pop("what memory allows")
    assert {"generate()", "generate.py", "generate.py --compile"} <= found.keys()
    assert all(way["tokens_per_second"] > 0 and way["same_texts"] == 1 for way in found.values())
    assert limit["tokens_per_second"] > found["generate()"]["tokens_per_second"]


def test_encoding_gives_every_exact_way_the_same_accuracy(launch, tmp_path):
    pytest.importorskip("onnxruntime")
    set_seed(1)
    tokenizer = bert_tokenizer()
    config = bert_config("bert", len(tokenizer), num_labels=2, id2label={0: "0", 1: "1"}, label2id={"0": 0, "1": 1})
    model = save(tmp_path / "bert", AutoModelForSequenceClassification.from_config(config), tokenizer)
    flags = (
        "--model_name_or_path",
        model,
        "--source",
        rows(tmp_path / "rows.jsonl"),
        "--max_length",
        32,
        "--rounds",
        1,
    )
    assert launch("bench/encoding.py", *flags, "--output_dir", tmp_path / "o")[0] == 0
    found = ways(tmp_path / "o")
    exact = {way["accuracy"] for name, way in found.items() if "int8" not in name}
    assert len(found) == 7
    assert len(exact) == 1
    assert all(way["texts_per_second"] > 0 for way in found.values())


def test_serving_counts_what_clients_waited_for(launch, tmp_path):
    model = save(tmp_path / "gpt", gpt("llama", context=512), gpt_tokenizer())
    flags = ("--model_name_or_path", model, "--clients", 2, "--seconds", 2, "--rounds", 1)
    assert launch("bench/serving.py", *flags, "--output_dir", tmp_path / "o")[0] == 0
    for found in ways(tmp_path / "o").values():
        assert found["tokens_per_second"] > 0
        assert found["errors"] == 0


def test_every_form_of_a_model_continues_prompts_alike(launch, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("gguf")
    adapter, _, _ = make_adapter("llama", tmp_path)
    assert launch("bench/parity.py", "--adapter", adapter, "--new_tokens", 8, "--output_dir", tmp_path / "o")[0] == 0
    found = ways(tmp_path / "o")
    assert {"merged", "merged, --compile", "ONNX", "merged, served", "base and adapter, served"} <= found.keys()
    assert {form["same_continuations"] for form in found.values()} == {1.0}
