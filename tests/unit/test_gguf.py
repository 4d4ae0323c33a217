"""A GGUF file says of a model what llama.cpp has to know, in llama.cpp's words."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import TEXT, bert_tokenizer, gpt_tokenizer
from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor

from lm_recipes.compression.gguf_export import Vocabulary, _interleaved
from lm_recipes.launch import UserError
from lm_recipes.tokenization.training import train_tokenizer


@given(heads=st.integers(1, 5), half=st.integers(1, 6), columns=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_rotary_rows_are_interleaved_as_the_reader_undoes_it(heads, half, columns):
    weights = np.arange(heads * 2 * half * columns, dtype=np.float32).reshape(heads * 2 * half, columns)
    back = LlamaTensorProcessor()._reverse_permute_weights(_interleaved(weights, heads), heads, heads)
    assert np.array_equal(back, weights)


@pytest.mark.parametrize(("pre", "name"), [("gpt2", "gpt-2"), ("gpt4", "dbrx"), ("qwen2", "qwen2")])
def test_every_pre_tokenizer_of_the_recipes_has_its_name(pre, name):
    tokenizer = train_tokenizer(TEXT * 20, "bpe", 300, pre_tokenizer=pre)
    assert Vocabulary.of(tokenizer, len(tokenizer)).pre == name


def test_a_vocabulary_has_a_token_for_each_embedding_and_its_special_ones_apart():
    tokenizer = gpt_tokenizer()
    found = Vocabulary.of(tokenizer, len(tokenizer) + 3)
    assert [tokenizer.convert_tokens_to_ids(token) for token in found.tokens[:-3]] == list(range(len(tokenizer)))
    assert found.unused == {len(tokenizer), len(tokenizer) + 1, len(tokenizer) + 2}
    assert found.special == {0, 1, 2, 3, 4}
    assert all(merge.count(" ") == 1 for merge in found.merges)
    assert len(set(found.tokens)) == len(found.tokens)


def test_tokenizers_that_llama_cpp_would_cut_otherwise_are_refused():
    with pytest.raises(UserError, match="a WordPiece tokenizer; GGUF takes byte-level BPE"):
        Vocabulary.of(bert_tokenizer(), 10_000)
    with pytest.raises(UserError, match="tokens, but 100 embeddings"):
        Vocabulary.of(gpt_tokenizer(), 100)
    unigram = train_tokenizer(TEXT * 20, "unigram", 300)
    with pytest.raises(UserError, match="a Unigram tokenizer"):
        Vocabulary.of(unigram, 10_000)
