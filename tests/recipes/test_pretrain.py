"""The pretraining scripts as a user launches them: every config, what they leave behind, what they refuse."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# T5 and ELECTRA have scripts and tests of their own
CONFIGS = sorted(set(ROOT.glob("recipes/[bg]*/configs/pretrain-*.yaml")) - set(ROOT.glob("recipes/*/*/*-electra.yaml")))
ACCELERATE = ["-m", "accelerate.commands.launch", "--config_file", ROOT / "accelerate_configs" / "cpu.yaml"]

# A process that never heard of lm_recipes. It says what plain transformers makes of the directory.
PLAIN = """
import json, math, sys
from datasets import load_from_disk
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

directory, packed, track = sys.argv[1:]
if track == "bert":
    fill = pipeline("fill-mask", model=directory)
    print(json.dumps({"found": len(fill(f"return the {fill.tokenizer.mask_token} of the list"))}))
else:
    tokenizer, model = AutoTokenizer.from_pretrained(directory), AutoModelForCausalLM.from_pretrained(directory)
    write = pipeline("text-generation", model=model, tokenizer=tokenizer)
    text = write("return the", max_new_tokens=5, do_sample=False)
    nats, tokens = 0.0, 0
    for row in load_from_disk(packed + "/test").with_format("torch"):
        ids, positions = row["input_ids"].long(), row["position_ids"].long()
        starts = torch.where(positions == 0)[0].tolist() + [len(ids)]
        for start, stop in zip(starts, starts[1:]):
            piece = ids[start:stop]
            if piece[0] == tokenizer.pad_token_id:
                continue
            with torch.no_grad():
                loss = model(input_ids=piece[None], labels=piece[None]).loss.item()
            nats, tokens = nats + loss * (len(piece) - 1), tokens + len(piece) - 1
    print(json.dumps({"nats_per_token": nats / tokens, "text": text[0]["generated_text"]}))
assert "lm_recipes" not in sys.modules
"""


def launch(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_every_config_trains_and_its_model_loads_in_plain_transformers(config, packed, tmp_path):
    track = config.parts[-3]
    data, tokenizer = packed[track]
    output = tmp_path / "model"
    small = f"--data {data} --tokenizer_name_or_path {tokenizer} --output_dir {output} --size tiny --max_steps 2 "
    small += "--warmup_steps 0 --eval_steps 1 --save_steps 1 --logging_steps 1 --per_device_train_batch_size 4 "
    small += "--dataloader_num_workers 0 --bf16 False --eval_blocks 8"
    launcher = ACCELERATE if "quickstart" in config.stem else []  # the scripts run unchanged under both
    done = launch(*launcher, ROOT / "recipes" / track / "pretrain.py", "--config", config, *small.split())
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"in    {output}" in done.stderr
    assert "next  python recipes/" in done.stderr

    results = json.loads((output / "results.json").read_text())
    card = (output / "README.md").read_text()
    assert card.startswith("---\n")
    assert results["inputs"]["data"]["fingerprint"] in card
    assert {path.suffix for path in output.iterdir() if path.is_file()} <= {".json", ".md", ".safetensors", ".jinja"}
    assert results["metrics"]["train_tokens"] == 2 * 4 * 64

    (tmp_path / "plain.py").write_text(PLAIN)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    plain = subprocess.run(
        [sys.executable, tmp_path / "plain.py", output, data, track], capture_output=True, text=True, env=environment
    )
    assert plain.returncode == 0, plain.stderr[-3000:]
    seen = json.loads(plain.stdout)
    if track == "gpt":
        assert seen["nats_per_token"] == pytest.approx(results["metrics"]["test_nats_per_token"], rel=1e-4)
        assert seen["text"].startswith("return the")
    else:
        assert seen["found"] == 5


@pytest.mark.parametrize("track", ["bert", "gpt"])
def test_mistakes_are_one_line_and_exit_code_2_before_any_step(track, packed, tokenizer_dirs, tmp_path):
    data, tokenizer = packed[track]
    other = tokenizer_dirs["gpt" if track == "bert" else "bert"]
    output = tmp_path / "out"
    (output / "checkpoint-1").mkdir(parents=True)
    (output / "checkpoint-1" / "trainer_state.json").write_text("{}")
    (output / "run.json").write_text('{"learning_rate": "0.5"}')
    empty = tmp_path / "empty"
    cases = [
        ({"--max_stepz": 3}, "unknown flag --max_stepz; did you mean `max_steps`?"),
        ({"--data": empty}, "no packed corpus"),
        ({"--size": "7B"}, "there is no such size"),
        ({"--tokenizer_name_or_path": other}, "not the tokenizer the data was packed with"),
        ({"--output_dir": output}, "holds checkpoints of another run"),
    ]
    for change, message in cases:
        flags = {
            "--data": data,
            "--tokenizer_name_or_path": tokenizer,
            "--output_dir": tmp_path / "new",
            "--max_steps": 1,
        }
        arguments = [part for pair in (flags | change).items() for part in pair]
        done = launch(ROOT / "recipes" / track / "pretrain.py", *arguments)
        assert done.returncode == 2, done.stderr[-2000:]
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("error: ")
        assert message in last
        assert "Traceback" not in done.stderr


def test_a_loss_that_explodes_ends_the_run_with_the_step_in_one_line(packed, tmp_path):
    data, tokenizer = packed["gpt"]
    flags = f"--data {data} --tokenizer_name_or_path {tokenizer} --output_dir {tmp_path} --size tiny --max_steps 8 "
    flags += "--learning_rate 1e38 --warmup_steps 0 --logging_steps 4 --bf16 False --lr_scheduler_type constant"
    done = launch(ROOT / "recipes" / "gpt" / "pretrain.py", *flags.split())
    assert done.returncode == 2
    assert "error: the loss is not finite at step 2" in done.stderr
    assert not (tmp_path / "model.safetensors").exists()
