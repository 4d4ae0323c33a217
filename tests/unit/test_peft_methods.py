"""Which adapter do the flags describe, and which mistakes end in one line?"""

from importlib.util import find_spec
from pathlib import Path

import pytest
from objectives import launch
from peft import PeftType
from tiny_adapters import make_base
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import ModelConfig

from lm_recipes.launch import UserError
from lm_recipes.models.quantization import quantization
from lm_recipes.training.adapters import AdapterArguments, adapter_config, with_adapter

RECIPES = Path(__file__).parents[2] / "recipes"


def config_of(task_type: str = "CAUSAL_LM", **flags):
    return adapter_config(AdapterArguments(use_peft=True, **flags), task_type)


def test_without_use_peft_there_is_no_adapter():
    assert adapter_config(AdapterArguments(), "CAUSAL_LM") is None
    assert quantization(AdapterArguments()) is None


def test_trls_own_flags_describe_the_same_lora_as_they_do_in_trl():
    from trl import get_peft_config

    flags = {"use_peft": True, "lora_r": 3, "lora_alpha": 7, "lora_dropout": 0.2, "use_dora": True}
    flags |= {"lora_target_modules": ["q_proj", "v_proj"], "lora_modules_to_save": ["lm_head"]}
    for arguments in (AdapterArguments(**flags), ModelConfig(**flags)):
        assert adapter_config(arguments, "CAUSAL_LM").to_dict() == get_peft_config(ModelConfig(**flags)).to_dict()


def test_every_linear_layer_is_adapted_unless_the_flags_name_some():
    assert config_of().target_modules == "all-linear"
    assert config_of(peft_method="oft").target_modules == "all-linear"
    assert config_of(lora_target_modules=["q_proj", "v_proj"]).target_modules == {"q_proj", "v_proj"}
    assert config_of(peft_method="ln_tuning").target_modules is None  # its layers are no linear ones


