"""A text is continued the same alone and beside others that come and go."""

import asyncio

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_tools import save_chat_model
from tiny_adapters import PROMPT, make_adapter
from transformers import GenerationConfig, TopPLogitsWarper

from lm_recipes.decoding import sampling
from lm_recipes.decoding.generation import continue_prompts
from lm_recipes.decoding.loading import load_for_inference
from lm_recipes.decoding.probabilities import step_logits
from lm_recipes.decoding.strategies import Strategy, strategy
from lm_recipes.serving.batching import RunningBatch, read
from lm_recipes.serving.decoder import Decoder, Job, Piece
from lm_recipes.serving.errors import Refused
from lm_recipes.serving.metrics import Metrics
from lm_recipes.serving.served import load_served
from lm_recipes.serving.worker import Ticket

KINDS = ["nanochat", "llama"]
prompts = st.lists(st.lists(st.integers(5, 319), min_size=1, max_size=40), min_size=2, max_size=5)
GREEDY = Strategy("greedy", GenerationConfig(do_sample=False))


@pytest.fixture(scope="module", params=KINDS)
def served(request, tmp_path_factory):
    return load_served([save_chat_model(tmp_path_factory.mktemp("model") / request.param, request.param)])


def decoder_of(served, rows: int = 8, waiting: int = 100) -> Decoder:
    """One whose rounds the test calls: no thread. Most prompts are read in several pieces."""
    decoder = Decoder(served, Metrics(), rows, waiting)
    decoder.prompt_tokens = 16
    return decoder


def decode(decoder: Decoder, jobs: list[dict], starts: list[int]) -> list[list[Piece]]:
    """The pieces of each job; job i comes before round `starts[i]`."""

    async def run() -> list[list[Piece]]:
        tickets = [Ticket() for _ in jobs]
        coming = sorted(range(len(jobs)), key=starts.__getitem__)
        now = 0
        while coming or decoder.busy():
            while coming and starts[coming[0]] <= now:
                number = coming.pop(0)
                decoder.submit([Job(tickets[number], **jobs[number])])
            if decoder.busy():
                decoder.round()
            now += 1
        await asyncio.sleep(0)
        return [[ticket._results.get_nowait() for _ in range(ticket._results.qsize())] for ticket in tickets]

    return asyncio.run(run())


def job(served, prompt: list[int], tokens: int = 8, how: Strategy = GREEDY, seed: int = 0, **more) -> dict:
    return {
        "model": served.names[0], "prompt": prompt, "strategy": how, "max_tokens": tokens, "seed": seed, **more,
    }  # fmt: skip


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def alone(served, prompt: list[int], how: Strategy, seed: int = 0) -> list[int]:
    tokenizer = served.tokenizers[served.names[0]]
    return continue_prompts(served.model, tokenizer, [prompt], how, seed=seed)[0]


@given(prompts=prompts, data=st.data())
@settings(max_examples=15, deadline=None)
def test_greedy_text_does_not_depend_on_company_however_it_comes_and_goes(served, prompts, data):
    starts = [data.draw(st.integers(0, 6)) for _ in prompts]
    lengths = [data.draw(st.integers(1, 12)) for _ in prompts]
    jobs = [job(served, prompt, tokens) for prompt, tokens in zip(prompts, lengths, strict=True)]
    found = decode(decoder_of(served, rows=3), jobs, starts)
    tokenizer = served.tokenizers[served.names[0]]
    for prompt, tokens, pieces in zip(prompts, lengths, found, strict=True):
        expected = alone(served, prompt, strategy("greedy", max_new_tokens=tokens))
        assert text_of(pieces) == tokenizer.decode(expected, skip_special_tokens=True)
        assert pieces[-1].made == len(expected)
        assert pieces[-1].finish == ("stop" if expected[-1] in served.ends[served.names[0]] else "length")


def test_the_cache_of_joined_rows_gives_the_logits_of_each_text_read_at_once(served):
    texts = [[7, 9, 11, 200, 13, 40], [300], [41, 42, 43]]
    batch = RunningBatch(served.model)
    for text in texts:
        batch.join(read(served.model, text)[1])
    for step, rows in ((50, [0, 1, 2]), (60, [1, 2])):
        if len(rows) < len(batch.mask):
            batch.keep(rows)
        logits = batch.step([step] * len(rows))
        texts = [[*texts[row], step] for row in rows]
        for text, found in zip(texts, logits, strict=True):
            torch.testing.assert_close(found, step_logits(served.model, text, [0])[0], atol=1e-4, rtol=1e-4)
    assert batch.mask.shape == (2, 5)  # the columns that only the longest text needed are gone


