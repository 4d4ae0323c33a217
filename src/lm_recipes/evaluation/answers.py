"""Which words of a text answer a question, and how sure is that?"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import logsumexp
from torch.utils.data import DataLoader
from tqdm import tqdm

from lm_recipes.artifacts import read_json, write_json
from lm_recipes.evaluation.classification import MODEL_INPUTS
from lm_recipes.launch import UserError
from lm_recipes.models.families import positions_of
from lm_recipes.tokenization.windows import prepare_tokenizer, windows_of

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset

ASKING = "answering.json"  # lies beside a model and holds how it was measured


@dataclass(frozen=True)
class Asking:
    """How a model is asked."""

    max_length: int = 384  # tokens of a window: [CLS] question [SEP] context [SEP]
    doc_stride: int = 128  # context tokens that neighbouring windows share
    max_answer_length: int = 30  # tokens
    # Nats by which "no answer" must be likelier than the best span to be believed; None: every question is answered.
    null_score_diff_threshold: float | None = None


@dataclass(frozen=True)
class Span:
    """Words of a context: `context[start:end] == text`."""

    text: str
    start: int
    end: int
    score: float  # log odds against "no answer", nats
    probability: float


@dataclass(frozen=True)
class Answered:
    """What a model finds for one question, best first."""

    spans: tuple[Span, ...]
    no_answer_probability: float

    @property
    def null_score_diff(self) -> float:
        """Log odds of "no answer" against the best span, nats (run_qa's and SQuAD 2.0's `null_score_diff`)."""
        return -self.spans[0].score if self.spans else float("inf")

    def best(self, threshold: float | None) -> Span | None:
        """The best span; None where there is none, or where `null_score_diff` is above the threshold."""
        if not self.spans or (threshold is not None and self.null_score_diff > threshold):
            return None
        return self.spans[0]

    def text(self, threshold: float | None) -> str:
        """The answer, or "" for none."""
        found = self.best(threshold)
        return found.text if found else ""


# --- asking ---


def answer(model, tokenizer, question: str, context: str, asking: Asking | None = None, n_best: int = 5) -> Answered:
    """The `n_best` answers to a question in a context of any length; see `answer_all`."""
    return answer_all(model, tokenizer, [{"question": question, "context": context}], asking, n_best)[0]


def answer_all(
    model,
    tokenizer,
    rows: Sequence[Mapping[str, str]],
    asking: Asking | None = None,
    n_best: int = 5,
    batch_size: int = 32,
) -> list[Answered]:
    """Answers to questions, in their order. They do not depend on `batch_size`, nor on the other rows.

    Args:
        model: of `AutoModelForQuestionAnswering`.
        rows: `question` and `context`; errors name a row by its `id`, if it has one, or its number.
        asking: default: windows of 384 tokens, or of as many as the model can read, that share a third.

    Raises:
        UserError: an empty question or context, or a question that leaves no room for its context.
    """
    from datasets import Dataset
    from transformers import DataCollatorWithPadding

    prepare_tokenizer(tokenizer)
    longest = _longest(model, tokenizer)
    asking = asking or _usual(longest)
    if asking.max_length > longest:
        raise UserError(f"--max_length {asking.max_length}: the model reads at most {longest} tokens; lower it")
    ids = [str(row.get("id") or number) for number, row in enumerate(rows, start=1)]
    for id, row in zip(ids, rows, strict=True):
        for key in ("question", "context"):
            if not isinstance(row.get(key), str) or not row[key].strip():
                raise UserError(f"question {id}: no text in `{key}`")
    batch = {"id": ids} | {key: [row[key] for row in rows] for key in ("question", "context")}
    columns = windows_of(batch, range(len(rows)), tokenizer, asking.max_length, asking.doc_stride)
    windows = Dataset.from_dict(columns)
    logits = span_logits(model, windows, DataCollatorWithPadding(tokenizer), batch_size)
    return find_answers(logits, windows, batch["context"], asking.max_answer_length, n_best)


def save_asking(directory: str | Path, asking: Asking) -> None:
    """Write `answering.json` beside a model."""
    write_json(Path(directory, ASKING), asdict(asking))


def asking_of(name: str, model, tokenizer, **flags: object) -> Asking:
    """How the model in a directory or on the Hub was measured (`answering.json`), or the default of `answer_all`.

    Args:
        flags: settings to be changed; None leaves them as they are.

    Raises:
        UserError: when the file is no such record.
    """
    from transformers.utils import cached_file

    file = cached_file(
        name,
        ASKING,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    try:
        asking = Asking(**read_json(file, "record")) if file else _usual(_longest(model, tokenizer))
    except TypeError as error:
        raise UserError(f"{file}: not a record of how a model is asked ({error})") from error
    return replace(asking, **{name: value for name, value in flags.items() if value is not None})


def _usual(longest: int) -> Asking:
    return Asking(max_length=min(384, longest), doc_stride=min(384, longest) // 3)


def _longest(model, tokenizer) -> int:
    return min(positions_of(model.config) or 10**9, tokenizer.model_max_length)


# --- from logits to spans ---


@torch.no_grad()
def span_logits(
    model, windows: "Dataset", collator: Callable, batch_size: int, accelerator: "Accelerator | None" = None
) -> list[np.ndarray]:
    """Logits of first and last token for each window, float32 `[2, L]` of its own length, in the dataset's order.

    Args:
        windows: with the columns of `tokenization.windows.windows_of`, padded on the right by `collator`.
        accelerator: shares the windows out to all processes; every process gets all answers.
    """
    model.eval()
    order = np.argsort(windows["length"][:], kind="stable")  # batches of like length: less padding
    rows = windows.select(order).select_columns([name for name in MODEL_INPUTS if name in windows.column_names])
    loader = DataLoader(rows, batch_size=batch_size, collate_fn=collator)
    if accelerator is not None:
        loader = accelerator.prepare(loader)
    found: list[np.ndarray] = []
    for batch in tqdm(loader, desc="answering", leave=False, disable=None):
        output = model(**{name: values.to(model.device) for name, values in batch.items()})
        both = torch.stack([output.start_logits, output.end_logits], dim=1).float()
        if accelerator is not None:
            both = accelerator.gather_for_metrics(accelerator.pad_across_processes(both, dim=2))
        found += list(both.cpu().numpy())
    lengths, logits = windows["length"][:], [None] * len(found)
    for place, window in enumerate(order):
        logits[window] = found[place][:, : lengths[window]].copy()  # or the padded batch stays in memory
    return logits


def find_answers(
    logits: Sequence[np.ndarray],
    windows: "Dataset",
    contexts: Sequence[str],
    max_answer_length: int,
    n_best: int = 5,
) -> list[Answered]:
    """Per question its best spans over all its windows.

    Args:
        logits: of `span_logits`. windows: their rows, where column `row` is the place of a context in `contexts`.
    """
    spans: list[list[tuple]] = [[] for _ in contexts]
    for both, window in zip(logits, windows.select_columns(["row", "offsets", "cls"]), strict=True):
        offsets = np.array(window["offsets"])
        spans[window["row"]].append(window_spans(both, offsets, window["cls"], max_answer_length))
    return [rank(found, context, n_best) for found, context in zip(spans, contexts, strict=True)]


def window_spans(
    logits: np.ndarray, offsets: np.ndarray, cls: int, max_answer_length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All spans of at most `max_answer_length` tokens of a window's context, S of them: their scores, and their first
    character and the one after their last, in the context.

    The score is the log odds of a span against "not in this window", which the model says by pointing at [CLS]:
    start + end logit of the span minus those of [CLS] (BERT for SQuAD 2.0, https://arxiv.org/abs/1810.04805, 4.3). What
    a softmax over one window's tokens is divided by falls out of it, so scores of different windows can be compared
    (that they must be: https://arxiv.org/abs/1710.10723).

    Args:
        logits: float `[2, L]`. offsets: int `[L, 2]`, [-1, -1] outside the context.
    """
    tokens = np.flatnonzero(offsets[:, 0] >= 0)
    start, end = logits[:, tokens].astype(np.float64)
    first, last = offsets[tokens].T
    scores, begins, stops = [], [], []
    for more in range(min(max_answer_length, len(tokens))):
        upto = len(tokens) - more
        scores.append(start[:upto] + end[more:])
        begins.append(first[:upto])
        stops.append(last[more:])
    if not scores:
        return np.zeros(0), np.zeros(0, int), np.zeros(0, int)
    scores, begins, stops = map(np.concatenate, (scores, begins, stops))
    some = stops > begins  # a token of spaces alone is no answer
    return scores[some] - logits[:, cls].astype(np.float64).sum(), begins[some], stops[some]


