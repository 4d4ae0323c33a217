"""The GPT server over real HTTP: what it says is what generate says, and what it refuses it refuses in one form."""

import asyncio
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from serving_tools import chat_tokenizer, metric, running, save_chat_model, wait_until
from tiny_models import gpt, gpt_tokenizer, save

from lm_recipes.decoding.generation import continue_prompts, encode_prompts
from lm_recipes.decoding.strategies import strategy
from lm_recipes.launch import UserError
from lm_recipes.serving.app import create_app, listen
from lm_recipes.serving.launching import KEY, key_and_hosts
from lm_recipes.serving.limits import Settings

MODEL, TOKENIZER = gpt("llama", context=256), chat_tokenizer()
HELLO = [{"role": "user", "content": "how is the knee?"}]


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> str:
    return save_chat_model(tmp_path_factory.mktemp("models") / "chat")


@pytest.fixture(scope="module")
def address(directory):
    with running(create_app(directory, Settings(max_new_tokens=100))) as address:
        yield address


def greedy(prompt: list[int], tokens: int) -> str:
    (ids,) = continue_prompts(MODEL, TOKENIZER, [prompt], strategy("greedy", max_new_tokens=tokens))
    return TOKENIZER.decode(ids, skip_special_tokens=True)


def complete(address: str, **asked) -> dict:
    response = httpx.post(f"{address}/v1/completions", json={"temperature": 0, **asked}, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


def chunks(address: str, path: str, **asked) -> list[dict]:
    with httpx.stream("POST", f"{address}{path}", json={**asked, "stream": True}, timeout=60) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


# --- parity ---


@pytest.mark.parametrize("text", ["the dog", "paris is the capital of", ""])
def test_a_greedy_completion_is_what_generate_says_whole_and_streamed(address, text):
    (prompt,) = encode_prompts(TOKENIZER, [text])
    expected = greedy(prompt, 40)
    whole = complete(address, prompt=text, max_tokens=40)
    assert whole["choices"][0]["text"] == expected
    assert whole["usage"]["prompt_tokens"] == len(prompt)
    asked = {"prompt": text, "max_tokens": 40, "temperature": 0, "stream_options": {"include_usage": True}}
    *said, last = chunks(address, "/v1/completions", **asked)
    assert "".join(chunk["choices"][0]["text"] for chunk in said) == expected
    assert said[-1]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert (last["choices"], last["usage"]) == ([], whole["usage"])


def test_a_chat_is_asked_in_the_models_template(address):
    (prompt,) = encode_prompts(TOKENIZER, ["how is the knee?"], chat=True)
    asked = {"messages": HELLO, "max_tokens": 30, "temperature": 0}
    answer = httpx.post(f"{address}/v1/chat/completions", json=asked).json()
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": greedy(prompt, 30)}
    assert answer["object"] == "chat.completion"
    first, *rest = chunks(address, "/v1/chat/completions", **asked)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    said = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in rest)
    assert said == greedy(prompt, 30)
    parts = [{"role": "user", "content": [{"type": "text", "text": "how is "}, {"type": "text", "text": "the knee?"}]}]
    assert (
        httpx.post(f"{address}/v1/chat/completions", json={**asked, "messages": parts}).json()["usage"]
        == answer["usage"]
    )


def test_many_clients_at_once_hear_what_each_would_hear_alone(address):
    texts = ["the dog", "paris", "a doctor asks the patient how", "rome is the capital of italy", "knee"] * 6
    with ThreadPoolExecutor(len(texts)) as clients:
        said = list(clients.map(lambda text: complete(address, prompt=text, max_tokens=24), texts))
    for text, answer in zip(texts, said, strict=True):
        assert answer["choices"][0]["text"] == greedy(encode_prompts(TOKENIZER, [text])[0], 24)


