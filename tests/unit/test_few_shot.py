"""Classification by prompting: scores without the cache, batches, calibration, examples, and the script."""

import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from objectives import RECIPES, launch
from tiny_models import CHAT_TEMPLATE, gpt, gpt_tokenizer, save
from transformers import MistralConfig, MistralForCausalLM

from lm_recipes.alignment import prepare_tokenizer
from lm_recipes.evaluation.few_shot import (
    SCORINGS,
    Prompt,
    answering,
    cut_texts,
    examples_of,
    kinds_of_answers,
    log_probabilities,
    right_answers,
    score,
    words_for,
)
from lm_recipes.launch import UserError

ANSWERS = [[7, 11, 30], [8], [7, 11], [40, 41, 42, 43]]


def mistral():
    """Its layers see the last eight tokens only."""
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=128, sliding_window=8, initializer_range=0.4,
    )  # fmt: skip
    return MistralForCausalLM(config).eval()


MODELS = {"nanochat": lambda: gpt("nanochat"), "llama": lambda: gpt("llama"), "mistral": mistral}


def prompts(shared: int, seed: int = 0) -> list[list[int]]:
    """Some of one length, some of others, after a beginning that all have."""
    draw = random.Random(seed)
    begin = [draw.randrange(3, 300) for _ in range(shared)]
    lengths = [1, 5, 5, 5, 9, 12, 12, 2]
    return [[*begin, 300 + row, *(draw.randrange(3, 300) for _ in range(length))] for row, length in enumerate(lengths)]


def one_by_one(model, rows: list[list[int]], answers: list[list[int]]) -> np.ndarray:
    """Without a cache, and without a batch."""
    found = np.zeros((len(rows), len(answers)))
    for (i, row), (j, answer) in itertools.product(enumerate(rows), enumerate(answers)):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row + answer]), use_cache=False).logits[0].double()
        after = logits[len(row) - 1 : -1].log_softmax(-1)
        found[i, j] = float(after[torch.arange(len(answer)), torch.tensor(answer)].sum())
    return found


@pytest.mark.parametrize("shared", [0, 20])
@pytest.mark.parametrize("kind", MODELS)
def test_scores_from_the_cache_are_those_of_reading_everything_each_time(kind, shared):
    model, rows = MODELS[kind](), prompts(shared)
    expected = one_by_one(model, rows, ANSWERS)
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(log_probabilities(model, rows, ANSWERS), expected, atol=1e-4)


@pytest.mark.parametrize("kind", MODELS)
def test_neither_batches_nor_company_nor_order_change_a_score(kind):
    model, rows = MODELS[kind](), prompts(20)
    expected = log_probabilities(model, rows, ANSWERS, batch_size=16)
    for size in (1, 2, 3):
        np.testing.assert_allclose(log_probabilities(model, rows, ANSWERS, batch_size=size), expected, atol=1e-5)
    np.testing.assert_allclose(log_probabilities(model, rows[2:4], ANSWERS), expected[2:4], atol=1e-4)
    np.testing.assert_allclose(log_probabilities(model, rows[::-1], ANSWERS), expected[::-1], atol=1e-5)


def test_a_prompt_that_begins_another_is_read_whole():
    model = gpt("llama")
    rows = [[5, 6, 7], [5, 6, 7, 8], [5, 6, 7]]
    np.testing.assert_allclose(log_probabilities(model, rows, ANSWERS), one_by_one(model, rows, ANSWERS), atol=1e-4)


def test_calibration_divides_by_what_is_said_of_nothing():
    plain = np.log([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1]])
    free = np.log([[0.8, 0.15, 0.05], [0.6, 0.25, 0.15]])  # likes the first, whatever it is asked
    found = score(plain, free, lengths=[1, 1, 2])
    prior = np.array([0.7, 0.2, 0.1])  # as arXiv 2102.09690 has it: W = diag(p_cf)^-1
    np.testing.assert_allclose(found["calibrated"], np.log(np.exp(plain) / prior), atol=1e-12)
    assert found["plain"].argmax(1).tolist() == [0, 0]
    assert found["calibrated"].argmax(1).tolist() == [1, 1]
    np.testing.assert_allclose(found["length"], plain / [1, 1, 2])
    assert list(found) == ["plain", "calibrated", "length", "length_calibrated"]
    assert set(found) == set(SCORINGS)


