"""A tagger's answers and scores do not depend on padding, batches, accumulation, or whether its adapter is merged."""

from functools import partial

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from tiny_models import TEXT, bert_config, bert_tokenizer, gpt, gpt_tokenizer, save
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
    set_seed,
)

from lm_recipes.decoding.tagging import spaced, tag_texts
from lm_recipes.evaluation import tagging
from lm_recipes.evaluation.metrics import class_ids, load
from lm_recipes.launch import UserError
from lm_recipes.models.heads import with_head
from lm_recipes.sources.tag_schemes import entities
from lm_recipes.tokenization.word_labels import encode_words, label_words
from lm_recipes.training.adapters import AdapterArguments, with_adapter
from lm_recipes.training.saved_adapters import merge_adapter
from lm_recipes.training.tagging import tagging_loss

NAMES = ["O", "B-loc", "I-loc", "B-per", "I-per"]
LENGTH = 64
tagger = partial(with_head, AutoModelForTokenClassification)
SENTENCES = [(TEXT[i % 3].split() * 2)[i % 5 : i % 5 + 1 + i] for i in range(17)]


def make_tagger(kind: str, directory):
    """A tiny tagger with large random weights and no dropout, and its tokenizer."""
    set_seed(3)
    if kind == "llama":
        base = save(directory, gpt("llama"), gpt_tokenizer())
        tokenizer = AutoTokenizer.from_pretrained(base, padding_side="right")
        tokenizer.add_bos_token = tokenizer.add_eos_token = True
        return tagger(base, NAMES, seed=0, dtype=torch.float32, bidirectional=True).eval(), tokenizer
    tokenizer = bert_tokenizer()
    dropout = {} if kind == "modernbert" else {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    config = bert_config(kind, len(tokenizer), **labels, **dropout)
    return AutoModelForTokenClassification.from_config(config).eval(), tokenizer


def tokenized(tokenizer, max_length: int = LENGTH) -> Dataset:
    """Tags that follow from the words, so that a step of training has something to say about each."""
    tags = [[len(word) % len(NAMES) for word in words] for words in SENTENCES]
    rows = DatasetDict({"train": Dataset.from_dict({"tokens": SENTENCES, "tags": tags})})
    return label_words(rows, tokenizer, max_length)[0]["train"]


def trainer_for(model, tokenizer, directory, **options) -> Trainer:
    args = TrainingArguments(directory, use_cpu=True, report_to="none", disable_tqdm=True, **options)
    collator = DataCollatorForTokenClassification(tokenizer)
    return Trainer(model, args, data_collator=collator, compute_loss_func=tagging_loss)


# --- predictions ---


@pytest.mark.parametrize("kind", ["bert", "modernbert", "llama"])
def test_tags_of_words_do_not_depend_on_batches_and_padding(kind, tmp_path):
    model, tokenizer = make_tagger(kind, tmp_path / "base")
    data = tokenized(tokenizer)
    found = [
        tagging.predict(trainer_for(model, tokenizer, tmp_path, per_device_eval_batch_size=size), data)
        for size in (1, 8)
    ]
    for row, words in enumerate(SENTENCES):
        batch = tokenizer(" ".join(words), truncation=True, max_length=LENGTH, return_tensors="pt")
        with torch.no_grad():
            ids = model(**batch).logits[0].argmax(-1)
        alone = [int(ids[place]) if place >= 0 else 0 for place in data[row]["places"]]
        assert found[0][row].tolist() == found[1][row].tolist() == alone
        assert len(alone) == len(words)
    assert len({tag for row in found[0] for tag in row.tolist()}) > 1


@pytest.mark.parametrize("kind", ["bert", "modernbert", "llama"])
def test_logits_do_not_depend_on_padding(kind, tmp_path):
    model, tokenizer = make_tagger(kind, tmp_path / "base")
    texts = ["the fox", TEXT[2], "knee"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        together = model(**batch).logits
        for row, text in enumerate(texts):
            alone = model(**tokenizer(text, return_tensors="pt")).logits[0]
            torch.testing.assert_close(together[row, : len(alone)], alone, atol=1e-5, rtol=1e-5)


def test_words_that_were_cut_off_are_counted_as_outside(tmp_path):
    model, tokenizer = make_tagger("bert", tmp_path)
    data = tokenized(tokenizer, max_length=8)
    found = tagging.predict(trainer_for(model, tokenizer, tmp_path), data)
    assert [len(tags) for tags in found] == [len(words) for words in SENTENCES]
    cut = np.concatenate(list(data["places"])) < 0
    assert cut.sum() > 50
    assert set(np.concatenate(found)[cut]) == {0}


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_words_of_running_text_get_the_tags_evaluation_gives_them(kind, tmp_path):
    model, tokenizer = make_tagger(kind, tmp_path / "base")
    texts = ['The "fox" met Ada.', "", TEXT[1], "paris!  rome?"]
    answers = [tag_texts(texts, model, tokenizer, LENGTH, size) for size in (1, 3)]
    assert [[word["tag"] for word in answer["words"]] for answer in answers[0]] == [
        [word["tag"] for word in answer["words"]] for answer in answers[1]
    ]
    split = [text.split() for text in spaced(texts)]
    assert split[0] == ["The", '"', "fox", '"', "met", "Ada", "."]
    rows = Dataset.from_dict({"tokens": split[2:], "tags": [[0] * len(words) for words in split[2:]]})
    data, _ = label_words(DatasetDict({"train": rows}), tokenizer, LENGTH)
    expected = tagging.predict(trainer_for(model, tokenizer, tmp_path), data["train"])
    for text, answer, tags in zip(texts[2:], answers[0][2:], expected, strict=True):
        assert [word["tag"] for word in answer["words"]] == [NAMES[tag] for tag in tags]
        for item in [*answer["words"], *answer["entities"]]:
            assert text[item["start"] : item["end"]] == item["text"]
            assert 0 < item["score"] <= 1
        assert len(answer["entities"]) == len(entities([NAMES[tag] for tag in tags]))
    assert answers[0][1] == {"entities": [], "words": []}


def test_words_behind_max_length_have_no_tag(tmp_path):
    model, tokenizer = make_tagger("bert", tmp_path)
    (answer,) = tag_texts([TEXT[0]], model, tokenizer, 8, 1)
    tags = [word["tag"] for word in answer["words"]]
    assert tags[0] in NAMES
    assert tags[-1] is None
    assert answer["words"][-1]["score"] is None


# --- training ---


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_small_batches_accumulated_teach_what_one_large_one_teaches(kind, tmp_path):
    weights = []
    for name, options in (
        ("large", {"per_device_train_batch_size": 16}),
        ("small", {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}),
    ):
        model, tokenizer = make_tagger(kind, tmp_path / "base")
        before = {key: weight.clone() for key, weight in model.state_dict().items()}
        plain = {"max_steps": 2, "optim": "sgd", "learning_rate": 0.02, "warmup_steps": 0, "save_strategy": "no"}
        trainer = trainer_for(
            model, tokenizer, tmp_path / name, **plain, **options, train_sampling_strategy="sequential",
            lr_scheduler_type="constant", max_grad_norm=0.0,
        )  # fmt: skip
        trainer.train_dataset = tokenized(tokenizer)
        trainer.train()
        weights.append(model.state_dict())
    large, small = weights
    assert max((large[key] - before[key]).abs().max() for key in large) > 1e-4
    for key in large:
        torch.testing.assert_close(large[key], small[key], atol=1e-5, rtol=1e-4)
    labels = [sum(label != -100 for row in tokenized(tokenizer)["labels"][i : i + 2] for label in row) for i in (0, 14)]
    assert labels[1] > 4 * labels[0]  # or a mean over batches would be the same


def test_the_loss_is_a_mean_over_words_whatever_the_batch():
    logits = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[0, -100, 2, 3, -100], [1, -100, -100, -100, -100], [2, 2, 2, 2, 2]])
    whole = tagging_loss({"logits": logits}, labels)
    parts = [
        tagging_loss({"logits": logits[row : row + 1]}, labels[row : row + 1], labels.ne(-100).sum())
        for row in range(3)
    ]
    torch.testing.assert_close(whole, sum(parts))
    torch.testing.assert_close(whole, torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()))
    assert tagging_loss({"logits": logits}, torch.full_like(labels, -100)) == 0


