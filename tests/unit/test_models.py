"""The size dial: every family has the same width, depth and parameters, and its FLOPs are those torch counts."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lm_recipes.launch import UserError
from lm_recipes.models import (
    DECODERS,
    ENCODERS,
    SIZES,
    count_parameters,
    decoder_config,
    describe_model,
    encoder_config,
    encoder_decoder_config,
    expert_load,
    flops_per_token,
    new_model,
    override,
    parameters_per_token,
    positions_of,
)
from lm_recipes.models.size import Size

FAMILIES = (*ENCODERS, *DECODERS, "t5")
PER_TOKEN_ONLY = ("albert", "olmoe")  # one layer for all layers; more experts than a token meets


class Vocabulary:
    """As much of a tokenizer as a config needs."""

    bos_token_id, eos_token_id, pad_token_id, cls_token_id, sep_token_id = 1, 2, 0, 3, 4

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size


def config_of(family: str, size: str, vocabulary: int, context: int = 256):
    if family == "t5":
        return encoder_decoder_config(size, Vocabulary(vocabulary), context)
    make = encoder_config if family in ENCODERS else decoder_config
    return make(size, Vocabulary(vocabulary), context, family)


def without_weights(config):
    with torch.device("meta"):
        return new_model(config)


def test_a_shape_of_ones_own_is_a_size_and_one_that_has_no_heads_is_refused():
    assert Size.named("160x3") == Size(160, 3)
    assert Size.named("1M").neighbours() == ["96x7", "160x3"]
    for name, complaint in (("7B", "no such size"), ("0x3", "no such size"), ("161x3", "do not divide the width")):
        with pytest.raises(UserError, match=complaint):
            Size.named(name)


@pytest.mark.parametrize("size", [*SIZES, "160x3"])
def test_all_families_have_the_shape_and_the_parameters_of_the_dial(size):
    for family in FAMILIES:
        wanted = Size.named(size)
        model = without_weights(config_of(family, size, 4096 if wanted.width < 512 else 32_768))
        layers = model.config.num_hidden_layers + (model.config.num_decoder_layers if family == "t5" else 0)
        shape = (model.config.hidden_size, layers, model.config.num_attention_heads)
        assert shape == (wanted.width, wanted.layers, wanted.heads), family
        parameters = parameters_per_token(model)
        assert parameters == pytest.approx(wanted.parameters, rel=0.02), family
        if family not in PER_TOKEN_ONLY:
            assert count_parameters(model)["non_embedding_parameters"] == parameters


def test_the_default_tracks_differ_by_the_decoders_output_layer_alone():
    encoder, decoder = (without_weights(config_of(family, "1M", 4096)) for family in ("modernbert", "nanochat"))
    assert count_parameters(decoder)["parameters"] == 12 * 128**2 * 4 + 2 * 4096 * 128
    shared = count_parameters(encoder)["parameters"] + 4096 * 128
    assert shared == pytest.approx(count_parameters(decoder)["parameters"], rel=0.01)


def test_tables_of_positions_count_as_embeddings_and_biases_do_not():
    model = without_weights(config_of("gpt2", "1M", 4096))
    counts = count_parameters(model)
    assert counts["parameters"] - counts["non_embedding_parameters"] == (2 * 4096 + 256) * 128
    without_biases = sum(
        p.numel() for n, p in model.named_parameters() if n.startswith("transformer.h.") and p.ndim == 2
    )
    assert counts["non_embedding_parameters"] - without_biases > 13 * 128 * 4 - 128


@pytest.mark.parametrize("family", FAMILIES)
def test_flops_are_those_that_torch_counts(family):
    """The forward pass, thrice; DeBERTa's table of positions is projected once per batch, so that one needs rows."""
    context, rows, asked = 64, 16 if family == "deberta_v2" else 2, 0.25 if family == "t5" else 1.0
    model = new_model(config_of(family, "tiny", 512, context), "eager").requires_grad_(False)
    ids = torch.randint(5, 512, (rows, context))
    batch = {"input_ids": ids}
    if family == "t5":
        batch["decoder_input_ids"] = ids[:, :16]
    if family == "xlnet":
        batch |= {"perm_mask": torch.zeros(rows, context, context)}
        batch |= {"target_mapping": torch.eye(context).expand(rows, context, context)}
    if family == "olmoe":
        model.set_experts_implementation("eager")  # torch does not count the grouped product
    with FlopCounterMode(display=False) as counter:
        model(**batch)
    assert flops_per_token(model, context, asked) == pytest.approx(
        3 * counter.get_total_flops() / ids.numel(), rel=0.03
    )