def test_settings_reach_the_methods_config_with_their_types():
    settings = ["init_lora_weights=pissa_niter_4", "rank_pattern={q_proj: 2}", "lora_bias=false"]
    config = config_of(peft_settings=settings)
    assert (config.init_lora_weights, config.rank_pattern, config.lora_bias) == ("pissa_niter_4", {"q_proj": 2}, False)
    config = config_of(peft_method="oft", peft_settings=["eps=1e-4", "oft_block_size=16"])
    assert (config.peft_type, config.eps, config.oft_block_size) == (PeftType.OFT, 1e-4, 16)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"peft_method": "lorra"}, r"--peft_method lorra: peft has .*ia3, .*lora, .*vera"),
        ({"peft_method": "adalora"}, r"adalora is not trained here: it moves ranks"),
        ({"peft_method": "prompt_tuning"}, r"--peft_settings num_virtual_tokens=20"),
        ({"peft_method": "ia3", "use_dora": True}, r"--use_dora and --use_rslora are LoRA's"),
        ({"peft_settings": ["init_lora_weight=pissa"]}, r"lora has no such setting; did you mean init_lora_weights"),
        ({"peft_settings": ["pissa"]}, r"--peft_settings pissa: write name=value"),
        ({"peft_settings": ["init_lora_weights=corda"]}, r"it looks at the data before training"),
        ({"peft_settings": ["init_lora_weights=loftq"]}, r"use --load_in_4bit"),
        ({"peft_method": "oft", "peft_settings": ["r=8"]}, r"--peft_method oft: .*not both"),
    ],
)
def test_what_peft_has_not_or_cannot_train_is_refused_in_one_line(flags, complaint):
    with pytest.raises(UserError, match=complaint) as refusal:
        config_of(**flags)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"lora_target_modules": ["c_attn", "c_proj"]}, r"--peft_method lora: Target modules .* not found"),
        ({"train_tokens": ["<|im_end|>"], "peft_method": "ia3"}, r"only LoRA trains tokens beside itself, not ia3"),
        ({"peft_method": "ln_tuning"}, r"--peft_method ln_tuning: Please specify --lora_target_modules"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_in_one_line(flags, complaint, tmp_path):
    base, auto_class, task = make_base("nanochat", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(base)
    with pytest.raises(UserError, match=complaint) as refusal:
        with_adapter(auto_class.from_pretrained(base), AdapterArguments(use_peft=True, **flags), task, tokenizer)
    assert "\n" not in str(refusal.value)


def test_prompts_and_packed_rows_are_refused_together(tmp_path):
    base, auto_class, task = make_base("llama", tmp_path)
    flags = {"peft_method": "prompt_tuning", "peft_settings": ["num_virtual_tokens=4"]}
    with pytest.raises(UserError, match="texts would see each other"):
        with_adapter(auto_class.from_pretrained(base), AdapterArguments(use_peft=True, **flags), task, packed=True)


def test_tokens_of_the_base_can_be_trained_without_new_rows(tmp_path):
    base, auto_class, task = make_base("llama", tmp_path)
    model, tokenizer = auto_class.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    rows = model.get_input_embeddings().num_embeddings
    arguments = AdapterArguments(use_peft=True, train_tokens=["<|im_start|>", "<|im_end|>"])
    model = with_adapter(model, arguments, task, tokenizer)
    trained = {name: weight.shape for name, weight in model.named_parameters() if "trainable_tokens" in name}
    assert sorted(shape[0] for shape in trained.values()) == [2, 2]  # what reads and what writes them
    assert model.get_input_embeddings().weight.shape[0] == rows
    assert "embeddings" in model.peft_config["default"].auto_mapping


def test_a_classification_adapter_remembers_what_its_base_does_not_say(tmp_path):
    base, *_ = make_base("modernbert", tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(base, problem_type="multi_label_classification")
    model = with_adapter(model, AdapterArguments(use_peft=True), "SEQ_CLS")
    kept = model.peft_config["default"].auto_mapping["config"]
    assert kept["id2label"] == {0: "negative", 1: "neutral", 2: "positive"}
    assert kept["problem_type"] == "multi_label_classification"


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"load_in_4bit": True, "use_peft": False}, "rounded weights cannot be trained; add --use_peft"),
        ({"load_in_4bit": True, "dtype": "auto"}, "say in which type weights are multiplied"),
        ({"load_in_8bit": True}, "--load_in_8bit rounds the activations too, .* take --load_in_4bit"),
    ],
)
def test_quantisation_that_cannot_be_trained_or_merged_is_refused(flags, complaint):
    with pytest.raises(UserError, match=complaint):
        quantization(AdapterArguments(**{"use_peft": True} | flags))


def test_4_bits_are_normal_floats_that_are_multiplied_in_the_type_of_the_model():
    if find_spec("bitsandbytes") is None:
        with pytest.raises(UserError, match=r"--load_in_4bit needs bitsandbytes: pip install"):
            quantization(AdapterArguments(use_peft=True, load_in_4bit=True))
        return
    config = quantization(AdapterArguments(use_peft=True, load_in_4bit=True, dtype="bfloat16")).to_dict()
    assert (config["bnb_4bit_quant_type"], config["bnb_4bit_compute_dtype"]) == ("nf4", "bfloat16")


def test_a_start_that_changes_the_base_is_refused_on_a_rounded_one(tmp_path):
    pytest.importorskip("bitsandbytes")
    base, *_ = make_base("llama", tmp_path)
    arguments = AdapterArguments(use_peft=True, load_in_4bit=True, peft_settings=["init_lora_weights=olora"])
    model = AutoModelForCausalLM.from_pretrained(base, quantization_config=quantization(arguments))
    with pytest.raises(UserError, match="which the quantisation would round anew; drop one of them"):
        with_adapter(model, arguments, "CAUSAL_LM")


@pytest.mark.parametrize("script", ["bert/classify.py", "gpt/sft.py"])
def test_both_tracks_have_the_same_flags(script, capsys):
    with pytest.raises(SystemExit):
        launch([str(RECIPES / script), "--help"])
    help_text = capsys.readouterr().out
    for flag in ("use_peft", "peft_method", "peft_settings", "train_tokens", "lora_r", "use_dora", "load_in_4bit"):
        assert f"--{flag}" in help_text
