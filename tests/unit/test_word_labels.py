"""Each word's label sits on one token, and no word is lost unsaid: WordPiece, byte-level BPE, Metaspace Unigram."""

from functools import cache

import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import TEXT, bert_tokenizer, gpt_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lm_recipes.tokenization.word_labels import (
    IGNORED,
    continuations,
    encode_words,
    label_words,
    labels_of,
    split_words,
    words_of_tokens,
)

KINDS = ["wordpiece", "bpe", "bpe with prefix space", "unigram", "unigram, first word marked"]
WORDS = "Ada , the quick-footed fox 's boss , met 3.14 dogs ( twice ) .".split()


@cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    if kind == "wordpiece":
        return bert_tokenizer()
    if kind.startswith("bpe"):
        tokenizer = gpt_tokenizer()
        prefix = kind.endswith("prefix space")
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
        return tokenizer
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=["<pad>", "<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first" if "first" in kind else "always")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="</s>", padding_side="right"
    )


# Any characters but spaces and control characters: emoji, accents apart from their letter, scripts no tokenizer knows.
words = st.text(st.characters(exclude_categories=("Z", "Cc", "Cs")), min_size=1, max_size=8)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)  # the first example trains the tokenizer
@given(sentence=st.lists(words, min_size=1, max_size=8))
def test_tags_come_back_from_the_labels_of_any_words(kind, sentence):
    tokenizer, tags = tokenizer_of(kind), list(range(100, 100 + len(sentence)))
    encoded = encode_words([sentence], tokenizer, 10_000)
    of_tokens, places = encoded["word_of_token"][0], encoded["places"][0]
    labels = labels_of(of_tokens, tags)
    assert len(labels) == len(encoded["input_ids"][0])
    with_tokens = [word for word in range(len(sentence)) if places[word] >= 0]
    assert [label for label in labels if label != IGNORED] == [tags[word] for word in with_tokens]
    assert [labels[places[word]] for word in with_tokens] == [tags[word] for word in with_tokens]
    assert all(of_tokens[place - 1] != of_tokens[place] for place in places if place > 0)  # it is the first one
    assert encoded["words_without_tokens"] == [len(sentence) - len(with_tokens)]
    assert encoded["words_cut"] == [0]
    if kind.startswith("bpe"):  # over bytes nothing is dropped
        assert with_tokens == list(range(len(sentence)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_belongs_to_the_word_its_characters_are_in(kind):
    tokenizer, text = tokenizer_of(kind), " ".join(WORDS)
    encoded = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    found = words_of_tokens(encoded["offset_mapping"], encoded["special_tokens_mask"], WORDS)
    for (start, end), word in zip(encoded["offset_mapping"], found, strict=True):
        assert text[start:end].strip() in ("" if word < 0 else WORDS[word])
    assert {word for word in found if word >= 0} == set(range(len(WORDS)))


@pytest.mark.parametrize("kind", sorted({*KINDS} - {"bpe"}))
def test_where_every_word_gets_its_mark_tokens_are_those_of_words_given_one_by_one(kind):
    tokenizer = tokenizer_of(kind)
    apart = tokenizer([WORDS], is_split_into_words=True)
    joined = encode_words([WORDS], tokenizer, 10_000)
    assert joined["input_ids"] == apart["input_ids"]
    assert [-1 if word is None else word for word in apart.word_ids(0)] == joined["word_of_token"][0]


def test_byte_level_bpe_without_prefix_space_reads_words_as_in_running_text():
    tokenizer = tokenizer_of("bpe")
    joined = encode_words([WORDS], tokenizer, 10_000)["input_ids"]
    assert joined == tokenizer([" ".join(WORDS)])["input_ids"]
    assert joined != tokenizer([WORDS], is_split_into_words=True)["input_ids"]  # the words glued together


@pytest.mark.parametrize("kind", KINDS)
def test_words_behind_max_length_are_counted_and_have_no_place(kind):
    tokenizer = tokenizer_of(kind)
    whole = encode_words([WORDS, ["the"]], tokenizer, 10_000)
    length = len(whole["input_ids"][0])
    assert whole["words_cut"] == [0, 0]
    assert encode_words([WORDS], tokenizer, length)["words_cut"] == [0]
    cut = encode_words([WORDS, ["the"]], tokenizer, length // 2)
    assert [len(ids) for ids in cut["input_ids"]] == [length // 2, len(whole["input_ids"][1])]
    kept = [place for place in cut["places"][0] if place >= 0]
    assert 0 < len(kept) < len(WORDS)
    assert cut["places"][0] == kept + [-1] * (len(WORDS) - len(kept))
    assert cut["words_cut"] == [len(WORDS) - len(kept), 0]
    assert cut["words_without_tokens"] == [0, 0]


def test_a_word_the_tokenizer_drops_is_counted_and_the_others_keep_their_tags():
    tokenizer = bert_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.BertNormalizer()
    encoded = encode_words([["the", "\u200b", "fox"]], tokenizer, 64)
    assert encoded["places"][0][1] == -1
    assert encoded["words_without_tokens"] == [1]
    labels = labels_of(encoded["word_of_token"][0], [7, 8, 9])
    assert [label for label in labels if label != IGNORED] == [7, 9]


def table(sentences: list[list[str]], tags: list[list[int]]) -> Dataset:
    return Dataset.from_dict({"tokens": sentences, "tags": tags})


def test_all_tokens_of_a_word_are_labelled_only_if_asked_for_and_only_in_training():
    names = ["O", "B-per", "I-per", "B-loc"]
    assert continuations(names) == [0, 2, 2, 3]  # there is no I-loc
    split = table([["foxdog", "barks", "foxdog"]], [[1, 2, 0]])
    rows = DatasetDict({"train": split, "validation": split, "test": split})
    data, lost = label_words(rows, bert_tokenizer(), 64, continuations(names))
    assert lost == {"rows_cut_at_max_length": 0, "words_cut_at_max_length": 0, "words_without_tokens": 0}
    first = [label for label in data["test"]["labels"][0] if label != IGNORED]
    assert first == [1, 2, 0]
    labels, places = data["train"]["labels"][0], data["train"]["places"][0]
    assert labels[0] == labels[-1] == IGNORED  # [CLS], [SEP]
    assert labels[places[0] : places[1]] == [1] + [2] * (places[1] - places[0] - 1)
    assert places[1] - places[0] > 1
    assert IGNORED not in labels[1:-1]
    assert data["train"]["length"] == [len(labels)]


def test_rows_and_words_cut_are_counted_over_all_splits():
    long, short = table([WORDS], [[0] * len(WORDS)]), table([["the"]], [[0]])
    rows = DatasetDict({"train": long, "validation": long, "test": short})
    _, lost = label_words(rows, bert_tokenizer(), 8)
    kept = sum(place >= 0 for place in encode_words([WORDS], bert_tokenizer(), 8)["places"][0])
    assert lost["rows_cut_at_max_length"] == 2
    assert lost["words_cut_at_max_length"] == 2 * (len(WORDS) - kept) > 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ada met Babbage.", ["Ada", "met", "Babbage", "."]),
        ('"Well," (it\'s 3.14) ...', ['"', "Well", ",", '"', "(", "it's", "3.14", ")", ".", ".", "."]),
        ("@ada #analytical U.S.A. ", ["@ada", "#analytical", "U.S.A", "."]),
        ("नमस्ते दुनिया!", ["नमस्ते", "दुनिया", "!"]),
        (" \n", []),
        ("?!", ["?", "!"]),
    ],
)
def test_running_text_is_split_as_tagged_corpora_are(text, expected):
    assert [text[start:end] for start, end in split_words(text)] == expected


@given(st.text())
def test_split_words_lose_nothing_but_spaces(text):
    spans = split_words(text)
    assert "".join(text[start:end] for start, end in spans) == "".join(text.split())
    assert all(before <= start < end for (_, before), (start, end) in zip([(0, 0), *spans], spans, strict=False))
