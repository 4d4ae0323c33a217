"""What does a classifier have to beat? The same split, without a language model."""

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline

from lm_recipes.evaluation.classification import MAIN, metrics_of
from lm_recipes.sources.labelled import MULTI, REGRESSION, SINGLE

STRENGTHS = (1.0, 4.0, 16.0)


def classification_baselines(rows: dict, problem_type: str = SINGLE) -> dict[str, float]:
    """What always guessing the commonest, and a linear model over TF-IDF, reach on test: accuracy; macro F1 where rows
    have several classes; Spearman correlation (0 for a constant) of a regression.

    Args:
        rows: splits "train", "validation" and "test", each with columns `text`, `labels` and perhaps `pair`.
    """
    train, validation, test = (_texts_and_labels(rows[name]) for name in ("train", "validation", "test"))
    if problem_type == SINGLE:
        return {
            "majority": float(DummyClassifier(strategy="most_frequent").fit(*train).score(*test)),
            "tfidf_logistic_regression": tfidf_logistic_regression(train, validation, test),
        }
    truth = {name: np.array(labels) for name, (_, labels) in (("validation", validation), ("test", test))}
    score = metrics_of(problem_type, truth["test"].shape[-1])

    def main(said: np.ndarray, split: str) -> float:
        return score(said, truth[split])[MAIN[problem_type]]

    models = [_linear(problem_type, strength).fit(train[0], np.array(train[1])) for strength in STRENGTHS]
    best = max(models, key=lambda model: main(model.predict(validation[0]), "validation"))
    if problem_type == REGRESSION:
        return {"tfidf_ridge": main(best.predict(test[0]), "test")}
    commonest = (np.mean(train[1], axis=0) >= 0.5).astype(int)
    constant = np.tile(commonest, (len(test[0]), 1))
    return {"majority": main(constant, "test"), "tfidf_logistic_regression": main(best.predict(test[0]), "test")}


def _linear(problem_type: str, strength: float):
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    if problem_type == REGRESSION:
        return make_pipeline(words, Ridge(alpha=1 / strength))
    model = LogisticRegression(C=strength, max_iter=1_000)
    return make_pipeline(words, OneVsRestClassifier(model) if problem_type == MULTI else model)


def tfidf_logistic_regression(train: tuple, validation: tuple, test: tuple) -> float:
    """Test accuracy of a linear model over weighted words and word pairs; each split is (texts, class ids).

    A baseline is worth beating only when it is tuned: its regularisation is chosen on `validation`.
    """
    candidates = [_linear(SINGLE, strength).fit(*train) for strength in STRENGTHS]
    return float(max(candidates, key=lambda model: model.score(*validation)).score(*test))


def _texts_and_labels(split) -> tuple[list[str], list]:
    columns = [split[name] for name in ("text", "pair") if name in split.column_names]
    return ["\n".join(texts) for texts in zip(*columns, strict=True)], list(split["labels"])
