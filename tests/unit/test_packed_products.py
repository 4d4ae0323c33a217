"""Linear layers that multiply by packed weights: the same numbers, sooner, and the layer itself where gradients ask."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from lm_recipes.compression.quantization import dynamic_int8
from lm_recipes.decoding.loading import load_for_inference
from lm_recipes.models.packed import PackedProduct, pack_linear_layers, packed_products


def packed(layer):
    found = copy.deepcopy(layer)
    pack_linear_layers(found)
    assert isinstance(found.forward, PackedProduct)
    return found


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(48,), (1, 48), (2, 7, 48), (300, 48), (0, 48)])
def test_products_are_the_layer_s(bias, shape):
    layer, inputs = nn.Linear(48, 80, bias), torch.randn(shape)
    with torch.inference_mode():
        torch.testing.assert_close(packed(layer)(inputs), layer(inputs), rtol=1e-5, atol=1e-5)
        some = torch.randn(48, 6).T  # not contiguous
        torch.testing.assert_close(packed(layer)(some), layer(some), rtol=1e-5, atol=1e-5)


def test_gradients_and_compiled_graphs_go_through_the_weights_themselves():
    layer = nn.Linear(16, 8)
    quick, inputs = packed(layer), torch.randn(3, 16, requires_grad=True)
    quick(inputs).sum().backward()
    torch.testing.assert_close(inputs.grad, layer.weight.sum(0).expand(3, 16))
    assert quick.weight.grad is not None
    with torch.inference_mode():
        compiled = torch.compile(quick, fullgraph=True)(inputs.detach())
        torch.testing.assert_close(compiled, layer(inputs), rtol=1e-5, atol=1e-5)


def test_other_dtypes_are_left_alone():
    half = nn.Linear(16, 8).bfloat16()
    pack_linear_layers(half)
    assert "forward" not in vars(half)
    with torch.inference_mode():
        assert packed(nn.Linear(16, 8)).double()(torch.randn(2, 16, dtype=torch.float64)).dtype == torch.float64


def test_weights_that_changed_after_a_measurement_are_used():
    layer, inputs = nn.Linear(16, 8, bias=False), torch.ones(2, 16)
    for value in (1.0, 2.0):
        with torch.no_grad():
            layer.weight.fill_(value)
            assert (layer(inputs) == 16 * value).all()
            with packed_products(layer):
                assert isinstance(layer.forward, PackedProduct)
                assert (layer(inputs) == 16 * value).all()
    assert "forward" not in vars(layer)


def test_weights_that_change_under_packed_products_are_used():
    layer, inputs = nn.Linear(16, 8, bias=False), torch.ones(2, 16)
    with torch.no_grad():
        for change in (
            lambda: layer.weight.fill_(3.0),  # in place, as pruning does
            lambda: setattr(layer, "weight", nn.Parameter(torch.full((8, 16), 3.0))),
            lambda: layer.load_state_dict({"weight": torch.full((8, 16), 3.0)}),
        ):
            layer.weight.fill_(1.0)
            pack_linear_layers(layer)
            assert (layer(inputs) == 16).all()
            assert (copy.deepcopy(layer)(inputs) == 16).all()
            change()
            assert (layer(inputs) == 48).all()


def test_a_machine_without_room_for_a_second_copy_keeps_the_layers(monkeypatch):
    layer = nn.Linear(64, 64)  # 16,384 bytes
    for free, forward in ((2 * 16_384 - 1, False), (2 * 16_384, True)):
        monkeypatch.setattr("psutil.virtual_memory", lambda free=free: SimpleNamespace(available=free))
        pack_linear_layers(layer)
        assert ("forward" in vars(layer)) is forward


def test_a_model_that_was_loaded_to_answer_says_what_it_would_without(bert_tokenizer, tmp_path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(bert_tokenizer), num_key_value_heads=2, tie_word_embeddings=True, **sizes)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    bert_tokenizer.save_pretrained(tmp_path)
    plain, quick = (load_for_inference(AutoModelForCausalLM, str(tmp_path), packed)[0] for packed in (False, True))
    layers = [layer for layer in quick.modules() if isinstance(layer, nn.Linear)]
    assert len(layers) == 2 * 7 + 1
    assert all(isinstance(layer.forward, PackedProduct) for layer in layers)
    ids = torch.randint(len(bert_tokenizer), (3, 9))
    with torch.inference_mode():
        torch.testing.assert_close(quick(ids).logits, plain(ids).logits, rtol=1e-4, atol=1e-5)
        exact, rounded = (dynamic_int8(model)(ids).logits for model in (plain, quick))
    torch.testing.assert_close(exact, rounded)
    assert not torch.allclose(exact, plain(ids).logits, rtol=1e-4, atol=1e-5)