def test_several_prompts_and_choices_are_numbered_in_order(address):
    prompts = ["the dog", "paris is"]
    choices = complete(address, prompt=prompts, n=2, max_tokens=8)["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    expected = [greedy(encode_prompts(TOKENIZER, [text])[0], 8) for text in prompts]
    assert [choice["text"] for choice in choices] == [expected[0], expected[0], expected[1], expected[1]]
    ids = [encode_prompts(TOKENIZER, [text])[0] for text in prompts]
    assert [choice["text"] for choice in complete(address, prompt=ids, max_tokens=8)["choices"]] == expected


# --- what a request may ask ---


def test_a_seed_draws_the_same_text_and_another_another(address):
    asked = {"prompt": "the dog", "max_tokens": 20, "temperature": 1.5, "top_k": 50, "min_p": 0.01}
    one, again, other = (complete(address, **asked, seed=seed)["choices"][0]["text"] for seed in (1, 1, 2))
    assert one == again != other
    two = complete(address, **asked, seed=1, n=2)["choices"]
    assert [choice["text"] for choice in two] == [one, other]  # choice i draws from seed + i


def test_logprobs_come_in_openais_two_forms_and_agree(address):
    text = "the dog"
    answer = complete(address, prompt=text, max_tokens=6, logprobs=3)
    older, ended = answer["choices"][0]["logprobs"], answer["choices"][0]["finish_reason"] == "stop"
    assert len(older["tokens"]) == len(older["token_logprobs"]) == answer["usage"]["completion_tokens"] - ended
    assert all(value <= 0 for value in older["token_logprobs"])
    asked = {"messages": HELLO, "max_tokens": 6, "temperature": 0, "logprobs": True, "top_logprobs": 4}
    content = httpx.post(f"{address}/v1/chat/completions", json=asked).json()["choices"][0]["logprobs"]["content"]
    for token in content:
        assert token["logprob"] == pytest.approx(token["top_logprobs"][0]["logprob"])
        assert len(token["top_logprobs"]) == 4
        assert token["bytes"] is None or bytes(token["bytes"]).decode() == token["token"]
    streamed = [
        token
        for chunk in chunks(address, "/v1/chat/completions", **asked)
        for token in (chunk["choices"][0].get("logprobs") or {"content": []})["content"]
    ]
    assert [token["token"] for token in streamed] == [token["token"] for token in content]


def test_a_choice_ends_before_a_stop_string(address):
    free = complete(address, prompt="the dog", max_tokens=40)["choices"][0]["text"]
    stop = free[10:13]
    assert stop
    cut = complete(address, prompt="the dog", max_tokens=40, stop=[stop, "never said"])["choices"][0]
    assert (cut["text"], cut["finish_reason"]) == (free[: free.find(stop)], "stop")
    said = chunks(address, "/v1/completions", prompt="the dog", max_tokens=40, temperature=0, stop=stop)
    assert "".join(chunk["choices"][0]["text"] for chunk in said) == cut["text"]


def test_a_text_held_to_a_schema_is_json_of_it(address):
    pytest.importorskip("llguidance", reason="the structured extra is not installed")
    schema = {"type": "object", "properties": {"pain": {"enum": [True, False]}}, "required": ["pain"]}
    schema["additionalProperties"] = False
    wanted = {"type": "json_schema", "json_schema": {"name": "knee", "schema": schema}}
    choice = complete(address, prompt="the knee", max_tokens=60, response_format=wanted)["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert set(json.loads(choice["text"])) == {"pain"}
    bad = {"type": "json_schema", "json_schema": {"name": "knee", "schema": {"type": "no such type"}}}
    refused = httpx.post(f"{address}/v1/completions", json={"prompt": "a", "response_format": bad})
    assert refused.json()["error"]["message"].startswith("response_format: not valid")


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"prompt": "a", "max_tokens": 101}, "at most 100"),
        ({"prompt": "a " * 400}, "context 256"),
        ({"prompt": [1] * 200, "max_tokens": 80}, "at most 56 fit"),
        ({"prompt": [320]}, "there is no token 320"),
        ({"prompt": "a", "temperature": -1}, "temperature: "),
        ({"prompt": "a", "frequency_penalty": 0.5}, "frequency_penalty: this server does not support it"),
        ({"prompt": "a", "max_tokens": "7"}, "max_tokens: "),
        ({"prompt": "a", "n": 17}, "n: "),
        ({"prompt": [1, 1.5]}, "prompt: Input should be a valid string or Input should be a valid integer"),
        ({}, "prompt: Field required"),
    ],
)
def test_what_cannot_be_done_is_refused_in_openais_form(address, asked, complaint):
    response = httpx.post(f"{address}/v1/completions", json=asked)
    error = response.json()["error"]
    assert response.status_code == 400
    assert complaint in error["message"]
    assert (error["code"] == "context_length_exceeded") == ("context 256" in error["message"])  # the page asks for it
    assert (error["type"], set(error)) == ("invalid_request_error", {"message", "type", "param", "code"})


