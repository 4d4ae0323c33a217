"""A classification adapter goes to the Hub and comes back with its classes, over HTTP; merged, and by peft alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

from loopback_hub import USER, loopback_hub
from tiny_models import TEXT, bert_config, bert_tokenizer, save
from transformers import AutoModelForMaskedLM, set_seed

RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = ["negative", "neutral", "positive"]
LOAD = """
import sys
import torch
from huggingface_hub import hf_hub_download

here, there, merged = sys.argv[1:]
card = open(hf_hub_download(there, "README.md"), encoding="utf-8").read()
code = card.split("```python\\n")[1].split("```")[0]
said = {}
exec(code.replace("\\npipeline(", "\\nanswer = pipeline("), said)
assert "lm_recipes" not in sys.modules  # what the card says needs peft alone

from transformers import AutoModelForSequenceClassification as Classifier
from lm_recipes.decoding.loading import load_for_inference
from lm_recipes.training.saved_adapters import load_adapter, merge_adapter

merge_adapter(there, merged)
models = [said["model"], load_adapter(Classifier, here), load_for_inference(Classifier, there, packed=False)[0]]
batch = said["tokenizer"]("the dog", return_tensors="pt")
with torch.no_grad():
    by_peft, here, there = (model.eval()(**batch).logits for model in models)
    merged = Classifier.from_pretrained(merged).eval()(**batch).logits
assert torch.equal(here, there)
assert torch.equal(here, by_peft)
assert (merged - here).abs().max() < 1e-5
print(said["answer"][0]["label"], *models[2].config.id2label.values())
"""


def run(arguments: list[object], environment: dict[str, str]) -> subprocess.CompletedProcess:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING_FACE_"))}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], env={**inherited, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_pushed_adapter_comes_back_with_its_classes(tmp_path):
    """PiSSA's, of which most is changed when it is saved."""
    set_seed(0)
    words = bert_tokenizer()
    encoder = save(tmp_path / "bert", AutoModelForMaskedLM.from_config(bert_config("modernbert", len(words))), words)
    rows = [{"text": f"{TEXT[i % 3]} {i}", "label": NAMES[i % 3]} for i in range(60)]
    (tmp_path / "reviews.jsonl").write_text("\n".join(map(json.dumps, rows)))
    flags = f"--model_name_or_path {encoder} --source {tmp_path}/reviews.jsonl --max_length 32 --baselines False "
    flags += "--use_peft --lora_r 2 --peft_settings init_lora_weights=pissa --max_steps 2 --save_strategy no "
    flags += f"--push_to_hub --hub_model_id mood --output_dir {tmp_path}/mood"
    with loopback_hub() as hub:
        done = run([RECIPES / "bert/classify.py", *flags.split()], hub.environment(tmp_path / "home"))
        assert done.returncode == 0, done.stderr[-3000:]
        assert {"adapter_model.safetensors", "adapter_config.json", "README.md"} <= set(hub.files(f"{USER}/mood"))
        sources = [tmp_path / "mood", f"{USER}/mood", tmp_path / "merged"]
        done = run(["-c", LOAD, *sources], hub.environment(tmp_path / "empty"))
        assert done.returncode == 0, done.stderr[-3000:]
        label, *names = done.stdout.split()
        assert names == NAMES
        assert label in NAMES