@pytest.mark.parametrize("kind", ["bert", "modernbert", "llama"])
def test_a_tagger_s_adapter_and_the_model_it_is_merged_into_are_one(kind, tmp_path):
    base_model, tokenizer = make_tagger(kind, tmp_path / "unused")
    base = save(tmp_path / "base", base_model, tokenizer)
    fresh = tagger(base, NAMES, seed=1, dtype=torch.float32)
    flags = AdapterArguments(model_name_or_path=base, use_peft=True, lora_r=4)
    model = with_adapter(fresh, flags, "TOKEN_CLS", tokenizer)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {"lora_" in name or "modules_to_save" in name for name in trained} == {True}
    assert any("modules_to_save" in name for name in trained)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in trained:
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    model.eval().save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    merge_adapter(str(tmp_path / "adapter"), tmp_path / "merged")
    merged = AutoModelForTokenClassification.from_pretrained(tmp_path / "merged").eval()
    assert not isinstance(merged, PeftModel)
    assert merged.config.id2label == dict(enumerate(NAMES))
    ids = torch.randint(5, 100, (3, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = model(input_ids=ids).logits, merged(input_ids=ids).logits
    assert (found - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))


def test_a_fresh_head_is_the_seed_s_and_a_frozen_encoder_stays(tmp_path):
    base = save(tmp_path, *make_tagger("bert", tmp_path / "unused"))
    one, same, other = (tagger(base, ["A", "B"], seed=s, dtype=torch.float32) for s in (1, 1, 2))
    assert torch.equal(one.classifier.weight, same.classifier.weight)
    assert not torch.equal(one.classifier.weight, other.classifier.weight)
    frozen = tagger(base, NAMES, seed=1, freeze_encoder=True, dtype=torch.float32)
    assert {name.split(".")[0] for name, p in frozen.named_parameters() if p.requires_grad} == {"classifier"}


def test_an_architecture_that_cannot_tag_is_refused(tmp_path):
    base = save(tmp_path, gpt("nanochat"), gpt_tokenizer())
    with pytest.raises(UserError, match="transformers has no TokenClassification for a nanochat"):
        tagger(base, NAMES, seed=0, dtype=torch.float32)


# --- scores ---

tag_rows = st.lists(st.lists(st.sampled_from(range(len(NAMES))), min_size=1, max_size=9), min_size=1, max_size=5)


@settings(deadline=None, max_examples=60)  # seqeval's metric writes to disk
@given(references=tag_rows, data=st.data())
def test_counts_of_sentences_add_up_to_seqeval_s_f1(references, data):
    said = [
        data.draw(st.lists(st.sampled_from(range(len(NAMES))), min_size=len(r), max_size=len(r))) for r in references
    ]
    counts = tagging.sentence_counts([np.array(r) for r in said], [np.array(r) for r in references], NAMES).sum(0)
    names = [[[NAMES[i] for i in row] for row in rows] for rows in (said, references)]
    whole = load("seqeval").compute(predictions=names[0], references=names[1])["overall_f1"]
    assert whole == pytest.approx(counts[0] / counts[1] if counts[1] else 0.0)


def test_an_entity_is_right_only_as_a_whole():
    truth = [np.array([3, 4, 0, 1])]  # a person of two words, a place
    half = [np.array([3, 0, 0, 1])]
    found = tagging.scores(half, truth, NAMES)
    assert found == {"f1": 0.5, "precision": 0.5, "recall": 0.5, "accuracy": 0.75}
    assert tagging.scores(truth, truth, NAMES)["f1"] == 1.0


def test_parts_of_speech_are_scored_word_by_word():
    found = tagging.scores([np.array([0, 1]), np.array([1, 1])], [np.array([0, 1]), np.array([0, 1])], ["NOUN", "VERB"])
    assert found["accuracy"] == 0.75
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0.8) / 2)


