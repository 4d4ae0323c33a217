"""OpenAI's own client against the server, streaming included."""

import pytest
from serving_tools import chat_tokenizer, running, save_chat_model, save_encoder
from tiny_adapters import make_adapter
from tiny_models import gpt

from lm_recipes.decoding.generation import continue_prompts, encode_prompts
from lm_recipes.decoding.strategies import strategy
from lm_recipes.serving.app import create_app
from lm_recipes.serving.limits import Settings

openai = pytest.importorskip("openai", reason="a development dependency")
HELLO = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "how is the knee?"}]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    directory = save_chat_model(tmp_path_factory.mktemp("m") / "chat")
    with running(create_app(directory, Settings(api_key="k"))) as address:
        yield address


@pytest.fixture
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="k", max_retries=0) as client:
        yield client


def test_a_chat_whole_and_streamed(client):
    asked = {"model": "chat", "messages": HELLO, "max_completion_tokens": 24, "temperature": 0}
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    said, usage = "", None
    for chunk in client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        said += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        usage = chunk.usage or usage
    assert said == whole.choices[0].message.content
    assert usage == whole.usage
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert whole.choices[0].finish_reason in ("stop", "length")
    assert len(whole.choices[0].logprobs.content[0].top_logprobs) == 2
    beside = client.chat.completions.create(**asked, extra_body={"top_k": 5, "repetition_penalty": 1.3})
    assert beside.usage.prompt_tokens == usage.prompt_tokens


def test_a_completion_is_greedy_search(client):
    (prompt,) = encode_prompts(chat_tokenizer(), ["the dog"])
    how = strategy("greedy", max_new_tokens=20)
    (ids,) = continue_prompts(gpt("llama", context=256), chat_tokenizer(), [prompt], how)
    answer = client.completions.create(model="chat", prompt="the dog", max_tokens=20, temperature=0)
    assert answer.choices[0].text == chat_tokenizer().decode(ids, skip_special_tokens=True)


def test_models_are_listed_and_errors_are_the_clients_own(client, address):
    assert [model.id for model in client.models.list()] == ["chat"]
    assert client.models.retrieve("chat").owned_by == "lm-recipes"
    with pytest.raises(openai.NotFoundError, match="no model of that name"):
        client.chat.completions.create(model="gpt-17", messages=HELLO)
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model="chat", messages=HELLO, temperature=-3)
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0).models.list()


def test_a_request_chooses_its_adapter_also_beside_requests_that_choose_another(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    one, first, _ = make_adapter("llama", tmp_path, "one", seed=1)
    two, second, _ = make_adapter("llama", tmp_path, "two", seed=2)
    how, prompt = strategy("greedy", max_new_tokens=16), encode_prompts(chat_tokenizer(), ["the dog"])
    expected = {}
    for name, model in (("one", first), ("two", second)):
        (ids,) = continue_prompts(model.get_base_model(), chat_tokenizer(), prompt, how)
        expected[name] = chat_tokenizer().decode(ids, skip_special_tokens=True)
    assert expected["one"] != expected["two"]
    with running(create_app([one, two])) as address, ThreadPoolExecutor(8) as clients:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        asked = {"prompt": "the dog", "max_tokens": 16, "temperature": 0}
        names = ["one", "two"] * 8
        said = list(clients.map(lambda name: client.completions.create(model=name, **asked).choices[0].text, names))
    assert said == [expected[name] for name in names]


def test_embeddings_through_the_client(tmp_path):
    from transformers import AutoModel

    with running(create_app(save_encoder(tmp_path / "m", AutoModel))) as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        found = client.embeddings.create(model="m", input=["the dog", "paris"])
    assert [len(one.embedding) for one in found.data] == [32, 32]
    assert found.data[0].embedding != found.data[1].embedding
