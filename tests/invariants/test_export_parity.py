"""One model, many forms: transformers == merged adapter == ONNX == GGUF, to the last greedy token of 100 prompts."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from tiny_adapters import make_adapter
from tiny_models import CHAT_TEMPLATE, gpt, gpt_tokenizer, save
from transformers import AutoModelForCausalLM

from lm_recipes.compression.agreement import load_whole
from lm_recipes.compression.gguf_export import export_gguf
from lm_recipes.compression.gguf_models import load_gguf
from lm_recipes.compression.parity import PROMPTS, TIE, random_prompts, same_greedy_tokens
from lm_recipes.decoding.generation import continue_prompts
from lm_recipes.decoding.strategies import strategy
from lm_recipes.launch import UserError
from lm_recipes.training.saved_adapters import merge_adapter

RECIPES = Path(__file__).parents[2] / "recipes" / "compress"
TOKENIZER = gpt_tokenizer()
NEW = 12


@pytest.fixture
def launch(monkeypatch):
    """Run a script of recipes/compress and read what it measured."""

    def run(script: str, model: str, output: Path, *flags: object) -> dict:
        arguments = ("--model_name_or_path", model, "--output_dir", output, *flags)
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        runpy.run_path(str(RECIPES / script), run_name="__main__")
        return json.loads((output / "results.json").read_text())["metrics"]

    return run


def greedy(model) -> list[list[int]]:
    prompts = random_prompts(TOKENIZER)
    assert len(prompts) == PROMPTS == 100
    return continue_prompts(model, TOKENIZER, prompts, strategy("greedy", max_new_tokens=NEW), batch_size=20)


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> str:
    return save(tmp_path_factory.mktemp("llama"), gpt("llama"), TOKENIZER)


@pytest.fixture(scope="module")
def expected(llama) -> list[list[int]]:
    found = greedy(load_whole(llama)[0])
    assert len({tuple(row) for row in found}) > 50  # the prompts matter
    return found


def test_a_merged_adapter_continues_as_base_and_adapter_do(tmp_path):
    adapter, model, _ = make_adapter("llama", tmp_path)
    merge_adapter(adapter, tmp_path / "merged")
    merged, _ = load_whole(str(tmp_path / "merged"))
    merged.generation_config = model.generation_config
    assert greedy(merged) == greedy(model)
    with pytest.raises(UserError, match=r"merge it first: python recipes/merge_adapter\.py"):
        load_whole(str(adapter))


@pytest.mark.parametrize("kind", ["llama", "nanochat"])
def test_onnx_continues_as_transformers_does_alone_and_in_batches(kind, launch, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from transformers.exporters import ExportedModel

    from lm_recipes.compression.onnx_models import OnnxDecoder

    model = gpt(kind)
    path = save(tmp_path / "m", model, TOKENIZER)
    metrics = launch("export_onnx.py", path, tmp_path / "onnx", "--new_tokens", NEW)
    assert metrics["same_continuations"] == 1.0
    assert metrics["max_difference"] <= 1e-5 * metrics["max_answer"]
    assert list(ExportedModel.from_pretrained(tmp_path / "onnx").components) == ["model"]  # without this project
    decoder = OnnxDecoder(tmp_path / "onnx")
    wanted = greedy(load_whole(path)[0])
    together = decoder.continue_prompts(random_prompts(TOKENIZER)[:20], NEW)
    alone = [decoder.continue_prompts([prompt], NEW)[0] for prompt in random_prompts(TOKENIZER)[:20]]
    assert together == alone == wanted[:20]


@pytest.mark.parametrize("kind", ["f32", "f16"])
def test_gguf_in_floats_continues_as_transformers_does(kind, llama, expected, launch, tmp_path):
    pytest.importorskip("gguf")
    metrics = launch("export_gguf.py", llama, tmp_path / "gguf", "--type", kind, "--new_tokens", NEW)
    assert metrics["same_ids"] == 1.0
    if kind == "f32":
        assert metrics["max_difference"] == 0.0
        assert metrics["same_continuations"] == 1.0
        # without this project
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "gguf", gguf_file="model-f32.gguf")
        assert greedy(model) == expected
    else:  # weights of 11 bits may decide a near tie the other way
        assert metrics["same_continuations"] > 0.5
        assert metrics["widest_gap"] <= 0.02 * metrics["max_answer"]


def test_llama_cpp_itself_continues_a_gguf_file_so(llama, expected, launch, tmp_path):
    pytest.importorskip("llama_cpp")
    from lm_recipes.compression.gguf_models import LlamaCpp

    launch("export_gguf.py", llama, tmp_path / "gguf", "--type", "f32", "--new_tokens", NEW)
    runs = LlamaCpp(tmp_path / "gguf" / "model-f32.gguf", context=64)
    found = same_greedy_tokens(load_whole(llama)[0], TOKENIZER, runs.continue_prompts, NEW)
    assert found["same_continuations"] >= 0.98
    assert found["widest_gap"] < TIE
    text = "the quick brown fox's 1984  jumps"
    assert runs.model.tokenize(text.encode(), add_bos=False, special=False) == TOKENIZER(text)["input_ids"]


@pytest.mark.parametrize(("kind", "error"), [("f16", 4e-4), ("q8_0", 0.01), ("q4_0", 0.12)])
def test_fewer_bits_stand_for_nearly_the_same_weights(kind, error, llama, tmp_path):
    pytest.importorskip("gguf")
    model, tokenizer = load_whole(llama)
    path = tmp_path / "model.gguf"
    export_gguf(model, tokenizer, path, kind)
    rounded = load_gguf(path)[0].state_dict()
    for name, weight in model.state_dict().items():
        found = float((rounded[name] - weight).norm() / weight.norm())
        outside = "embed_tokens" in name or "lm_head" in name  # kept at 8 bits
        most = 0.0 if weight.ndim == 1 else 0.01 if kind == "q4_0" and outside else error
        assert most / 20 <= found <= most, name


def test_a_nanochat_is_refused_as_gguf_with_the_families_that_can(tmp_path, launch, capsys):
    path = save(tmp_path / "m", gpt("nanochat"), TOKENIZER)
    with pytest.raises(SystemExit):
        launch("export_gguf.py", path, tmp_path / "gguf")
    assert (
        "nanochat: no GGUF; llama.cpp runs what was pretrained with --family llama or qwen3" in capsys.readouterr().err
    )
    assert not (tmp_path / "gguf").exists()


def test_a_gguf_file_carries_the_chat_template_and_what_ends_a_turn(tmp_path, launch):
    gguf = pytest.importorskip("gguf")
    tokenizer = gpt_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    model = gpt("llama")
    model.generation_config.eos_token_id = [4, 2]
    launch("export_gguf.py", save(tmp_path / "m", model, tokenizer), tmp_path / "gguf", "--new_tokens", 2)
    fields = gguf.GGUFReader(tmp_path / "gguf" / "model-f16.gguf").fields
    assert fields["tokenizer.chat_template"].contents() == CHAT_TEMPLATE
    assert fields["tokenizer.ggml.eos_token_id"].contents() == 4
    assert fields["tokenizer.ggml.pre"].contents() == "gpt-2"
    kinds = fields["tokenizer.ggml.token_type"].contents()
    assert [number for number, kind in enumerate(kinds) if kind == gguf.TokenType.CONTROL] == [0, 1, 2, 3, 4]
