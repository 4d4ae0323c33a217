"""Answers depend on question and text alone: not on batches, padding, accumulation, interruption or an adapter."""

import pytest
import torch
from datasets import Dataset, DatasetDict
from tiny_models import bert_config, bert_tokenizer, enlarge, save
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from lm_recipes.decoding.loading import load_for_inference
from lm_recipes.evaluation.answers import Asking, answer, answer_all
from lm_recipes.evaluation.choices import choose
from lm_recipes.evaluation.classification import MODEL_INPUTS, logits_of
from lm_recipes.models.heads import with_head
from lm_recipes.sources.labelled import SINGLE
from lm_recipes.tokenization.choices import ChoiceCollator, tokenize_choices
from lm_recipes.tokenization.windows import prepare_tokenizer, windows_of
from lm_recipes.training.adapters import AdapterArguments, complete_adapter, with_adapter
from lm_recipes.training.answering import AnswerTrainer, answer_loss
from lm_recipes.training.finetuning import ClassificationLoss
from lm_recipes.training.saved_adapters import merge_adapter

KINDS = ["bert", "modernbert"]
NO_DROPOUT = {"bert": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}, "modernbert": {}}
ROWS = [
    {"question": "who asks?", "context": "a doctor asks the patient how the knee has been since the fall."},
    {"question": "the capital?", "context": "paris is the capital of france; rome is the capital of italy. " * 3},
    {"question": "what does the dog do?", "context": "the quick brown fox jumps over the lazy dog. " * 5},
    {"question": "knee?", "context": "fall"},
]
ASKING = Asking(max_length=32, doc_stride=8, max_answer_length=6)


def small(kind: str, auto_class: type = AutoModelForQuestionAnswering):
    set_seed(0)
    return auto_class.from_config(bert_config(kind, len(bert_tokenizer()), **NO_DROPOUT[kind]))


def model_of(kind: str, auto_class: type = AutoModelForQuestionAnswering):
    return enlarge(small(kind, auto_class))


@pytest.mark.parametrize("kind", KINDS)
def test_answers_do_not_depend_on_the_batch_or_the_other_questions(kind):
    model, tokenizer = model_of(kind), bert_tokenizer()
    together = answer_all(model, tokenizer, ROWS, ASKING, n_best=3, batch_size=64)
    one_by_one = answer_all(model, tokenizer, ROWS, ASKING, n_best=3, batch_size=1)
    alone = [answer(model, tokenizer, row["question"], row["context"], ASKING, n_best=3) for row in ROWS]
    for row, found, *others in zip(ROWS, together, one_by_one, alone, strict=True):
        for other in others:
            assert other.no_answer_probability == pytest.approx(found.no_answer_probability, abs=1e-4)
            assert other.spans[0].score == pytest.approx(found.spans[0].score, abs=1e-3)
            assert (other.spans[0].start, other.spans[0].end) == (found.spans[0].start, found.spans[0].end)
        for span in found.spans:
            assert row["context"][span.start : span.end] == span.text == span.text.strip() != ""
    assert len({found.spans[0].score for found in together}) == len(ROWS)


@pytest.mark.parametrize("kind", KINDS)
def test_choices_do_not_depend_on_padding(kind, tmp_path):
    model, tokenizer = model_of(kind, AutoModelForMultipleChoice), bert_tokenizer()
    data = choice_rows(tokenizer)
    found = []
    for batch_size in (1, 6):
        args = TrainingArguments(tmp_path, per_device_eval_batch_size=batch_size, use_cpu=True)
        found.append(torch.tensor(logits_of(Trainer(model, args, data_collator=ChoiceCollator(tokenizer)), data)))
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)
    asked = [choose(model, tokenizer, f"who {word}?", ["the dog " * 4, "knee"]) for word in WORDS]
    torch.testing.assert_close(torch.tensor(asked), found[0].softmax(-1), atol=1e-4, rtol=1e-4)
    assert found[0].std(0).min() > 1e-3


WORDS = ["fox", "barks at the quick brown fox", "asks the patient", "is", "jumps over the lazy dog", "paris"]


def choice_rows(tokenizer) -> Dataset:
    table = {
        "id": WORDS,
        "context": [""] * 6,
        "question": [f"who {word}?" for word in WORDS],
        "choices": [["the dog " * 4, "knee"]] * 6,
        "labels": [0, 1, 1, 0, 1, 0],
    }
    return tokenize_choices(DatasetDict({"train": Dataset.from_dict(table)}), tokenizer, 32)[0]["train"]


def window_rows(tokenizer) -> Dataset:
    """Six windows of three lengths."""
    prepare_tokenizer(tokenizer)
    words = ["capital", "knee", "fox", "rome", "doctor", "paris"]
    contexts = [f"{'the lazy dog ' * (number % 3)}{word} of italy" for number, word in enumerate(words)]
    answers = [
        {"text": [word], "answer_start": [context.index(word)]} for word, context in zip(words, contexts, strict=True)
    ]
    batch = {"id": words, "question": ["where?"] * 6, "context": contexts, "answers": answers}
    return Dataset.from_dict(windows_of(batch, range(6), tokenizer, 40, 8))


