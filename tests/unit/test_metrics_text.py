"""Metrics of entities and generated texts give the numbers of seqeval, rouge_score, sacrebleu, and of a hand count."""

from statistics import fmean

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.scoring import BootstrapAggregator
from seqeval import scheme as schemes
from seqeval.metrics import f1_score

from lm_recipes.evaluation.metrics import load
from lm_recipes.launch import UserError

few = settings(max_examples=25, deadline=None)


def score(predictions: list, references: list, **options) -> dict:
    return load("seqeval", **options).compute(predictions=predictions, references=references)


def test_entities_count_whole():
    found = score(
        [["O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]],
        [["O", "O", "O", "B-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]],
    )
    assert found["PER"] == {"precision": 1, "recall": 1, "f1": 1, "number": 1}
    assert found["MISC"] == {"precision": 0, "recall": 0, "f1": 0, "number": 1}
    assert [found[f"overall_{name}"] for name in ("precision", "recall", "f1")] == [0.5, 0.5, 0.5]
    assert found["overall_accuracy"] == pytest.approx(7 / 9)


@pytest.mark.parametrize(
    ("scheme", "said", "wanted", "strict", "conll"),
    [
        # opened by I-: no entity to the scheme, one to CoNLL's script
        ("IOB2", "I-PER I-PER O B-LOC", "B-PER I-PER O B-LOC", 2 / 3, 1),
        ("IOB2", "O I-PER O B-LOC", "O B-PER O B-LOC", 2 / 3, 1),
        # the type changes inside: an entity of one word, and for CoNLL another
        ("IOB2", "B-PER I-LOC O O", "B-PER I-PER O O", 0, 0),
        ("IOB2", "B-PER I-LOC O O", "B-PER O O O", 1, 2 / 3),
        # two entities side by side
        ("IOB2", "B-PER B-PER", "B-PER I-PER", 0, 0),
        # never ended
        ("IOBES", "B-PER I-PER O S-LOC", "B-PER E-PER O S-LOC", 2 / 3, 1),
        ("IOBES", "B-PER E-PER O S-LOC", "B-PER E-PER O S-LOC", 1, 1),
        ("IOBES", "S-PER E-PER O O", "B-PER E-PER O O", 0, 0),
    ],
)
def test_broken_guesses_are_no_entities_unless_counted_as_conll_does(scheme, said, wanted, strict, conll):
    rows = ([said.split()], [wanted.split()])
    assert score(*rows, scheme=scheme, mode="strict")["overall_f1"] == pytest.approx(strict)
    assert score(*rows, scheme=scheme)["overall_f1"] == pytest.approx(conll)


def spans(tags: list[str]) -> set[tuple[int, int, str]]:
    """The entities of an IOB2 sentence, read off once more."""
    found = set()
    for start, tag in enumerate(tags):
        if tag.startswith("B-"):
            end = start + 1
            while end < len(tags) and tags[end] == f"I-{tag[2:]}":
                end += 1
            found.add((start, end, tag[2:]))
    return found


tags = st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"])
sentences = st.integers(1, 8).flatmap(lambda n: st.tuples(*[st.lists(tags, min_size=n, max_size=n)] * 2))


@few
@given(st.lists(sentences, min_size=1, max_size=6))
def test_f1_is_that_of_a_hand_count_and_of_seqeval(rows):
    said = [["B-LOC", *first] for first, _ in rows]
    wanted = [["B-LOC", *second] for _, second in rows]
    for sentence in wanted:  # made whole: what continues nothing begins something
        for place in range(1, len(sentence)):
            name = sentence[place][2:]
            if sentence[place].startswith("I-") and sentence[place - 1] not in (f"B-{name}", f"I-{name}"):
                sentence[place] = f"B-{name}"
    right = sum(len(spans(a) & spans(b)) for a, b in zip(said, wanted, strict=True))
    number = sum(len(spans(sentence)) for sentence in said + wanted)
    found = score(said, wanted, mode="strict")
    assert found["overall_f1"] == pytest.approx(2 * right / number)
    assert found["overall_f1"] == pytest.approx(f1_score(wanted, said, mode="strict", scheme=schemes.IOB2))
    assert score(said, wanted)["overall_f1"] == pytest.approx(f1_score(wanted, said))


@pytest.mark.parametrize(
    ("said", "wanted", "options", "message"),
    [
        (
            ["O", "O"],
            ["O", "I-PER"],
            {"mode": "strict"},
            r"references, sentence 1: `I-PER` at word 2 belongs to no IOB2 entity",
        ),
        (
            ["O", "O"],
            ["B-PER", "O"],
            {"scheme": "IOBES", "mode": "strict"},
            r"`B-PER` at word 1 belongs to no IOBES entity",
        ),
        (["O", "E-PER"], ["O", "O"], {}, r"sentence 1: `E-PER` is no IOB2 tag"),
        (["NN", "O"], ["O", "O"], {}, r"sentence 1: `NN` is no IOB2 tag"),
        (["O"], ["O", "O"], {}, r"sentence 1: 1 predicted tags for 2 words"),
        (["O"], ["O"], {"scheme": "BIO"}, r"scheme BIO: must be one of IOB2, IOBES"),
    ],
)
def test_tags_that_cannot_be_counted_are_refused_by_sentence(said, wanted, options, message):
    with pytest.raises(UserError, match=message):
        score([said], [wanted], **options)


# ---- texts

words = st.lists(st.sampled_from("the cat sat on a mat again .".split()), min_size=1, max_size=9).map(" ".join)
text_pairs = st.lists(st.tuples(words, words), min_size=1, max_size=8)


def test_rouge_by_hand():
    found = load("rouge").compute(predictions=["the cat sat"], references=["the cat"])
    assert found == {
        "rouge1": pytest.approx(0.8),  # 2 of 3 words right, 2 of 2 found
        "rouge2": pytest.approx(2 / 3),
        "rougeL": pytest.approx(0.8),
        "rougeLsum": pytest.approx(0.8),
    }


@few
@given(text_pairs)
def test_rouge_is_the_mean_of_rouge_scores(pairs):
    said, wanted = map(list, zip(*pairs, strict=True))
    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=True)
    rows = [scorer.score(reference, text) for text, reference in pairs]
    found = load("rouge", rouge_types=["rouge1", "rougeL"], use_stemmer=True).compute(
        predictions=said, references=wanted
    )
    assert found == {name: pytest.approx(fmean(row[name].fmeasure for row in rows)) for name in ("rouge1", "rougeL")}


def test_rouge_lies_in_the_interval_of_the_librarys_bootstrap_and_rows_can_be_had():
    rng = np.random.default_rng(0)
    said, wanted = ([" ".join(rng.choice(list("abcdef"), 6)) for _ in range(60)] for _ in range(2))
    aggregator = BootstrapAggregator()
    scorer = RougeScorer(["rouge1"])
    for text, reference in zip(said, wanted, strict=True):
        aggregator.add_scores(scorer.score(reference, text))
    interval = aggregator.aggregate()["rouge1"]
    found = load("rouge").compute(predictions=said, references=wanted)["rouge1"]
    assert interval.low.fmeasure < found < interval.high.fmeasure
    assert found == pytest.approx(interval.mid.fmeasure, abs=0.01)
    rows = load("rouge", use_aggregator=False).compute(predictions=said, references=wanted)["rouge1"]
    assert fmean(rows) == found


def test_rouge_takes_the_best_reference_and_another_tokenizer():
    rouge = load("rouge")
    assert rouge.compute(predictions=["a cat"], references=[["a dog", "a cat"]])["rouge2"] == 1
    greek = {"predictions": ["η γάτα"], "references": ["η γάτα"]}
    assert rouge.compute(**greek)["rouge1"] == 0
    assert rouge.compute(**greek, tokenizer=str.split)["rouge1"] == 1


@few
@given(text_pairs)
def test_bleu_and_chrf_are_sacrebleus(pairs):
    said, wanted = map(list, zip(*pairs, strict=True))
    bleu = sacrebleu.corpus_bleu(said, [wanted])
    found = load("sacrebleu").compute(predictions=said, references=wanted)
    assert (found["score"], found["counts"], found["totals"]) == (bleu.score, bleu.counts, bleu.totals)
    assert (found["bp"], found["sys_len"], found["ref_len"]) == (bleu.bp, bleu.sys_len, bleu.ref_len)
    for options in ({}, {"word_order": 2, "lowercase": True}):
        expected = sacrebleu.CHRF(**options).corpus_score(said, [wanted]).score
        assert load("chrf", **options).compute(predictions=said, references=wanted)["score"] == expected


def test_equal_texts_score_a_hundred_and_texts_may_have_different_numbers_of_references():
    said = ["the cat sat on the mat", "a dog barks at the fox"]
    for name in ("sacrebleu", "chrf"):
        metric = load(name)
        assert metric.compute(predictions=said, references=said)["score"] == pytest.approx(100)
        several = [["no such thing here", said[0], "nor here"], [said[1]]]
        assert metric.compute(predictions=said, references=several)["score"] == pytest.approx(100)
        assert metric.compute(predictions=said, references=[[said[1]], [said[0]]])["score"] < 60
