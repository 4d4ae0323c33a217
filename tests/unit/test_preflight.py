"""What is said and refused before the first step: sizes, work, memory and room, each against what then happens."""

import json
import logging
import math
import shutil
from itertools import accumulate
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, LlamaConfig, Trainer, TrainingArguments

from lm_recipes.launch import UserError
from lm_recipes.models import decoder_config, encoder_config, isolation_of
from lm_recipes.objectives import CausalLanguageModeling, MaskedLanguageModeling, read_packed
from lm_recipes.training import hardware, preflight
from lm_recipes.training.arguments import PretrainingArguments
from lm_recipes.training.optimizer import MuonAdamW
from lm_recipes.training.trainer import LanguageModelTrainer


def arguments(output, **settings) -> PretrainingArguments:
    fixed = {"use_cpu": True, "bf16": False, "disable_tqdm": True, "max_steps": 10, "report_to": "none"}
    return PretrainingArguments(output_dir=str(output), **fixed | settings)


def ready(track: str, tokenizer, packed: Path, output, **settings) -> LanguageModelTrainer:
    corpus = read_packed(packed)
    torch.manual_seed(0)
    if track == "gpt":
        model = AutoModelForCausalLM.from_config(decoder_config("tiny", tokenizer, corpus.block_size))
        collator = CausalLanguageModeling(tokenizer.pad_token_id)
    else:
        config = encoder_config("tiny", tokenizer, corpus.block_size)
        model = AutoModelForMaskedLM.from_config(config)
        collator = MaskedLanguageModeling(tokenizer, 0.3, isolation=isolation_of(config, "sdpa"))
    return LanguageModelTrainer(
        model=model, args=arguments(output, **settings), train_dataset=corpus.train, data_collator=collator,
        eval_collator=collator, processing_class=tokenizer,
    )  # fmt: skip


def counts(packed: Path) -> dict:
    return json.loads((packed / "results.json").read_text())["metrics"]["train"]


@pytest.mark.parametrize("track", ["gpt", "bert"])
def test_the_doctor_tells_data_step_model_work_and_memory(track, packed, request, tmp_path, caplog):
    tokenizer, directory = request.getfixturevalue(f"{track}_tokenizer"), packed[track][0]
    run = ready(track, tokenizer, directory, tmp_path, per_device_train_batch_size=6, gradient_accumulation_steps=2)
    with caplog.at_level(logging.INFO, logger="lm_recipes"):
        preflight.doctor(run, tokenizer, counts(directory))
    said = {message.split()[0]: message for message in caplog.messages}
    assert list(said) == ["batch", "input", "labels", "step", "data", "model", "work", "memory"]
    assert "6x64 tokens" in said["batch"]
    assert "768 tokens: 6 rows x 2 accumulated x 1 processes x 64; 10 steps, 7,680 tokens, 0." in said["step"]
    record = counts(directory)
    assert f"{record['blocks']:,} blocks of 64: {100 * record['padding_share']:.2f} % padding" in said["data"]
    assert f"{100 * record['documents_cut'] / record['documents']:.1f} % of the documents are cut" in said["data"]


def test_the_doctor_leaves_the_random_numbers_of_training_alone(packed, gpt_tokenizer, tmp_path):
    run = ready("gpt", gpt_tokenizer, packed["gpt"][0], tmp_path)
    for layer in run.model.model.layers:
        layer.self_attn.attention_dropout = 0.1  # draws some
    before = torch.random.get_rng_state()
    preflight.doctor(run, gpt_tokenizer)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(("rows", "batch", "accumulation", "epochs"), [(37, 4, 1, 2), (37, 4, 3, 2), (3, 8, 2, 1.5)])
