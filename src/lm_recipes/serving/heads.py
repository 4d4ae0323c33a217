"""What does an encoder answer? One head each for classes, tags, answers, choices, missing words and embeddings.

A head turns questions of several requests into answers in their order; an answer does not depend on its neighbours.
What is wrong with a question is a `UserError`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

from lm_recipes.decoding.predictions import class_logits, embedder, filler, token_counts, with_masks
from lm_recipes.decoding.tagging import tag_texts
from lm_recipes.evaluation.answers import answer_all, asking_of, records
from lm_recipes.evaluation.calibration import Calibration
from lm_recipes.evaluation.choices import choose
from lm_recipes.launch import UserError
from lm_recipes.serving.served import Served
from lm_recipes.tokenization.word_labels import split_words

BATCH = 32  # texts in one forward pass
EVIDENCE_WORDS = 256  # each is a forward pass of its own row


@dataclass
class Head:
    """A model under one of its names."""

    served: Served
    name: str

    @property
    def model(self):
        return self.served.model

    @property
    def tokenizer(self):
        return self.served.tokenizers[self.name]

    @property
    def longest(self) -> int:
        return self.served.context(self.name)


@dataclass
class Classify(Head):
    """Questions are `(text, evidence)`; answers as `Calibration.answer` gives them, and how much each word says."""

    calibration: Calibration = field(init=False)

    def __post_init__(self) -> None:
        self.calibration = Calibration.beside(self.served.paths[self.name], self.model.config)

    def __call__(self, questions: Sequence[tuple[str, bool]]) -> list[dict]:
        words = [split_words(text) if evidence else [] for text, evidence in questions]
        for found in words:
            if len(found) > EVIDENCE_WORDS:
                raise UserError(f"evidence: {len(found)} words; it is shown for at most {EVIDENCE_WORDS}")
        texts = [
            variant
            for (text, _), spans in zip(questions, words, strict=True)
            for variant in (text, *(text[:start] + text[end:] for start, end in spans))
        ]
        rows, answers = iter(self._answers(texts)), []
        for (text, evidence), spans, length in zip(
            questions, words, token_counts(self.tokenizer, [text for text, _ in questions]), strict=True
        ):
            answer = next(rows) | {"truncated": length > self.longest}
            if evidence:
                without = [next(rows) for _ in spans]
                answer["evidence"] = [
                    {"text": text[start:end], "start": start, "end": end, **_moved(answer, other)}
                    for (start, end), other in zip(spans, without, strict=True)
                ]
            answers.append(answer)
        return answers

    def _answers(self, texts: list[str]) -> list[dict]:
        logits = class_logits(self.model, self.tokenizer, texts, self.longest, BATCH)
        return [self.calibration.answer(row) for row in logits]


def _moved(answer: dict, without: dict) -> dict:
    """How much likelier each class (or how much larger a regression's score) is with the word than without it."""
    if "probabilities" not in answer:
        return {"change": {"score": answer["score"] - without["score"]}}
    before = without["probabilities"]
    return {"change": {name: value - before[name] for name, value in answer["probabilities"].items()}}


@dataclass
class Tag(Head):
    """Questions are texts; answers `words` and, where the tags mark any, `entities` (`decoding.tagging.tag_texts`)."""

    def __call__(self, questions: Sequence[str]) -> list[dict]:
        found = tag_texts(questions, self.model, self.tokenizer, self.longest, BATCH)
        # the tagger reads words, not texts, so what it cut is what it left without a tag
        return [answer | {"truncated": any(word["tag"] is None for word in answer["words"])} for answer in found]


@dataclass
class Answer(Head):
    """Questions are `(question, context, n_best)`; answers as `ask.py` writes them."""

    @cached_property
    def asking(self):
        return asking_of(self.served.paths[self.name], self.model, self.tokenizer)

    def __call__(self, questions: Sequence[tuple[str, str, int]]) -> list[dict]:
        rows = [{"question": question, "context": context} for question, context, _ in questions]
        best = max(number for *_, number in questions)
        found = answer_all(self.model, self.tokenizer, rows, self.asking, best, BATCH)
        answers = records(rows, found, self.asking.null_score_diff_threshold)
        return [
            answer | {"n_best": answer["n_best"][:number]}
            for answer, (*_, number) in zip(answers, questions, strict=True)
        ]


@dataclass
class Choose(Head):
    """Questions are `(question, choices, context)`; answers the likeliest choice and all probabilities."""

    def __call__(self, questions: Sequence[tuple[str, list[str], str]]) -> list[dict]:
        answers = []
        for question, choices, context in questions:
            found = choose(self.model, self.tokenizer, question, choices, context, self.longest)
            best = max(range(len(found)), key=found.__getitem__)
            answers.append({"answer": choices[best], "probability": found[best], "probabilities": found})
        return answers


@dataclass
class FillMask(Head):
    """Questions are `(text with [MASK], top_k)`; answers the likeliest words of each mask (`predictions.filler`)."""

    def __call__(self, questions: Sequence[tuple[str, int]]) -> list[dict]:
        texts = [text for text, _ in questions]
        most = min(max(number for _, number in questions), self.model.config.vocab_size)
        found = filler(self.model, self.tokenizer, self.longest, most)(texts)
        lengths, answers = token_counts(self.tokenizer, with_masks(self.tokenizer, texts)), []
        for answer, length, (_, number) in zip(found, lengths, questions, strict=True):
            if not answer["masks"]:
                raise UserError(f"texts: one has no [MASK] in its first {self.longest} tokens")
            masks = [dict(islice(mask.items(), number)) for mask in answer["masks"]]
            answers.append({"masks": masks, "truncated": length > self.longest})
        return answers


@dataclass
class Embed(Head):
    """Questions are texts; answers their sentence vectors at length 1 (`predictions.embedder`)."""

    def __call__(self, questions: Sequence[str]) -> list[dict]:
        lengths = token_counts(self.tokenizer, questions)
        if 0 in lengths:
            raise UserError("texts: one has no character that the tokenizer knows")
        found = embedder(self.model, self.tokenizer, self.longest)(questions)
        return [
            answer | {"tokens": min(length, self.longest), "truncated": length > self.longest}
            for answer, length in zip(found, lengths, strict=True)
        ]


HEADS: dict[str, type[Head]] = {
    "classify": Classify, "tag": Tag, "answer": Answer, "choose": Choose, "fill-mask": FillMask, "embed": Embed,
}  # fmt: skip