def trained(kind: str, task: str, directory, **settings) -> Trainer:
    """A few steps without dropout, in the order of the rows."""
    tokenizer = bert_tokenizer()
    data = window_rows(tokenizer) if task == "answer" else choice_rows(tokenizer)
    settings = {"save_strategy": "no", "optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0} | settings
    args = TrainingArguments(
        directory, use_cpu=True, report_to="none", disable_tqdm=True, train_sampling_strategy="sequential",
        label_names=["labels"], **settings,
    )  # fmt: skip
    auto_class = AutoModelForQuestionAnswering if task == "answer" else AutoModelForMultipleChoice
    common = {"model": small(kind, auto_class), "args": args, "train_dataset": data, "processing_class": tokenizer}
    if task == "answer":
        collator = DataCollatorWithPadding(tokenizer)
        trainer = AnswerTrainer(
            **common, data_collator=collator, compute_loss_func=answer_loss, score=lambda trainer: {"f1": 1.0}
        )
    else:
        loss = ClassificationLoss(SINGLE)
        trainer = Trainer(**common, data_collator=ChoiceCollator(tokenizer), compute_loss_func=loss)
    trainer.train(resume_from_checkpoint=settings.get("resume_from_checkpoint"))
    return trainer


def assert_same_weights(one: Trainer, other: Trainer, **tolerance) -> None:
    for (name, expected), found in zip(one.model.named_parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


@pytest.mark.parametrize("task", ["answer", "choose"])
@pytest.mark.parametrize("kind", KINDS)
def test_accumulated_batches_of_unequal_size_make_the_step_of_one_batch(kind, task, tmp_path):
    whole = trained(kind, task, tmp_path / "whole", per_device_train_batch_size=6, max_steps=1)
    parts = trained(
        kind, task, tmp_path / "parts", per_device_train_batch_size=4, gradient_accumulation_steps=2, max_steps=1
    )
    assert_same_weights(whole, parts, atol=1e-5, rtol=1e-4)
    untrained = small(kind, AutoModelForQuestionAnswering if task == "answer" else AutoModelForMultipleChoice)
    pairs = zip(whole.model.parameters(), untrained.parameters(), strict=True)
    assert max(float((one - other).detach().abs().max()) for one, other in pairs) > 1e-3  # the step did something


@pytest.mark.parametrize("task", ["answer", "choose"])
def test_a_run_that_is_resumed_ends_with_the_weights_of_one_that_was_not(task, tmp_path):
    settings = {"per_device_train_batch_size": 2, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    settings |= {"optim": "adamw_torch", "learning_rate": 1e-3}
    whole = trained("bert", task, tmp_path, **settings)
    resumed = trained("bert", task, tmp_path, **settings, resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert_same_weights(whole, resumed, atol=0, rtol=0)


def test_an_evaluation_reports_the_score_of_whole_questions_beside_the_loss(tmp_path):
    trainer = trained("bert", "answer", tmp_path, per_device_train_batch_size=6, max_steps=1)
    found = trainer.evaluate(trainer.train_dataset)
    assert found["eval_f1"] == 1.0
    assert found["eval_loss"] > 0


@pytest.mark.parametrize(
    ("kind", "auto_class", "method"),
    [
        ("bert", AutoModelForQuestionAnswering, "lora"),
        ("modernbert", AutoModelForQuestionAnswering, "pissa"),
        ("bert", AutoModelForMultipleChoice, "pissa"),
        ("modernbert", AutoModelForMultipleChoice, "lora"),
    ],
)
def test_a_saved_adapter_answers_as_it_did_in_training_on_its_base_and_merged(kind, auto_class, method, tmp_path):
    tokenizer = bert_tokenizer()
    save(tmp_path / "base", model_of(kind, auto_class).base_model, tokenizer)  # the head is in the adapter alone
    model = with_head(auto_class, str(tmp_path / "base"), seed=1, dtype=torch.float32)
    settings = ["init_lora_weights=pissa"] if method == "pissa" else None
    adapted = with_adapter(model, AdapterArguments(use_peft=True, lora_r=4, peft_settings=settings), None)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    save(tmp_path / "adapter", adapted.eval(), tokenizer)
    complete_adapter(adapted, tmp_path / "adapter")
    merge_adapter(str(tmp_path / "adapter"), tmp_path / "merged")
    expected = all_logits(adapted, auto_class, tokenizer)
    assert expected.std() > 0.1
    for name in ("adapter", "merged"):
        loaded, _ = load_for_inference(auto_class, str(tmp_path / name))
        torch.testing.assert_close(all_logits(loaded, auto_class, tokenizer), expected, atol=1e-4, rtol=1e-4)
    as_on_the_card = auto_class.from_pretrained(tmp_path / "adapter").eval()
    torch.testing.assert_close(all_logits(as_on_the_card, auto_class, tokenizer), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def all_logits(model, auto_class: type, tokenizer) -> torch.Tensor:
    """Of a few rows with token types, flat."""
    if auto_class is AutoModelForQuestionAnswering:
        rows, collator = window_rows(tokenizer), DataCollatorWithPadding(tokenizer)
    else:
        rows, collator = choice_rows(tokenizer), ChoiceCollator(tokenizer)
    batch = collator([{name: row[name] for name in MODEL_INPUTS if name in row} for row in rows])
    return torch.cat([tensor.flatten() for tensor in model(**batch).to_tuple()])


def test_token_types_reach_the_model_behind_an_adapter():
    """They tell question from context; peft's own class for QUESTION_ANS drops them, so no task type is given."""
    adapted = with_adapter(model_of("bert"), AdapterArguments(use_peft=True, lora_r=4), None).eval()
    ids = torch.randint(5, 100, (2, 12), generator=torch.Generator().manual_seed(0))
    types = torch.arange(12).ge(6).long().expand(2, -1)
    with torch.no_grad():
        through = adapted(input_ids=ids, token_type_ids=types).start_logits
        direct = adapted.get_base_model()(input_ids=ids, token_type_ids=types).start_logits
        without = adapted(input_ids=ids).start_logits
    torch.testing.assert_close(through, direct)
    assert (through - without).abs().max() > 1e-3
