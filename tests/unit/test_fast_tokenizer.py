"""The fast ways of encoding give the tokenizer's own ids: on real text, on any Unicode, and where they would differ."""

import logging
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from lm_recipes.tokenization import fast
from lm_recipes.tokenization.training import train_tokenizer

KINDS = {
    "BPE": ("bpe", "gpt2", "gigatoken"),
    "BPE, words of GPT-4": ("bpe", "gpt4", "gigatoken"),
    "BPE, words of Qwen2": ("bpe", "qwen2", "gigatoken"),
    "BPE without gigatoken": ("bpe", "gpt2", "the word cache"),
    "BPE, words of GPT-4, without gigatoken": ("bpe", "gpt4", "the word cache"),
    "Unigram": ("unigram", "gpt2", "the word cache"),
    "WordPiece": ("wordpiece", "gpt2", "the word cache"),
}
SPACES = "\t\n\x0b\x0c\r \x1c\x1f\x85\xa0\u1680\u2003\u2028\u200b\u202f\u3000\ufeff\x00"
WORDS = """the of It's DON'T 1984 3rd naïve Ⅳ ½ ٣ e\u0301 =\u0338 Straße
İstanbul ΣΊΣΥΦΟΣ 東京 한국어 नमस्ते 👩‍👩‍👧 \u088f \U000323b0't""".split()
SPECIAL = ["[MASK]", "[SEP]", "[UNK]", "[PAD", "[mask]", "[", "<|eos|>", "<|pad|", "<|", "<|EOS|>"]
pieces = st.one_of(
    st.sampled_from([*WORDS, *SPACES, *SPECIAL, "'s", "'ll", "  ", "\r\n", "!?", "a-b_c", "x" * 150]),
    st.text(max_size=3),
)
texts = st.lists(pieces, max_size=30).map("".join)


@pytest.fixture(scope="module", params=KINDS)
def encoders(request, documents):
    """The fast encoder of a kind of tokenizer, and the tokenizer's own."""
    model_type, words, name = KINDS[request.param]
    if name == "gigatoken":
        pytest.importorskip("gigatoken")
    tokenizer = train_tokenizer(documents[:200], model_type, 512, reserved=["fim"], pre_tokenizer=words)
    own = fast._OwnEncoder(tokenizer.backend_tokenizer)
    made = fast._gigatoken(own) if name == "gigatoken" else fast._word_cache(own)
    assert made.name == name
    return made, own


def assert_same(encoders, documents: list[str]) -> None:
    ours, own = (encode(documents) for encode in encoders)
    np.testing.assert_array_equal(ours[1], own[1])
    np.testing.assert_array_equal(ours[0], own[0])


def test_real_documents_get_the_tokenizers_own_ids(encoders, documents):
    assert_same(encoders, documents[:300])
    assert_same(encoders, [documents[0] * 100, "", documents[1], ""])
    assert_same(encoders, [])


@settings(max_examples=150, deadline=None)
@given(st.lists(texts, max_size=5))
def test_any_unicode_gets_the_tokenizers_own_ids(encoders, documents):
    assert_same(encoders, documents)


@pytest.mark.slow
def test_every_character_gets_the_tokenizers_own_ids(encoders):
    """Both know the same letters, digits and spaces, except those that are sent to the tokenizer itself."""
    codes = [*range(0xD800), *range(0xE000, 0x34000), *range(0xE0000, 0xE0200)]  # planes between are unassigned
    tries = [f"{c}'t 1{c} {c}{c}a" for c in map(chr, codes)]
    assert_same(encoders, [" ".join(tries[start : start + 50]) for start in range(0, len(tries), 50)])


def test_batches_are_the_whole_corpus_in_order(gpt_tokenizer, documents):
    whole = gpt_tokenizer(documents, add_special_tokens=False)["input_ids"]
    made = list(fast.encode_batches(gpt_tokenizer, iter(documents), batch_characters=50_000))
    assert len(made) > 5
    rows = [ids[a:b].tolist() for ids, ends in made for a, b in pairwise(ends)]
    assert rows == whole


def test_a_truncation_in_the_tokenizers_file_does_not_cut_documents(bert_tokenizer, documents):
    bert_tokenizer.backend_tokenizer.enable_truncation(16)
    (batch,) = fast.encode_batches(bert_tokenizer, documents[:3])
    assert np.diff(batch[1]).min() > 16
    assert bert_tokenizer.backend_tokenizer.truncation["max_length"] == 16


def test_a_forgetful_word_cache_gives_the_same_ids(encoders, documents):
    ours, own = encoders
    if ours.name != "the word cache":
        pytest.skip("remembers nothing here")
    ours.encode.most_words = 100
    try:
        for start in range(0, 200, 20):
            assert_same((ours, own), documents[start : start + 20])
            assert len(ours.encode.numbers) < 10_000
    finally:
        del ours.encode.most_words


def test_a_difference_on_the_first_documents_means_the_tokenizer_itself(bert_tokenizer, documents, monkeypatch, caplog):
    monkeypatch.setattr(fast, "ASCII_PUNCTUATION", "[A-Za-z]")  # words cut in the wrong places
    with caplog.at_level(logging.WARNING):
        encode = fast.exact_encoder(bert_tokenizer, documents[:5])
    assert encode.name == "tokenizers"
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize("change", ["a word as added token", "a normalizer", "a sentencepiece"])
def test_kinds_that_were_not_verified_are_left_to_the_tokenizer(gpt_tokenizer, bert_tokenizer, change):
    from tokenizers import normalizers, pre_tokenizers

    tokenizer = gpt_tokenizer
    if change == "a word as added token":
        tokenizer = bert_tokenizer
        tokenizer.add_tokens(["word"])
    elif change == "a normalizer":
        tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    else:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    assert fast.exact_encoder(tokenizer, ["a word"]).name == "tokenizers"


def test_a_tokenizer_loads_without_torch_as_auto_tokenizer_loads_it(tokenizer_dirs):
    for directory in tokenizer_dirs.values():
        ours, auto = fast.load_tokenizer(str(directory)), AutoTokenizer.from_pretrained(directory)
        assert ours.special_tokens_map == auto.special_tokens_map
        assert ours.backend_tokenizer.to_str() == auto.backend_tokenizer.to_str()
    code = f"import sys; from lm_recipes.tokenization import fast; fast.load_tokenizer({str(directory)!r})"
    ended = subprocess.run([sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"], check=False)
    assert ended.returncode == 0
