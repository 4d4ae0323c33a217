"""`--push_to_hub` of every training script, over HTTP: what arrives is what was saved, and it loads back."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from loopback_hub import USER, loopback_hub
from tiny_models import TEXT, bert_config, bert_tokenizer, gpt, gpt_tokenizer, save
from transformers import AutoModelForMaskedLM, TrainingArguments, set_seed

from lm_recipes.launch import UserError
from lm_recipes.training.hub import refuse_push_without_login

RECIPES = Path(__file__).parents[2] / "recipes"
PRETRAIN = "--size tiny --per_device_train_batch_size 4 --eval_blocks 2"
# name, script, flags, auto class that loads the result, file with its weights
CASES = [
    ("gpt", "gpt/pretrain.py", f"{{packed_gpt}} {PRETRAIN}", "AutoModelForCausalLM", "model"),
    ("bert", "bert/pretrain.py", f"{{packed_bert}} {PRETRAIN}", "AutoModelForMaskedLM", "model"),
    ("classifier", "bert/classify.py", "{classify}", "AutoModelForSequenceClassification", "model"),
    ("chat-lora", "gpt/sft.py", "{sft} --use_peft --lora_r 2", "AutoModelForCausalLM", "adapter_model"),
]
LOAD = """
import sys
import torch, transformers
from transformers import AutoTokenizer

for auto_class, *sources in (argument.split("|") for argument in sys.argv[1:]):
    logits = []
    for source in sources:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = getattr(transformers, auto_class).from_pretrained(source, dtype=torch.float32).eval()
        with torch.no_grad():
            logits.append(model(**tokenizer("the dog", return_tensors="pt")).logits)
    assert torch.equal(*logits), f"{sources[0]} answers differently from what was saved"
assert "lm_recipes" not in sys.modules
"""


@pytest.fixture(scope="module")
def hub():
    with loopback_hub() as running:
        yield running


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, packed) -> dict[str, str]:
    """The flags that name models and data, for each kind of script."""
    made = tmp_path_factory.mktemp("inputs")
    set_seed(0)
    words = bert_tokenizer()
    encoder = save(made / "bert", AutoModelForMaskedLM.from_config(bert_config("modernbert", len(words))), words)
    decoder = save(made / "gpt", gpt("nanochat", context=256), gpt_tokenizer())
    reviews = [{"text": f"{TEXT[i % 3]} {i}", "label": ["negative", "positive"][i % 2]} for i in range(60)]
    turns = [
        [{"role": "user", "content": f"how is knee {i}?"}, {"role": "assistant", "content": f"better than {i}."}]
        for i in range(60)
    ]
    (made / "reviews.jsonl").write_text("\n".join(map(json.dumps, reviews)))
    (made / "dialogues.jsonl").write_text("\n".join(json.dumps({"messages": turn}) for turn in turns))
    flags = {
        f"packed_{track}": f"--data {data} --tokenizer_name_or_path {tokenizer}"
        for track, (data, tokenizer) in packed.items()
    }
    flags["classify"] = (
        f"--model_name_or_path {encoder} --source {made}/reviews.jsonl --max_length 32 --baselines False"
    )
    flags["sft"] = f"--model_name_or_path {decoder} --source {made}/dialogues.jsonl --max_length 128"
    return flags


def run(arguments: list[object], environment: dict[str, str], **more: str) -> subprocess.CompletedProcess:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING_FACE_"))}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**inherited, "OMP_NUM_THREADS": "1", **environment, **more},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def pushed(hub, inputs, tmp_path_factory) -> dict[str, tuple[subprocess.CompletedProcess, Path]]:
    """Every case run once, two at a time: how it ended, and its output directory."""
    made = tmp_path_factory.mktemp("pushed")

    def push(case: tuple) -> subprocess.CompletedProcess:
        name, script, flags, *_ = case
        more = f"--push_to_hub --hub_model_id {name} --max_steps 2 --save_strategy steps --save_steps 1"
        arguments = [*flags.format(**inputs).split(), *more.split(), "--output_dir", made / name]
        return run([RECIPES / script, *arguments], hub.environment(made / "home"))

    with ThreadPoolExecutor(2) as two:
        return {case[0]: (done, made / case[0]) for case, done in zip(CASES, two.map(push, CASES), strict=True)}


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_a_trained_model_arrives_as_it_was_saved(case, pushed, hub):
    name, *_, weights = case
    done, output = pushed[name]
    assert done.returncode == 0, done.stderr[-3000:]
    newest = hub.repositories[f"{USER}/{name}"][-1]
    assert {f"{weights}.safetensors", "tokenizer.json", "README.md", "results.json"} <= set(newest.files)
    assert {path: (output / path).read_bytes() for path in newest.files} == newest.files
    assert f"{weights}.safetensors" in newest.large
    assert not [path for path in newest.files if path.endswith(".bin") or path.startswith("checkpoint-")]
    assert "lm-recipes" in newest.files["README.md"].decode()


def test_everything_pushed_loads_back_in_a_process_without_lm_recipes(pushed, hub, tmp_path):
    pairs = [f"{case[3]}|{USER}/{case[0]}|{pushed[case[0]][1]}" for case in CASES]
    done = run(["-c", LOAD, *pairs], hub.environment(tmp_path / "empty"))
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"HF_TOKEN": ""}, "not logged in; run `hf auth login`"),
        ({"HF_TOKEN": "hf_wrong"}, "refused the login"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "cannot be reached"),
    ],
    ids=["no-token", "wrong-token", "no-hub"],
)
def test_a_push_without_login_is_refused_in_one_line_before_anything_else(environment, complaint, hub, tmp_path):
    arguments = ["--data", "nowhere", "--tokenizer_name_or_path", "nowhere", "--output_dir", tmp_path / "output"]
    done = run(
        [RECIPES / "gpt/pretrain.py", *arguments, "--push_to_hub"], hub.environment(tmp_path / "home"), **environment
    )
    assert done.returncode == 2
    assert done.stderr.strip().split("\n")[-1].startswith("error: --push_to_hub: ")
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"hub_model_id": "a/b/c"}, "--hub_model_id: "),
        ({"hub_token": "hf_secret"}, "--hub_token would be written into results"),
        ({}, "HF_HUB_OFFLINE is set"),
    ],
)
def test_what_can_be_known_without_asking_the_hub_is_refused_first(flags, complaint, tmp_path):
    arguments = TrainingArguments(tmp_path / "output", use_cpu=True, push_to_hub=True, **flags)
    with pytest.raises(UserError, match=complaint) as refusal:
        refuse_push_without_login(arguments)
    assert "\n" not in str(refusal.value)
    assert "hf_secret" not in str(refusal.value)
