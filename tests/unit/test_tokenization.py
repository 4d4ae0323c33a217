"""Tokenizers: lossless or lower-cased as promised, with their special tokens where every other stage expects them."""

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from lm_recipes.launch import UserError
from lm_recipes.sources import load_table
from lm_recipes.tokenization.fertility import cut, lossless_share, measure_fertility
from lm_recipes.tokenization.special import BERT_TOKENS, FIM_TOKENS, GPT_TOKENS, reserved_tokens
from lm_recipes.tokenization.training import MODEL_TYPES, train_tokenizer

SYLLABLES = ["ka", "lo", "mi", "ster", "ing", "pro", "tal", "un", "be", "ver"]
TEXTS = [
    f"The researcher's {a}{b}{c} breakthrough was unexpected; the café of {c}{a} in {1900 + i} was not {chr(945 + i)}."
    for i, (a, b, c) in enumerate(product(SYLLABLES, repeat=3))
]  # every text ends in a rare letter of its own
HALVES = {"one": TEXTS[::2], "two": TEXTS[1::2]}
LOSSLESS = ("bpe", "unigram", "parity_bpe")


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


@pytest.fixture(scope="module", params=product(LOSSLESS, ("gpt2", "gpt4", "qwen2")), ids="-".join)
def lossless(tmp_path_factory, request):
    """Every kind of tokenizer over bytes, with every pre-tokenizer and reserved tokens, saved and loaded."""
    model_type, pre_tokenizer = request.param
    path = tmp_path_factory.mktemp("lossless")
    options = {"pre_tokenizer": pre_tokenizer, "reserved": ["fim", "sentinels=3"]}
    train_tokenizer(HALVES, model_type, 340, **options).save_pretrained(path)
    return AutoTokenizer.from_pretrained(path)


SPECIAL = st.sampled_from([*GPT_TOKENS, *FIM_TOKENS, "<|extra_0|>"])
AWKWARD = st.sampled_from(
    [" ", "  ", "\n \n", "\t", "\0", "\u2581", "Ġ", "##a", "[UNK]", "\u200d", "\ufffd", "1234567", "e\u0301"]
)


@given(parts=st.lists(st.text() | AWKWARD | SPECIAL))
def test_tokenizers_over_bytes_are_lossless_on_any_text(lossless, parts):
    text = "".join(parts)
    ids = lossless(text)["input_ids"]
    assert lossless.decode(ids) == text
    assert lossless.unk_token_id not in ids


@pytest.mark.parametrize("model_type", LOSSLESS)
def test_tokenizers_over_bytes_are_lossless_in_every_script(model_type):
    tokenizer = train_tokenizer(HALVES, model_type, 340)
    every = "".join(map(chr, [*range(0x3000), *range(0x3000, 0xD800, 16), *range(0xE000, 0x110000, 64)]))
    assert lossless_share(tokenizer, [every[start : start + 512] for start in range(0, len(every), 512)]) == 1


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


TRAIN_ALL = """
import hashlib
from test_tokenization import HALVES, MODEL_TYPES, train_tokenizer
for kind in MODEL_TYPES:
    trained = train_tokenizer(HALVES, kind, 400, reserved=["sentinels=4"])
    print(kind, hashlib.sha256(trained.backend_tokenizer.to_str().encode()).hexdigest())
"""


def test_the_same_texts_give_the_same_tokenizer_in_every_process():
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", TRAIN_ALL],
            env=os.environ | {"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads},
            cwd=Path(__file__).parent,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed, threads in (("1", "1"), ("2", "3"))
    ]
    one, two = (run.communicate()[0].split() for run in runs)
    assert one == two
    assert one[::2] == list(MODEL_TYPES)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_reserved_tokens_follow_the_five_that_everybody_knows_and_are_part_of_the_vocabulary(model_type, tmp_path):
    train_tokenizer(HALVES, model_type, 360, reserved=["fim", "sentinels=4", "<|tool|>"]).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    known = BERT_TOKENS if model_type == "wordpiece" else GPT_TOKENS
    extra = [*FIM_TOKENS, "<|extra_0|>", "<|extra_1|>", "<|extra_2|>", "<|extra_3|>", "<|tool|>"]
    assert tokenizer.convert_ids_to_tokens(range(13)) == [*known, *extra]
    assert len(tokenizer) == tokenizer.vocab_size == 360
    assert tokenizer("the<|extra_2|>was<|fim_middle|>", add_special_tokens=False)["input_ids"].count(10) == 1
    assert set(tokenizer.all_special_tokens) == {*known, *extra}
    ids = tokenizer("the <|tool|> was", add_special_tokens=False)["input_ids"]
    assert "tool" not in tokenizer.decode(ids, skip_special_tokens=True)