def test_nothing_changes_where_nothing_is_preferred():
    plain = np.log([[0.6, 0.4], [0.1, 0.9]])
    found = score(plain, np.log([[0.5, 0.5]] * 3), [1, 1])
    assert found["calibrated"].argmax(1).tolist() == found["plain"].argmax(1).tolist()


def test_examples_are_as_many_of_each_class_and_do_not_depend_on_the_order_of_rows():
    texts, labels = [f"text {i}" for i in range(60)], [i % 3 for i in range(60)]
    places = examples_of(texts, labels, 4, seed=1)
    assert sorted(labels[place] for place in places) == sorted([0, 1, 2] * 4)
    shuffled = random.Random(0).sample(range(60), 60)
    again = examples_of([texts[i] for i in shuffled], [labels[i] for i in shuffled], 4, seed=1)
    assert [shuffled[place] for place in again] == places
    assert examples_of(texts, labels, 4, seed=2) != places
    assert set(places) < set(examples_of(texts, labels, 5, seed=1))
    assert examples_of(texts, labels, 0, seed=1) == []
    with pytest.raises(UserError, match="--shots 21: class 0 has 20 rows"):
        examples_of(texts, labels, 21, seed=1)


def test_a_plain_prompt_reads_as_a_person_would_write_it():
    tokenizer = gpt_tokenizer()
    prompt = Prompt(("bad", "good"), instruction="Is it good?", text_name="Review", label_name="Opinion")
    (ids,) = prompt.questions(tokenizer, ["a gem"], [("all lost", 0), ("the fox", 1)])
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == (
        "Is it good?\n\nReview: all lost\nOpinion: bad\n\nReview: the fox\nOpinion: good\n\nReview: a gem\nOpinion:"
    )
    assert [tokenizer.decode(answer) for answer in prompt.answers(tokenizer)] == [" bad", " good"]
    together = tokenizer(tokenizer.decode(ids[1:]) + " good")["input_ids"]
    assert together == ids[1:] + prompt.answers(tokenizer)[1]  # cut where one text would be cut


def test_in_a_chat_examples_are_turns_and_answers_end():
    tokenizer = gpt_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    prompt = Prompt(("no", "no idea"), chat=True)
    (ids,) = prompt.questions(tokenizer, ["a gem"], [("all lost", 1)])
    assert tokenizer.decode(ids) == (
        "<|im_start|>user\nall lost<|im_end|>\n<|im_start|>assistant\nno idea<|im_end|>\n"
        "<|im_start|>user\na gem<|im_end|>\n<|im_start|>assistant\n"
    )
    answers = prompt.answers(tokenizer)
    assert [tokenizer.decode(answer) for answer in answers] == ["no<|im_end|>", "no idea<|im_end|>"]
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        prompt.questions(tokenizer, ["a gem"], [])


def test_words_stand_for_classes():
    assert words_for(["0", "1"], ["1=good", "0=bad"]) == ("bad", "good")
    for wrong in ("good", "2=good", "1="):
        with pytest.raises(UserError, match=r"--label_words .* the classes are 0, 1"):
            words_for(["0", "1"], [wrong])
    with pytest.raises(UserError, match="not told apart"):
        Prompt(("same", "same")).answers(gpt_tokenizer())


def test_long_texts_are_cut_and_counted():
    tokenizer = gpt_tokenizer()
    texts = ["the quick brown fox jumps", "fox", ""]
    cut, number = cut_texts(tokenizer, texts, 3)
    assert number == 1
    assert cut[1:] == texts[1:]
    assert texts[0].startswith(cut[0])
    assert 0 < len(cut[0]) < len(texts[0])
    assert cut_texts(tokenizer, [], 3) == ([], 0)


# --- answers as classes ---


def dialogue(asked: str, answer: str) -> list[dict]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]


def test_few_different_answers_are_classes_and_many_are_none():
    few = [dialogue(f"q{i}", "no" if i % 3 else "yes") for i in range(20)]
    assert kinds_of_answers(few) == ["no", "yes"]  # the commonest first
    assert kinds_of_answers(few[:8]) == []  # too few to tell
    assert kinds_of_answers([dialogue(f"q{i}", f"a{i}") for i in range(20)]) == []
    assert kinds_of_answers([dialogue(f"q{i}", "yes") for i in range(20)]) == []


