"""T5 and ELECTRA as a user pretrains them: two steps of each config, then what plain transformers makes of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = (
    "--size tiny --max_steps 2 --warmup_steps 0 --eval_steps 1 --save_steps 1 --logging_steps 1 --bf16 False "
    "--per_device_train_batch_size 4 --eval_blocks 8"
)

# A process that never heard of lm_recipes.
PLAIN = """
import json, sys, torch
from transformers import (AutoModel, AutoModelForPreTraining, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification,
                          AutoTokenizer, pipeline)

directory, track = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(directory)
if track == "t5":
    model = AutoModelForSeq2SeqLM.from_pretrained(directory)
    ids = tokenizer("return the <|extra_0|> of the list<|eos|>", return_tensors="pt").input_ids
    written = model.generate(ids, max_new_tokens=5, do_sample=False)
    print(json.dumps({"starts_with_pad": int(written[0, 0]) == tokenizer.pad_token_id, "written": written.shape[1]}))
else:
    ids = tokenizer("return the length of the list", return_tensors="pt").input_ids
    said = AutoModelForPreTraining.from_pretrained(directory)(ids).logits
    fill = pipeline("fill-mask", model=directory + "/generator")
    print(json.dumps({
        "said_of_each_token": list(said.shape) == list(ids.shape),
        "hidden": AutoModel.from_pretrained(directory)(ids)[0].shape[-1],
        "classes": AutoModelForSequenceClassification.from_pretrained(directory, num_labels=3)(ids).logits.shape[-1],
        "found": len(fill(f"return the {fill.tokenizer.mask_token} of the list")),
    }))
assert "lm_recipes" not in sys.modules
"""


def launch(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)


def seen_by_plain_transformers(directory: Path, track: str, scratch: Path) -> dict:
    (scratch / "plain.py").write_text(PLAIN)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, scratch / "plain.py", directory, track]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture
def packed_for_t5(tmp_path, corpus_dir, documents) -> tuple[Path, Path]:
    from lm_recipes.tokenization.training import train_tokenizer

    data, tokenizer = tmp_path / "packed", tmp_path / "tokenizer"
    train_tokenizer(documents[:200], "unigram", 512, reserved=["sentinels=16"]).save_pretrained(tokenizer)
    flags = f"--data {corpus_dir} --tokenizer_name_or_path {tokenizer} --output_dir {data} --block_size 64"
    packed = launch(ROOT / "recipes" / "corpus" / "pack.py", *flags.split())
    assert packed.returncode == 0, packed.stderr[-3000:]
    return data, tokenizer


def test_t5_trains_and_writes_in_plain_transformers(packed_for_t5, tmp_path):
    data, tokenizer = packed_for_t5
    output, track = tmp_path / "model", ROOT / "recipes" / "t5"
    flags = f"--data {data} --tokenizer_name_or_path {tokenizer} --output_dir {output} {SMALL}"
    done = launch(track / "pretrain.py", "--config", track / "configs" / "pretrain-small.yaml", *flags.split())
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((output / "results.json").read_text())["metrics"]
    assert metrics["train_tokens"] == 2 * 4 * 64
    assert 3 < metrics["test_nats_per_target_token"] < 12
    assert "AutoModelForSeq2SeqLM" in (output / "README.md").read_text()
    seen = seen_by_plain_transformers(output, "t5", tmp_path)
    assert seen["starts_with_pad"]
    assert seen["written"] > 1


def test_electra_trains_and_both_networks_load_in_plain_transformers(packed, tmp_path):
    data, tokenizer = packed["bert"]
    output, track = tmp_path / "model", ROOT / "recipes" / "bert"
    flags = f"--data {data} --tokenizer_name_or_path {tokenizer} --output_dir {output} {SMALL}"
    config = track / "configs" / "pretrain-electra.yaml"
    done = launch(track / "pretrain_electra.py", "--config", config, *flags.split())
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((output / "results.json").read_text())["metrics"]
    assert metrics["train_tokens"] == 2 * 4 * 64
    assert 0.3 < metrics["test_auc"] < 0.7
    assert (output / "README.md").read_text().startswith("---\n")
    assert not list(output.glob("*.bin"))
    seen = seen_by_plain_transformers(output, "bert", tmp_path)
    assert seen == {"said_of_each_token": True, "hidden": 64, "classes": 3, "found": 5}
