"""Which class, which words behind [MASK], and which vector does an encoder give a text?"""

from collections.abc import Callable, Sequence

import torch
from tqdm.auto import trange
from transformers import PreTrainedModel, PreTrainedTokenizerBase, pipeline

from lm_recipes.launch import UserError
from lm_recipes.models.families import positions_of
from lm_recipes.training.embeddings import embeddings_of

Reader = Callable[[Sequence[str]], list[dict]]  # the texts of one batch -> their answers, in order


def reading_limit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None) -> int:
    """Tokens of a text that are read; what is behind them is cut off.

    Raises:
        UserError: `max_length` is more than the model can read.
    """
    longest = min(tokenizer.model_max_length, positions_of(model.config) or 10**9)
    if (max_length or 0) > longest:
        raise UserError(f"--max_length {max_length}: the model reads at most {longest} tokens")
    return max_length or longest


def token_counts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    """Tokens of each text, special ones included, before anything is cut off."""
    return [len(ids) for ids in tokenizer(list(texts), verbose=False)["input_ids"]]


@torch.inference_mode()
def class_logits(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    limit: int,
    batch_size: int = 32,
    pairs: Sequence[str] | None = None,
) -> list[dict[str, float]]:
    """For each text its logits by class name, in order. Batches are of like length, so that there is little padding.

    Args:
        limit: tokens that are read of a text, or of a text and its pair.
        pairs: second texts, one for each.
    """
    encoded = tokenizer(list(texts), pairs and list(pairs), truncation=True, max_length=limit, verbose=False)
    order = sorted(range(len(texts)), key=lambda row: len(encoded["input_ids"][row]), reverse=True)
    names = [model.config.id2label[number] for number in range(model.config.num_labels)]
    found: dict[int, dict[str, float]] = {}
    for start in trange(0, len(order), batch_size, desc="predict", disable=len(order) <= batch_size):
        rows = order[start : start + batch_size]
        batch = {key: [values[row] for row in rows] for key, values in encoded.items()}
        padded = tokenizer.pad(batch, return_tensors="pt").to(model.device)
        for row, logits in zip(rows, model(**padded).logits.float().tolist(), strict=True):
            found[row] = dict(zip(names, logits, strict=True))
    return [found[row] for row in range(len(texts))]


def filler(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, limit: int, top_k: int, batch_size: int = 32
) -> Reader:
    """For each text `masks`: per mask token in what is read of it, the `top_k` likeliest words, `{word: probability}`.

    Write `[MASK]` in the texts, whatever the tokenizer's own mask token is; a text without one has no `masks`.
    """
    predict = pipeline("fill-mask", model=model, tokenizer=tokenizer)
    cut = {"truncation": True, "max_length": limit}

    def read(texts: Sequence[str]) -> list[dict]:
        texts = with_masks(tokenizer, texts)
        masked = [tokenizer.mask_token_id in ids for ids in tokenizer(texts, **cut)["input_ids"]]
        asked = [text for text, has_mask in zip(texts, masked, strict=True) if has_mask]
        answers = (
            predict((text for text in asked), batch_size=min(len(asked), batch_size), top_k=top_k, tokenizer_kwargs=cut)
            if asked
            else ()
        )
        waiting = iter(answers)
        return [{"masks": _fillings(next(waiting)) if has_mask else []} for has_mask in masked]

    return read


def with_masks(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[str]:
    """Texts with the tokenizer's own mask token, if it has one, where `[MASK]` is written."""
    return [text.replace("[MASK]", tokenizer.mask_token or "[MASK]") for text in texts]


def embedder(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, limit: int) -> Reader:
    """For each text `embedding`, its sentence vector of length 1 (see `training.embeddings.sentence_vectors`)."""

    def read(texts: Sequence[str]) -> list[dict]:
        ids = tokenizer(list(texts), truncation=True, max_length=limit)["input_ids"]
        vectors = embeddings_of(model, tokenizer, ids, batch_size=len(texts))
        return [{"embedding": vector.tolist()} for vector in vectors]

    return read


def _fillings(masks: list) -> list[dict[str, float]]:
    """The pipeline's candidates, a list of them where there are several masks."""
    masks = masks if isinstance(masks[0], list) else [masks]
    return [{entry["token_str"]: entry["score"] for entry in mask} for mask in masks]