def test_planned_steps_are_the_steps_that_a_run_takes(rows, batch, accumulation, epochs, tmp_path):
    model = AutoModelForCausalLM.from_config(
        LlamaConfig(vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    args = arguments(tmp_path, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation,
                     max_steps=-1, num_train_epochs=epochs, lr_scheduler_type="linear")  # fmt: skip
    row = torch.arange(4)
    run = Trainer(model, args, train_dataset=[{"input_ids": row, "labels": row}] * rows)
    run.train()
    assert preflight.planned(args, rows, run.get_total_train_batch_size(args))[0] == run.state.global_step


def test_planned_epochs_count_how_often_the_data_is_read(tmp_path):
    assert preflight.planned(arguments(tmp_path, max_steps=100), rows=50, rows_per_step=8)[1] == pytest.approx(100 / 7)
    assert preflight.planned(arguments(tmp_path, max_steps=100), rows=None, rows_per_step=8) == (100, None)


def test_repeats_beyond_what_teaches_are_a_warning_later_where_masks_are_drawn_afresh(caplog):
    for epochs, fresh_masks in ((3.9, False), (4.1, False), (4.1, True), (41, True), (None, False)):
        preflight._warn_of_repeats(epochs, fresh_masks)
    assert caplog.messages == [
        "repeat  the data is read 4 times; beyond 4 it teaches little more",
        "repeat  the data is read 41 times; beyond 40 it teaches little more",
    ]


def most_bytes_in_tensors(run) -> int:
    """The most memory that torch had handed out during `run`, beyond what it had before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


@pytest.mark.parametrize("bf16", [False, True])
def test_the_memory_estimate_is_near_what_torch_hands_out(bf16, tmp_path, caplog):
    config = LlamaConfig(
        vocab_size=2000, hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=4
    )
    rows = [{"input_ids": torch.arange(256), "position_ids": torch.arange(256)}] * 16
    collator = CausalLanguageModeling(2000)
    model = AutoModelForCausalLM.from_config(config)
    trainer = LanguageModelTrainer(
        model=model, args=arguments(tmp_path, max_steps=2, muon_learning_rate=0.02, save_strategy="no", bf16=bf16),
        train_dataset=rows, data_collator=collator, eval_collator=collator,
    )  # fmt: skip
    with caplog.at_level(logging.INFO, logger="lm_recipes"):
        preflight._say_memory(trainer, rows, muon=True)
    estimated = int(caplog.messages[0].split()[2].replace(",", ""))
    taken = most_bytes_in_tensors(trainer.train) / 1e6 + model.num_parameters() * 4 / 1e6
    assert taken > 100  # MB, or nothing would be tested
    assert taken / 1.25 < estimated < taken * 1.25


def test_optimizer_and_checkpoint_bytes_are_those_of_the_real_state(packed, bert_tokenizer, tmp_path):
    for muon in (None, 0.02):
        run = ready("bert", bert_tokenizer, packed["bert"][0], tmp_path / str(muon), max_steps=2, save_steps=2,
                    muon_learning_rate=muon)  # fmt: skip
        run.train()
        tensors = [value for state in run.optimizer.state.values() for value in state.values()]
        real = sum(t.numel() * t.element_size() for t in tensors if t.ndim)  # but for the step counters
        assert hardware.optimizer_bytes(run.model, muon is not None) == real
        saved = tmp_path / str(muon) / "checkpoint-2"
        on_disk = sum((saved / name).stat().st_size for name in ("model.safetensors", "optimizer.pt"))
        assert on_disk == pytest.approx(hardware.checkpoint_bytes(run.model, muon is not None), rel=0.05)


def test_a_disk_without_room_for_the_checkpoints_is_refused_before_training(packed, gpt_tokenizer, tmp_path):
    free = shutil.disk_usage(tmp_path).free
    hardware.check_disk(tmp_path / "not" / "yet" / "there", free // 2)
    with pytest.raises(UserError, match=r"--output_dir .*: .* GB free, but checkpoints take up to .* GB; make room"):
        hardware.check_disk(tmp_path / "not" / "yet" / "there", 2 * free)
    one = free // 10
    short = {"save_strategy": "steps", "save_steps": 10, "save_total_limit": None}
    preflight._check_disk(arguments(tmp_path, **short), steps=70, one=one)
    with pytest.raises(UserError, match="GB free"):  # eleven and the last one
        preflight._check_disk(arguments(tmp_path, **short), steps=110, one=one)
    preflight._check_disk(arguments(tmp_path, **short | {"save_total_limit": 2}), steps=110, one=one)
    preflight._check_disk(arguments(tmp_path, **short | {"save_strategy": "no"}), steps=110, one=one)
    for step in range(8):  # a resumed run has its checkpoints already: they are overwritten, not added to
        (tmp_path / f"checkpoint-{step}").mkdir()
    preflight._check_disk(arguments(tmp_path, **short), steps=110, one=one)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0.0}, "--learning_rate 0.0: nothing would be learned"),
        ({"learning_rate": math.nan}, "--learning_rate nan: nothing would be learned"),
        ({"muon_learning_rate": 0.0}, "--muon_learning_rate 0.0: nothing would be learned"),
        ({"max_steps": 10, "warmup_steps": 10}, "--warmup_steps 10: the run is over"),
    ],
)
def test_settings_that_teach_nothing_are_refused(settings, message, tmp_path):
    with pytest.raises(UserError, match=message):
        preflight.check_arguments(arguments(tmp_path, **settings))
    preflight.check_arguments(arguments(tmp_path, muon_learning_rate=0.02, warmup_steps=9))
    preflight.check_arguments(TrainingArguments(str(tmp_path), use_cpu=True))  # fine-tuning has no Muon


def test_reporting_that_asks_the_network_where_you_are_is_refused():
    args = SimpleNamespace(learning_rate=1.0, max_steps=-1, warmup_steps=0, report_to=["codecarbon"], bf16=False)
    with pytest.raises(UserError, match="--energy_country"):
        preflight.check_arguments(args)


def test_blocks_longer_than_the_positions_of_the_model_are_refused(packed, bert_tokenizer, tmp_path):
    run = ready("bert", bert_tokenizer, packed["bert"][0], tmp_path)
    run.model.config.max_position_embeddings = 63
    with pytest.raises(UserError, match="blocks of 64 tokens, but the model has positions for 63"):
        preflight.doctor(run, bert_tokenizer)
    roberta = SimpleNamespace(model_type="roberta", max_position_embeddings=65, pad_token_id=1, local_attention=None)
    with pytest.raises(UserError, match="has positions for 63"):  # they start at 2
        preflight._check_positions(roberta, 64)


def test_muon_without_a_matrix_is_refused():
    layers = torch.nn.Sequential(torch.nn.Embedding(7, 8), torch.nn.LayerNorm(8))
    with pytest.raises(UserError, match="no hidden matrices"):
        MuonAdamW(layers, learning_rate=0.1, muon_learning_rate=0.1)


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.4),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA L40S", 362.05),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 4090", 165.2),
    ],
)
def test_peaks_of_devices_are_known_by_their_names(name, tflops):
    assert hardware.peak_flops(name) == pytest.approx(tflops * 1e12)


@pytest.mark.parametrize(
    "name", ["cpu", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA A1000", "L400"]
)
def test_no_peak_is_made_up(name):
    assert hardware.peak_flops(name) is None


def test_tokens_whose_logits_are_computed_are_those_with_labels_where_the_head_sees_no_others(
    packed, bert_tokenizer, gpt_tokenizer, tmp_path
):
    for track, tokenizer in (("bert", bert_tokenizer), ("gpt", gpt_tokenizer)):
        run = ready(track, tokenizer, packed[track][0], tmp_path)
        batch = run.data_collator([run.train_dataset[row] for row in range(20)])
        share = preflight.asked_share(run.model, batch)
        assert share == 1 if track == "gpt" else share == pytest.approx(0.3, abs=0.05)
