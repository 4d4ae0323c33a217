"""A classification adapter goes to the Hub and comes back with its classes, over HTTP; and is merged from there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from loopback_hub import USER, loopback_hub
from tiny_models import TEXT, bert_config, bert_tokenizer, save
from transformers import AutoModelForMaskedLM, set_seed

RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = ["negative", "neutral", "positive"]
LOAD = """
import sys
import torch
from transformers import AutoModelForSequenceClassification as Classifier, AutoTokenizer
from lm_recipes.training.saved_adapters import load_adapter

batch = AutoTokenizer.from_pretrained(sys.argv[1])("the dog", return_tensors="pt")
models = [load_adapter(Classifier, source) for source in sys.argv[1:3]]
with torch.no_grad():
    here, there = (model(**batch).logits for model in models)
    merged = Classifier.from_pretrained(sys.argv[3]).eval()(**batch).logits
assert torch.equal(here, there)
assert (merged - here).abs().max() < 1e-5
print(*models[1].config.id2label.values())
"""


def run(arguments: list[object], environment: dict[str, str]) -> subprocess.CompletedProcess:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING_FACE_"))}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], env={**inherited, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("start", ["true", "pissa"])
def test_a_pushed_adapter_comes_back_with_its_classes(start, tmp_path):
    set_seed(0)
    words = bert_tokenizer()
    encoder = save(tmp_path / "bert", AutoModelForMaskedLM.from_config(bert_config("modernbert", len(words))), words)
    rows = [{"text": f"{TEXT[i % 3]} {i}", "label": NAMES[i % 3]} for i in range(60)]
    (tmp_path / "reviews.jsonl").write_text("\n".join(map(json.dumps, rows)))
    flags = f"--model_name_or_path {encoder} --source {tmp_path}/reviews.jsonl --max_length 32 --baselines False "
    flags += f"--use_peft --lora_r 2 --peft_settings init_lora_weights={start} --max_steps 2 --save_strategy no "
    flags += f"--push_to_hub --hub_model_id mood --output_dir {tmp_path}/mood"
    with loopback_hub() as hub:
        done = run([RECIPES / "bert/classify.py", *flags.split()], hub.environment(tmp_path / "home"))
        assert done.returncode == 0, done.stderr[-3000:]
        assert {"adapter_model.safetensors", "adapter_config.json", "README.md"} <= set(hub.files(f"{USER}/mood"))
        away = hub.environment(tmp_path / "empty")
        merge = ["--adapter", f"{USER}/mood", "--output_dir", tmp_path / "merged"]
        done = run([RECIPES / "merge_adapter.py", *merge], away)
        assert done.returncode == 0, done.stderr[-3000:]
        done = run(["-c", LOAD, tmp_path / "mood", f"{USER}/mood", tmp_path / "merged"], away)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.split() == NAMES
