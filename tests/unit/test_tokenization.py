"""Tokenizers: lossless or lower-cased as promised, with their special tokens where every other stage expects them."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from lm_recipes.launch import UserError
from lm_recipes.tokenization.fertility import cut, measure_fertility
from lm_recipes.tokenization.training import BERT_TOKENS, GPT_TOKENS, train_tokenizer

SYLLABLES = ["ka", "lo", "mi", "ster", "ing", "pro", "tal", "un", "be", "ver"]
TEXTS = [
    f"The researcher's {a}{b}{c} breakthrough was unexpected; the café of {c}{a} in {1900 + i} was not {chr(945 + i)}."
    for i, (a, b, c) in enumerate(product(SYLLABLES, repeat=3))
]  # every text ends in a rare letter of its own


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    path = tmp_path_factory.mktemp("bpe")
    train_tokenizer(TEXTS, "bpe", 330).save_pretrained(path)
    return AutoTokenizer.from_pretrained(path)


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory):
    path = tmp_path_factory.mktemp("wordpiece")
    train_tokenizer(TEXTS, "wordpiece", 160).save_pretrained(path)
    return AutoTokenizer.from_pretrained(path)


@given(text=st.text())
def test_byte_level_bpe_is_lossless_on_any_text(bpe, text):
    ids = bpe(text)["input_ids"]
    assert bpe.decode(ids) == text
    assert bpe.unk_token_id not in ids


def test_special_tokens_of_the_gpt_track(bpe):
    assert bpe.convert_ids_to_tokens(range(5)) == list(GPT_TOKENS)
    assert (bpe.pad_token_id, bpe.bos_token_id, bpe.eos_token_id) == (0, 1, 2)
    assert bpe("a<|im_start|>b<|im_end|>")["input_ids"][1::2] == [3, 4]
    assert set(bpe.all_special_tokens) == set(GPT_TOKENS)
    assert not set(bpe("The café")["input_ids"]) & set(range(5))  # packing adds the boundaries
    assert list(bpe("a")) == ["input_ids", "attention_mask"]
    assert len(bpe) == bpe.vocab_size == 330


def test_special_tokens_of_the_bert_track(wordpiece):
    assert wordpiece.convert_ids_to_tokens(range(5)) == list(BERT_TOKENS)
    named = ("pad_token_id", "unk_token_id", "cls_token_id", "sep_token_id", "mask_token_id")
    assert [getattr(wordpiece, name) for name in named] == [0, 1, 2, 3, 4]
    ids = wordpiece("the was", "was the")["input_ids"]
    assert [ids[0], ids[-1], ids.count(3)] == [2, 3, 2]
    assert wordpiece.mask_token_id in wordpiece("the [MASK] was")["input_ids"]
    assert list(wordpiece("a")) == ["input_ids", "attention_mask"]
    assert len(wordpiece) == wordpiece.vocab_size == 160


def test_wordpiece_lowers_case_and_accents(wordpiece):
    assert wordpiece("The CAFÉ")["input_ids"] == wordpiece("the cafe")["input_ids"]
    assert wordpiece.decode(wordpiece("The Café was", add_special_tokens=False)["input_ids"]) == "the cafe was"


def test_pieces_of_words_are_no_special_tokens(wordpiece):
    assert set(wordpiece.all_special_tokens) == set(BERT_TOKENS)
    assert wordpiece.decode(wordpiece("the ster")["input_ids"], skip_special_tokens=True) == "the ster"
    assert wordpiece.tokenize("##a") != ["##a"]


def test_offsets_of_words_leave_the_space_out(bpe):
    text = "was the café"
    offsets = bpe(text, return_offsets_mapping=True)["offset_mapping"]
    assert all(text[start:end].strip() == text[start:end] != "" for start, end in offsets)


@pytest.mark.parametrize("model_type", ["bpe", "wordpiece"])
def test_the_same_texts_give_the_same_tokenizer(model_type):
    one, two = (train_tokenizer(iter(TEXTS), model_type, 300).backend_tokenizer.to_str() for _ in range(2))
    assert one == two


def test_fertility_counts_by_hand(bpe, wordpiece):
    texts = ["the was", "日本"]
    found = measure_fertility(wordpiece, texts)
    assert found == {"tokens_per_word": 4 / 3, "bytes_per_token": 13 / 4, "unknown_rate": 0.5}
    assert measure_fertility(bpe, texts)["unknown_rate"] == 0
    assert measure_fertility(bpe, ["ab"])["bytes_per_token"] == 1


def test_a_cut_sentence_reads_as_the_sentence(bpe, wordpiece):
    sentence = "The researcher's breakthrough was unexpected"
    assert "".join(cut(bpe, sentence)) == sentence
    assert "".join(cut(wordpiece, sentence)).replace("##", "") == sentence.lower().replace(" ", "")


def test_too_little_text_gives_a_smaller_vocabulary_and_says_so(caplog):
    assert len(train_tokenizer(["one text"], "bpe", 5000)) < 5000
    assert "the text has only" in caplog.text


@pytest.mark.parametrize(
    ("model_type", "vocab_size", "message"),
    [
        ("unigram", 300, "model_type: `unigram`"),
        ("bpe", 200, "vocab_size: 200 is too small"),
        ("wordpiece", 20, "vocab_size: 20 is too small"),
    ],
)
def test_wrong_wishes_are_refused(model_type, vocab_size, message):
    with pytest.raises(UserError, match=message):
        train_tokenizer(TEXTS, model_type, vocab_size)
