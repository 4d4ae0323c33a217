"""How well does a tagger do, word by word and entity by entity, and how sure is that number?"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support
from torch.utils.data import DataLoader
from tqdm import tqdm

from lm_recipes.decoding.tagging import MODEL_INPUTS
from lm_recipes.evaluation.metrics import load
from lm_recipes.sources.tag_schemes import entities, marks_entities

Sentences = Sequence[np.ndarray]  # tag ids of the words of each sentence, int `[words]`


def main_score(names: Sequence[str]) -> str:
    """What runs are chosen by and intervals are made for: "f1" of entities, or "accuracy" of words."""
    return "f1" if marks_entities(names) else "accuracy"


def scores(predictions: Sentences, references: Sentences, names: Sequence[str]) -> dict[str, float]:
    """Of entities F1, precision and recall (micro, CoNLL's counting) and the accuracy of tags; otherwise the accuracy
    of words and F1 averaged over tags.
    """
    if marks_entities(names):
        found = _seqeval(predictions, references, names)
        return {name: found[f"overall_{name}"] for name in ("f1", "precision", "recall", "accuracy")}
    said, truth = np.concatenate(predictions), np.concatenate(references)
    macro = f1_score(truth, said, average="macro", zero_division=0)
    return {"accuracy": float(np.mean(said == truth)), "macro_f1": float(macro)}


def in_words(test: dict, names: Sequence[str]) -> str:
    """The main score of a `report`'s split and its interval, in a line."""
    main = main_score(names)
    low, high = test[f"{main}_low"], test[f"{main}_high"]
    what = "F1 of entities" if main == "f1" else "of the words right"
    return f"{test[main]:.1%} {what} (test, 95 %: {low:.1%} to {high:.1%})"


def _seqeval(predictions: Sentences, references: Sentences, names: Sequence[str]) -> dict:
    tags = ([[names[number] for number in row] for row in rows] for rows in (predictions, references))
    # Not strict: an I-person that nothing began is an entity, as in CoNLL's script and for whoever uses the model.
    return load("seqeval").compute(predictions=next(tags), references=next(tags))


def trainer_metrics(names: Sequence[str]) -> Callable:
    """The main score for `Trainer(compute_metrics=...)`, of predicted ids int `[N, L]` (see
    `evaluation.metrics.class_ids`) and labels `[N, L]`, on the labelled tokens: words that were cut do not count.

    With `--batch_eval_metrics` Trainer hands over batch by batch, and two sums are all that is kept of them.
    """
    totals = np.zeros((1, 2), dtype=int)  # of `sentence_counts`

    def compute_metrics(prediction, compute_result: bool = True) -> dict[str, float]:
        said, truth = (torch.as_tensor(ids).numpy(force=True) for ids in (prediction.predictions, prediction.label_ids))
        asked = truth != -100
        rows = ([ids[of] for ids, of in zip(columns, asked, strict=True)] for columns in (said, truth))
        totals[:] += sentence_counts(*rows, names).sum(0)
        if not compute_result:
            return {}
        score = float(_ratio(totals)[0])
        totals[:] = 0
        return {main_score(names): score}

    return compute_metrics


def predict(trainer, dataset) -> list[np.ndarray]:
    """Tag ids of each sentence's words, int `[words]`, in the order of a dataset that `word_labels.label_words` made.

    A word that was cut off, or that has no token, gets id 0: O where there is one. So every word of the source counts.
    The trainer's collator pads at the right, as places count from the left.
    In the precision the model is saved in, as `classification.predict`.
    """
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).eval()
    order = np.argsort(dataset["length"], kind="stable")  # batches of like length: less padding
    rows = dataset.select(order).remove_columns([name for name in dataset.column_names if name not in MODEL_INPUTS])
    loader = trainer.accelerator.prepare(
        DataLoader(rows, batch_size=trainer.args.eval_batch_size, collate_fn=trainer.data_collator)
    )
    of_tokens: list[np.ndarray] = []
    with torch.no_grad():
        for batch in tqdm(loader, desc="predicting", leave=False, disable=None):
            ids = trainer.accelerator.pad_across_processes(model(**batch).logits.argmax(-1), dim=1)
            of_tokens.extend(trainer.accelerator.gather_for_metrics(ids).cpu().numpy())
    places, found = list(dataset["places"]), [np.empty(0, dtype=int)] * len(dataset)
    for row, ids in zip(order.tolist(), of_tokens, strict=True):
        at = np.array(places[row])
        found[row] = np.where(at >= 0, ids[at], 0)
    return found


def sentence_counts(predictions: Sentences, references: Sentences, names: Sequence[str]) -> np.ndarray:
    """Int `[N, 2]`: sums of the columns over sentences, one divided by the other, are the main score.

    Of entities twice the right ones, and predicted plus true ones (micro F1); of words the right ones, and all.
    """
    counts = []
    for said, truth in zip(predictions, references, strict=True):
        if marks_entities(names):
            mine, true = ({*entities([names[number] for number in row])} for row in (said, truth))
            counts.append((2 * len(mine & true), len(mine) + len(true)))
        else:
            counts.append((int((said == truth).sum()), len(truth)))
    return np.array(counts)


