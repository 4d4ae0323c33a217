"""The pretraining benchmark: times to losses, kept runs, searches, equal parameters, one measure for every cut."""

import json
import math
import runpy
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from lm_recipes.evaluation import held_out, pretraining_peers
from lm_recipes.evaluation.contest import Contest
from lm_recipes.evaluation.contest_texts import Texts
from lm_recipes.evaluation.runs import (
    FEWEST_STEPS,
    Runs,
    against,
    climb,
    compare,
    launch,
    settings_of,
    steps_within,
    time_to_loss,
    tune,
    typical,
)
from lm_recipes.launch import UserError
from lm_recipes.models import decoder_config, encoder_config
from lm_recipes.objectives import CausalLanguageModeling
from lm_recipes.reporting import pretraining as reporting

ROOT = Path(__file__).parents[2]


def run(seconds: float, loss: float, tokens: float | None = None) -> dict:
    return {"wall_seconds": seconds, "loss": loss, "tokens": tokens or 100 * seconds}


# ---- Times to losses


def test_the_cheapest_run_at_or_below_the_loss_counts_also_where_a_longer_one_is_worse():
    ladder = [run(10, 3.0), run(20, 2.4), run(30, 2.6), run(40, 2.0)]
    assert time_to_loss(ladder, 2.5) == run(20, 2.4)
    assert time_to_loss(ladder, 2.4) == run(20, 2.4)
    assert time_to_loss(ladder, 2.3) == run(40, 2.0)


def test_of_a_run_made_several_times_the_best_time_does_not_count():
    repeated = [run(14, 2.5, 100), run(12, 2.5, 100), run(30, 2.5, 100), run(13, 2.5, 100)]
    assert typical([run(20, 2.4, 200), *repeated]) == [run(14, 2.5, 100), run(20, 2.4, 200)]
    assert time_to_loss(repeated[:3], 2.5) == run(14, 2.5, 100)


def test_a_loss_that_no_budget_reaches_has_no_time_and_bounds_the_ratio():
    ladder = [run(10, 3.0), run(40, 2.0)]
    assert time_to_loss(ladder, 1.9) is None
    assert time_to_loss([run(10, math.nan)], 5.0) is None
    assert time_to_loss([], 5.0) is None
    comparison = compare([run(100, 2.5), run(120, 1.9)], [ladder, ladder])
    assert comparison == {"seeds": 2, "seeds_reached": 1, "times_sooner_below": 3.0}


@given(st.lists(st.tuples(st.floats(1, 300), st.floats(1, 5)), min_size=1), st.floats(1, 5), st.floats(0, 1))
def test_a_lower_loss_never_takes_less_time(ladder, loss, less):
    runs = [run(*one) for one in ladder]
    sooner, later = time_to_loss(runs, loss), time_to_loss(runs, loss - less)
    assert later is None or sooner["wall_seconds"] <= later["wall_seconds"]


def test_a_ladder_is_climbed_until_the_loss_is_low_enough():
    losses = {10: 3.0, 20: 2.4, 30: 2.6, 40: None}

    def train(seconds: float) -> dict | None:
        return losses[seconds] and run(seconds, losses[seconds])

    assert climb(losses, train, 2.5) == [run(10, 3.0), run(20, 2.4)]
    assert climb(losses, train, 2.0) == climb(losses, train) == [run(10, 3.0), run(20, 2.4), run(30, 2.6), None]


def test_the_ratio_of_times_is_sample_efficiency_times_speed():
    peer = run(300, 2.5, tokens=1_500_000)
    ladder = [run(15, 2.6, 90_000), run(20, 2.45, 150_000)]
    found = against(peer, ladder)
    assert found["times_sooner"] == pytest.approx(15)
    assert found["times_fewer_tokens"] == pytest.approx(10)
    assert found["times_faster"] == pytest.approx((150_000 / 20) / (1_500_000 / 300))
    assert found["times_sooner"] == pytest.approx(found["times_fewer_tokens"] * found["times_faster"])
    summary = compare([peer, run(200, 2.5), run(100, 2.5)], [ladder] * 3)
    assert (summary["times_sooner"], summary["times_sooner_least"], summary["times_sooner_most"]) == (10, 5, 15)


