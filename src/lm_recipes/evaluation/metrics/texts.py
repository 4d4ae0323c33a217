"""How close is a generated text to what people wrote? ROUGE by rouge_score, BLEU and chrF by sacrebleu."""

from collections.abc import Callable, Sequence
from itertools import zip_longest
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import sacrebleu
from datasets import List, Value
from rouge_score.rouge_scorer import RougeScorer

from lm_recipes.evaluation.metrics.base import Metric, paired

# one reference a text, or a list of them
TEXTS = {"default": [paired(Value("string"), List(Value("string"))), paired(Value("string"))]}


class Rouge(Metric):
    """ROUGE F-measures, 0 to 1: words (`rouge1`), word pairs (`rouge2`), longest common subsequence (`rougeL`), and
    the same line by line (`rougeLsum`: separate sentences by newlines). Of several references the best counts.

    The mean over texts. evaluate's own module gives the median of a bootstrap of that mean, which is near it but
    differs with the seed. Words are runs of a-z and 0-9, so texts in other scripts score 0: give a `tokenizer` then.

    `compute` takes `rouge_types`, `use_stemmer` (English), `use_aggregator` (False: a list, one score per text) and
    `tokenizer` (str -> list of str). Result: a key for each of `rouge_types`.
    """

    SOURCE, FEATURES = "ACL:W04-1013", TEXTS

    def _compute(
        self,
        predictions: list[str],
        references: list,
        rouge_types: Sequence[str] = ("rouge1", "rouge2", "rougeL", "rougeLsum"),
        use_stemmer: bool = False,
        use_aggregator: bool = True,
        tokenizer: Callable[[str], list[str]] | None = None,
    ) -> dict[str, float | list[float]]:
        words = SimpleNamespace(tokenize=tokenizer) if tokenizer else None
        scorer = RougeScorer(list(rouge_types), use_stemmer=use_stemmer, tokenizer=words)
        rows = [
            scorer.score_multi([wanted] if isinstance(wanted, str) else wanted, said)
            for said, wanted in zip(predictions, references, strict=True)
        ]
        scores = {name: [float(row[name].fmeasure) for row in rows] for name in rouge_types}
        return {name: fmean(of) for name, of in scores.items()} if use_aggregator else scores


class Sacrebleu(Metric):
    """BLEU of a corpus, 0 to 100, with the reference tokenisation that makes scores comparable (13a).

    `compute` takes the options of `sacrebleu.corpus_bleu`, such as `tokenize="zh"` or `lowercase=True`. Texts may have
    different numbers of references. Result: `score`, `counts`, `totals`, `precisions`, `bp`, `sys_len`, `ref_len`.
    """

    SOURCE, FEATURES = "arXiv:1804.08771", TEXTS

    def _compute(self, predictions: list[str], references: list, **options: Any) -> dict[str, float | list]:
        found = sacrebleu.corpus_bleu(predictions, _by_place(references), **options)
        keys = ("score", "counts", "totals", "precisions", "bp", "sys_len", "ref_len")
        return {key: getattr(found, key) for key in keys}


class Chrf(Metric):
    """chrF of a corpus, 0 to 100: F-score of character n-grams; with `word_order=2` chrF++ (ACL:W17-4770).

    `compute` takes the options of `sacrebleu.CHRF`. Texts may have different numbers of references. Result: `score`,
    `char_order`, `word_order`, `beta`.
    """

    SOURCE, FEATURES = "ACL:W15-3049", TEXTS

    def _compute(self, predictions: list[str], references: list, **options: Any) -> dict[str, float]:
        found = sacrebleu.CHRF(**options).corpus_score(predictions, _by_place(references))
        return {key: getattr(found, key) for key in ("score", "char_order", "word_order", "beta")}


def _by_place(references: list) -> list[list[str | None]]:
    """sacrebleu's order: all first references, all second ones, ...; None where a text has fewer."""
    rows = [[wanted] if isinstance(wanted, str) else wanted for wanted in references]
    return [list(column) for column in zip_longest(*rows)]
