"""Which entities were found? Whole ones count, begun, ended and named right, by seqeval."""

from datasets import List, Value
from seqeval.metrics import accuracy_score, classification_report
from seqeval.scheme import IOB2, IOBES, Tokens

from lm_recipes.evaluation.metrics.base import Metric, paired
from lm_recipes.launch import UserError

SCHEMES = {"IOB2": IOB2, "IOBES": IOBES}
PREFIXES = {"IOB2": ("B-", "I-"), "IOBES": ("B-", "I-", "E-", "S-")}


class Seqeval(Metric):
    """Precision, recall and F1 of entities, from a tag per word (str, a list a sentence).

    With `mode=None`, evaluate's default, entities are counted as CoNLL's script does (ACL:W03-0419): `I-PER` after `O`
    begins one. With `mode="strict"` a guessed entity that the scheme does not allow, such as that one, is none.

    `compute` takes `scheme` ("IOB2" or "IOBES") and `mode`. Result: `overall_precision`, `overall_recall`,
    `overall_f1` (micro), `overall_accuracy` (of tags), and per type its `precision`, `recall`, `f1` and `number`.

    Raises:
        UserError: sentences of different lengths, a tag that is not of the scheme, or, in strict mode, references that
            break it: their entities would be left out of what is to be found.
    """

    SOURCE, FEATURES = "ACL:W95-0107", {"default": paired(List(Value("string")))}

    def _compute(
        self, predictions: list, references: list, scheme: str = "IOB2", mode: str | None = None
    ) -> dict[str, float | dict]:
        if scheme not in SCHEMES:
            raise UserError(f"seqeval: scheme {scheme}: must be one of {', '.join(SCHEMES)}")
        for row, (said, wanted) in enumerate(zip(predictions, references, strict=True), start=1):
            _check(said, wanted, scheme, f"seqeval: sentence {row}")
            if mode == "strict":
                _refuse_broken(wanted, scheme, f"seqeval: references, sentence {row}")
        report = classification_report(
            references, predictions, output_dict=True, mode=mode, scheme=SCHEMES[scheme], zero_division=0
        )
        overall = {name: report.pop(f"{name} avg") for name in ("micro", "macro", "weighted")}["micro"]
        scores: dict[str, float | dict] = {
            name: {"precision": float(of["precision"]), "recall": float(of["recall"]), "f1": float(of["f1-score"])}
            | {"number": int(of["support"])}
            for name, of in report.items()
        }
        for ours, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            scores[f"overall_{ours}"] = float(overall[theirs])
        return scores | {"overall_accuracy": float(accuracy_score(references, predictions))}


def _check(said: list[str], wanted: list[str], scheme: str, where: str) -> None:
    if len(said) != len(wanted):
        raise UserError(f"{where}: {len(said)} predicted tags for {len(wanted)} words")
    for tag in (*wanted, *said):
        if tag != "O" and not tag.startswith(PREFIXES[scheme]):
            raise UserError(f"{where}: `{tag}` is no {scheme} tag; are these entities?")


def _refuse_broken(tags: list[str], scheme: str, where: str) -> None:
    """In a whole annotation every tag but `O` lies in an entity."""
    inside = set()
    for entity in Tokens(tags, SCHEMES[scheme]).entities:
        inside.update(range(entity.start, entity.end))
    for place, tag in enumerate(tags):
        if tag != "O" and place not in inside:
            raise UserError(
                f"{where}: `{tag}` at word {place + 1} belongs to no {scheme} entity; convert the tags, or count as "
                'CoNLL does, without mode="strict"'
            )
