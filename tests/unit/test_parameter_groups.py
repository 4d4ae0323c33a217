"""Muon and AdamW share a model's parameters out by what they do, in every family; Muon's steps are torch's own."""

import copy
import math

import pytest
import torch
from torch import nn
from transformers import (
    AlbertConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    ElectraConfig,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    NanoChatConfig,
    OlmoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    RobertaConfig,
    T5Config,
    XLNetConfig,
)
from transformers.pytorch_utils import Conv1D

from lm_recipes.training.finetuning import FineTuningArguments
from lm_recipes.training.optimizer import FineTuningTrainer, MuonAdamW, orthogonal, split_parameters
from lm_recipes.training.preflight import identity_of

SHAPE = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "bos_token_id": 1, "eos_token_id": 2}
DEBERTA = {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"], "conv_kernel_size": 3}
T5 = {"vocab_size": 60, "d_model": 32, "d_ff": 48, "num_layers": 2, "num_heads": 2, "d_kv": 16}
GPT2 = {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 2, "bos_token_id": 1, "eos_token_id": 2}

# A family: its class, its configuration, how many matrices Muon has and what AdamW has with two dimensions or more.
WORDS = "word_embeddings.weight position_embeddings.weight token_type_embeddings.weight"
FAMILIES = {
    "modernbert": (AutoModelForMaskedLM, ModernBertConfig(**SHAPE, **SPECIAL), 2 * 4 + 1, "tok_embeddings.weight"),
    "modernbert-untied": (
        AutoModelForMaskedLM, ModernBertConfig(**SHAPE, **SPECIAL, tie_word_embeddings=False), 2 * 4 + 1,
        "tok_embeddings.weight decoder.weight",
    ),
    "bert": (AutoModelForMaskedLM, BertConfig(**SHAPE), 2 * 6 + 1, WORDS),
    "roberta": (AutoModelForMaskedLM, RobertaConfig(**SHAPE), 2 * 6 + 1, WORDS),
    "albert": (AutoModelForMaskedLM, AlbertConfig(**SHAPE, embedding_size=16), 1 * 6 + 2, WORDS),
    "electra-generator": (AutoModelForMaskedLM, ElectraConfig(**SHAPE, embedding_size=16), 2 * 6 + 2, WORDS),
    "electra": (
        AutoModelForPreTraining, ElectraConfig(**SHAPE, embedding_size=16), 2 * 6 + 2,
        f"{WORDS} dense_prediction.weight",
    ),
    "deberta-v2": (
        AutoModelForMaskedLM, DebertaV2Config(**SHAPE, **DEBERTA), 2 * 8 + 1,
        "word_embeddings.weight position_embeddings.weight rel_embeddings.weight conv.weight",
    ),
    "xlnet": (
        AutoModelForCausalLM, XLNetConfig(vocab_size=60, d_model=32, n_layer=2, n_head=2, d_inner=48), 2 * 2,
        "word_embedding.weight mask_emb " + "rel_attn.q rel_attn.k rel_attn.v rel_attn.o rel_attn.r "
        "rel_attn.r_r_bias rel_attn.r_s_bias rel_attn.r_w_bias rel_attn.seg_embed " * 2,
    ),
    "nanochat": (AutoModelForCausalLM, NanoChatConfig(**SHAPE), 2 * 6, "embed_tokens.weight lm_head.weight"),
    "llama": (AutoModelForCausalLM, LlamaConfig(**SHAPE), 2 * 7, "embed_tokens.weight lm_head.weight"),
    "llama-tied": (AutoModelForCausalLM, LlamaConfig(**SHAPE, tie_word_embeddings=True), 14, "embed_tokens.weight"),
    "gpt2": (AutoModelForCausalLM, GPT2Config(**GPT2), 2 * 4, "wte.weight wpe.weight"),
    "qwen3": (AutoModelForCausalLM, Qwen3Config(**SHAPE, head_dim=16), 2 * 7, "embed_tokens.weight lm_head.weight"),
    "qwen3-moe": (
        AutoModelForCausalLM, Qwen3MoeConfig(**SHAPE, **EXPERTS, moe_intermediate_size=24, head_dim=16), 2 * 7,
        "embed_tokens.weight lm_head.weight",
    ),
    "olmoe": (AutoModelForCausalLM, OlmoeConfig(**SHAPE, **EXPERTS), 2 * 7, "embed_tokens.weight lm_head.weight"),
    "t5": (
        AutoModelForSeq2SeqLM, T5Config(**T5), 2 * 6 + 2 * 10,
        "shared.weight relative_attention_bias.weight relative_attention_bias.weight",
    ),
    "classifier": (
        AutoModelForSequenceClassification, RobertaConfig(**SHAPE, num_labels=3), 2 * 6 + 1, f"{WORDS} out_proj.weight"
    ),
}  # fmt: skip


@pytest.fixture(params=FAMILIES)
def family(request):
    make, config, matrices, others = FAMILIES[request.param]
    torch.manual_seed(0)
    return make.from_config(config), matrices, others.split()


def test_hidden_matrices_go_to_muon_and_embeddings_heads_norms_and_biases_to_adamw(family):
    model, matrices, others = family
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    hidden, rest = ([names[id(p)] for p in group] for group in split_parameters(model))
    assert sorted(hidden + rest) == sorted(names.values())
    assert len(hidden) == matrices
    large = [name for name in rest if model.get_parameter(name).ndim > 1]
    assert len(large) == len(others)
    assert all(any(name.endswith(end) for end in others) for name in large), large


def test_a_step_moves_every_parameter_that_has_a_gradient_and_weight_decay_only_matrices(family):
    model, _, _ = family
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    decayed = copy.deepcopy(model)
    for one, decay in ((model, 0.0), (decayed, 0.5)):
        optimizer = MuonAdamW(one, learning_rate=0.01, muon_learning_rate=0.02, weight_decay=decay)
        generator = torch.Generator().manual_seed(0)
        for parameter in one.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        before = [parameter.detach().clone() for parameter in one.parameters()]
        optimizer.step()
        assert not any(torch.equal(a, b) for a, b in zip(before, one.parameters(), strict=True))
    for (name, plain), shrunk in zip(model.named_parameters(), decayed.parameters(), strict=True):
        may_shrink = plain.ndim > 1 and id(plain) not in embeddings and plain.abs().sum() > 0
        assert torch.equal(plain, shrunk) != may_shrink, name


def gradients(*shape: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for _ in range(4)]


class Body(nn.Module):
    """Modules with one weight each, as a model that has no embeddings."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        self.layers, self.norm = nn.ModuleDict(layers), nn.LayerNorm(3)


def trained(model: nn.Module, steps: dict[str, list[torch.Tensor]]) -> nn.Module:
    optimizer = MuonAdamW(model, learning_rate=0.1, muon_learning_rate=0.02, weight_decay=0.1)
    for number in range(4):
        for name, values in steps.items():
            model.get_parameter(name).grad = values[number].clone()
        optimizer.step()
    return model


@pytest.mark.parametrize("shape", [(24, 24), (48, 24), (24, 48)])
def test_matrices_of_one_shape_orthogonalised_together_move_as_torchs_muon_moves_each(shape, monkeypatch):
    torch.manual_seed(0)
    layers = {name: nn.Linear(shape[1], shape[0], bias=False) for name in "abc"}
    theirs = [nn.Parameter(layer.weight.detach().clone()) for layer in layers.values()]
    steps = {name: [gradient.roll(place) for gradient in gradients(*shape)] for place, name in enumerate(layers)}
    muon = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1)
    for number in range(4):
        for parameter, values in zip(theirs, steps.values(), strict=True):
            parameter.grad = values[number].clone()
        muon.step()
    ours = copy.deepcopy(layers)
    trained(Body(**layers), {f"layers.{name}.weight": values for name, values in steps.items()})
    assert all(torch.equal(layers[name].weight, weight) for name, weight in zip("abc", theirs, strict=True))
    monkeypatch.setattr("lm_recipes.training.optimizer.AT_ONCE", 2 * math.prod(shape))  # two and one at a time
    trained(Body(**ours), {f"layers.{name}.weight": values for name, values in steps.items()})
    assert all(torch.equal(layers[name].weight, ours[name].weight) for name in "abc")


def test_each_expert_of_a_stack_moves_as_a_matrix_of_its_own():
    class Stack(nn.Module):
        def __init__(self, weights: torch.Tensor) -> None:
            super().__init__()
            self.experts = nn.ParameterDict({"up": nn.Parameter(weights)})

    torch.manual_seed(0)
    stack, steps = torch.randn(5, 24, 16), gradients(5, 24, 16)
    together = trained(Body(mlp=Stack(stack.clone())), {"layers.mlp.experts.up": steps})
    alone = Body(**{f"e{number}": nn.Linear(16, 24, bias=False) for number in range(5)})
    for number in range(5):
        alone.layers[f"e{number}"].weight.data = stack[number].clone()
    trained(alone, {f"layers.e{n}.weight": [gradient[n] for gradient in steps] for n in range(5)})
    for number in range(5):
        assert torch.equal(together.layers["mlp"].experts["up"][number], alone.layers[f"e{number}"].weight)


def test_gpt2s_matrices_which_are_kept_the_other_way_round_move_as_linear_ones_would():
    torch.manual_seed(0)
    flipped, steps = Conv1D(48, 16), gradients(48, 16)  # 16 in, 48 out, kept as [16, 48]
    linear = nn.Linear(16, 48, bias=False)
    linear.weight.data = flipped.weight.detach().T.clone()
    del flipped.bias
    flipped.register_parameter("bias", None)
    trained(Body(flipped=flipped), {"layers.flipped.weight": [gradient.T for gradient in steps]})
    trained(Body(linear=linear), {"layers.linear.weight": steps})
    torch.testing.assert_close(flipped.weight.T, linear.weight, rtol=0, atol=1e-5)


def test_orthogonal_matrices_have_singular_values_of_about_one():
    values = torch.linalg.svdvals(orthogonal(torch.stack(gradients(8, 32, 20)).bfloat16()).float())
    assert values.shape == (4, 8, 20)
    assert 0.5 < values.min() < values.max() < 1.3


@pytest.mark.parametrize("factor", [0.0, 1.0, 5.0])
def test_input_embeddings_of_a_fine_tuning_learn_at_a_rate_of_their_own(factor, tmp_path):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(BertConfig(**SHAPE, hidden_dropout_prob=0.0))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    args = FineTuningArguments(
        str(tmp_path), embedding_rate_factor=factor, learning_rate=1e-3, lr_scheduler_type="constant", warmup_steps=0,
        max_steps=1, report_to=[], eval_strategy="no", save_strategy="no", train_sampling_strategy="random",
        use_cpu=True, weight_decay=0.0,
    )  # fmt: skip
    rows = [{"input_ids": [1, 7, 8, 9, 2], "labels": 0}, {"input_ids": [1, 9, 10, 11, 2], "labels": 1}]
    trainer = FineTuningTrainer(model=model, args=args, train_dataset=rows)
    trainer.train()
    moved = {name: (p.detach() - before[name]).abs().max().item() for name, p in model.named_parameters()}
    # The first step of Adam is as long as the rate, for every weight with a gradient.
    words = moved.pop("bert.embeddings.word_embeddings.weight")
    assert words == pytest.approx(factor * 1e-3, rel=0.01)
    assert moved["bert.encoder.layer.0.output.dense.weight"] == pytest.approx(1e-3, rel=0.01)
    assert moved["classifier.weight"] == pytest.approx(1e-3, rel=0.01)
    held = [id(p) for group in trainer.optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    assert identity_of(args)["embedding_rate_factor"] == factor  # of a run: it is not resumed with another one


def test_a_negative_rate_of_embeddings_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--embedding_rate_factor -1: must be 0"):
        FineTuningArguments(str(tmp_path), embedding_rate_factor=-1)