def rank(windows: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], context: str, n_best: int) -> Answered:
    """The best spans of one question's windows, with probabilities that add up to 1 over all spans and "no answer".

    If at most one window holds the answer, and windows are read independently, then the odds of each span against "in
    no window" are its odds within its own window. A span that several windows hold counts once, with its best score.

    Args:
        windows: of `window_spans`.
    """
    scores, begins, stops = (np.concatenate(parts) for parts in zip(*windows, strict=True))
    order = np.argsort(-scores, kind="stable")
    _, once = np.unique((begins * (len(context) + 1) + stops)[order], return_index=True)
    order = order[np.sort(once)]
    total = logsumexp(np.append(scores[order], 0.0))
    best = tuple(
        Span(
            context[begins[i] : stops[i]],
            int(begins[i]),
            int(stops[i]),
            float(scores[i]),
            float(np.exp(scores[i] - total)),
        )
        for i in order[:n_best]
    )
    return Answered(best, float(np.exp(-total)))


def records(rows: Sequence[Mapping], answered: Sequence[Answered], threshold: float | None) -> Iterator[dict]:
    """What a user gets for each row: its columns but the context, `answer` ("" for none) with its probability and place
    (`start`, `end`: characters of the context), `no_answer_probability`, and `n_best`."""
    for row, found in zip(rows, answered, strict=True):
        said = found.best(threshold)
        record = {name: value for name, value in row.items() if name != "context"}
        record["answer"] = said.text if said else ""
        record["probability"] = said.probability if said else found.no_answer_probability
        record |= {"start": said.start if said else None, "end": said.end if said else None}
        record["no_answer_probability"] = found.no_answer_probability
        yield record | {"n_best": [asdict(span) for span in found.spans]}
