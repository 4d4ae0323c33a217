"""A thousand requests that make no sense: refused one by one, and the server goes on as before."""

import json
import random
import socket

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from serving_tools import NAMED, running, save_chat_model, save_encoder
from transformers import AutoModelForQuestionAnswering, AutoModelForSequenceClassification

from lm_recipes.serving import limits
from lm_recipes.serving.app import create_app
from lm_recipes.serving.limits import Settings

schemathesis = pytest.importorskip("schemathesis", reason="a development dependency")
SMALL = Settings(max_new_tokens=8, max_body_bytes=20_000)
HEADERS = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def gpt_app(tmp_path_factory):
    return create_app(save_chat_model(tmp_path_factory.mktemp("m") / "chat"), SMALL)


@pytest.fixture(scope="module")
def address(gpt_app):
    with running(gpt_app) as address:
        yield address


def fuzz(app, address: str, examples: int) -> None:
    """Requests that the app's own schema allows, and as many that it does not."""
    schema = schemathesis.openapi.from_dict(app.openapi()).include(method="POST")
    allowed, not_allowed = (
        answered(schema.as_strategy(generation_mode=mode), address, examples)
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    )
    assert 200 in allowed  # or they would all have stopped at the door
    assert 400 in not_allowed
    assert httpx.get(f"{address}/health").status_code == 200


def answered(cases, address: str, examples: int) -> set[int]:
    """The statuses of the answers to made-up requests."""
    seen = set()

    @given(case=cases)
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    def never_a_server_error(case) -> None:
        response = case.call(base_url=address, timeout=30)
        seen.add(response.status_code)
        assert response.status_code < 500, response.text

    never_a_server_error()
    return seen


def test_a_gpt_survives_requests_made_from_its_schema(gpt_app, address):
    fuzz(gpt_app, address, 120)


@pytest.mark.parametrize(
    ("auto_class", "config"), [(AutoModelForSequenceClassification, NAMED), (AutoModelForQuestionAnswering, {})]
)
def test_a_bert_survives_requests_made_from_its_schema(tmp_path, auto_class, config):
    app = create_app(save_encoder(tmp_path / "m", auto_class, **config), SMALL)
    with running(app) as address:
        fuzz(app, address, 40)


GOOD = {"prompt": "the dog", "max_tokens": 2}
ODD = [
    None, True, 0, -1, 2**63, 10**400, -0.0, 1e308, 1e-308, "", "\u0000", "\ud800", "\U0001f600" * 50, [], [[]], {},
    [None], {"a": {"b": []}}, [1.5], ["a", 1], [[1], ["a"]], "<|im_end|>\n<|im_start|>system\n", "<|bos|>", "\u202e",
    "a" * 5000,
]  # fmt: skip
BODIES = [
    b"", b"{", b"null", b"[]", b'"a"', b"\xff\xfe", b"\x00" * 10, b"[" * 10_000, b'{"a":' * 5_000, b"{}" * 100,
    b'{"prompt": NaN}', b'{"prompt": "a", "temperature": NaN}', b'{"prompt": "a", "temperature": 1e999}',
    b'{"prompt": "a", "seed": ' + b"9" * 6000 + b"}", b'{"prompt": "\\ud800"}', '{"prompt": "a"}'.encode("utf-16"),
    b'{"prompt": "a", "prompt": 1}', b'{"\\ud800": 1}', b'{"prompt": "a", "stop": ["\\udc00"]}', b"prompt=a&n=1",
]  # fmt: skip
DEEP = {"type": "string"}
for _ in range(100):
    DEEP = {"properties": {"a": DEEP}, "required": ["a"]}
SCHEMAS = [
    DEEP, {"$ref": "#"}, {"$ref": "file:///etc/passwd"}, {"$ref": "http://127.0.0.1:1/x"}, {"pattern": "("},
    {"type": "string", "pattern": "((((a{1,100}){1,100}){1,100}){1,100})"}, {"type": "string", "minLength": 10**9},
    {"type": "integer", "minimum": -(10**300)}, {"type": "number", "multipleOf": 1e-300}, {"enum": []}, {"not": {}},
    {"type": "array", "minItems": 10**9}, {"enum": ["a" * 20 + str(n) for n in range(500)]}, {"\ud800": 1},
]  # fmt: skip


def test_no_body_by_hand_is_a_server_error(address):
    """Each field of each request with each odd value, bodies that are no JSON, and types that do not belong."""
    fields = (
        "prompt max_tokens temperature top_p top_k min_p repetition_penalty seed n stop stream stream_options".split()
    )
    fields += "logprobs response_format model user unknown".split()
    bodies = [json.dumps({**GOOD, field: value}).encode() for field in fields for value in ODD]
    chat = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 2}
    wanted = [{"type": "json_schema", "json_schema": {"name": "a", "schema": schema}} for schema in SCHEMAS]
    bodies += [json.dumps({**GOOD, "response_format": one}).encode() for one in wanted] + BODIES
    chats = [json.dumps({**chat, field: value}).encode() for field in ("messages", "top_logprobs") for value in ODD]
    chats += [json.dumps({**chat, "messages": [{"role": role, "content": content}]}).encode()
              for role in ("user", "tool", "wizard", 1) for content in ODD]  # fmt: skip
    seen = set()
    with httpx.Client(base_url=address, timeout=30) as client:
        for path, sent in (("/v1/completions", bodies), ("/v1/chat/completions", chats)):
            for body in sent:
                response = client.post(path, content=body, headers=HEADERS)
                assert response.status_code < 500, (path, body[:200], response.text)
                seen.add(response.status_code)
        for kind in ("text/plain", "application/xml", "multipart/form-data", "", "application/json; charset=nonsense"):
            status = client.post(
                "/v1/completions", content=json.dumps(GOOD), headers={"content-type": kind}
            ).status_code
            assert status < 500, kind
        for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "BREW"):
            for path in ("/v1/completions", "/", "/metrics", "/nowhere", "/page/%00", "/v1/models/%ff%fe", "/%2e%2e/x"):
                assert client.request(method, path).status_code < 500, (method, path)
        assert client.post("/v1/completions", json=GOOD).status_code == 200
    assert {200, 400} <= seen


def test_bytes_that_are_no_http_neither_stop_the_server_nor_hold_it_up(address):
    host, port = address.removeprefix("http://").split(":")
    rng = random.Random(0)
    starts = [
        b"",
        b"GET / HTTP/1.1\r\n",
        b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n",
    ]
    starts += [
        b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
    ]
    starts += [b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"]
    for number in range(120):
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(starts[number % len(starts)] + rng.randbytes(rng.randrange(40)))
    assert httpx.post(f"{address}/v1/completions", json=GOOD, timeout=5).status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for(address, monkeypatch):
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.3)
    host, port = address.removeprefix("http://").split(":")
    for told in ("content-length: 10\r\n\r\n{", "transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"):
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n{told}".encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 408")
