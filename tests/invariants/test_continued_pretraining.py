"""Continued pretraining: exactly the share that was asked for is replayed, and forgetting is measured exactly."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from objectives import RECIPES, launch
from safetensors.torch import load_file
from tiny_models import CHAT_TEMPLATE, enlarge, gpt, gpt_tokenizer, save

from lm_recipes.alignment import prepare_tokenizer
from lm_recipes.evaluation.forgetting import change, text_bits_per_byte
from lm_recipes.launch import UserError
from lm_recipes.objectives import CausalLanguageModeling, Packer
from lm_recipes.objectives.packed import PackedSplit
from lm_recipes.objectives.replay import check_kept_apart, document_packer, document_tokens, with_replay


def blocks(number: int, first: int) -> PackedSplit:
    """Each block says in all its places which one it is; in parts of three."""
    ids = np.repeat(np.arange(first, first + number, dtype=np.uint16)[:, None], 8, axis=1)
    positions = np.broadcast_to(np.arange(8, dtype=np.uint16), ids.shape)
    return PackedSplit(
        [{"input_ids": ids[at : at + 3], "position_ids": positions[at : at + 3]} for at in range(0, number, 3)]
    )


def names(split: PackedSplit) -> list[int]:
    return [int(row["input_ids"][0]) for row in split]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 0.5, 0.75])
def test_general_blocks_are_the_share_that_was_asked_for(share):
    domain, general = blocks(95, 0), blocks(300, 1_000)
    mixed = names(with_replay(domain, general, share, seed=0))
    replayed = [name for name in mixed if name >= 1_000]
    assert [name for name in mixed if name < 1_000] == list(range(95))  # all of the domain, once
    assert len(set(replayed)) == len(replayed)
    assert abs(len(replayed) - share * len(mixed)) <= 0.5 * (1 - share) + 1e-9  # as near as whole blocks come


def test_which_blocks_are_replayed_depends_on_the_seed_alone():
    domain, general = blocks(40, 0), blocks(300, 1_000)
    drawn = {seed: names(with_replay(domain, general, 0.2, seed)) for seed in (0, 1)}
    assert names(with_replay(blocks(40, 0), blocks(300, 1_000), 0.2, seed=0)) == drawn[0]
    assert drawn[0] != drawn[1]


def test_a_share_that_cannot_be_is_refused():
    with pytest.raises(UserError, match=r"--replay_share 0.9: 90 general blocks beside 10 of the domain, .* are 20;"):
        with_replay(blocks(10, 0), blocks(20, 1_000), 0.9, seed=0)
    with pytest.raises(UserError, match="--replay_share 1: must be at least 0 and below 1"):
        with_replay(blocks(10, 0), blocks(20, 1_000), 1, seed=0)


def test_documents_of_a_base_model_stand_between_its_own_tokens():
    tokenizer = gpt_tokenizer()
    assert document_packer(tokenizer, 64) == Packer.for_tokenizer(tokenizer, 64)


def test_the_tokens_of_a_turn_stay_out_of_documents():
    tokenizer = gpt_tokenizer()
    prepare_tokenizer(tokenizer)  # eos is the end of a turn now
    assert document_tokens(tokenizer) == (tokenizer.bos_token_id, None)
    tokenizer.chat_template, tokenizer.bos_token = CHAT_TEMPLATE, "<|im_start|>"  # as SmolLM2 has it
    tokenizer.add_tokens(["<|endoftext|>"], special_tokens=True)
    assert document_tokens(tokenizer) == (tokenizer.get_vocab()["<|endoftext|>"], None)
    tokenizer.bos_token = tokenizer.eos_token = tokenizer.chat_template = None
    assert document_tokens(tokenizer) == (tokenizer.get_vocab()["<|endoftext|>"], None)


@pytest.mark.parametrize("kind", ["nanochat", "llama"])
def test_bits_per_byte_are_those_of_each_text_alone(kind, documents):
    tokenizer, model = gpt_tokenizer(), gpt(kind, context=256)
    texts = [text[:90] for text in documents[:7]] + ["é" * 5, "x"]
    nats = 0.0
    for text in texts:
        ids = torch.tensor([[1, *tokenizer(text)["input_ids"], 2]])
        with torch.no_grad():
            after = model(input_ids=ids, use_cache=False).logits[0, :-1].double().log_softmax(-1)
        nats -= float(after.gather(1, ids[0, 1:, None]).sum())
    expected = nats / math.log(2) / sum(len(text.encode()) for text in texts)
    for block_size in (100, 128, 256):
        assert text_bits_per_byte(model, tokenizer, texts, block_size) == pytest.approx(expected, rel=1e-5)
    assert change(2.0, 2.1) == {"bits_per_byte_before": 2.0, "bits_per_byte": 2.1, "change": pytest.approx(0.05)}


@pytest.mark.parametrize("kind", ["nanochat", "llama"])
def test_a_model_in_which_texts_of_a_row_see_each_other_is_refused(kind, monkeypatch):
    model, collator = enlarge(gpt(kind)), CausalLanguageModeling(pad_token_id=0)
    check_kept_apart(model, collator)
    inner = model.model.forward

    def deaf(*args, position_ids=None, **kwargs):
        return inner(*args, **kwargs)

    monkeypatch.setattr(model.model, "forward", deaf)
    with pytest.raises(UserError, match="texts that share a row would see each other"):
        check_kept_apart(model, collator)


# --- the script ---


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, documents) -> Path:
    directory = tmp_path_factory.mktemp("inputs")
    save(directory / "decoder", gpt("llama", context=64), gpt_tokenizer())
    for name, some in (("domain", documents[:60]), ("general", documents[60:200])):
        rows = ({"text": text[:150].encode("ascii", "ignore").decode()} for text in some)
        (directory / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return directory


def adapt(inputs: Path, output: Path, *flags: object) -> dict:
    fixed = f"--model_name_or_path {inputs}/decoder --domain {inputs}/domain.jsonl --general {inputs}/general.jsonl "
    fixed += f"--output_dir {output} --block_size 64 --use_cpu True --bf16 False --logging_steps 1 --report_to none "
    fixed += "--disable_tqdm True --learning_rate 1e-2 --per_device_train_batch_size 8 --warmup_steps 0"
    launch([str(RECIPES / "gpt" / "adapt.py"), *fixed.split(), *map(str, flags)])
    return json.loads((output / "results.json").read_text())["metrics"]


def test_the_domain_is_learned_and_what_became_of_the_rest_is_reported(inputs, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    metrics = adapt(inputs, tmp_path, "--max_steps", 25, "--save_strategy", "no", "--replay_share", 0.25)
    for name in ("domain", "general"):
        found = metrics[name]
        assert found["change"] == pytest.approx(found["bits_per_byte"] / found["bits_per_byte_before"] - 1)
    assert metrics["domain"]["bits_per_byte"] < 0.9 * metrics["domain"]["bits_per_byte_before"]
    wanted = round(metrics["domain_blocks"] / 3)
    assert metrics["general_blocks"] == wanted
    assert metrics["replay_share"] == pytest.approx(wanted / (wanted + metrics["domain_blocks"]))
    # The saved model is the one that was measured.
    from lm_recipes.sources.split_texts import split_texts

    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    test = split_texts(str(inputs / "domain.jsonl"), "test")
    assert text_bits_per_byte(model.eval(), tokenizer, test, 64) == pytest.approx(
        metrics["domain"]["bits_per_byte"], rel=1e-4
    )


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(inputs, tmp_path):
    flags = ("--max_steps", 12, "--save_strategy", "steps", "--save_steps", 8, "--eval_strategy", "no")
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    before = adapt(inputs, whole, *flags)
    resumed.mkdir()
    shutil.copytree(whole / "checkpoint-8", resumed / "checkpoint-8")
    shutil.copy(whole / "run.json", resumed)
    after = adapt(inputs, resumed, *flags)
    assert after["domain"] == before["domain"]  # measured on the model as it was given, too
    weights = [load_file(directory / "model.safetensors") for directory in (whole, resumed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_run_on_other_texts_is_another_run(inputs, tmp_path):
    flags = ("--max_steps", 2, "--save_strategy", "steps", "--save_steps", 1, "--eval_strategy", "no")
    adapt(inputs, tmp_path / "out", *flags)
    with pytest.raises(SystemExit):
        adapt(inputs, tmp_path / "out", *flags, "--domain", f"{inputs}/general.jsonl", "--replay_share", 0)