def test_the_first_choice_of_a_seed_is_what_generate_draws_with_it_and_company_changes_nothing(served):
    drawn = GenerationConfig(do_sample=True, temperature=0.9, top_k=0, top_p=0.8, typical_p=1.0)
    how = Strategy("sample", drawn)
    named = strategy("nucleus", temperature=0.9, top_p=0.8, max_new_tokens=12)
    expected = [alone(served, [40, 50, 60], named, seed) for seed in (3, 4)]
    jobs = [job(served, [40, 50, 60], 12, how, seed=3, n=2), job(served, [7] * 20, 12, how, seed=9)]
    found, _ = decode(decoder_of(served), jobs, [1, 0])
    tokenizer = served.tokenizers[served.names[0]]
    for choice in (0, 1):
        own = [piece for piece in found if piece.index == choice]
        assert text_of(own) == tokenizer.decode(expected[choice], skip_special_tokens=True)
    assert expected[0] != expected[1]


@pytest.mark.parametrize("top_p", [0.0, 0.1, 0.9, 0.999])
def test_a_nucleus_is_the_same_without_sorting_the_vocabulary(top_p, monkeypatch):
    monkeypatch.setattr(sampling, "HEAD", 32)
    random = torch.Generator().manual_seed(0)
    for spread in (0.1, 3.0, 10.0):  # from one that needs nearly all tokens to one that needs a few
        logits = torch.randn(1, 500, generator=random) * spread
        expected = TopPLogitsWarper(top_p)(None, logits)
        assert torch.equal(sampling.QuickTopP(top_p)(None, logits), expected)


def test_logprobs_are_the_models_own_and_as_many_as_tokens(served):
    prompt = [40, 50, 60]
    (pieces,) = decode(decoder_of(served), [job(served, prompt, 10, top=3)], [0])
    expected = alone(served, prompt, strategy("greedy", max_new_tokens=10))
    tokens = [token for piece in pieces for token in piece.tokens]
    shown = expected[:-1] if pieces[-1].finish == "stop" else expected
    logprobs = step_logits(served.model, prompt, expected).log_softmax(-1)
    assert len(tokens) == len(shown)
    for place, (token, id) in enumerate(zip(tokens, shown, strict=True)):
        assert token.logprob == pytest.approx(logprobs[place, id].item(), abs=1e-4)
        assert token.top[0][1] == pytest.approx(token.logprob)  # greedy takes the likeliest
        assert len(token.top) == 3


def test_a_penalty_for_repetition_is_each_rows_own(served):
    punished = Strategy("greedy", GenerationConfig(do_sample=False, repetition_penalty=1.8))
    jobs = [job(served, [40, 50], 12, punished), job(served, [40, 50], 12)]
    found = decode(decoder_of(served), jobs, [0, 0])
    tokenizer = served.tokenizers[served.names[0]]
    for pieces, penalty in zip(found, (1.8, 1.0), strict=True):
        expected = alone(served, [40, 50], strategy("greedy", max_new_tokens=12, repetition_penalty=penalty))
        assert text_of(pieces) == tokenizer.decode(expected, skip_special_tokens=True)
    assert text_of(found[0]) != text_of(found[1])


def test_a_client_that_goes_away_gives_its_place_to_the_next(served):
    decoder = decoder_of(served, rows=1)

    async def run() -> None:
        first, second = Ticket(), Ticket()
        decoder.submit([Job(first, **job(served, [40], 500)), Job(second, **job(served, [50], 500))])
        decoder.round()
        assert (decoder.running, len(decoder.waiting)) == (1, 1)
        decoder.cancel(first)
        decoder.round()
        decoder.round()
        assert (decoder.running, len(decoder.waiting)) == (1, 0)
        assert [row.job.ticket for row in decoder.groups[served.names[0]].rows] == [second]
        decoder.cancel(second)
        decoder.round()
        assert not decoder.busy()

    asyncio.run(run())


def test_a_full_queue_refuses_and_says_when_to_come_again(served):
    decoder = decoder_of(served, waiting=2)

    async def run() -> None:
        jobs = [Job(Ticket(), **job(served, [40])) for _ in range(3)]
        with pytest.raises(Refused) as refused:
            decoder.submit(jobs)
        assert (refused.value.status, refused.value.retry_after) == (429, 1)
        assert not decoder.waiting
        decoder.submit(jobs[:2])

    asyncio.run(run())


def test_an_adapter_that_puts_tokens_before_the_text_is_served_as_generate_runs_it(tmp_path):
    adapter, _, auto_class = make_adapter("llama", tmp_path, **PROMPT)
    model, tokenizer = load_for_inference(auto_class, adapter)
    how = strategy("greedy", max_new_tokens=8)
    expected = continue_prompts(model, tokenizer, [[40, 50, 60]], how)[0]
    served = load_served([adapter])
    jobs = [job(served, [40, 50, 60]), job(served, [7] * 9)]
    found = decode(decoder_of(served), jobs, [1, 0])
    assert text_of(found[0]) == tokenizer.decode(expected, skip_special_tokens=True)
