"""Which tag does a model give each word of a text, and which entities are these?

transformers' token-classification pipeline takes for a word what its tokenizer's continuation prefix says, and of
byte-level BPE and Unigram, which have none, whatever stands between spaces, punctuation included; and it cuts at
`model_max_length` without a word.
"""

from collections.abc import Sequence

import torch
from tqdm.auto import tqdm
from transformers import DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase

from lm_recipes.sources.tag_schemes import entities, marks_entities
from lm_recipes.tokenization.word_labels import encode_words, split_words

MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def spaced(texts: Sequence[str]) -> list[str]:
    """Texts as a tagger reads them: one space between words, punctuation set apart (`word_labels.split_words`)."""
    return [" ".join(text[start:end] for start, end in split_words(text)) for text in texts]


def tag_texts(
    texts: Sequence[str],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    batch_size: int,
) -> list[dict]:
    """For each text `words` and, where the tags mark any, `entities`: a list of
    `{text, tag, score, start, end}` each, with character positions in the text.

    A word's tag is that of its first token, as in training, and its score that tag's probability; an entity's score is
    the lowest of its words'. A word behind `max_length` tokens, or one the tokenizer drops, has tag and score None.

    Args:
        model: a token classifier in eval mode. tokenizer: a fast one; it is told to pad and cut at the right.
    """
    tokenizer.padding_side = tokenizer.truncation_side = "right"  # places of words count from the left
    spans = [split_words(text) for text in texts]
    words = [[text[start:end] for start, end in of_text] for text, of_text in zip(texts, spans, strict=True)]
    encoded = encode_words(words, tokenizer, max_length)
    lengths = [len(ids) for ids in encoded["input_ids"]]
    order = sorted((row for row in range(len(texts)) if lengths[row]), key=lengths.__getitem__, reverse=True)
    collate, guessed = DataCollatorWithPadding(tokenizer), {}
    starts = range(0, len(order), batch_size)
    for first in tqdm(starts, desc="tag", disable=len(starts) < 2):
        rows = order[first : first + batch_size]
        batch = collate([{name: encoded[name][row] for name in MODEL_INPUTS if name in encoded} for row in rows])
        with torch.no_grad():
            best = model(**batch.to(model.device)).logits.float().softmax(-1).max(-1)
        for row, scores, ids in zip(rows, best.values.tolist(), best.indices.tolist(), strict=True):
            guessed[row] = scores, ids
    names = model.config.id2label
    return [
        _answer(text, spans[row], encoded["places"][row], guessed.get(row), names) for row, text in enumerate(texts)
    ]


def _answer(text: str, spans: list[tuple[int, int]], places: list[int], guessed, names: dict[int, str]) -> dict:
    words = []
    for (start, end), place in zip(spans, places, strict=True):
        scores, ids = guessed if guessed and place >= 0 else (None, None)
        tag, score = (names[ids[place]], scores[place]) if ids else (None, None)
        words.append({"text": text[start:end], "tag": tag, "score": score, "start": start, "end": end})
    if not marks_entities(names.values()):
        return {"words": words}
    found = []
    for kind, first, last in entities([word["tag"] or "O" for word in words]):
        start, end = words[first]["start"], words[last - 1]["end"]
        score = min(word["score"] for word in words[first:last])
        found.append({"text": text[start:end], "tag": kind, "score": score, "start": start, "end": end})
    return {"entities": found, "words": words}
