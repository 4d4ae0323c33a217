"""What does a model that answers questions have to beat? The same test questions, with counted words alone."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from lm_recipes.evaluation.answer_scores import exact_and_f1

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

NEIGHBOURS = 8  # words on each side of a span in which the question's words are looked for


def answer_baselines(questions: "DatasetDict") -> dict[str, dict[str, float]]:
    """F1 and exact match on test of the span of words that a sliding window finds (after MCTest's baseline, Richardson
    et al., EMNLP 2013, and SQuAD's, https://arxiv.org/abs/1606.05250), and of never giving an answer.

    Args:
        questions: of `sources.questions.load_questions`; the usual length of an answer is that of the training split.
    """
    lengths = [len(_words(text)) for row in questions["train"]["answers"] for text in row["text"][:1]]
    width = max(int(np.median(lengths)), 1)
    weights = rarity(questions["train"].unique("context"))
    scores = {"sliding_window": [], "no_answer": []}
    for row in questions["test"]:
        said = sliding_window(row["question"], row["context"], width, weights)
        scores["sliding_window"].append(exact_and_f1(said, row["answers"]["text"]))
        scores["no_answer"].append(exact_and_f1("", row["answers"]["text"]))
    means = {name: np.mean(values, axis=0).tolist() for name, values in scores.items()}
    return {name: {"exact": exact, "f1": f1} for name, (exact, f1) in means.items()}


def rarity(texts: Iterable[str]) -> dict[str, float]:
    """Word -> log of how many times rarer than in every text it is: nats of information of its being there."""
    texts = [set(_words(text)) for text in texts]
    counts = Counter(word for words in texts for word in words)
    return {word: math.log(len(texts) / count) for word, count in counts.items()}


def sliding_window(question: str, context: str, width: int, weights: Mapping[str, float]) -> str:
    """The `width` words of a context that hold fewest of the question's words and have most of them close by.

    Args:
        weights: of words, see `rarity`; a word it does not know weighs as much as the heaviest.
    """
    heaviest = max(weights.values(), default=1.0)
    asked = set(_words(question))
    words = list(re.finditer(r"\w+", context))
    if not words:
        return ""
    value = [weights.get(word, heaviest) if word in asked else 0.0 for word in (w.group().lower() for w in words)]
    closeness = np.append(0.0, 1 / np.arange(1, NEIGHBOURS + 1))  # of words 0, 1, 2, ... away
    before = np.convolve(value, closeness)[: len(words)]
    after = np.convolve(value[::-1], closeness)[: len(words)][::-1]
    sums = np.append(0.0, np.cumsum(value))
    first = np.arange(max(len(words) - width, 0) + 1)
    last = np.minimum(first + width, len(words))
    best = int((before[first] + after[last - 1] - (sums[last] - sums[first])).argmax())
    return context[words[first[best]].start() : words[last[best] - 1].end()]


def choice_baselines(rows: "DatasetDict") -> dict[str, float]:
    """Test accuracy of guessing, of the place that is right most often in training, of the longest choice, and of the
    one that shares most words with what is asked. Of equal choices the first is taken.

    Args:
        rows: of `sources.questions.load_choices`.
    """
    usual = Counter(rows["train"]["labels"]).most_common(1)[0][0]
    guesses = {
        "usual_place": lambda row: usual,
        "longest_choice": lambda row: _largest([len(text) for text in row["choices"]]),
        "most_shared_words": lambda row: _largest([_shared(row, text) for text in row["choices"]]),
    }
    test: Dataset = rows["test"]
    found = {name: float(np.mean([guess(row) == row["labels"] for row in test])) for name, guess in guesses.items()}
    return {"chance": float(np.mean([1 / len(row["choices"]) for row in test]))} | found


def _largest(values: list[float]) -> int:
    return int(np.argmax(values))


def _shared(row: Mapping, choice: str) -> float:
    """Share of a choice's words that what is asked holds too."""
    words = set(_words(choice))
    return len(words & set(_words(f"{row['context']} {row['question']}"))) / max(len(words), 1)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
