"""Contrastive search and DoLa against slow references that follow the papers, token by token and without a cache."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from tiny_models import gpt, gpt_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.generation.streamers import BaseStreamer

from lm_recipes.decoding.dola import divergence, early_layers
from lm_recipes.decoding.generation import continue_prompts
from lm_recipes.decoding.strategies import strategy

TOKENIZER = gpt_tokenizer()
PROMPTS = [[1, 50, 60, 50], [1, 7], [1, 200, 13, 9, 9, 41]]
END = 2


def states(model, ids):
    """Logits of the next token [V] and hidden states of all layers, a list of [length, hidden]."""
    with torch.no_grad():
        output = model(input_ids=torch.tensor([ids]), use_cache=False, output_hidden_states=True)
    return output.logits[0, -1], [layer[0] for layer in output.hidden_states]


def deep(seed=0, layers=6, tied=False):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.4, tie_word_embeddings=tied,
        pad_token_id=0, bos_token_id=1, eos_token_id=END,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


# --- contrastive search ---


def slow_contrastive(model, prompt, alpha, k, length):
    ids = list(prompt)
    while len(ids) < len(prompt) + length and ids[-1] != END:
        logits, before = states(model, ids)
        scores = {}
        for token in logits.topk(k).indices.tolist():
            after = states(model, [*ids, token])[1][-1][-1]
            likeness = max(torch.cosine_similarity(after, state, dim=0).item() for state in before[-1])
            scores[token] = (1 - alpha) * logits.softmax(-1)[token].item() - alpha * likeness
        ids.append(max(scores, key=scores.get))
    return ids[len(prompt) :]


@pytest.mark.parametrize("kind", ["llama", "nanochat"])
@pytest.mark.parametrize(("alpha", "k"), [(0.6, 4), (0.2, 8), (1.0, 3)])
def test_contrastive_search_follows_the_paper(kind, alpha, k):
    model, how = gpt(kind, seed=3), strategy("contrastive", max_new_tokens=6, penalty_alpha=alpha, top_k=k)
    expected = [slow_contrastive(model, prompt, alpha, k, 6) for prompt in PROMPTS]
    assert continue_prompts(model, TOKENIZER, PROMPTS, how) == expected


def test_without_a_penalty_and_with_one_candidate_contrastive_search_is_greedy():
    model = gpt("nanochat", seed=4)
    greedy = continue_prompts(model, TOKENIZER, PROMPTS, strategy("greedy", max_new_tokens=12))
    for options in ({"penalty_alpha": 0.0}, {"top_k": 1}):
        how = strategy("contrastive", max_new_tokens=12, **options)
        assert continue_prompts(model, TOKENIZER, PROMPTS, how) == greedy
    assert continue_prompts(model, TOKENIZER, PROMPTS, strategy("contrastive", max_new_tokens=12)) != greedy


# --- DoLa ---


def slow_dola(model, prompt, layers, length):
    ids = list(prompt)
    while len(ids) < len(prompt) + length and ids[-1] != END:
        logits, hidden = states(model, ids)
        mature = logits.double().softmax(-1).numpy()
        early = [model.lm_head(hidden[layer][-1]).detach().double().softmax(-1).numpy() for layer in layers]
        premature = max(early, key=lambda other: jensenshannon(mature, other))
        growth = np.where(mature >= 0.1 * mature.max(), np.log(mature) - np.log(premature), -np.inf)
        ids.append(int(growth.argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize(("which", "layers"), [("high", [3, 5]), ("low", [0, 2])])
@pytest.mark.parametrize("seed", range(3))
def test_dola_follows_the_paper(which, layers, seed):
    model = deep(seed)
    how = strategy("dola", max_new_tokens=8, dola_layers=which)
    expected = [slow_dola(model, prompt, layers, 8) for prompt in PROMPTS]
    assert continue_prompts(model, TOKENIZER, PROMPTS, how) == expected
    assert expected != continue_prompts(model, TOKENIZER, PROMPTS, strategy("greedy", max_new_tokens=8))


@pytest.mark.parametrize(
    ("layers", "tied", "low", "high"),
    [
        (32, False, range(0, 16, 2), range(16, 32, 2)),
        (12, True, [2, 4], [6, 8, 10]),
        (48, False, range(0, 20, 2), range(28, 48, 2)),
        (4, True, [2], [2]),
        (2, True, [1], [1]),
        (2, False, [0], [1]),
        (1, True, [0], [0]),
    ],
)
def test_early_layers_are_those_of_the_authors(layers, tied, low, high):
    config = LlamaConfig(num_hidden_layers=layers, tie_word_embeddings=tied)
    assert early_layers(config, "low") == list(low)
    assert early_layers(config, "high") == list(high)


def test_the_divergence_is_jensen_and_shannons():
    one, other = torch.randn(2, 5, 30, generator=torch.Generator().manual_seed(0)).mul(3).log_softmax(-1)
    expected = [jensenshannon(p, q) ** 2 for p, q in zip(one.exp().numpy(), other.exp().numpy(), strict=True)]
    torch.testing.assert_close(divergence(one, other), torch.tensor(expected).float(), atol=1e-5, rtol=1e-3)
    sure = torch.tensor([[0.0, -float("inf")], [-float("inf"), 0.0]])
    assert divergence(sure[0], sure[1]).item() == pytest.approx(np.log(2))
    assert divergence(sure, sure).tolist() == [0, 0]


# --- both ---


@pytest.mark.parametrize("name", ["contrastive", "dola"])
def test_what_a_processor_forbids_is_not_said(name):
    how = strategy(name, max_new_tokens=40, no_repeat_ngram_size=2)
    for prompt, text in zip(PROMPTS, continue_prompts(gpt("llama"), TOKENIZER, PROMPTS, how), strict=True):
        pairs = list(zip([*prompt, *text], [*prompt, *text][1:], strict=False))[len(prompt) - 1 :]
        assert len(set(pairs)) == len(pairs)


class Collector(BaseStreamer):
    def __init__(self):
        self.seen, self.ends = [], 0

    def put(self, value):
        self.seen += value.flatten().tolist()

    def end(self):
        self.ends += 1


@pytest.mark.parametrize("name", ["greedy", "contrastive", "dola", "prompt_lookup"])
def test_a_streamer_gets_the_prompt_and_then_every_token(name):
    how, model = strategy(name, max_new_tokens=10), gpt("llama")
    streamer = Collector()
    (text,) = continue_prompts(model, TOKENIZER, PROMPTS[:1], how, streamer=streamer)
    assert streamer.seen == [*PROMPTS[0], *text]
    assert streamer.ends == 1


@pytest.mark.parametrize("name", ["contrastive", "dola", "diverse_beam", "constrained_beam"])
def test_a_method_does_not_need_a_cache(name):
    from exhaustive import way

    how, model = way(name, max_new_tokens=6), gpt("nanochat")
    cached = continue_prompts(model, TOKENIZER, PROMPTS, how)
    how.settings.use_cache = False
    assert continue_prompts(model, TOKENIZER, PROMPTS, how) == cached