def test_sentinels_are_a_hundred_unless_told():
    assert reserved_tokens(["sentinels"]) == tuple(f"<|extra_{i}|>" for i in range(100))
    assert reserved_tokens(["sentinels=2", "fim"]) == ("<|extra_0|>", "<|extra_1|>", *FIM_TOKENS)
    assert reserved_tokens([]) == ()


@pytest.mark.parametrize(
    ("pre_tokenizer", "pieces"),
    [("gpt2", [" 1234567"]), ("gpt4", [" ", "123", "456", "7"]), ("qwen2", [" ", *"1234567"])],
)
@pytest.mark.parametrize("model_type", LOSSLESS)
def test_numbers_are_cut_as_the_pre_tokenizer_says(model_type, pre_tokenizer, pieces):
    texts = ["in 1234567 of 1234567"] * 50
    tokenizer = train_tokenizer({"a": texts, "b": texts}, model_type, 300, pre_tokenizer=pre_tokenizer)
    assert cut(tokenizer, "in 1234567")[1:] == pieces


def test_parity_gives_languages_the_same_bytes_per_token():
    rows = load_table("demo:wiki-summaries")
    texts = {"en": rows["text"][:10_000], "fr": rows["text"][10_033:19_000]}
    uneven = {"en": texts["en"][::5], "fr": texts["fr"][::60]}

    def spread(model_type: str, **options) -> float:
        tokenizer = train_tokenizer(uneven, model_type, 1200, **options)
        en, fr = (measure_fertility(tokenizer, texts[code][7::50])["bytes_per_token"] for code in ("en", "fr"))
        return en / fr

    assert spread("bpe") > 1.15
    assert spread("parity_bpe") == pytest.approx(1, abs=0.06)
    assert spread("parity_bpe", parity_ratios=[1.2, 1.0]) == pytest.approx(1.2, abs=0.08)


@pytest.mark.parametrize("model_type", LOSSLESS)
def test_characters_that_training_never_saw_are_bytes(model_type):
    text = ["only these few words, again and again"]
    tokenizer = train_tokenizer({"a": text, "b": text}, model_type, 280)
    assert tokenizer.decode(tokenizer("日本 🙂")["input_ids"]) == "日本 🙂"


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


def test_parts_of_characters_are_shown_as_bytes(bpe):
    assert "".join(cut(bpe, "日")) == "<e6><97><a5>"


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_too_little_text_gives_a_smaller_vocabulary_and_says_so(caplog, model_type):
    assert len(train_tokenizer({"a": ["one text"], "b": ["two texts"]}, model_type, 5000)) < 5000
    assert "the text has only" in caplog.text


@pytest.mark.parametrize(
    ("texts", "model_type", "vocab_size", "options", "message"),
    [
        (TEXTS, "sentencepiece", 300, {}, "model_type: `sentencepiece` is none of bpe, wordpiece"),
        (TEXTS, "bpe", 200, {}, "vocab_size: 200 is too small for bpe; take at least 261"),
        (TEXTS, "unigram", 300, {"reserved": ["sentinels"]}, "take at least 361"),
        (TEXTS, "wordpiece", 20, {}, "vocab_size: 20 is too small"),
        (TEXTS, "bpe", 300, {"pre_tokenizer": "gpt5"}, "pre_tokenizer: `gpt5` is none of gpt2"),
        (TEXTS, "bpe", 300, {"reserved": ["sentinels=many"]}, "reserved_tokens: `sentinels=many` is none of"),
        (TEXTS, "bpe", 300, {"reserved": ["<|eos|>"]}, "reserved_tokens: <|eos|> is there already"),
        (TEXTS, "parity_bpe", 300, {}, "parity_bpe balances languages and found one"),
        (HALVES, "parity_bpe", 300, {"parity_ratios": [1.0]}, "one number above 0 for each of one, two"),
    ],
)
def test_wrong_wishes_are_refused(texts, model_type, vocab_size, options, message):
    with pytest.raises(UserError) as error:
        train_tokenizer(texts, model_type, vocab_size, **options)
    assert message in str(error.value)