def test_an_answer_is_right_when_it_is_the_likeliest_of_all_kinds():
    tokenizer, model = gpt_tokenizer(), gpt("llama")
    prepare_tokenizer(tokenizer)
    asked = [f"{'the fox' if i % 3 else 'rome'} {i}" for i in range(12)]
    right = {kind: right_answers(model, tokenizer, [dialogue(one, kind) for one in asked], ["no", "yes"])
             for kind in ("no", "yes")}  # fmt: skip
    assert (right["no"] ^ right["yes"]).all()  # one of both, always
    ids = tokenizer.apply_chat_template(dialogue(asked[0], "x")[:1], add_generation_prompt=True)["input_ids"]
    answers = [tokenizer(f"{kind}<|im_end|>")["input_ids"] for kind in ("no", "yes")]
    assert right["yes"][0] == bool(one_by_one(model, [ids], answers)[0].argmax())
    assert not right_answers(model, tokenizer, [dialogue(asked[0], "maybe")], ["no", "yes"]).any()
    found = answering(model, tokenizer, [dialogue(one, "no") for one in asked], ["no", "yes"])
    assert found["accuracy"] == pytest.approx(right["no"].mean())
    assert found["accuracy_low"] <= found["accuracy"] <= found["accuracy_high"]
    assert found["accuracy_of_the_commonest_answer"] == 1


# --- the script ---


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("inputs")
    rows = [{"text": f"{'a fox' if i % 2 else 'the dog'} {i}", "label": "cat" if i % 2 else "dog"} for i in range(80)]
    (directory / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    save(directory / "decoder", gpt("llama", context=256), gpt_tokenizer())
    return directory


def ask(inputs: Path, output: Path, *flags: object) -> dict:
    fixed = f"--model_name_or_path {inputs}/decoder --source {inputs}/rows.jsonl --output_dir {output}"
    launch([str(RECIPES / "gpt" / "few_shot.py"), *fixed.split(), *map(str, flags)])
    return json.loads((output / "results.json").read_text())


def test_the_script_reports_all_scorings_of_all_seeds_and_keeps_what_was_said(inputs, tmp_path):
    metrics = ask(inputs, tmp_path / "out", "--shots", 2, "--num_seeds", 2, "--scoring", "length")["metrics"]
    assert set(metrics["by_scoring"]) == set(SCORINGS)
    assert metrics["test"] == metrics["by_scoring"]["length"]
    assert [run["seed"] for run in metrics["per_seed"]] == [0, 1]
    assert metrics["per_seed_by_scoring"]["length"] == [run["test"] for run in metrics["per_seed"]]
    assert metrics["test"]["accuracy"] == pytest.approx(np.mean(metrics["per_seed_by_scoring"]["length"]))
    assert metrics["test"]["accuracy_low"] <= metrics["test"]["accuracy"] <= metrics["test"]["accuracy_high"]
    assert metrics["examples"] == 4
    rows = list(map(json.loads, (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()))
    assert len(rows) == metrics["test"]["rows"] == sum(map(sum, metrics["confusion"]))
    right = np.mean([row["label"] == row["predicted"] for row in rows])
    assert right == pytest.approx(metrics["per_seed"][0]["test"])


def test_the_script_asks_about_some_rows_without_any_example(inputs, tmp_path):
    found = ask(inputs, tmp_path / "out", "--shots", 0, "--test_rows", 3, "--batch_size", 1)["metrics"]
    assert (found["test"]["rows"], found["examples"]) == (3, 0)


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--scoring", "best"), "--scoring best: must be one of plain, length, calibrated, length_calibrated"),
        (("--shots", -1), "--shots -1: must be at least 0"),
        (("--shots", 99), "--shots 99: class 0 has"),
        (("--shots", 12), "the model reads 256; fewer --shots"),
        (("--chat", "True"), "no chat template"),
        (("--label_words", "mouse=m"), "--label_words mouse=m: write class=word; the classes are cat, dog"),
    ],
)
def test_mistakes_are_one_line(flags, complaint, inputs, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        ask(inputs, tmp_path / "out", *flags)
    assert end.value.code == 2
    assert complaint in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()
