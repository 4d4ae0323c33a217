"""How does a model that was calibrated on its task answer every row of a file?"""

import pyarrow

from lm_recipes.decoding.batches import Task
from lm_recipes.decoding.predictions import class_logits
from lm_recipes.decoding.tasks import TRUNCATED, reading
from lm_recipes.evaluation.answers import answer_all, asking_of, records
from lm_recipes.evaluation.calibration import Calibration
from lm_recipes.sources.labelled import MULTI, REGRESSION

SPAN = pyarrow.struct(
    [
        ("text", pyarrow.string()),
        ("start", pyarrow.int64()),
        ("end", pyarrow.int64()),
        ("score", pyarrow.float64()),
        ("probability", pyarrow.float64()),
    ]
)
SCHEMA = pyarrow.schema(
    [
        ("answer", pyarrow.string()),  # "": none is believed
        ("probability", pyarrow.float64()),
        ("start", pyarrow.int64()),  # characters of the context
        ("end", pyarrow.int64()),
        ("no_answer_probability", pyarrow.float64()),
        ("n_best", pyarrow.list_(SPAN)),
    ]
)


def classification(path: str, model, tokenizer, column: str, limit: int) -> Task:
    """What `Calibration.answer` says of each text: `label` and `score`, or `labels` where a text has several classes,
    and `probabilities`, a number for each class; of a regression the `score` alone.

    Args:
        path: directory or Hub id, which may hold `calibration.json`.
        limit: tokens that are read of a text.
    """
    calibration = Calibration.beside(path, model.config)
    columns = [("label", pyarrow.string()), ("score", pyarrow.float64())]
    if calibration.problem_type == REGRESSION:
        columns = columns[1:]
    else:
        classes = pyarrow.struct([(name, pyarrow.float64()) for name in calibration.labels])
        if calibration.problem_type == MULTI:
            columns = [("labels", pyarrow.list_(pyarrow.string()))]
        columns = [*columns, ("probabilities", classes)]

    def read(texts: list[str]) -> list[dict]:
        return [calibration.answer(logits) for logits in class_logits(model, tokenizer, texts, limit, len(texts))]

    return reading(tokenizer, column, limit, pyarrow.schema([*columns, TRUNCATED]), read)


def question_answering(
    path: str, model, tokenizer, columns: dict[str, str], max_length: int | None = None, n_best: int = 3
) -> Task:
    """The columns of SCHEMA, as `answers.records` says them; the model is asked as it was measured.

    Args:
        path: directory or Hub id, which may hold `answering.json`.
        columns: "question" and "context" -> column of the file.
        max_length: tokens of a window; None: as measured.
    """
    asking = asking_of(path, model, tokenizer, max_length=max_length)

    def lengths(rows: list[dict]) -> list[int]:
        """In characters: contexts are cut into windows, which are sorted by their tokens."""
        return [len(row["question"]) + len(row["context"]) for row in rows]

    def answer(rows: list[dict], seed: int) -> list[dict]:
        found = answer_all(model, tokenizer, rows, asking, n_best, batch_size=32)
        said = records(rows, found, asking.null_score_diff_threshold)
        return [{name: one[name] for name in SCHEMA.names} for one in said]

    return Task(columns, SCHEMA, lengths, answer)
