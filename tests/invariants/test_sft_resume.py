"""Fine-tuning on dialogues that was killed ends with the weights of one that was not."""

import json
import sys
from pathlib import Path

import pytest
import torch
from objectives import RECIPES, kill_after, launch
from safetensors.torch import load_file
from tiny_models import gpt, gpt_tokenizer, save

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("inputs")
    save(directory / "decoder", gpt("nanochat", context=128), gpt_tokenizer())
    said = ["the lazy dog", "since when?", "rome is the capital", "a fox"]
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"my knee {number}"},
                {"role": "assistant", "content": f"{said[number % 4]} {number % 7}"},
            ]
        }
        for number in range(150)
    ]
    (directory / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return directory


def command(inputs: Path, output: Path, *flags: object) -> list[str]:
    fixed = f"--model_name_or_path {inputs}/decoder --source {inputs}/chats.jsonl --output_dir {output} "
    fixed += "--max_length 100 --packing True --use_cpu True --bf16 False --activation_checkpointing False "
    fixed += "--per_device_train_batch_size 2 --learning_rate 1e-2 --logging_steps 1 --eval_strategy no "
    fixed += "--disable_tqdm True --report_to none"
    return [str(RECIPES / "gpt" / "sft.py"), *fixed.split(), *map(str, flags)]


def losses(output: Path) -> list[float]:
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(inputs, tmp_path, caplog):
    flags = ("--max_steps", 24, "--save_strategy", "steps", "--save_steps", 4)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    launch(command(inputs, whole, *flags))
    again = command(inputs, killed, *flags)
    kill_after([sys.executable, *again], killed / "checkpoint-8")
    launch(again)
    assert f"resume  {killed}/checkpoint-" in caplog.text
    assert losses(killed) == losses(whole)
    one, other = (load_file(output / "model.safetensors") for output in (whole, killed))
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    # What was measured before and after is that of the whole run, too.
    records = [json.loads((output / "results.json").read_text())["metrics"]["test"] for output in (whole, killed)]
    assert records[0] == records[1]


def test_a_run_on_other_rows_is_another_run(inputs, tmp_path, capsys):
    flags = ("--max_steps", 2, "--save_strategy", "steps", "--save_steps", 1)
    launch(command(inputs, tmp_path / "out", *flags))
    with pytest.raises(SystemExit):
        launch(command(inputs, tmp_path / "out", *flags, "--train_rows", 50))
    assert "holds checkpoints of another run" in capsys.readouterr().err


def test_a_run_learns_from_as_many_rows_as_it_was_told_and_counts_labels(inputs, tmp_path):
    flags = ("--max_steps", 2, "--save_strategy", "no", "--train_rows", 40, "--general", f"{inputs}/texts.jsonl")
    rows = ({"text": f"the quick brown fox {number} jumps over the lazy dog"} for number in range(80))
    (inputs / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    launch(command(inputs, tmp_path / "out", *flags))
    metrics = json.loads((tmp_path / "out" / "results.json").read_text())["metrics"]
    assert metrics["train_dialogues"] == metrics["train_windows"] == 40
    assert 0 < metrics["train_tokens_with_a_label"] < 40 * 100
    assert set(metrics["general"]) == {"bits_per_byte_before", "bits_per_byte", "change"}


def test_answers_that_are_classes_are_counted_before_and_after(inputs, tmp_path):
    rows = [
        {"question": f"{'a fox' if i % 2 else 'the dog'} {i}", "answer": "cat" if i % 2 else "dog"} for i in range(120)
    ]
    (inputs / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    flags = ("--source", f"{inputs}/questions.jsonl", "--prompt_column", "question", "--answer_column", "answer")
    launch(command(inputs, tmp_path / "out", *flags, "--max_steps", 120, "--save_strategy", "no"))
    test = json.loads((tmp_path / "out" / "results.json").read_text())["metrics"]["test"]
    assert test["accuracy"] > 0.8
    assert test["bits_per_byte"] < test["bits_per_byte_before"]
    assert 0 <= test["accuracy_before"] <= 1
