"""The size dial: both tracks have the same width, depth and, within a few percent, parameters."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from lm_recipes.launch import UserError
from lm_recipes.models import SIZES, count_parameters, decoder_config, encoder_config


class Vocabulary:
    """As much of a tokenizer as a config needs."""

    bos_token_id, eos_token_id, pad_token_id, cls_token_id, sep_token_id = 1, 2, 0, 3, 4

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size


@pytest.mark.parametrize("size", [size for size in SIZES if size != "tiny"])
def test_tracks_are_matched_in_width_depth_heads_and_parameters(size):
    tokenizer = Vocabulary(4096 if SIZES[size].width < 512 else 32_768)
    with torch.device("meta"):
        encoder = AutoModelForMaskedLM.from_config(encoder_config(size, tokenizer, 256))
        decoder = AutoModelForCausalLM.from_config(decoder_config(size, tokenizer, 256))
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads"):
        assert getattr(encoder.config, name) == getattr(decoder.config, name)
    for kind, tolerance in (("parameters", 0.03), ("non_embedding_parameters", 0.06)):
        assert count_parameters(encoder)[kind] == pytest.approx(count_parameters(decoder)[kind], rel=tolerance)


def test_non_embedding_parameters_are_twelve_d_squared_a_layer():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(decoder_config("1M", Vocabulary(4096), 256))
    assert count_parameters(model)["non_embedding_parameters"] == 12 * 128**2 * 4


def test_an_unknown_size_is_refused_with_the_sizes_there_are():
    with pytest.raises(UserError, match="choose one of tiny, 1M"):
        decoder_config("2M", Vocabulary(10), 8)