@given(st.floats(1, 600), st.floats(0.01, 2), st.floats(0, 30))
def test_a_budget_holds_start_up_and_as_many_steps_as_fit(seconds, step, start_up):
    steps = steps_within(seconds, {"start_up_seconds": start_up, "step_seconds": step})
    assert steps == FEWEST_STEPS or start_up + steps * step <= seconds + 1e-6
    assert start_up + (steps + 1) * step > seconds - 1e-6


# ---- Searches and kept runs


def test_a_search_keeps_the_best_of_each_stage_and_never_ends_worse_than_it_began():
    losses = {(5e-5, 8): 3.0, (1e-3, 8): 2.5, (2e-3, 8): 2.4, (2e-3, 16): 2.6, (2e-3, 4): math.nan}
    tried = []

    def loss_of(settings: dict) -> float:
        tried.append(tuple(settings.values()))
        return losses[tried[-1]]

    stages = [[{"rate": 1e-3}, {"rate": 2e-3}], [{"batch": 16}, {"batch": 4}]]
    assert tune({"rate": 5e-5, "batch": 8}, stages, loss_of) == {"rate": 2e-3, "batch": 8}
    assert tried == list(losses)
    assert tune({"rate": 1.0}, [[{"rate": 2.0}]], lambda settings: math.inf) == {"rate": 1.0}


def test_trials_get_a_part_of_the_steps_and_the_rate_goes_on_over_whole_runs_while_it_helps(tmp_path):
    asked = []

    class Known(Contest):
        def trained(self, who, settings, seed, seconds, share=1.0):
            asked.append((settings["learning_rate"], share))
            best = {1 / 3: 4e-3, 1.0: 1e-3}[share]  # more steps suit a lower rate
            return {"loss": abs(math.log(settings["learning_rate"] / best)) + (not settings.get("bf16"))}

    contest = Known(Runs(tmp_path), Texts("gpt", tmp_path, tmp_path, tmp_path, 64), {})
    stages = [pretraining_peers.rates(4e-3, 8e-3), [{"bf16": True}]]
    found, complete = contest.tuned("run_clm", {"learning_rate": 1e-4}, stages, 0, 300)
    assert (found, complete) == ({"learning_rate": 1e-3, "bf16": True}, True)
    whole = [rate for rate, share in asked if share == 1]
    assert whole[:3] == [4e-3, 2e-3, 8e-3]
    assert set(whole) == {8e-3, 4e-3, 2e-3, 1e-3, 5e-4}
    assert {share for _, share in asked[: -len(whole)]} == {1 / 3}
    assert contest.tuned("run_clm", {"learning_rate": 1e-4}, [], 0, 300) == ({"learning_rate": 1e-4}, True)


def test_settings_found_before_are_taken_from_the_record_instead_of_a_search():
    record = ROOT / "results" / "bench-pretraining-gpt-180.json"
    found = settings_of(record, ["run_clm as shipped", "nanoGPT as shipped", "nanoGPT, tuned"])
    assert found["run_clm as shipped"] == pretraining_peers.SHIPPED["run_clm"]
    assert found["nanoGPT as shipped"] == pretraining_peers.SHIPPED["nanogpt"] != found["nanoGPT, tuned"]
    assert set(found["nanoGPT, tuned"]) == set(found["nanoGPT as shipped"])
    with pytest.raises(UserError, match=r"bench-pretraining-gpt-180.json: no settings of 'run_mlm as shipped'"):
        settings_of(record, ["run_mlm as shipped"])