def test_what_asks_for_nothing_is_as_good_as_left_out(address):
    idle = {
        "frequency_penalty": 0.0,
        "presence_penalty": 0,
        "logit_bias": {},
        "echo": False,
        "seed": None,
        "user": None,
    }
    assert complete(address, prompt="a", max_tokens=1, **idle)["usage"]["completion_tokens"] == 1


def test_a_model_that_is_not_there_is_404(address):
    response = httpx.post(f"{address}/v1/completions", json={"prompt": "a", "model": "gpt-17"})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
    assert complete(address, prompt="a", model="chat", max_tokens=1)["model"] == "chat"
    assert httpx.get(f"{address}/v1/models").json()["data"][0]["id"] == "chat"
    assert httpx.get(f"{address}/v1/models/chat").json()["context"] == 256
    assert httpx.get(f"{address}/v1/models/other").status_code == 404


def test_a_model_without_a_template_refuses_chats_in_one_line(tmp_path):
    plain = save(tmp_path / "plain", gpt("nanochat"), gpt_tokenizer())
    with running(create_app(plain)) as address:
        response = httpx.post(f"{address}/v1/chat/completions", json={"messages": HELLO})
        assert (response.status_code, httpx.get(f"{address}/v1/models").json()["data"][0]["chat"]) == (400, False)
        assert "no chat template" in response.json()["error"]["message"]


# --- limits ---


def test_a_key_is_asked_for_where_there_is_one(directory):
    with running(create_app(directory, Settings(api_key="s3cret"))) as address:
        asked = {"prompt": "a", "max_tokens": 1}
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "s3cret"}):
            response = httpx.post(f"{address}/v1/completions", json=asked, headers=headers)
            assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
        right = {"authorization": "Bearer s3cret"}
        assert httpx.post(f"{address}/v1/completions", json=asked, headers=right).status_code == 200
        assert httpx.get(f"{address}/metrics").status_code == httpx.get(f"{address}/v1/models").status_code == 401
        assert all(httpx.get(f"{address}{path}").status_code == 200 for path in ("/", "/health", "/page/chat.js"))


def test_a_server_that_others_can_reach_wants_a_key(monkeypatch):
    monkeypatch.delenv(KEY, raising=False)
    assert key_and_hosts("127.0.0.1")[0] is None
    with pytest.raises(UserError, match=f"0.0.0.0: other machines .* {KEY}"):
        key_and_hosts("0.0.0.0")
    monkeypatch.setenv(KEY, "k")
    assert key_and_hosts("0.0.0.0") == ("k", None)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="--port"):
        listen("127.0.0.1", taken.getsockname()[1])


def test_a_name_that_is_not_the_servers_is_refused(address):
    response = httpx.get(f"{address}/v1/models", headers={"host": "evil.example:8000"})
    assert response.status_code == 400
    assert httpx.get(f"{address}/v1/models", headers={"host": "localhost:8000"}).status_code == 200


def test_a_body_over_the_limit_is_413_whether_or_not_it_says_its_size(directory):
    with running(create_app(directory, Settings(max_body_bytes=1000))) as address:
        big = b'{"prompt": "' + b"a" * 2000 + b'"}'
        headers = {"content-type": "application/json"}
        assert httpx.post(f"{address}/v1/completions", content=big, headers=headers).status_code == 413
        told = httpx.post(f"{address}/v1/completions", content=iter([big[:900], big[900:]]), headers=headers)
        assert told.status_code == 413
        assert told.json()["error"]["type"] == "invalid_request_error"
        assert httpx.get(f"{address}/health").status_code == 200


LONG = {"prompt": "a", "max_tokens": 4000, "temperature": 1.0, "stream": True}


