"""Every objective trains every family it makes sense for, and plain transformers loads what comes of it."""

import math
import runpy
from itertools import product
from pathlib import Path

import pytest
import torch
from objectives import OBJECTIVES, RECIPES, command, launch, write_data
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
)

from lm_recipes.models import (
    DECODERS,
    ENCODERS,
    decoder_config,
    encoder_config,
    encoder_decoder_config,
    isolation_of,
    new_model,
)
from lm_recipes.models.replaced_tokens import GeneratorAndDiscriminator
from lm_recipes.objectives import (
    MaskedLanguageModeling,
    PermutationLanguageModeling,
    ReplacedTokenDetection,
    SpanCorruption,
    read_packed,
)
from lm_recipes.training.arguments import PretrainingArguments
from lm_recipes.training.replaced_tokens import ReplacedTokenTrainer
from lm_recipes.training.trainer import LanguageModelTrainer

CAUSAL = ("clm", "prefix", "fim", "hybrid")
MASKS = {
    "token": {},
    "whole_word": {"masking": "whole_word"},
    "span": {"masking": "span"},
    "ngram": {"masking": "ngram"},
    "falling": {"exact": True, "mlm_probability_end": 0.15},
}
REFUSED = {("olmoe", objective): "olmoe: its balancing loss takes any mask" for objective in ("prefix", "hybrid")}
REFUSED |= {("xlnet", masks): "--family xlnet: permutation LM has no masks" for masks in MASKS if masks != "token"}
CASES = [
    *product([family for family in ENCODERS if family != "xlnet"], MASKS),
    ("xlnet", "permutation"),
    *(case for case in product(DECODERS, CAUSAL) if case not in REFUSED),
    ("electra", "replaced"),
    ("t5", "spans"),
]
SEGMENTS = {"seg_embed", "r_s_bias"}  # of XLNet: packed pieces have none


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def causal(objective: str, tokenizer, config):
    """The collator of recipes/gpt/pretrain.py."""
    script = runpy.run_path(str(RECIPES / "gpt" / "pretrain.py"))
    args = script["PretrainRecipe"](data="", tokenizer_name_or_path="", objective=objective)
    return script["objective"](args, tokenizer, config, seed=0)


def model_and_collator(family: str, objective: str, tokenizer, length: int):
    torch.manual_seed(0)
    if objective == "spans":
        config = encoder_decoder_config("tiny", tokenizer, length)
        return new_model(config), SpanCorruption(tokenizer, length, isolation=isolation_of(config, "sdpa"))
    if objective in CAUSAL:
        config = decoder_config("tiny", tokenizer, length, family)
        return new_model(config), causal(objective, tokenizer, config)
    config = encoder_config("tiny", tokenizer, length, family)
    if objective == "permutation":
        return new_model(config), PermutationLanguageModeling(tokenizer)
    if objective == "replaced":
        collator = ReplacedTokenDetection(tokenizer, isolation=isolation_of(config, "sdpa"))
        return GeneratorAndDiscriminator(config, tokenizer.all_special_ids), collator
    model = new_model(config)
    isolation = isolation_of(config, model.config._attn_implementation)
    return model, MaskedLanguageModeling(tokenizer, 0.3, isolation=isolation, **MASKS[objective])


def two_steps(model, collator, rows, tokenizer, output: Path) -> LanguageModelTrainer:
    args = PretrainingArguments(
        output_dir=output, use_cpu=True, bf16=False, save_strategy="no", disable_tqdm=True, report_to="none",
        max_steps=2, warmup_steps=0, logging_steps=1, per_device_train_batch_size=4, muon_learning_rate=0.02,
    )  # fmt: skip
    kind = ReplacedTokenTrainer if isinstance(model, GeneratorAndDiscriminator) else LanguageModelTrainer
    trainer = kind(
        model=model, args=args, train_dataset=rows, data_collator=collator, eval_collator=collator,
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    return trainer


def saved(model, objective: str) -> dict[str, tuple]:
    """By directory each network that a run leaves behind, and the class that is to load it."""
    if objective == "replaced":
        return {
            "": (model.discriminator, AutoModelForPreTraining),
            "generator": (model.generator, AutoModelForMaskedLM),
        }
    auto = {"spans": AutoModelForSeq2SeqLM} | dict.fromkeys(MASKS, AutoModelForMaskedLM)
    return {"": (model, auto.get(objective, AutoModelForCausalLM))}


@pytest.mark.parametrize(("family", "objective"), CASES)
def test_an_objective_moves_all_weights_and_plain_transformers_loads_them(family, objective, data, tmp_path):
    track = "bert" if family in ENCODERS else "gpt"
    tokenizer = AutoTokenizer.from_pretrained(data / f"tokenizer-{track}")
    corpus = read_packed(data / f"packed-{track}")
    model, collator = model_and_collator(family, objective, tokenizer, corpus.block_size)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    trainer = two_steps(model, collator, corpus.train, tokenizer, tmp_path)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2
    assert all(map(math.isfinite, losses))
    idle = {name.split(".")[-1] for name, weight in model.named_parameters() if torch.equal(weight, before[name])}
    assert idle == (SEGMENTS if family == "xlnet" else set())

    trainer.save_model()
    ids = torch.from_numpy(corpus.test[0]["input_ids"].astype("int64"))[None]
    plain = {"input_ids": ids} | ({"decoder_input_ids": ids} if family == "t5" else {})
    for directory, (network, auto) in saved(model.eval(), objective).items():
        loaded = auto.from_pretrained(tmp_path / directory, dtype=torch.float32)
        with torch.no_grad():
            assert torch.equal(loaded(**plain).logits, network(**plain).logits)


@pytest.mark.parametrize(("family", "objective"), REFUSED)
def test_what_a_family_cannot_be_asked_is_refused_in_one_line(family, objective, data, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        launch(command(objective, data, tmp_path / "out", "--family", family))
    assert end.value.code == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(f"error: {REFUSED[family, objective]}")
    assert not (tmp_path / "out").exists()


def test_no_objective_is_left_out():
    assert {objective for _, objective in CASES} == set(OBJECTIVES)
