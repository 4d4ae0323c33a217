"""Tokenizers held against each other: what is counted, on which texts, and how the page shows it."""

from collections import Counter

import pytest
from corpus import write_corpus
from transformers import AutoTokenizer

from lm_recipes.launch import UserError
from lm_recipes.reporting.tokenizers import comparison_page, comparison_picture
from lm_recipes.sources import load_table
from lm_recipes.sources.demo import DEMOS
from lm_recipes.tokenization.comparison import compare, encoding_speeds, load_tokenizer
from lm_recipes.tokenization.fertility import count_entries, cut, lossless_share
from lm_recipes.tokenization.samples import comparison_texts, labelled_texts, texts_by_language


def test_a_comparison_counts_by_hand(tokenizer_dirs):
    tokenizer = load_tokenizer(str(tokenizer_dirs["gpt"]))
    texts = {"English": ["ab " * 10], "French": ["日本"], "code": ["{}"]}
    tokens = {name: [len(tokenizer(text)["input_ids"]) for text in documents] for name, documents in texts.items()}
    record = compare(tokenizer, texts)
    assert tokens["French"] == [6]  # each byte of a script it has never seen
    assert record["bytes_per_token"] == {
        "English": 30 / tokens["English"][0],
        "French": 1,
        "code": 2 / tokens["code"][0],
    }
    assert record["tokens_per_word"]["French"] == 6
    assert record["parity"] == pytest.approx(30 / tokens["English"][0])
    assert set(record["unknown_rate"].values()) == {0}
    assert set(record["lossless_share"].values()) == {1}
    used = {i for documents in texts.values() for text in documents for i in tokenizer(text)["input_ids"]}
    assert record["used_share"] == len(used) / 512


def test_wordpiece_is_not_lossless_and_has_unknowns(tokenizer_dirs):
    record = compare(load_tokenizer(str(tokenizer_dirs["bert"])), {"text": ["The end", "the end"], "sign": ["日"]})
    assert record["lossless_share"] == {"text": 0.5, "sign": 0}
    assert record["unknown_rate"] == {"text": 0, "sign": 1}
    assert record["parity"] is None


def test_reference_tokenizers_are_measured_without_the_cuts_and_tokens_they_come_with():
    tokenizer = load_tokenizer("demo:minilm")  # its file asks for truncation at 128 tokens
    assert count_entries(tokenizer, ["word " * 500]).sum() == 500
    assert "".join(cut(tokenizer, "unaffable")) == "una##ffa##ble"
    assert encoding_speeds({"MiniLM": tokenizer}, ["word " * 500], rounds=1)["MiniLM"] > 0
    assert lossless_share(load_tokenizer("demo:smollm2"), ["Ein Satz,  日本 🙂\n"]) == 1


def test_texts_come_from_languages_code_numbers_and_corpora(tmp_path):
    found = comparison_texts("demo:wiki-summaries", 20)
    assert list(found) == ["English", "French", "Spanish"]
    assert all(18_000 < sum(len(text.encode()) for text in texts) <= 20_000 for texts in found.values())
    assert len({texts[0] for texts in found.values()}) == 3
    assert " the " in found["English"][0]
    assert any("été" in text for text in found["French"])
    (dialogues,) = comparison_texts("demo:doctor-patient", 5).values()
    assert dialogues[0] == "Hello, doctor."
    (code,) = comparison_texts("python", 200).values()
    assert "    return " in "".join(code)
    assert comparison_texts("numbers", 10) == comparison_texts("numbers", 10)
    corpus = write_corpus(tmp_path / "mine" / "corpus")
    (name,) = comparison_texts(str(corpus), 5)
    assert name == "mine"
    with pytest.raises(UserError, match="nothing-here"):
        comparison_texts(str(tmp_path / "nothing-here"), 5)


def test_what_a_demo_tokenizer_learns_from_is_never_what_it_is_measured_on():
    splits = {
        split: {text for _, text in labelled_texts(["demo:wiki-summaries"], split, language_column="language")}
        for split in ("train", "validation")
    }
    assert not splits["train"] & splits["validation"]
    assert 0.04 < len(splits["validation"]) / sum(map(len, splits.values())) < 0.06


def test_languages_are_a_column_or_a_corpus_each(tmp_path):
    corpora = [str(write_corpus(tmp_path / name, limit)) for name, limit in (("one", 60), ("two", 30))]
    found = texts_by_language(corpora, "validation")
    assert {name: len(texts) for name, texts in found.items()} == {corpora[0]: 8, corpora[1]: 4}
    assert len(texts_by_language(corpora, "train", megabytes=0.005)[corpora[0]]) < 10
    assert set(texts_by_language(["demo:wiki-summaries"], "validation", language_column="language")) == {
        "en",
        "fr",
        "es",
    }
    with pytest.raises(UserError, match="no column `tongue`"):
        texts_by_language(["demo:wiki-summaries"], "train", language_column="tongue")


def test_something_that_is_no_tokenizer_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no tokenizer to be had there"):
        load_tokenizer(str(tmp_path))


def test_the_page_shows_each_token_and_escapes_what_looks_like_html(tokenizer_dirs, tmp_path):
    tokenizers = {track: AutoTokenizer.from_pretrained(path) for track, path in tokenizer_dirs.items()}
    texts = {"English": ["the <b>end</b>"], "French": ["la fin"]}
    sentence = "the <b> é"
    record = {
        "command": "python x",
        "metrics": {
            "tokenizers": {name: compare(t, texts) | {"megabytes_per_second": 1.0} for name, t in tokenizers.items()},
            "text_kilobytes": {"English": 0.1, "French": 0.1},
            "cuts": [{"sentence": sentence, "tokens": {name: cut(t, sentence) for name, t in tokenizers.items()}}],
        },
    }
    page = comparison_page(record)
    assert "<b> é" not in page
    assert "&lt;c3&gt;" in page  # é, to a tokenizer that has only its bytes
    assert page.count('class="c0') >= len(tokenizers)
    assert "src=" not in page
    assert "http" not in page
    comparison_picture(record, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"


def test_wiki_summaries_have_three_languages_and_a_topic_each():
    rows = load_table("demo:wiki-summaries")
    assert len(rows) == DEMOS["demo:wiki-summaries"].rows
    assert Counter(rows["language"]) == {"en": 10_033, "fr": 9_955, "es": 6_239}
    assert all(text.strip() for text in rows["text"])
    assert len({topic for topic, code in zip(rows["topic"], rows["language"], strict=True) if code == "en"}) == 12