def test_a_slow_minute_gives_no_variant_fewer_steps(tmp_path):
    """A step of the second one takes twice as long and its start-up three seconds more, whatever else goes on."""
    drift, stall = [3.0, 1.0, 1.5], ("c", 1)
    asked = []

    class Sampled(Contest):
        def sample(self, who, settings, turn):
            name = settings.get("size", "a")
            asked.append((name, turn))
            step, start = {"a": (0.1, 8.0), "b": (0.2, 11.0), "c": (0.1, 8.0)}[name]
            step *= 5.0 if (name, turn) == stall else drift[turn]
            return None if self.runs.dry else {"step_seconds": step, "start_up_seconds": start}

    contest = Sampled(Runs(tmp_path), Texts("gpt", tmp_path, tmp_path, tmp_path, 64), {})
    variants = {"a": {}, "rate": {"learning_rate": 1.0}, "b": {"size": "b"}, "c": {"size": "c"}}
    steps = contest.steps_in_equal_time(variants, 38.1)
    assert steps == {"a": 200, "rate": 200, "b": 90, "c": 200}  # 30.1 s at 0.15, 27.1 s at 0.3
    assert [name for name, _ in asked[:4]] == ["a", "a", "b", "c"]
    contest.runs.dry = True
    assert contest.steps_in_equal_time(variants, 38.1) == dict.fromkeys(variants)


def test_a_sample_is_made_anew_where_what_it_is_held_against_has_changed(tmp_path):
    made = []

    class Launched(Contest):
        def _launch(self, who, settings, steps, seed, directory):
            made.append(settings["muon_learning_rate"])
            return {"step_seconds": 0.1}

    for rate in (0.03, 0.015, 0.015):
        ours = {"muon_learning_rate": rate, "per_device_train_batch_size": 16}
        contest = Launched(Runs(tmp_path), Texts("gpt", tmp_path, tmp_path, tmp_path, 64), ours)
        contest.sample("ours", {}, 0)
        contest.sample("ours", {"muon_learning_rate": None}, 0)
        contest.sample("ours", {"muon_learning_rate": None}, 1)
        contest.runs._lock.release()
    assert made == [0.03, None, None, 0.015, None, None]


@pytest.mark.parametrize(("own", "others"), [(0.02, (0.01, 0.04, None)), (None, (0.01, 0.02, 0.04))])
def test_the_dial_goes_from_shapes_to_optimizers_to_rates_and_the_other_optimizer_makes_its_own_steps(own, others):
    search = runpy.run_path(str(ROOT / "recipes" / "bench" / "dial.py"))["search"]
    asked = []

    class Known(SimpleNamespace):
        def steps_in_equal_time(self, variants, seconds):
            return dict(zip(variants, (100, 80, 120, 110), strict=True))  # 1M, narrow, wide, the other optimizer

        def trained_for(self, settings, seed, steps, seconds):
            asked.append((*settings.values(), steps))
            better = {"size": "160x3", "muon_learning_rate": others[-1], "learning_rate": 8e-3}
            loss = 3 - 0.1 * sum(settings.get(name, "") == value for name, value in better.items())
            return {"loss": loss, "tokens": steps, "tokens_per_second": 1.0, "parameters": 1, "wall_seconds": 60.0}

    found = search(Known(ours={"size": "1M", "muon_learning_rate": own, "learning_rate": 3e-3}), "1M", 60)
    assert [(sizes[0], sizes[-1]) for sizes in asked[:3]] == [("1M", 100), ("96x7", 80), ("160x3", 120)]
    best = others[-1]
    rates = [("160x3", rate, 120 if (rate is None) == (own is None) else 132) for rate in others]
    assert asked[3:] == [*rates, ("160x3", best, 2e-3, 132), ("160x3", best, 8e-3, 132)]
    assert found["best"] == ("160x3, AdamW 0.008" if best is None else "160x3, Muon 0.04, AdamW 0.008")
    lines = reporting.dial_table({"gpt, 1M": found}).splitlines()
    assert lines[0].startswith("| gpt, 1M | bits per byte |")
    assert lines[2] == f"| 128x4, {'' if own is None else 'Muon 0.02, '}AdamW 0.003 | 3.000 | 100 | 1 | 0.00M |"
    assert lines[-1] == f"| **{found['best']}** | 2.700 | 132 | 1 | 0.00M |"


