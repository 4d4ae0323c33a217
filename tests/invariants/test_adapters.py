"""Base + adapter is one model: saved, switched with others or merged, it gives the same answers."""

import json
import re

import pytest
import torch
from peft import AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification, PeftConfig, PeftModel
from peft.utils.save_and_load import get_base_model_state_dict
from safetensors.torch import load_file
from tiny_adapters import (
    CHANGE_THE_BASE,
    KINDS,
    METHODS,
    NAMES,
    PROMPT,
    TOLERANCE,
    as_trained,
    distance,
    logits,
    make_adapter,
    make_base,
)
from tiny_models import bert_config, bert_tokenizer, gpt, gpt_tokenizer, save
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    set_seed,
)

from lm_recipes.launch import UserError
from lm_recipes.models.loading import without_loading_report
from lm_recipes.training.adapters import AdapterArguments, add_tokens, complete_adapter, with_adapter
from lm_recipes.training.saved_adapters import load_adapter, load_adapters, merge_adapter


@pytest.mark.parametrize(
    ("kind", "method"),
    [("nanochat", "lora"), ("bert", "lora"), *(("llama", name) for name in METHODS)]
    + [("modernbert", name) for name in ("lora", "pissa, dora", "ia3", "oft", "vera")],
)
def test_saved_and_merged_equal_what_was_trained(kind, method, tmp_path):
    adapter, model, auto_class = make_adapter(kind, tmp_path, **METHODS[method])
    again = logits(load_adapter(auto_class, adapter))
    assert distance(again, logits(model)) <= (TOLERANCE[method] if method in CHANGE_THE_BASE else 0)
    difference = merge_adapter(adapter, tmp_path / "merged")
    merged = auto_class.from_pretrained(tmp_path / "merged").eval()
    assert not isinstance(merged, PeftModel)
    expected, without = logits(model), logits(auto_class.from_pretrained(tmp_path / "base").eval())
    assert distance(logits(merged), expected) <= TOLERANCE[method]
    assert difference <= TOLERANCE[method] * max(1.0, float(expected.abs().max()))
    assert (expected - without).abs().max() > 1e-2  # the adapter does something
    if auto_class is AutoModelForSequenceClassification:
        assert merged.config.id2label == dict(enumerate(NAMES))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_16_bit_merge_is_the_exact_one_rounded_once(dtype, tmp_path):
    adapter, *_ = make_adapter("llama", tmp_path)
    merge_adapter(adapter, tmp_path / "exact")
    merge_adapter(adapter, tmp_path / "rounded", dtype)
    exact, rounded = (load_file(tmp_path / name / "model.safetensors") for name in ("exact", "rounded"))
    assert all(torch.equal(exact[name].to(getattr(torch, dtype)), rounded[name]) for name in exact)
    metrics = json.loads((tmp_path / "rounded" / "results.json").read_text())["metrics"]
    assert metrics["max_logit_difference"] < metrics["max_logit_difference_rounded"] < 0.1 * metrics["max_logit"]


def test_a_saved_prompt_gives_the_same_answers_on_a_fresh_base(tmp_path):
    adapter, model, auto_class = make_adapter("llama", tmp_path, **PROMPT)
    assert torch.equal(logits(load_adapter(auto_class, adapter)), logits(model))


@pytest.mark.parametrize("method", ["lora", "rslora", "pissa", "ia3", "oft"])
def test_transformers_alone_loads_it(method, tmp_path):
    adapter, model, auto_class = make_adapter("llama", tmp_path, **METHODS[method])
    assert distance(logits(auto_class.from_pretrained(adapter).eval()), logits(model)) <= TOLERANCE[method]


@pytest.mark.parametrize("method", CHANGE_THE_BASE)
def test_what_was_taken_out_of_the_base_is_given_back_when_saved(method, tmp_path):
    _, model, auto_class = make_adapter("modernbert", tmp_path, **METHODS[method])
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["init_lora_weights"], config["r"]) == (True, 8)
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert any("classifier" in name for name in saved)  # what is not LoRA is still there
    set_seed(0)
    plain = auto_class.from_pretrained(tmp_path / "base")
    rows = get_base_model_state_dict(model)
    assert any(not torch.equal(weight, rows[name]) for name, weight in plain.state_dict().items() if name in rows)


