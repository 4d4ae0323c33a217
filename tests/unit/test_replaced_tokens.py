"""Replaced-token detection: shared embeddings, samples that are tokens of text, exact runs, plain directories."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    ElectraConfig,
)

from lm_recipes.models import isolation_of
from lm_recipes.models.replaced_tokens import GeneratorAndDiscriminator, generator_config
from lm_recipes.objectives import MaskedLanguageModeling, read_packed
from lm_recipes.objectives.replaced_tokens import ReplacedTokenDetection
from lm_recipes.training.arguments import PretrainingArguments
from lm_recipes.training.replaced_tokens import ReplacedTokenTrainer

BLOCK = 64


def both_networks(tokenizer, attention: str = "sdpa", width: int = 64, **more) -> GeneratorAndDiscriminator:
    torch.manual_seed(0)
    config = ElectraConfig(
        vocab_size=len(tokenizer), embedding_size=width, hidden_size=width, intermediate_size=2 * width,
        num_hidden_layers=2, num_attention_heads=1, max_position_embeddings=BLOCK, pad_token_id=tokenizer.pad_token_id,
        **{"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} | more,
    )  # fmt: skip
    return GeneratorAndDiscriminator(config, tokenizer.all_special_ids, attention)


@pytest.fixture
def corpus(packed):
    return read_packed(packed["bert"][0])


@pytest.fixture
def batch(bert_tokenizer, corpus):
    return ReplacedTokenDetection(bert_tokenizer, mask_share=1.0, random_share=0.0)(
        [corpus.train[n] for n in range(32)]
    )


@pytest.fixture
def trainer(bert_tokenizer, corpus, tmp_path):
    def make(output: str = "run", model=None, **settings) -> ReplacedTokenTrainer:
        fixed = {"use_cpu": True, "bf16": False, "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1}
        fixed |= {"per_device_train_batch_size": 4, "warmup_steps": 0, "lr_scheduler_type": "constant"}
        masks = {"tokenizer": bert_tokenizer, "isolation": isolation_of(ElectraConfig(), "sdpa")}
        masks |= {"mask_share": 1.0, "random_share": 0.0}
        return ReplacedTokenTrainer(
            model=model or both_networks(bert_tokenizer, initializer_range=0.05),
            args=PretrainingArguments(output_dir=str(tmp_path / output), **fixed | settings),
            train_dataset=corpus.train,
            eval_dataset=corpus.validation.select(range(9)),
            data_collator=ReplacedTokenDetection(**masks),
            eval_collator=ReplacedTokenDetection(**masks),
            processing_class=bert_tokenizer,
        )

    return make


def read_by_the_discriminator(model) -> dict[str, torch.Tensor]:
    seen = {}
    model.discriminator.electra.register_forward_pre_hook(lambda _, args: seen.update(ids=args[0]))
    return seen


def losses(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_the_generator_reads_the_batch_of_masked_language_modelling(bert_tokenizer, corpus, batch):
    rows = [corpus.train[number] for number in range(32)]
    masked = MaskedLanguageModeling(bert_tokenizer, mask_share=1.0, random_share=0.0)(rows)
    assert all(torch.equal(batch[name], masked[name]) for name in masked)
    originals = torch.from_numpy(np.stack([row["input_ids"] for row in rows]).astype(np.int64))
    special = torch.isin(originals, torch.tensor(bert_tokenizer.all_special_ids))
    assert torch.equal(batch["discriminated"], ~special)
    assert special.sum() > 64
    other = ReplacedTokenDetection(bert_tokenizer, mask_share=1.0, random_share=0.0)(rows[5:6])
    assert torch.equal(other["draws"][0], batch["draws"][5])
    assert not torch.equal(ReplacedTokenDetection(bert_tokenizer, epoch=1)(rows)["draws"], batch["draws"])


def test_both_networks_learn_one_table_of_embeddings(bert_tokenizer, batch):
    model = both_networks(bert_tokenizer)
    generator, discriminator = model.generator, model.discriminator
    for part in ("word_embeddings", "position_embeddings", "token_type_embeddings", "LayerNorm"):
        ours, theirs = (getattr(one.electra.embeddings, part) for one in (generator, discriminator))
        assert ours.weight is theirs.weight
    assert generator.generator_lm_head.weight is discriminator.get_input_embeddings().weight
    assert generator.config.hidden_size == 32
    names = [name for name, _ in model.named_parameters()]
    assert sum(p.numel() for p in model.parameters()) == sum(dict(model.named_parameters())[n].numel() for n in names)
    assert not any(name.startswith("generator.electra.embeddings.") for name in names)  # counted once
    model(**batch).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_generator_is_a_quarter_as_wide_between_one_head_and_half():
    widths = {64: (32, 1), 128: (64, 1), 192: (64, 1), 320: (80, 1), 768: (192, 3), 2048: (512, 8)}
    for width, expected in widths.items():
        config = ElectraConfig(hidden_size=width, num_attention_heads=max(width // 64, 1), intermediate_size=4 * width)
        made = generator_config(config)
        assert (made.hidden_size, made.num_attention_heads) == expected
        assert made.intermediate_size == 4 * made.hidden_size
        assert made.embedding_size == config.embedding_size


def test_samples_follow_the_softmax_and_are_never_special(bert_tokenizer):
    model = both_networks(bert_tokenizer)
    torch.manual_seed(1)
    words = torch.randn(len(bert_tokenizer)) * 2
    words[bert_tokenizer.all_special_ids] = 9.0  # the generator would love them
    draws = (torch.arange(20_000) + 0.5) / 20_000
    sampled = model.sample(words.expand(len(draws), -1), draws)
    counts = torch.bincount(sampled, minlength=len(words))
    expected = words.index_fill(0, torch.tensor(bert_tokenizer.all_special_ids), -torch.inf).softmax(-1)
    assert counts[bert_tokenizer.all_special_ids].sum() == 0
    assert (counts / len(draws) - expected).abs().max() < 1e-4
    ends = torch.tensor([0.0, float(np.nextafter(np.float32(1), np.float32(0)))])
    assert not model.never_sampled[model.sample(words.expand(2, -1), ends)].any()


def test_the_discriminator_reads_samples_where_masks_were_and_originals_elsewhere(bert_tokenizer, corpus, batch):
    model = both_networks(bert_tokenizer).eval()
    common = batch["labels"][batch["labels"] != -100].mode().values
    with torch.no_grad():
        model.generator.generator_lm_head.bias[common] = 5.0  # so that some samples hit the original
    seen = read_by_the_discriminator(model)
    output = model(**batch)
    originals = torch.from_numpy(np.stack([corpus.train[n]["input_ids"] for n in range(32)]).astype(np.int64))
    masked = batch["labels"] != -100
    assert torch.equal(seen["ids"][~masked], originals[~masked])
    assert not model.never_sampled[seen["ids"][masked]].any()
    assert torch.equal(output.replaced, seen["ids"] != originals)  # a sample that hits the original is original
    assert output.replaced.sum() > 100
    assert output.replaced[masked].logical_not().sum() > 1
    assert (output.discriminator_nats[~batch["discriminated"]] == 0).all()
    assert (output.discriminator_nats[batch["discriminated"]] > 0).all()


def test_the_loss_is_that_of_transformers_two_classes(bert_tokenizer, batch):
    model = both_networks(bert_tokenizer).eval()
    context = {name: batch[name] for name in ("attention_mask", "position_ids")}
    seen = read_by_the_discriminator(model)
    with torch.no_grad():
        output = model(**batch)
        generator = model.generator(input_ids=batch["input_ids"], labels=batch["labels"], **context)
        logits = model.discriminator(input_ids=seen["ids"], **context).logits
    asked = batch["discriminated"]
    judged = torch.nn.functional.binary_cross_entropy_with_logits(logits[asked], output.replaced[asked].float())
    assert torch.allclose(output.loss, generator.loss + 50 * judged, rtol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_documents_see_each_other_in_neither_network(bert_tokenizer, corpus, attention):
    model = both_networks(bert_tokenizer, attention, initializer_range=0.2).eval()
    rows = [row for row in corpus.train if (row["position_ids"] == 0).sum() > 1][:4]
    collator = ReplacedTokenDetection(bert_tokenizer, isolation=isolation_of(model.config, attention))
    batch = collator(rows)
    with torch.no_grad():
        together, compared = model(**batch), 0
        for number, row in enumerate(rows):
            for start, stop in pairwise([*np.flatnonzero(row["position_ids"] == 0), BLOCK]):
                piece = {
                    name: batch[name][number : number + 1, start:stop]
                    for name in ("input_ids", "labels", "draws", "discriminated")
                }
                alone = model(**piece)
                assert torch.allclose(together.logits[number, start:stop], alone.logits[0], atol=1e-5)
                assert torch.equal(together.replaced[number, start:stop], alone.replaced[0])
                compared += int(alone.replaced.sum())
        assert compared > 4
        if attention == "sdpa":
            open_mask = {"attention_mask": torch.ones_like(batch["attention_mask"])}
            assert (model(**batch | open_mask).logits - together.logits).abs().max() > 1e-2


def test_both_networks_learn_a_few_texts_by_heart(trainer, corpus):
    run = trainer(max_steps=60, learning_rate=3e-3, muon_learning_rate=0.02, per_device_train_batch_size=8)
    run.train_dataset = run.eval_dataset = corpus.train.select(range(8))
    before = run.evaluate()
    run.train()
    after = run.evaluate()
    assert 0.4 < before["eval_auc"] < 0.6
    assert after["eval_auc"] > 0.7
    assert after["eval_nats_per_token"] < before["eval_nats_per_token"] - 1
    assert losses(run)[-1] < losses(run)[0] / 2


def test_evaluation_is_the_same_for_every_batch_size_and_leaves_training_as_it_is(bert_tokenizer, trainer):
    plain, evaluated = trainer("a", max_steps=4), trainer("b", max_steps=4, eval_strategy="steps", eval_steps=1)
    plain.train()
    evaluated.train()
    assert losses(plain) == losses(evaluated)
    one, other = plain.evaluate(), trainer("c", model=plain.model, per_device_eval_batch_size=2).evaluate()
    for name in ("nats_per_token", "accuracy", "tokens", "replaced_accuracy", "original_accuracy", "auc"):
        assert one[f"eval_{name}"] == pytest.approx(other[f"eval_{name}"], rel=1e-5), name


def test_a_resumed_run_ends_with_the_same_weights_and_plain_directories(bert_tokenizer, trainer, tmp_path, caplog):
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "muon_learning_rate": 0.02}
    dropout = {"hidden_dropout_prob": 0.1}  # so that torch's own random state counts
    whole = trainer("whole", both_networks(bert_tokenizer, **dropout), **settings)
    whole.train()
    resumed = trainer("resumed", both_networks(bert_tokenizer, **dropout), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert "missing keys" not in caplog.text

    whole.save_model(_internal_call=True)
    output = tmp_path / "whole"
    assert json.loads((output / "config.json").read_text())["architectures"] == ["ElectraForPreTraining"]
    assert not any(name.startswith("generator") for name in load_file(output / "model.safetensors"))
    batch = whole.eval_collator([whole.eval_dataset[0]])
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids")}
    for model, directory, auto in (
        (whole.model.discriminator, output, AutoModelForPreTraining),
        (whole.model.generator, output / "generator", AutoModelForMaskedLM),
    ):
        loaded, info = auto.from_pretrained(directory, output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        assert torch.equal(loaded.eval()(**inputs).logits, model.eval()(**inputs).logits)
    assert torch.equal(AutoModel.from_pretrained(output)(**inputs)[0], whole.model.discriminator.electra(**inputs)[0])
    classifier = AutoModelForSequenceClassification.from_pretrained(output, num_labels=3)
    assert classifier(**inputs).logits.shape == (1, 3)