def test_a_finished_run_is_not_made_again_and_a_killed_one_is(tmp_path):
    made = []

    def train(directory: Path) -> dict:
        made.append(directory)
        (directory / "half").touch()
        if len(made) == 2:
            raise KeyboardInterrupt
        return {"loss": 2.0, "files": sorted(file.name for file in directory.iterdir())}

    settings = {"rate": 1e-3}
    first = Runs(tmp_path / "runs")("run_clm seed 0", settings, 60, train)
    with pytest.raises(KeyboardInterrupt):
        Runs(tmp_path / "runs")("run_clm seed 0", {"rate": 2e-3}, 60, train)
    again = Runs(tmp_path / "runs")
    again.dry = True
    assert again("run_clm seed 0", settings, 60, train) == first
    assert again("run_clm seed 0", {"rate": 2e-3}, 90, train) is None
    assert again.missing == 1
    assert again.plan().splitlines()[-1].split() == "2 min to go".split()  # 90 s
    again.dry = False
    second = again("run_clm seed 0", {"rate": 2e-3}, 90, train)
    assert len(made) == 3
    assert second["files"] == ["half"]  # nothing of the killed one but what this one made
    assert json.loads((made[0] / "result.json").read_text())["settings"] == settings


def test_one_bench_at_a_time_makes_runs(tmp_path):
    first, second = Runs(tmp_path), Runs(tmp_path)
    first("a", {}, 1, lambda directory: {})
    with pytest.raises(UserError, match="another bench"):
        second("b", {}, 1, lambda directory: {})


def test_a_training_that_fails_says_why_and_one_that_is_ended_leaves_no_process(tmp_path):
    with pytest.raises(UserError, match="no such thing"):
        launch(["-c", "import sys; sys.exit('no such thing')"], tmp_path)
    pid = tmp_path / "pid"
    child = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(60)"
    parent = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    launch(["-c", parent, child, pid], tmp_path, until=lambda: pid.is_file() and pid.read_text())
    state, deadline = Path(f"/proc/{pid.read_text()}/stat"), time.time() + 10
    while state.exists() and state.read_text().split()[2] != "Z":  # a grandchild dies in its own time
        assert time.time() < deadline
        time.sleep(0.02)


# ---- Models


@pytest.mark.parametrize("peer", ["run_clm", "run_mlm"])
def test_peers_have_our_parameters_within_two_per_cent(peer, gpt_tokenizer, bert_tokenizer):
    tokenizer = bert_tokenizer if peer == "run_mlm" else gpt_tokenizer
    config = (encoder_config if peer == "run_mlm" else decoder_config)("1M", tokenizer, 128)
    with torch.device("meta"):
        kind = AutoModelForMaskedLM if peer == "run_mlm" else AutoModelForCausalLM
        ours = kind.from_config(config).num_parameters()
    count = pretraining_peers.parameters_of(peer, tokenizer, 128)
    width, layers, heads = pretraining_peers.matched_shape(count, ours, config.num_hidden_layers)
    assert width % heads == 0
    assert count(width, layers, heads) == pytest.approx(ours, rel=0.02)
    with pytest.raises(UserError, match="within 2 %"):
        pretraining_peers.matched_shape(count, 1000, config.num_hidden_layers)