@pytest.mark.parametrize(
    ("kind", "method"),
    [("modernbert", "lora"), *(("llama", name) for name in ("dora", "pissa", "vera"))],
)
def test_adapters_that_share_a_base_answer_as_each_does_alone(kind, method, tmp_path):
    paths = {}
    for seed, name in enumerate(["doctor", "poet", "clerk"]):
        paths[name], _, auto_class = make_adapter(kind, tmp_path, name, seed, **METHODS[method])
    alone = {name: logits(load_adapter(auto_class, path)) for name, path in paths.items()}
    together = load_adapters(auto_class, paths)
    assert torch.equal(logits(together), alone["doctor"])  # the first is active
    for name in ["poet", "doctor", "clerk", "poet"]:
        together.set_adapter(name)
        assert torch.equal(logits(together), alone[name])
    assert not torch.equal(alone["doctor"], alone["poet"])
    if kind == "llama":
        with together.disable_adapter():
            assert torch.equal(logits(together), logits(auto_class.from_pretrained(tmp_path / "base").eval()))


def test_adapters_that_cannot_share_a_base_are_refused(tmp_path):
    first, _, auto_class = make_adapter("llama", tmp_path / "a")
    second, *_ = make_adapter("llama", tmp_path / "b")
    with pytest.raises(UserError, match="only adapters of one base can be switched"):
        load_adapters(auto_class, {"doctor": first, "poet": second})
    third, *_ = make_adapter("llama", tmp_path / "a", "third", **METHODS["ia3"])
    with pytest.raises(UserError, match=r"does not fit its base: .*different peft types"):
        load_adapters(auto_class, {"doctor": first, "poet": third})


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", ["nanochat", "llama"])
def test_embeddings_of_new_tokens_are_trained_saved_and_merged(kind, tied, tmp_path):
    set_seed(0)
    config = gpt(kind, vocab_size=len(gpt_tokenizer())).config
    config.tie_word_embeddings = tied
    base = save(tmp_path / "base", AutoModelForCausalLM.from_config(config), gpt_tokenizer())
    tokenizer = AutoTokenizer.from_pretrained(base)
    arguments = AdapterArguments(use_peft=True, lora_r=4, train_tokens=["<|im_end|>", "<|tool|>", "metformin"])
    add_tokens(tokenizer, arguments)
    ids = tokenizer("the metformin<|tool|> dog<|im_end|> asks", return_tensors="pt")["input_ids"]
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == "the metformin dog asks"
    model = with_adapter(AutoModelForCausalLM.from_pretrained(base), arguments, "CAUSAL_LM", tokenizer)
    matrices = (model.get_input_embeddings, model.get_output_embeddings)  # one and the same where tied
    before = [matrix().weight.detach().clone() for matrix in matrices]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(3):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    trained = tokenizer.convert_tokens_to_ids(arguments.train_tokens)
    for matrix, start in zip(matrices, before, strict=True):
        assert (matrix().weight - start).abs().sum(1).nonzero().flatten().tolist() == sorted(trained)
    model.eval().save_pretrained(tmp_path / "adapter")
    complete_adapter(model, tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert max(weight.shape[0] for weight in saved.values()) < 320  # the trained rows, not all embeddings
    again = load_adapter(AutoModelForCausalLM, str(tmp_path / "adapter"))
    by_peft = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter").eval()
    merge_adapter(str(tmp_path / "adapter"), tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        assert distance(again(input_ids=ids).logits, expected) <= 1e-6
        assert distance(by_peft(input_ids=ids).logits, expected) <= 1e-6
        assert distance(merged(input_ids=ids).logits, expected) <= 1e-5
    assert merged.config.vocab_size == len(tokenizer) == len(AutoTokenizer.from_pretrained(tmp_path / "merged"))
    assert merged.config.tie_word_embeddings is tied


def test_an_adapter_knows_its_classes_without_any_other_file(tmp_path):
    adapter, _, auto_class = make_adapter("modernbert", tmp_path)
    for file in (tmp_path / "adapter").iterdir():
        if not file.name.startswith("adapter_"):
            file.unlink()
    AutoModel.from_config(bert_config("modernbert", 200)).save_pretrained(tmp_path / "base")  # no head, no classes
    again = load_adapter(auto_class, adapter)
    assert again.config.id2label == dict(enumerate(NAMES))
    assert again.config.label2id == {name: number for number, name in enumerate(NAMES)}
    about = PeftConfig.from_pretrained(adapter).auto_mapping["config"]  # as the model card does it
    about["id2label"] = {int(number): name for number, name in about["id2label"].items()}
    by_peft = AutoPeftModelForSequenceClassification.from_pretrained(adapter, **about).eval()
    assert by_peft.config.id2label == dict(enumerate(NAMES))
    assert torch.equal(logits(by_peft), logits(again))


@pytest.mark.parametrize("start", ["true", "pissa"])
@pytest.mark.parametrize("auto_class", [AutoModelForMultipleChoice, AutoModelForQuestionAnswering])
def test_adapters_that_peft_has_no_task_for_are_saved_and_merged_too(auto_class, start, tmp_path):
    set_seed(0)
    tokenizer = bert_tokenizer()
    base = save(tmp_path / "base", AutoModel.from_config(bert_config("bert", len(tokenizer))), tokenizer)
    arguments = AdapterArguments(use_peft=True, lora_r=4, peft_settings=[f"init_lora_weights={start}"])
    arguments.train_tokens = ["[QUESTION]"]
    add_tokens(tokenizer, arguments)
    with without_loading_report():
        model = with_adapter(auto_class.from_pretrained(base), arguments, None, tokenizer)
    as_trained(model)
    model.eval().save_pretrained(tmp_path / "adapter")
    complete_adapter(model, tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    again = load_adapter(auto_class, str(tmp_path / "adapter"))
    merge_adapter(str(tmp_path / "adapter"), tmp_path / "merged")
    merged = auto_class.from_pretrained(tmp_path / "merged").eval()
    ids = tokenizer("the dog [QUESTION] asks", return_tensors="pt")["input_ids"]
    ids = ids[None] if auto_class is AutoModelForMultipleChoice else ids
    with torch.no_grad():
        expected, found, plain = (one(input_ids=ids).to_tuple()[0] for one in (model, again, merged))
    assert distance(found, expected) <= 1e-5
    assert distance(plain, expected) <= 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_adapter_and_a_new_head_are_trained(kind, tmp_path):
    _, model, auto_class = make_adapter(kind, tmp_path)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    heads = {name for name in trained if "modules_to_save" in name}
    assert all("lora_" in name for name in trained - heads)
    assert not any("lm_head" in name for name in trained)
    assert bool(heads) == (auto_class is AutoModelForSequenceClassification)
    head = re.compile(r"\b(classifier|head|pooler)\b")  # all that stands between encoder layers and class logits
    assert all(head.search(name) for name in heads)
    assert not any("lora_" in name and head.search(name) for name in trained)


def test_a_directory_without_an_adapter_is_refused(tmp_path):
    base, _, _ = make_base("nanochat", tmp_path / "base")
    with pytest.raises(UserError, match="no adapter here"):
        merge_adapter(base, tmp_path / "merged")


def test_a_prompt_is_not_merged(tmp_path):
    adapter, _, _ = make_adapter("llama", tmp_path, **PROMPT)
    with pytest.raises(UserError, match="prompt_tuning adds tokens, not weights: it cannot be merged"):
        merge_adapter(adapter, tmp_path / "merged")


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["modernbert", "bert"])
def test_padding_does_not_change_a_classifiers_answer(kind, side, tmp_path):
    if kind == "bert" and side == "left":
        pytest.skip("BERT counts absolute positions from the first token, padding or not: it is padded on the right")
    base, auto_class, _ = make_base(kind, tmp_path)
    model, tokenizer = auto_class.from_pretrained(base).eval(), AutoTokenizer.from_pretrained(base, padding_side=side)
    texts = ["the dog", "paris is the capital of france; rome is the capital of italy.", "knee"]
    with torch.no_grad():
        together = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
        alone = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert alone.std(0).min() > 1e-3


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["nanochat", "llama"])
def test_padding_does_not_change_a_decoders_logits(kind, side, tmp_path):
    base, auto_class, _ = make_base(kind, tmp_path)
    model, tokenizer = auto_class.from_pretrained(base).eval(), AutoTokenizer.from_pretrained(base, padding_side=side)
    texts = ["the dog", "paris is the capital of france", "knee"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        together = model(**batch).logits
        for row, text in enumerate(texts):
            alone = model(**tokenizer(text, return_tensors="pt")).logits[0]
            kept = together[row][batch["attention_mask"][row].bool()]
            torch.testing.assert_close(kept, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_a_head_that_the_base_does_not_have_is_saved_with_the_adapter(kind, tmp_path):
    headless = {"add_pooling_layer": False} if kind == "bert" else {}
    AutoModel.from_config(bert_config(kind, 100), **headless).save_pretrained(tmp_path / "base")
    with without_loading_report():
        base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=2)
    model = with_adapter(base, AdapterArguments(use_peft=True, lora_r=4), "SEQ_CLS").eval()
    model.save_pretrained(tmp_path / "adapter")
    again = load_adapter(AutoModelForSequenceClassification, str(tmp_path / "adapter"))
    assert distance(logits(again), logits(model)) <= 1e-5
