"""The trainer: exact evaluation, parameter groups, the watchdog, and what is refused before the first step."""

import copy
import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from lm_recipes.launch import UserError
from lm_recipes.models import decoder_config, encoder_config, isolation_of
from lm_recipes.objectives import CausalLanguageModeling, MaskedLanguageModeling, read_packed
from lm_recipes.training import preflight
from lm_recipes.training.arguments import PretrainingArguments
from lm_recipes.training.optimizer import MuonAdamW, split_parameters
from lm_recipes.training.trainer import LanguageModelTrainer


def arguments(tmp_path, **settings) -> PretrainingArguments:
    fixed = {"use_cpu": True, "bf16": False, "save_strategy": "no", "disable_tqdm": True, "max_steps": 2}
    return PretrainingArguments(output_dir=tmp_path / "out", **fixed | settings)


@pytest.fixture
def gpt(gpt_tokenizer, packed):
    corpus = read_packed(packed["gpt"][0])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(decoder_config("tiny", gpt_tokenizer, corpus.block_size))
    return model, corpus, CausalLanguageModeling(gpt_tokenizer.pad_token_id)


def test_bits_per_byte_is_the_summed_loss_over_the_bytes_of_the_text(gpt, tmp_path):
    model, corpus, collator = gpt
    bytes_per_token = corpus.bytes_per_token["validation"]
    trainer = LanguageModelTrainer(
        model=model, args=arguments(tmp_path, per_device_eval_batch_size=7), eval_dataset=corpus.validation,
        data_collator=collator, eval_collator=collator, bytes_per_token=bytes_per_token,
    )  # fmt: skip
    reported = trainer.evaluate()
    nats, tokens = 0.0, 0
    model.eval()
    with torch.no_grad():
        for row in corpus.validation:
            batch = collator([row])
            labels = batch.pop("labels")
            loss = functional.cross_entropy(model(**batch).logits[0, :-1], labels[0, 1:], reduction="sum")
            nats, tokens = nats + loss.item(), tokens + int((labels[0, 1:] != -100).sum())
    assert reported["eval_tokens"] == tokens
    assert reported["eval_nats_per_token"] == pytest.approx(nats / tokens, rel=1e-5)
    assert reported["eval_bits_per_byte"] == pytest.approx(nats / math.log(2) / (tokens * bytes_per_token), rel=1e-5)