def nanogpt_logits(weights: dict, ids: torch.Tensor, heads: int, layers: int) -> torch.Tensor:
    """GPT-2's function on weights as nanoGPT stores them (linear layers [out, in], no biases), from its equations."""

    def normed(name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"])

    x = weights["transformer.wte.weight"][ids] + weights["transformer.wpe.weight"][: ids.shape[1]]
    for layer in (f"transformer.h.{number}." for number in range(layers)):
        together = functional.linear(normed(f"{layer}ln_1", x), weights[f"{layer}attn.c_attn.weight"])
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in together.chunk(3, -1))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + functional.linear(mixed, weights[f"{layer}attn.c_proj.weight"])
        inner = functional.gelu(functional.linear(normed(f"{layer}ln_2", x), weights[f"{layer}mlp.c_fc.weight"]))
        x = x + functional.linear(inner, weights[f"{layer}mlp.c_proj.weight"])
    return functional.linear(normed("transformer.ln_f", x), weights["lm_head.weight"])


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_a_checkpoint_of_nanogpt_becomes_the_same_function(prefix, tmp_path):
    width, vocabulary, heads, layers, block = 12, 30, 3, 2, 16
    generator = torch.Generator().manual_seed(0)
    shapes = {"transformer.wte": (vocabulary, width), "transformer.wpe": (block, width), "transformer.ln_f": (width,)}
    for layer in (f"transformer.h.{number}." for number in range(layers)):
        shapes |= {f"{layer}ln_1": (width,), f"{layer}ln_2": (width,), f"{layer}attn.c_attn": (3 * width, width)}
        shapes |= {f"{layer}attn.c_proj": (width, width), f"{layer}mlp.c_fc": (4 * width, width)}
        shapes |= {f"{layer}mlp.c_proj": (width, 4 * width)}
    weights = {f"{name}.weight": torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    weights["lm_head.weight"] = weights["transformer.wte.weight"]
    about = {"n_layer": layers, "n_head": heads, "n_embd": width, "block_size": block, "bias": False}
    about |= {"vocab_size": vocabulary, "dropout": 0.0}
    saved = {"model": {prefix + name: value for name, value in weights.items()}, "model_args": about, "iter_num": 3}
    torch.save(saved, tmp_path / "ckpt.pt")
    model = pretraining_peers.gpt2_of_nanogpt(tmp_path / "ckpt.pt").eval()
    ids = torch.randint(vocabulary, (2, block), generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, nanogpt_logits(weights, ids, heads, layers), atol=1e-4, rtol=1e-4)


def test_a_directory_that_is_not_nanogpt_is_refused_in_one_line(tmp_path):
    arguments = ["--data", tmp_path, "--tokenizer", tmp_path, "--output", tmp_path / "out", "--nanogpt", tmp_path]
    with pytest.raises(UserError, match=r"--nanogpt .*: no train\.py there"):
        pretraining_peers.main(["nanogpt", *map(str, arguments)])


# ---- Losses


@dataclass
class Unigram:
    """A model whose prediction depends on nothing: its loss of a text must not depend on how the text is cut."""

    logits: torch.Tensor

    def can_generate(self) -> bool:
        return True

    def __call__(self, input_ids, labels, **_):
        logits = self.logits.expand(*labels[:, 1:].shape, -1)
        return SimpleNamespace(loss=functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:]))


@pytest.mark.parametrize("block_size", [64, 100])
def test_bits_per_byte_are_the_same_however_a_text_is_cut(block_size, gpt_tokenizer, documents):
    texts = documents[:60]
    model = Unigram(torch.randn(len(gpt_tokenizer), generator=torch.Generator().manual_seed(0)))
    collator = CausalLanguageModeling(gpt_tokenizer.pad_token_id)
    stream = pretraining_peers.stream_of(texts, gpt_tokenizer)
    packed, asked = held_out.summed_nats(model, held_out.packed_batches(texts, gpt_tokenizer, block_size, collator))
    joined, asked_too = held_out.summed_nats(model, held_out.stream_batches(stream, block_size))
    assert asked == asked_too == len(stream) - 1
    tokens = sum(len(ids) + 1 for ids in gpt_tokenizer(texts)["input_ids"])  # and an eos each
    assert asked == tokens
    exact = -torch.log_softmax(model.logits.double(), 0)[torch.from_numpy(stream[1:].astype(np.int64))].sum()
    bytes_of_text = sum(len(text.encode()) for text in texts)
    assert packed == pytest.approx(float(exact), rel=1e-5)
    assert joined == pytest.approx(float(exact), rel=1e-5)
    assert held_out.bits_per_byte(joined, texts) == pytest.approx(float(exact) / math.log(2) / bytes_of_text, rel=1e-5)


@pytest.mark.parametrize(("length", "block_size"), [(2, 8), (8, 8), (9, 8), (15, 8), (16, 8), (100, 8)])
def test_every_token_of_a_stream_but_its_first_is_asked_for_once(length, block_size):
    stream = np.arange(length, dtype=np.uint16)
    batches = list(held_out.stream_batches(stream, block_size, batch_size=3))
    labels = torch.cat([batch["labels"][:, 1:].flatten() for batch in batches])
    assert labels[labels != -100].tolist() == list(range(1, length))
    before = torch.cat([batch["input_ids"][:, :-1].flatten() for batch in batches])[labels != -100]
    assert before.tolist() == list(range(length - 1))


