"""What is taken out is what matters least, and what is left is a plain model of its class, smaller by what was said."""

import pytest
import torch
from tiny_models import bert_config, bert_tokenizer, enlarge, gpt, gpt_tokenizer, save
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Trainer,
    TrainingArguments,
    set_seed,
)

from lm_recipes.compression.agreement import agreement, probe, torch_answers
from lm_recipes.compression.pruning import drop_layers, drop_neurons, layers_of, zero_weights
from lm_recipes.launch import UserError
from lm_recipes.training.sparsity import KeepZeros, pruned_weights

KINDS = ["llama", "nanochat", "bert", "modernbert"]


def model_of(kind: str):
    if kind in ("llama", "nanochat"):
        return gpt(kind), gpt_tokenizer()
    set_seed(0)
    tokenizer = bert_tokenizer()
    return AutoModelForSequenceClassification.from_config(bert_config(kind, len(tokenizer))).eval(), tokenizer


def batches_of(model, tokenizer):
    return [probe(model, tokenizer, 4, 16, seed) for seed in range(3)]


@pytest.mark.parametrize("kind", KINDS)
def test_neurons_that_never_fire_go_and_nothing_changes(kind):
    model, tokenizer = model_of(kind)
    names = {"llama": "mlp.down_proj", "nanochat": "mlp.fc2", "bert": "output.dense", "modernbert": "mlp.Wo"}
    dead = torch.arange(0, 64, 2)
    with torch.no_grad():
        for layer in layers_of(model):
            layer.get_submodule(names[kind]).weight[:, dead] = 0.0
    batches = batches_of(model, tokenizer)
    before = [torch_answers(model)(batch)["logits"] for batch in batches]
    found = drop_neurons(model, 0.5, batches)
    assert found["importance_kept"] == pytest.approx(1.0)
    assert model.config.intermediate_size == 32
    for batch, wanted in zip(batches, before, strict=True):
        mask = batch["attention_mask"].bool()
        got = torch_answers(model)(batch)["logits"]
        got, wanted = (one[mask] if one.ndim == 3 else one for one in (got, wanted))
        assert torch.allclose(got, wanted, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [drop_layers, drop_neurons])
def test_a_pruned_model_is_saved_and_loaded_as_any_other(method, kind, tmp_path):
    model, tokenizer = model_of(kind)
    parameters = model.num_parameters()
    method(model, 0.5, batches_of(model, tokenizer))
    assert model.num_parameters() < parameters
    auto_class = AutoModelForCausalLM if model.can_generate() else AutoModelForSequenceClassification
    again = auto_class.from_pretrained(save(tmp_path / "m", model, tokenizer)).eval()
    found = agreement(torch_answers(model), torch_answers(again), batches_of(model, tokenizer))
    assert found["max_difference"] <= 1e-5 * found["max_answer"]
    assert again.num_parameters() == model.num_parameters()


def test_the_layer_that_changes_nothing_goes_first():
    model = gpt("llama")
    config = model.config
    config.num_hidden_layers = 4
    torch.manual_seed(0)
    model = type(model)(config).eval()
    with torch.no_grad():
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            model.model.layers[2].get_submodule(name).weight.zero_()
    batches = batches_of(model, gpt_tokenizer())
    before = [torch_answers(model)(batch)["logits"][batch["attention_mask"].bool()] for batch in batches]
    found = drop_layers(model, 0.25, batches)
    assert found["dropped"] == [2]
    assert found["importance"][2] == pytest.approx(0.0, abs=1e-6)
    for batch, wanted in zip(batches, before, strict=True):
        got = torch_answers(model)(batch)["logits"][batch["attention_mask"].bool()]
        assert torch.allclose(got, wanted, atol=1e-4 * float(wanted.abs().max()))
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == [0, 1, 2]


def test_modernbert_keeps_the_kinds_of_the_layers_that_stay():
    set_seed(0)
    config = bert_config("modernbert", len(bert_tokenizer()))
    config.num_hidden_layers, config.layer_types = 3, ["full_attention", "sliding_attention", "full_attention"]
    model = AutoModelForSequenceClassification.from_config(config).eval()
    found = drop_layers(model, 0.4, batches_of(model, bert_tokenizer()))
    (gone,) = found["dropped"]
    assert gone in (1, 2)
    assert model.config.layer_types == ["full_attention", "full_attention" if gone == 1 else "sliding_attention"]


def test_the_smallest_weights_of_each_matrix_become_zero():
    model = gpt("llama")
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    zero_weights(model, 0.5)
    for name, weight in model.named_parameters():
        if "layers" in name and weight.ndim == 2:
            zeros = weight == 0
            assert float(zeros.float().mean()) == pytest.approx(0.5, abs=0.01)
            assert before[name][zeros].abs().max() <= before[name][~zeros].abs().min()
            assert torch.equal(weight[~zeros], before[name][~zeros])
        else:
            assert torch.equal(weight, before[name])


def test_training_keeps_pruned_weights_zero_and_moves_the_others(tmp_path):
    model = gpt("llama")
    assert pruned_weights(model) == []
    zero_weights(model, 0.5)
    zeros = {name: weight == 0 for name, weight in model.named_parameters() if "layers" in name and weight.ndim == 2}
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    ids = torch.randint(5, 300, (16, 12))
    rows = [{"input_ids": row, "labels": row} for row in ids]
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=3, use_cpu=True, report_to="none", learning_rate=1e-2,
        save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[KeepZeros()]).train()
    for name, weight in model.named_parameters():
        if name in zeros:
            assert not weight[zeros[name]].any()
            assert not torch.equal(weight, before[name])


def test_what_cannot_be_pruned_is_refused():
    from transformers import AlbertConfig, AlbertModel, GPT2Config, GPT2LMHeadModel

    shared = AlbertModel(AlbertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
                                      embedding_size=8, intermediate_size=32))  # fmt: skip
    with pytest.raises(UserError, match="albert: its layers do not lie in one list"):
        drop_layers(shared, 0.5, [])
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2))
    with pytest.raises(UserError, match="--method neurons: not known for a gpt2"):
        drop_neurons(enlarge(gpt2), 0.5, [])