def test_masked_evaluation_keeps_its_masks_whatever_training_masks(bert_tokenizer, packed, tmp_path):
    corpus = read_packed(packed["bert"][0])
    config = encoder_config("tiny", bert_tokenizer, corpus.block_size)
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(config)
    masks = {"tokenizer": bert_tokenizer, "isolation": isolation_of(config, "sdpa")}
    trainer = LanguageModelTrainer(
        model=model, args=arguments(tmp_path, max_steps=3, learning_rate=0.0, eval_strategy="steps", eval_steps=1),
        train_dataset=corpus.train, eval_dataset=corpus.validation.select(range(4)),
        data_collator=MaskedLanguageModeling(**masks, mlm_probability=0.4),
        eval_collator=MaskedLanguageModeling(**masks),
    )  # fmt: skip
    trainer.train()
    evaluations = [entry["eval_nats_per_token"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(evaluations) == 3
    assert len(set(evaluations)) == 1  # a learning rate of zero and the same masks: the same number


def test_muon_gets_the_hidden_matrices_and_adamw_everything_else(bert_tokenizer):
    model = AutoModelForMaskedLM.from_config(encoder_config("tiny", bert_tokenizer, 64))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    hidden, others = ({names[id(p)] for p in group} for group in split_parameters(model))
    assert hidden | others == set(names.values())
    assert not hidden & others
    assert all(".Wi." in n or ".Wo." in n or ".Wqkv." in n or n == "head.dense.weight" for n in hidden)
    assert {"model.embeddings.tok_embeddings.weight", "decoder.bias"} <= others
    assert len(hidden) == 2 * 4 + 1


def test_the_joint_optimizer_equals_its_two_parts_and_survives_its_state_dict():
    def model():
        torch.manual_seed(0)
        layers = torch.nn.Sequential(torch.nn.Embedding(7, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 7))
        layers.get_input_embeddings, layers.get_output_embeddings = lambda: layers[0], lambda: layers[2]
        return layers

    def step(layers, *optimizers):
        functional.cross_entropy(layers(torch.arange(7)), torch.arange(7)).backward()
        for optimizer in optimizers:
            optimizer.step()
        layers.zero_grad()

    one, two, resumed = model(), model(), model()
    joint = MuonAdamW(one, learning_rate=0.01, muon_learning_rate=0.02)
    muon = torch.optim.Muon([two[1].weight], lr=0.02, weight_decay=0.0, momentum=0.95)
    others = [two[0].weight, two[1].bias, two[2].weight, two[2].bias]
    adamw = torch.optim.AdamW(others, lr=0.01, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    for number in range(6):
        step(one, joint)
        step(two, muon, adamw)
        if number == 2:
            resumed.load_state_dict(one.state_dict())
            continued = MuonAdamW(resumed, learning_rate=0.5, muon_learning_rate=0.5)
            continued.load_state_dict(copy.deepcopy(joint.state_dict()))  # it would share tensors
        elif number > 2:
            step(resumed, continued)
    for a, b, c in zip(one.parameters(), two.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_a_non_finite_loss_stops_the_run_and_names_the_step(gpt, tmp_path):
    model, corpus, collator = gpt

    class PoisonedAtStep3(LanguageModelTrainer):
        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            return loss * float("nan") if self.state.global_step == 2 else loss

    trainer = PoisonedAtStep3(
        model=model, args=arguments(tmp_path, max_steps=10, logging_steps=5), train_dataset=corpus.train,
        data_collator=collator, eval_collator=collator,
    )  # fmt: skip
    with pytest.raises(UserError, match="not finite at step 3"):
        trainer.train()
    assert trainer.state.global_step == 5


@pytest.mark.parametrize(("clip", "norms"), [(0.0, 3), (1.0, 6)])
def test_the_norm_of_gradients_is_computed_where_a_log_shows_it_or_they_are_clipped(
    clip, norms, gpt, tmp_path, monkeypatch
):
    model, corpus, collator = gpt
    settings = arguments(tmp_path, max_steps=6, logging_steps=3, logging_first_step=True, max_grad_norm=clip)
    trainer = LanguageModelTrainer(
        model=model, args=settings, train_dataset=corpus.train, data_collator=collator, eval_collator=collator
    )
    computed, compute = [], trainer.accelerator.clip_grad_norm_
    monkeypatch.setattr(
        trainer.accelerator, "clip_grad_norm_", lambda *given: computed.append(compute(*given)) or computed[-1]
    )
    trainer.train()
    logged = [entry["grad_norm"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(computed) == norms
    assert logged == [float(computed[at]) for at in ((0, 1, 2) if norms == 3 else (0, 2, 5))]


def test_the_learning_rate_falls_to_zero_over_the_last_steps(gpt, tmp_path):
    model, corpus, collator = gpt
    settings = arguments(tmp_path, max_steps=10, logging_steps=1, decay_share=0.4, warmup_steps=2, learning_rate=1.0)
    trainer = LanguageModelTrainer(
        model=model, args=settings, train_dataset=corpus.train, data_collator=collator, eval_collator=collator
    )
    trainer.create_optimizer_and_scheduler(10)
    rates = []
    for _ in range(10):
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    assert rates == pytest.approx([0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25])


def test_refusals_before_the_first_step(gpt, gpt_tokenizer, bert_tokenizer, packed):
    model, corpus, collator = gpt
    batch = collator([corpus.train[0]])
    unlabelled = batch | {"labels": torch.full_like(batch["labels"], -100)}
    foreign = batch | {"input_ids": torch.full_like(batch["input_ids"], len(gpt_tokenizer))}
    with pytest.raises(UserError, match="would be learned"):
        preflight.check_batch(unlabelled, gpt_tokenizer)
    with pytest.raises(UserError, match="beyond its"):
        preflight.check_batch(foreign, gpt_tokenizer)
    with pytest.raises(UserError, match="not the tokenizer the data was packed with"):
        preflight.check_packed_with(corpus, bert_tokenizer)
    preflight.check_packed_with(corpus, gpt_tokenizer)
    gpt_tokenizer.add_tokens(["<new>"])
    with pytest.raises(UserError, match="tokens, but the model embeds"):
        preflight.check_vocabulary(gpt_tokenizer, model)
    bert_tokenizer.eos_token = bert_tokenizer.pad_token
    encoder = AutoModelForMaskedLM.from_config(encoder_config("tiny", bert_tokenizer, 8))
    with pytest.raises(UserError, match="the pad token equals eos"):
        preflight.check_vocabulary(bert_tokenizer, encoder)


def test_an_output_directory_is_claimed_by_one_run(tmp_path):
    args = SimpleNamespace(output_dir=str(tmp_path), resume_from_checkpoint=None)
    assert preflight.prepare_output_dir(args, {"learning_rate": 1e-3}) is None
    for step, text in ((5, "{}"), (10, "{}"), (15, '{"half": ')):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(text)
    same = preflight.prepare_output_dir(args, {"learning_rate": 1e-3})
    assert same == str(tmp_path / "checkpoint-10")  # 15 was not written to its end
    with pytest.raises(UserError, match=r"another run \(learning_rate: 0.001 there, 0.01 here\)"):
        preflight.prepare_output_dir(args, {"learning_rate": 1e-2})
    assert json.loads((tmp_path / "run.json").read_text()) == {"learning_rate": "0.001"}
    args.resume_from_checkpoint = "nowhere"
    with pytest.raises(UserError, match="nowhere: no such directory"):
        preflight.prepare_output_dir(args, {})