def ratio_interval(counts: np.ndarray, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of a ratio of sums, over the sentences of a test set.

    Args:
        counts: int `[S, N, 2]` from `sentence_counts`, of S models on the same sentences. Sentences are resampled, so
            the words of one stay together, and so do the models' answers to it; the interval is that of the mean.
    """
    rng, ratios = np.random.default_rng(seed), []
    for _ in range(1_000):
        totals = counts[:, rng.integers(counts.shape[1], size=counts.shape[1])].sum(1)
        ratios.append(_ratio(totals).mean())
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _ratio(totals: np.ndarray) -> np.ndarray:
    """Of int `[S, 2]`; 0 where there is nothing to divide by (no entity, neither true nor predicted)."""
    return np.divide(totals[:, 0], totals[:, 1], out=np.zeros(len(totals)), where=totals[:, 1] > 0)


def report(
    guesses: dict[int, dict[str, Sentences]],
    references: dict[str, Sentences],
    names: list[str],
    unknown: Sentences | None = None,
) -> dict:
    """The metrics of one recipe run under S seeds, as results.json holds them.

    Args:
        guesses: seed -> split ("validation", "test") -> predictions. references: split -> the truth.
        unknown: for each test sentence, bool `[words]`: which words no training sentence has (`unknown_words`).

    Returns:
        For both splits the mean `scores` over seeds, with a 95 % interval of the main one; `per_seed`; `saved_seed`,
        the one best on validation; and of that one on test: `per_class` (precision, recall, F1 of each entity type or
        tag), the `confusion` of tags (rows: true ones), the `commonest_errors`, and the `accuracy_on_unknown_words`.
    """
    main = main_score(names)
    each = {
        seed: {split: scores(found[split], references[split], names) for split in references}
        for seed, found in guesses.items()
    }
    per_seed = [{"seed": seed} | {split: found[split][main] for split in found} for seed, found in each.items()]
    best = max(per_seed, key=lambda run: run["validation"])["seed"]
    metrics = {}
    for split in ("test", "validation"):
        means = {name: float(np.mean([found[split][name] for found in each.values()])) for name in each[best][split]}
        counts = np.stack([sentence_counts(found[split], references[split], names) for found in guesses.values()])
        low, high = ratio_interval(counts)
        sizes = {"sentences": len(references[split]), "words": sum(map(len, references[split]))}
        metrics[split] = means | {f"{main}_low": low, f"{main}_high": high} | sizes
    said, truth = np.concatenate(guesses[best]["test"]), np.concatenate(references["test"])
    confusion = confusion_matrix(truth, said, labels=range(len(names)))
    if unknown is not None and (new := np.concatenate(unknown)).any():
        metrics["test"]["accuracy_on_unknown_words"] = float(np.mean((said == truth)[new]))
    return metrics | {
        "per_seed": per_seed,
        "saved_seed": best,
        "per_class": per_class(guesses[best]["test"], references["test"], names),
        "confusion": confusion.tolist(),
        "commonest_errors": commonest_errors(confusion, names),
        "labels": names,
    }


def per_class(predictions: Sentences, references: Sentences, names: list[str]) -> list[dict]:
    """A row `{name, precision, recall, f1, number}` for each type of entity, or else for each tag."""
    if marks_entities(names):
        found = _seqeval(predictions, references, names)
        return [{"name": kind, **values} for kind, values in sorted(found.items()) if isinstance(values, dict)]
    columns = precision_recall_fscore_support(
        np.concatenate(references), np.concatenate(predictions), labels=range(len(names)), zero_division=0
    )
    return [
        {"name": name, "precision": float(p), "recall": float(r), "f1": float(f1), "number": int(number)}
        for name, p, r, f1, number in zip(names, *columns, strict=True)
    ]


def commonest_errors(confusion: np.ndarray, names: list[str], most: int = 10) -> list[dict]:
    """The pairs `{truth, predicted, words}` of tags that were taken for one another most often."""
    errors = [
        {"truth": names[row], "predicted": names[column], "words": int(confusion[row, column])}
        for row, column in np.argwhere(confusion)
        if row != column
    ]
    return sorted(errors, key=lambda error: -error["words"])[:most]


def unknown_words(rows: dict) -> list[np.ndarray]:
    """For each test sentence, bool `[words]`: which words (as they are written) no training sentence has."""
    known = {word for words in rows["train"]["tokens"] for word in words}
    return [np.array([word not in known for word in words]) for words in rows["test"]["tokens"]]


def tagging_baseline(rows: dict, names: list[str]) -> dict[str, float]:
    """What a tagger has to beat: each word gets the tag it has most often in training.

    A word that is not there gets the tag most frequent among words that are there once, as new words are most like
    those. For parts of speech this is strong (about 90 %, Charniak et al., AAAI 1993).

    Args:
        rows: splits "train" and "test" with columns `tokens` and `tags`.

    Returns:
        The main score of that on test, and the share of unknown words there.
    """
    tags_of: dict[str, Counter] = {}
    for words, tags in zip(rows["train"]["tokens"], rows["train"]["tags"], strict=True):
        for word, tag in zip(words, tags, strict=True):
            tags_of.setdefault(word, Counter())[tag] += 1
    usual = {word: tags.most_common(1)[0][0] for word, tags in tags_of.items()}
    once = Counter(usual[word] for word, tags in tags_of.items() if tags.total() == 1) or Counter(usual.values())
    default = once.most_common(1)[0][0]
    guesses = [np.array([usual.get(word, default) for word in words]) for words in rows["test"]["tokens"]]
    found = scores(guesses, [np.array(tags) for tags in rows["test"]["tags"]], names)
    new = np.concatenate(unknown_words(rows))
    return {"usual_tag_of_the_word": found[main_score(names)], "share_of_unknown_words": float(new.mean())}
