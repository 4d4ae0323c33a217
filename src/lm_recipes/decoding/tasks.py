"""Which questions can be put to every row of a file, and which columns do their answers have?

Each function makes a `batches.Task` of a loaded model. Classification and extractive question answering stand in
`evaluation.answering_rows`, which knows how a model was calibrated.
"""

from collections.abc import Sequence

import pyarrow
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm_recipes.decoding.batches import Task
from lm_recipes.decoding.generation import continue_prompts, encode_prompts, end_tokens
from lm_recipes.decoding.predictions import Reader, embedder, filler, token_counts, with_masks
from lm_recipes.decoding.strategies import Strategy
from lm_recipes.decoding.tagging import spaced, tag_texts
from lm_recipes.models.families import positions_of
from lm_recipes.sources.tag_schemes import marks_entities

TRUNCATED = pyarrow.field("truncated", pyarrow.bool_())  # more tokens than the model, or --max_length, takes
SPAN = pyarrow.struct(
    [
        ("text", pyarrow.string()),
        ("tag", pyarrow.string()),
        ("score", pyarrow.float64()),
        ("start", pyarrow.int64()),
        ("end", pyarrow.int64()),
    ]
)


def generation(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    column: str,
    strategy: Strategy,
    max_new_tokens: int,
    chat: bool = False,
) -> Task:
    """`continuation`: what follows a prompt; `tokens`: how many these are; `ended`: whether the model ended it itself.

    A prompt that leaves no room for `max_new_tokens` is refused.

    Args:
        strategy: one that gives one text a prompt. chat: see `encode_prompts`.
    """
    schema = pyarrow.schema(
        [("continuation", pyarrow.string()), ("tokens", pyarrow.int64()), ("ended", pyarrow.bool_())]
    )

    ends = end_tokens(model, tokenizer)

    def encode(rows: list[dict]) -> list[list[int]]:
        return encode_prompts(tokenizer, [row["text"] for row in rows], chat)

    def answer(rows: list[dict], seed: int) -> list[dict]:
        found = continue_prompts(model, tokenizer, encode(rows), strategy, seed=seed, batch_size=len(rows))
        return [
            {
                "continuation": tokenizer.decode(ids, skip_special_tokens=True),
                "tokens": len(ids),
                "ended": ids[-1] in ends,
            }
            for ids in found
        ]

    positions = positions_of(model.config.get_text_config())
    longest = None if positions is None else positions - max_new_tokens
    return Task({"text": column}, schema, lambda rows: [len(ids) for ids in encode(rows)], answer, longest)


def filling(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, column: str, limit: int, top_k: int) -> Task:
    """`masks`: for each [MASK] its `top_k` likeliest words, as a list of `token` and `score`."""
    word = pyarrow.struct([("token", pyarrow.string()), ("score", pyarrow.float64())])
    schema = pyarrow.schema([("masks", pyarrow.list_(pyarrow.list_(word))), TRUNCATED])
    fill = filler(model, tokenizer, limit, top_k)

    def read(texts: Sequence[str]) -> list[dict]:
        return [
            {"masks": [[{"token": word, "score": p} for word, p in mask.items()] for mask in answer["masks"]]}
            for answer in fill(texts)
        ]

    return reading(tokenizer, column, limit, schema, read, lambda texts: with_masks(tokenizer, texts))


def embedding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, column: str, limit: int) -> Task:
    """`embedding`: the sentence vector, of length 1, float32 `[D]`."""
    schema = pyarrow.schema([("embedding", pyarrow.list_(pyarrow.float32())), TRUNCATED])
    return reading(tokenizer, column, limit, schema, embedder(model, tokenizer, limit))


def tagging(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, column: str, limit: int) -> Task:
    """`words` with their tags and, where tags mark any, `entities`: see `tagging.tag_texts`."""
    columns = [("entities", pyarrow.list_(SPAN))] if marks_entities(model.config.id2label.values()) else []
    schema = pyarrow.schema([*columns, ("words", pyarrow.list_(SPAN)), TRUNCATED])

    def read(texts: Sequence[str]) -> list[dict]:
        return tag_texts(texts, model, tokenizer, limit, len(texts))

    return reading(tokenizer, column, limit, schema, read, spaced)


def reading(
    tokenizer: PreTrainedTokenizerBase,
    column: str,
    limit: int,
    schema: pyarrow.Schema,
    read: Reader,
    as_read=list,
) -> Task:
    """A task of an encoder, which cuts texts off at `limit` tokens. as_read: texts as the tokenizer sees them."""

    def lengths(rows: list[dict]) -> list[int]:
        counted = token_counts(tokenizer, as_read([row["text"] for row in rows]))
        return [min(length, limit + 1) for length in counted]

    def answer(rows: list[dict], seed: int) -> list[dict]:
        cut = [length > limit for length in lengths(rows)]
        return [found | {"truncated": one} for found, one in zip(read([row["text"] for row in rows]), cut, strict=True)]

    return Task({"text": column}, schema, lengths, answer)