def test_the_interval_resamples_sentences_and_not_words_or_models():
    rng = np.random.default_rng(0)
    words = np.full(400, 10)
    scattered = np.stack([rng.binomial(10, 0.7, 400), words], axis=-1)[None]
    clustered = np.stack([10 * rng.binomial(1, 0.7, 400), words], axis=-1)[None]  # a sentence is all right or all wrong
    widths = [np.diff(tagging.ratio_interval(counts))[0] for counts in (scattered, clustered)]
    assert widths[0] == pytest.approx(2 * 1.96 * np.sqrt(0.7 * 0.3 / 4000), rel=0.15)
    assert widths[1] == pytest.approx(2 * 1.96 * np.sqrt(0.7 * 0.3 / 400), rel=0.15)
    assert tagging.ratio_interval(np.concatenate([clustered] * 3)) == pytest.approx(tagging.ratio_interval(clustered))
    assert tagging.ratio_interval(np.zeros((1, 9, 2), dtype=int)) == (0.0, 0.0)


def test_the_report_saves_the_seed_best_on_validation_and_says_what_is_confused():
    truth = {"validation": [np.array([3, 4]), np.array([1])], "test": [np.array([3, 4, 0]), np.array([1, 0])]}
    good = {"validation": truth["validation"], "test": [np.array([1, 0, 0]), np.array([1, 0])]}
    bad = {"validation": [np.array([0, 0]), np.array([1])], "test": truth["test"]}
    unknown = [np.array([True, False, False]), np.array([True, False])]
    metrics = tagging.report({7: good, 8: bad}, truth, NAMES, unknown)
    assert metrics["saved_seed"] == 7
    assert metrics["per_seed"][1]["test"] == 1.0
    assert metrics["test"]["f1"] == pytest.approx((0.5 + 1.0) / 2)
    assert metrics["test"]["f1_low"] <= metrics["test"]["f1"] <= metrics["test"]["f1_high"]
    assert (metrics["test"]["sentences"], metrics["test"]["words"]) == (2, 5)
    assert metrics["test"]["accuracy_on_unknown_words"] == 0.5
    by_type = {row["name"]: row for row in metrics["per_class"]}
    assert by_type["per"]["recall"] == 0.0
    assert by_type["loc"] == {"name": "loc", "precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "number": 1}
    assert sum(map(sum, metrics["confusion"])) == 5
    assert {"truth": "B-per", "predicted": "B-loc", "words": 1} in metrics["commonest_errors"]


def test_the_baseline_knows_words_and_guesses_new_ones_as_rare_ones_are():
    train = {
        "tokens": [["the", "fox", "runs"], ["the", "dog", "runs"], ["runs", "dog"]],
        "tags": [[0, 1, 2], [0, 1, 2], [1, 1]],
    }
    test = {"tokens": [["the", "fox", "runs"], ["zebra"]], "tags": [[0, 1, 2], [1]]}
    found = tagging.tagging_baseline({"train": train, "test": test}, ["DET", "NOUN", "VERB"])
    assert found == {"usual_tag_of_the_word": 1.0, "share_of_unknown_words": 0.25}


@pytest.mark.parametrize("names", [NAMES, ["NOUN", "VERB", "ADJ", "DET", "ADP"]])
@pytest.mark.parametrize("batch_eval_metrics", [True, False])
def test_trainer_s_sums_over_batches_are_the_main_score_of_all_words(names, batch_eval_metrics, tmp_path):
    model, tokenizer = make_tagger("bert", tmp_path)
    data = tokenized(tokenizer)
    assert encode_words(SENTENCES, tokenizer, LENGTH)["words_cut"] == [0] * len(SENTENCES)
    trainer = trainer_for(
        model, tokenizer, tmp_path, per_device_eval_batch_size=4, batch_eval_metrics=batch_eval_metrics
    )
    trainer.compute_metrics = tagging.trainer_metrics(names)
    trainer.preprocess_logits_for_metrics = class_ids
    first, again = trainer.evaluate(data), trainer.evaluate(data)
    main, truth = tagging.main_score(names), [np.array(tags) for tags in data["tags"]]
    whole = tagging.scores(tagging.predict(trainer, data), truth, names)[main]
    assert 0 < whole < 1
    assert first[f"eval_{main}"] == again[f"eval_{main}"] == pytest.approx(whole)
