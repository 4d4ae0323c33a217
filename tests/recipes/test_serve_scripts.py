"""serve.py and chat.py as they are launched: started, killed, started again; and a conversation typed into a pipe."""

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import httpx
import pytest
from serving_tools import NAMED, save_chat_model, save_encoder
from tiny_models import gpt, gpt_tokenizer, save
from transformers import AutoModelForSequenceClassification, TextStreamer

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return save_chat_model(tmp_path_factory.mktemp("m") / "chat", context=5000)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> str:
    return save_encoder(tmp_path_factory.mktemp("c") / "sentiment", AutoModelForSequenceClassification, **NAMED)


@contextmanager
def process(script: str, model: str, *flags: object) -> Iterator[tuple[subprocess.Popen, str]]:
    """The script and the address it says it serves on."""
    command = [sys.executable, RECIPES / script, "--model_name_or_path", model, "--port", "0", *map(str, flags)]
    environment = {**os.environ, "GLIBC_TUNABLES": "", "HF_HUB_OFFLINE": "1"}
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        address = next(found[0] for line in server.stderr if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
        for _ in range(200):
            try:
                httpx.get(f"{address}/health")
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield server, address
    finally:
        server.kill()
        server.wait()
        server.stderr.close()


def test_a_server_that_was_killed_serves_again_and_one_that_is_told_to_stop_finishes_what_it_says(model):
    asked = {"prompt": "the dog", "max_tokens": 12, "temperature": 0}
    with process("gpt/serve.py", model) as (server, address):
        before = httpx.post(f"{address}/v1/completions", json=asked).json()["choices"]
        server.send_signal(signal.SIGKILL)
        assert server.wait() == -signal.SIGKILL
    with process("gpt/serve.py", model) as (server, address):
        assert httpx.post(f"{address}/v1/completions", json=asked).json()["choices"] == before
        longer = {"prompt": "the dog", "max_tokens": 400, "stream": True}
        with httpx.stream("POST", f"{address}/v1/completions", json=longer, timeout=30) as response:
            lines = response.iter_lines()
            next(lines)
            server.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert server.wait(timeout=20) in (-signal.SIGTERM, 128 + signal.SIGTERM)


def test_a_classifier_is_served_with_its_evidence(classifier):
    with process("bert/serve.py", classifier) as (_, address):
        response = httpx.post(f"{address}/classify", json={"texts": ["the lazy dog"], "evidence": True})
    assert [word["text"] for word in response.json()["answers"][0]["evidence"]] == ["the", "lazy", "dog"]


def test_what_cannot_be_served_is_refused_in_one_line(launch, model, classifier, monkeypatch, tmp_path):
    monkeypatch.delenv("LM_RECIPES_API_KEY", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    for script, flags, complaint in [
        ("gpt/serve.py", (classifier,), "is there to classify; use recipes/bert/serve.py"),
        ("bert/serve.py", (model,), "continues texts; use recipes/gpt/serve.py"),
        ("gpt/serve.py", ("runs/gone",), "runs/gone: no such model directory"),
        ("gpt/serve.py", (model, "--host", "0.0.0.0"), "set LM_RECIPES_API_KEY"),
        ("gpt/serve.py", (model, "--max_rows", "0"), "--max_rows 0: must be above 0"),
        ("gpt/serve.py", (model, "--vllm"), "there is no `vllm` command"),
        ("gpt/serve.py", (model, model, "--port", "0"), "two of them have one name"),
        ("bert/serve.py", (classifier, "--port", "70000"), "--port 70000: ports end at 65535"),
    ]:
        code, out, error = launch(script, "--model_name_or_path", *flags)
        assert (code, out) == (2, ""), (script, flags)
        assert error.startswith("error: ")
        assert complaint in error


def test_vllm_is_started_with_the_same_models_under_the_same_names(model):
    command = runpy.run_path(str(RECIPES / "gpt" / "serve.py"))["vllm_command"]
    where = "--host 127.0.0.1 --port 8000 --max-num-seqs 64"
    expected = f"vllm serve {model} --served-model-name chat {where}"
    assert command([model], "127.0.0.1", 8000, 64) == expected.split()


# --- chat.py ---


def converse(launch, monkeypatch, model: str, lines: list[str], *flags: object) -> str:
    typed = iter(lines)

    def read(prompt: str) -> str:
        print(prompt, end="")
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", read)
    fixed = ("--model_name_or_path", model, "--strategy", "greedy", "--max_new_tokens", 8)
    code, out, error = launch("gpt/chat.py", *fixed, *flags)
    assert code == 0, error
    return out


def test_a_conversation_is_kept_saved_and_forgotten(launch, monkeypatch, model, tmp_path):
    file = tmp_path / "deep" / "talk.jsonl"
    lines = [
        "how is the knee?",
        "and the dog?",
        f"/save {file}",
        "/reset",
        "how is the knee?",
        f"/save {file}",
        "/help",
    ]
    out = converse(launch, monkeypatch, model, [*lines, "/system be brief", "hello", f"/save {file}", "/quit"])
    first, second, third = (json.loads(line)["messages"] for line in file.read_text("utf-8").splitlines())
    assert [turn["role"] for turn in first] == ["user", "assistant", "user", "assistant"]
    assert second == first[:2]  # greedy, and the first conversation is forgotten
    assert [turn["content"] for turn in third[:2]] == ["be brief", "hello"]
    assert "/save FILE" in out
    for turn in (*first, *third):
        if turn["role"] == "assistant":
            assert turn["content"] in out


def test_ctrl_c_ends_an_answer_and_not_the_conversation(launch, monkeypatch, model, tmp_path):
    put, pieces = TextStreamer.put, count()

    def put_and_press(streamer, value) -> None:
        put(streamer, value)
        if next(pieces) == 4:  # the prompt, and then four tokens
            raise KeyboardInterrupt

    monkeypatch.setattr(TextStreamer, "put", put_and_press)
    out = converse(launch, monkeypatch, model, ["how is the knee?", "and the dog?", f"/save {tmp_path / 'talk.jsonl'}"])
    assert out.count("(interrupted)") == 1
    turns = json.loads((tmp_path / "talk.jsonl").read_text("utf-8"))["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "assistant"]
    assert 0 < len(turns[1]["content"]) < len(turns[3]["content"])


def test_what_no_longer_fits_is_left_out_from_the_front(launch, monkeypatch, tmp_path):
    short = save_chat_model(tmp_path / "short", context=128)
    out = converse(launch, monkeypatch, short, ["how is the knee?"] * 4 + ["knee " * 100])
    assert "turns no longer fit" in out
    assert "say it shorter" in out


def test_a_model_that_knows_no_chats_is_refused(launch, tmp_path):
    plain = save(tmp_path / "plain", gpt("nanochat"), gpt_tokenizer())
    assert "not trained on chats" in launch("gpt/chat.py", "--model_name_or_path", plain)[2]