def test_flops_follow_windows_and_the_share_of_asked_tokens():
    model = without_weights(config_of("modernbert", "1M", 4096))
    assert model.config.layer_types.count("sliding_attention") == 2
    twice = flops_per_token(model, 2048) - flops_per_token(model, 1024)
    assert twice == 3 * 4 * 128 * 1024 * 2  # only the two layers that see everything pay for more context
    assert flops_per_token(model, 256) - flops_per_token(model, 256, asked=0.3) == round(6 * 0.7 * 4096 * 128)


def test_a_model_is_described_in_a_line():
    for family, line in {
        "nanochat": "nanochat 4 x 128: 786 k parameters + 1.05 M embeddings, 9.44 MFLOPs per token",
        "olmoe": "olmoe 4 x 128: 2.33 M parameters (785 k per token) + 1.05 M embeddings, 9.43 MFLOPs per token",
        "t5": "t5 2+2 x 128: 788 k parameters + 524 k embeddings, 10.2 MFLOPs per token",
    }.items():
        assert describe_model(without_weights(config_of(family, "1M", 4096)), 256) == line


def test_expert_load_is_the_share_of_choices_and_tells_a_collapsed_layer():
    even = torch.eye(4).repeat(6, 1) + torch.eye(4).roll(1, 0).repeat(6, 1)
    collapsed = torch.tensor([3.0, 2.0, 1.0, 0.0]).repeat(24, 1)
    load = expert_load((even, collapsed), top_k=2)
    assert torch.equal(load, torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0.0, 0.0]]))


def test_positions_of_a_family_are_the_context_or_without_limit():
    positions = {family: positions_of(config_of(family, "tiny", 512, 64)) for family in FAMILIES}
    assert [family for family, number in positions.items() if number is None] == ["xlnet", "t5"]
    assert {number for number in positions.values() if number is not None} == {64}


def test_unknown_sizes_and_families_are_refused_with_those_there_are():
    with pytest.raises(UserError, match="choose one of tiny, 1M"):
        decoder_config("2M", Vocabulary(10), 8)
    with pytest.raises(UserError, match=r"--family bart: .* choose one of modernbert, bert, roberta"):
        encoder_config("tiny", Vocabulary(10), 8, "bart")
    with pytest.raises(UserError, match="choose one of nanochat, llama"):
        decoder_config("tiny", Vocabulary(10), 8, "bert")


def test_an_attention_the_family_or_the_machine_lacks_is_refused():
    with pytest.raises(UserError, match="--attn_implementation flash_attention_2: "):
        new_model(config_of("deberta_v2", "tiny", 64), "flash_attention_2")
    assert new_model(config_of("deberta_v2", "tiny", 64), "sdpa").config._attn_implementation == "eager"


def test_settings_of_a_configuration_can_be_overridden_by_name_and_type():
    config = config_of("modernbert", "tiny", 64)
    assert config.tie_word_embeddings
    override(config, "tie_word_embeddings=false,num_attention_heads=4")
    assert (config.tie_word_embeddings, config.num_attention_heads) == (False, 4)
    override(config, None)
    for wrong in ("heads=4", "num_attention_heads=many", "num_attention_heads"):
        with pytest.raises(UserError, match=f"--config_overrides {wrong}: .* write name=value,name=value"):
            override(config, wrong)
