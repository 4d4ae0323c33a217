"""Was a text written under a watermark? Counts of green tokens (arXiv:2301.10226)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerBase, WatermarkDetector, WatermarkingConfig

LEAST = 2  # tokens: each is judged by the one before it


@dataclass(frozen=True)
class Verdict:
    """How a text's green tokens compare with the share that any text has by chance."""

    tokens: int  # pairs of tokens counted, each once
    green: float  # share of them; by chance a quarter
    z: float  # standard deviations above chance
    p_value: float  # of a text that nobody marked
    marked: bool


def detect(
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    key: int | None = None,
    threshold: float = 3.0,
    device: str = "cpu",
) -> list[Verdict | None]:
    """A verdict on each text; None: it is too short for one.

    Args:
        config: of the model that may have written them (its vocabulary size is part of the mark).
        threshold: z above which a text counts as marked; 3: one of 740 unmarked texts does.
        key, device: see `detector`.
    """
    judge = detector(config, key, device)
    encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    return [verdict(judge, ids, threshold) for ids in encoded]


def detector(config: PreTrainedConfig, key: int | None = None, device: str = "cpu") -> WatermarkDetector:
    """Counts the green tokens of a mark. Repeated pairs of tokens count once, or a text that goes round in circles
    would be far from chance by itself.

    Args:
        key: the `watermark_key` of the mark; None: transformers' own, which everyone knows.
        device: of the kind that texts were written on: green tokens are drawn by torch's generator there.
    """
    mark = WatermarkingConfig() if key is None else WatermarkingConfig(hashing_key=key)
    return WatermarkDetector(config.get_text_config(), device, mark, ignore_repeated_ngrams=True)


def verdict(judge: WatermarkDetector, ids: Sequence[int], threshold: float = 3.0) -> Verdict | None:
    """The verdict on a text's tokens, without its prompt."""
    ids = list(ids[1:] if ids[:1] == [judge.bos_token_id] else ids)
    if len(ids) < LEAST:
        return None
    device = judge.processor.fixed_table.device
    found = judge(torch.tensor([ids], device=device), z_threshold=threshold, return_dict=True)
    return Verdict(
        tokens=int(found.num_tokens_scored[0]),
        green=float(found.green_fraction[0]),
        z=float(found.z_score[0]),
        p_value=float(found.p_value[0]),
        marked=bool(found.prediction[0]),
    )
