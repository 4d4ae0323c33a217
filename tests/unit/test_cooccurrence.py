"""Embeddings that begin with co-occurrence: counts against brute force, and what the first logits know."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import sparse

from lm_recipes.models import DECODERS, ENCODERS, decoder_config, encoder_config, new_model
from lm_recipes.models.cooccurrence import WINDOW, count_pairs, embed_by_cooccurrence, informative
from lm_recipes.models.replaced_tokens import GeneratorAndDiscriminator
from lm_recipes.objectives import read_packed


def test_pairs_are_counted_within_a_piece_by_distance(packed):
    blocks = read_packed(packed["bert"][0]).train
    several = np.nonzero((blocks["position_ids"] == 0).sum(1) > 1)[0]
    assert len(several) > 5
    blocks, expected = blocks.select(several[:20].tolist()), Counter()
    for row in blocks:
        ids, positions = (row[name].tolist() for name in ("input_ids", "position_ids"))
        piece = np.cumsum([position == 0 for position in positions])
        for first, second in combinations(range(len(ids)), 2):
            if second - first <= WINDOW and piece[first] == piece[second]:
                expected[ids[first], ids[second]] += 1 / (second - first)
    counts, tokens = count_pairs(blocks, 512)
    assert tokens == blocks["input_ids"].size
    counts = counts.tocoo()
    found = {(int(row), int(column)): value for row, column, value in zip(*counts.coords, counts.data, strict=True)}
    assert found == pytest.approx(dict(expected), rel=1e-5)


def test_a_large_corpus_is_read_in_parts(packed):
    blocks = read_packed(packed["bert"][0]).train
    assert blocks["input_ids"].size > 5_000
    _, tokens = count_pairs(blocks, 512)
    assert tokens == blocks["input_ids"].size
    _, tokens = count_pairs(blocks.select([0] * 20_000), 512)
    assert 500 * 512 <= tokens <= 1.3 * 500 * 512


def test_information_is_zero_between_what_is_independent_and_positive_between_companions():
    counts = np.outer([4.0, 2.0, 1.0], [1.0, 1.0, 1.0])
    counts[1, 2] += 10
    nats = informative(sparse.csr_array(counts.astype(np.float32))).todense()
    smoothed = counts.sum(0) ** 0.75
    expected = np.log(counts / counts.sum(1, keepdims=True) / (smoothed / smoothed.sum()))
    assert nats == pytest.approx(np.maximum(expected, 0), abs=1e-6)
    assert nats[1].argmax() == 2


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


@pytest.mark.parametrize("family", [*ENCODERS, *DECODERS])
def test_every_family_begins_with_what_stands_near_what(family, packed, bert_tokenizer, gpt_tokenizer):
    encoder = family in ENCODERS
    blocks = read_packed(packed["bert" if encoder else "gpt"][0]).train
    tokenizer = bert_tokenizer if encoder else gpt_tokenizer
    model = new_model((encoder_config if encoder else decoder_config)("tiny", tokenizer, 64, family))
    first, second = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    tied = first is second
    others = {name: value.clone() for name, value in model.state_dict().items() if value.shape != first.shape}
    state = torch.get_rng_state()
    embed_by_cooccurrence(model, blocks, causal=not encoder, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied
    assert all(torch.equal(model.state_dict()[name], value) for name, value in others.items())
    counts, _ = count_pairs(blocks, len(first))
    wanted = torch.from_numpy(informative(counts if not encoder else counts + counts.T).todense())
    if tied:  # a token is near those of the same company: the matrix with its eigenvalues positive
        values, vectors = torch.linalg.eigh(wanted)
        wanted = vectors * values.abs() @ vectors.T
    scores = (first @ second.T).detach()
    assert correlation(scores, wanted) > 0.6
    assert encoder or correlation(scores, wanted.T) < 0.4
    once = first.detach().clone()
    embed_by_cooccurrence(model, blocks, causal=not encoder, seed=3)
    assert torch.equal(first, once)


@pytest.mark.parametrize("family", ["nanochat", "llama", "gpt2"])
def test_a_decoder_predicts_held_out_text_before_it_is_trained(family, packed, gpt_tokenizer):
    corpus = read_packed(packed["gpt"][0])
    torch.manual_seed(0)
    model = new_model(decoder_config("tiny", gpt_tokenizer, 64, family))
    ids = torch.from_numpy(corpus.validation["input_ids"].astype(np.int64))
    with torch.no_grad():
        uniform = model(input_ids=ids, labels=ids).loss
        embed_by_cooccurrence(model, corpus.train, causal=True)
        assert model(input_ids=ids, labels=ids).loss < uniform - 0.5


def test_electras_generator_and_discriminator_begin_with_the_same(packed, bert_tokenizer):
    config = encoder_config("tiny", bert_tokenizer, 64, "electra")
    model = GeneratorAndDiscriminator(config, bert_tokenizer.all_special_ids)
    blocks = read_packed(packed["bert"][0]).train
    embed_by_cooccurrence(model, blocks, causal=False)
    table = model.discriminator.get_input_embeddings().weight
    assert model.generator.get_input_embeddings().weight is model.generator.get_output_embeddings().weight is table
    counts, _ = count_pairs(blocks, len(table))
    values, vectors = torch.linalg.eigh(torch.from_numpy(informative(counts + counts.T).todense()))
    assert correlation((table @ table.T).detach(), vectors * values.abs() @ vectors.T) > 0.6