@pytest.fixture(scope="module")
def long_directory(tmp_path_factory) -> str:
    return save_chat_model(tmp_path_factory.mktemp("models") / "chat", context=5000)


def endless(directory: str, **settings):
    """A server whose model never says its end token: requests last as long as they may."""
    app = create_app(directory, Settings(max_new_tokens=4000, **settings))
    app.state.served.ends["chat"].clear()
    return running(app)


def test_a_full_queue_is_429_and_a_client_that_hangs_up_frees_its_place(long_directory):
    with endless(long_directory, max_rows=1, max_waiting=1) as address, ThreadPoolExecutor(4) as clients:
        url, short = f"{address}/v1/completions", {**LONG, "max_tokens": 50}
        with httpx.stream("POST", url, json=LONG, timeout=60) as slow:
            lines = slow.iter_lines()  # kept: httpx hangs up when the iterator is gone
            next(lines)
            flood = [clients.submit(httpx.post, url, json=short, timeout=60) for _ in range(4)]
            wait_until(lambda: sum(answer.done() for answer in flood) == 3)
        answers = [answer.result() for answer in flood]
        assert sorted(answer.status_code for answer in answers) == [200, 429, 429, 429]
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert (refused.headers["retry-after"], refused.json()["error"]["type"]) == ("1", "rate_limit_error")
        wait_until(lambda: metric(address, "lm_recipes_running") == 0)


@pytest.mark.parametrize("stream", [True, False])
def test_hanging_up_stops_the_work_streamed_or_not(long_directory, stream):
    async def hang_up(address: str) -> None:
        async with httpx.AsyncClient() as client:
            asked = {**LONG, "stream": stream, "n": 4}
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.post(f"{address}/v1/completions", json=asked), 0.3)

    with endless(long_directory) as address:
        asyncio.run(hang_up(address))
        wait_until(lambda: metric(address, "lm_recipes_running") == 0, seconds=2)
        assert 0 < metric(address, 'lm_recipes_tokens_total{kind="completion"}') < 4 * 4000


def test_a_request_that_takes_too_long_is_told_so(long_directory):
    with endless(long_directory, request_timeout=0.3) as address:
        url, began = f"{address}/v1/completions", time.monotonic()
        response = httpx.post(url, json={**LONG, "n": 4, "stream": False}, timeout=60)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "timeout")
        assert time.monotonic() - began < 3
        wait_until(lambda: metric(address, "lm_recipes_running") == 0)
        with httpx.stream("POST", url, json={**LONG, "n": 4}, timeout=60) as streamed:
            lines = [line for line in streamed.iter_lines() if line]
        assert json.loads(lines[-1].removeprefix("data: "))["error"]["code"] == "timeout"


# --- what it tells ---


def test_health_metrics_and_pages_say_nothing_of_what_was_asked(address, caplog):
    secret = "quixotic zebra"
    with caplog.at_level("DEBUG", logger="lm_recipes"):
        complete(address, prompt=secret, max_tokens=3)
        httpx.post(f"{address}/v1/completions?note={secret}", json={"prompt": secret, "temperature": -1})
        httpx.get(f"{address}/{secret}")
    assert httpx.get(f"{address}/health").json()["status"] == "ok"
    told = httpx.get(f"{address}/metrics").text
    assert 'lm_recipes_requests_total{path="/v1/completions",status="200"}' in told
    assert 'path="other",status="404"' in told
    assert "lm_recipes_first_token_seconds_bucket" in told
    logged = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("http"))
    assert "POST /v1/completions 200" in logged
    assert not any(word in told + logged for word in ("quixotic", "zebra"))


def test_pages_load_nothing_from_elsewhere(address):
    for path in (
        "/",
        "/docs",
        "/page/page.css",
        "/page/chat.js",
        "/page/shared.js",
        "/page/docs.js",
        "/page/read.html",
    ):
        page = httpx.get(f"{address}{path}")
        assert page.status_code == 200
        assert "default-src 'none'" in page.headers["content-security-policy"]
        outside = page.text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in outside
        assert "https://" not in outside
    assert httpx.get(f"{address}/page/..%2fapp.py").status_code == 404
    assert "/v1/chat/completions" in httpx.get(f"{address}/openapi.json").json()["paths"]
