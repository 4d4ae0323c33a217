"""What does a classifier have to beat? The same split, without a language model."""

from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline


def classification_baselines(rows: dict) -> dict[str, float]:
    """Test accuracy of always guessing the commonest class, and of TF-IDF + logistic regression.

    Args:
        rows: splits "train", "validation" and "test", each with columns `text`, `labels` and perhaps `pair`.
    """
    train, validation, test = (_texts_and_labels(rows[name]) for name in ("train", "validation", "test"))
    return {
        "majority": float(DummyClassifier(strategy="most_frequent").fit(*train).score(*test)),
        "tfidf_logistic_regression": tfidf_logistic_regression(train, validation, test),
    }


def tfidf_logistic_regression(train: tuple, validation: tuple, test: tuple) -> float:
    """Test accuracy of a linear model over weighted words and word pairs; each split is (texts, class ids).

    A baseline is worth beating only when it is tuned: its regularisation is chosen on `validation`.
    """
    candidates = [
        make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            LogisticRegression(C=strength, max_iter=1_000),
        ).fit(*train)
        for strength in (1.0, 4.0, 16.0)
    ]
    return float(max(candidates, key=lambda model: model.score(*validation)).score(*test))


def _texts_and_labels(split) -> tuple[list[str], list[int]]:
    columns = [split[name] for name in ("text", "pair") if name in split.column_names]
    return ["\n".join(texts) for texts in zip(*columns, strict=True)], list(split["labels"])