def test_the_plan_trains_nothing_and_a_wrong_part_is_one_line(tmp_path):
    script = ROOT / "recipes" / "bench" / "pretraining.py"
    flags = f"--track gpt --output_dir {tmp_path / 'out'}".split()
    plan = subprocess.run([sys.executable, script, *flags, "--plan"], capture_output=True, text=True)
    assert plan.returncode == 0, plan.stderr
    assert plan.stdout.splitlines()[-1].endswith("to go")
    assert "run-clm-learning-rate-5e-05" in plan.stdout
    assert not (tmp_path / "out" / "runs").exists()
    known = [*flags, "--plan", "--settings_of", ROOT / "results" / "bench-pretraining-gpt-180.json"]
    without_search = subprocess.run([sys.executable, script, *known], capture_output=True, text=True).stdout
    assert "share" in plan.stdout  # a trial has a share of the steps
    assert "share" not in without_search
    assert "warmup-steps-0.05-300-s-seed-2" in without_search
    wrong = subprocess.run([sys.executable, script, *flags, "--only", "everything"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: --track gpt --only")


def test_the_table_says_for_each_peer_how_much_sooner_and_why():
    ours = [run(10, 3.0, 100), run(20, 2.4, 400)]
    ours = [one | {"start_up_seconds": 5.0, "tokens_per_second": 27.0, "parameters": 1, "code": "x"} for one in ours]
    peer = run(100, 2.5, 4_000) | {"start_up_seconds": 5.0, "tokens_per_second": 42.0, "parameters": 1}
    rows = {"run_clm as shipped": ({"learning_rate": 5e-5}, [peer])}
    speeds = {"vocabulary 8": {"ours": [{"tokens_per_second": 30.0}], "bf16": [{"tokens_per_second": 20.0}]}}
    metrics = reporting.metrics_of(rows, [ours], [10, 20], {"ours": [None]}, speeds, "bits_per_byte")
    assert "ours with one thing changed" not in metrics  # a run is missing
    lines = reporting.markdown_table(metrics).splitlines()
    assert lines[0] == "|  | bits per byte | seconds | our seconds | times sooner | times fewer tokens | times faster |"
    assert lines[2].startswith(
        "| run_clm as shipped (learning_rate 5e-05) | 2.500 (2.500 to 2.500) | 100 (100 to 100) |"
    )
    assert lines[2].endswith("| 20.0 (20.0 to 20.0) | 5.0 (5.0 to 5.0) | 10.0 (10.0 to 10.0) | 0.5 (0.5 to 0.5) |")
    assert lines[4].startswith("| ours, 20 seconds | 2.400 (2.400 to 2.400) | 20.0 |")
    assert lines[6] == "| vocabulary 8 | tokens per second | ours, times faster |"
    assert lines[-1] == "| bf16 | 20 (20 to 20) | 1.5 (1.5 to 1.5) |"


def test_a_changed_technique_is_held_against_ours_seed_by_seed():
    def trained(loss: float, speed: float, tokens: int) -> dict:
        return {"loss": loss, "tokens_per_second": speed, "tokens": tokens, "start_up_seconds": 8.0}

    changed = {
        "ours": [trained(2.0, 100.0, 400), trained(2.1, 50.0, 400)],
        "fp32": [trained(2.2, 50.0, 200), trained(2.2, 30.0, 200)],
    }
    metrics = reporting.metrics_of({}, [[]], [], changed, {}, "nats_per_masked_token")
    row = metrics["ours with one thing changed"]["fp32"]
    assert [row[f"worse_by{end}"] for end in ("", "_least", "_most")] == pytest.approx([0.15, 0.1, 0.2])
    assert [row[f"speed{end}"] for end in ("", "_least", "_most")] == pytest.approx([0.55, 0.5, 0.6])
    assert reporting.markdown_table(metrics).splitlines()[-1] == (
        "| fp32 | 2.200 (2.200 to 2.200) | 0.150 (0.100 to 0.200) | 0.55 (0.50 to 0.60) | 200 |"
    )
