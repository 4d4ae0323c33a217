"""Does what was exported choose the same greedy tokens as `generate`?"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm_recipes.compression.agreement import Answerer
from lm_recipes.decoding.generation import continue_prompts, end_tokens
from lm_recipes.decoding.strategies import strategy
from lm_recipes.models.families import positions_of

PROMPTS = 100
TIE = 1e-4  # logits nearer than this change places when float32 is added up in another order

# (prompts as token ids, new tokens, tokens that end a text) -> what follows each prompt
Continuer = Callable[[Sequence[Sequence[int]], int, set[int]], list[list[int]]]


def numpy_answers(answer: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> Answerer:
    """What a graph answers, as `agreement` wants it."""

    def answers(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found = answer({name: values.numpy() for name, values in batch.items()})
        return {name: torch.from_numpy(np.array(values, np.float32)) for name, values in found.items()}

    return answers


def random_prompts(tokenizer: PreTrainedTokenizerBase, number: int = PROMPTS, longest: int = 24) -> list[list[int]]:
    """Prompts of 1 to `longest` random tokens, the same ones every time."""
    drawn = np.random.default_rng(0)
    return [drawn.integers(len(tokenizer), size=drawn.integers(1, longest + 1)).tolist() for _ in range(number)]


def greedy_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, new_tokens: int, batch_size: int = 20
) -> list[tuple[list[int], list[int]]]:
    """PROMPTS prompts, and what `model` says after each."""
    room = (positions_of(model.config.get_text_config()) or 10**9) - new_tokens
    prompts = random_prompts(tokenizer, longest=max(min(24, room), 1))
    greedy = strategy("greedy", max_new_tokens=new_tokens)
    return list(zip(prompts, continue_prompts(model, tokenizer, prompts, greedy, batch_size=batch_size), strict=True))


def same_greedy_tokens(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    other: Continuer,
    new_tokens: int,
    batch_size: int = 20,
    said: list[tuple[list[int], list[int]]] | None = None,
) -> dict[str, float]:
    """Greedy continuations of PROMPTS prompts by `model` and by `other`, in batches.

    Args:
        said: `greedy_tokens` of `model`, where they are known already.

    Returns:
        `same_continuations`, the share of prompts that both continue alike to the last token; `same_tokens`, the mean
        share of tokens before the first that differs; `widest_gap`, by how much at most `model`'s logits of the two
        tokens are apart where continuations part: what float32 cannot tell apart was a tie (see TIE).
    """
    said = said or greedy_tokens(model, tokenizer, new_tokens, batch_size)
    prompts, expected = [prompt for prompt, _ in said], [tokens for _, tokens in said]
    ends = end_tokens(model, tokenizer)
    found = []
    for first in range(0, len(prompts), batch_size):
        found += other(prompts[first : first + batch_size], new_tokens, ends)
    alike = [_alike(one, two) for one, two in zip(expected, found, strict=True)]
    pairs = list(zip(prompts, expected, found, alike, strict=True))
    return {
        "same_continuations": sum(one == two for _, one, two, _ in pairs) / len(prompts),
        "same_tokens": sum(number / max(len(one), len(two)) for _, one, two, number in pairs) / len(prompts),
        "widest_gap": max(
            (_gap(model, prompt + one[:at], one[at], two[at]) for prompt, one, two, at in pairs if one != two),
            default=0.0,
        ),
    }


def _alike(one: list[int], two: list[int]) -> int:
    """How many tokens come before the first that differs."""
    return next((at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))


@torch.inference_mode()
def _gap(model: PreTrainedModel, read: list[int], one: int, two: int) -> float:
    logits = model(torch.tensor([read]), use_cache=False).logits[0, -1]
    return float((logits[one] - logits[two]).abs())


# What pre-tokenizers disagree about: numbers, contractions, runs of spaces, lines, other scripts.
SENTENCES = (
    "In 1984 it cost 1,234.56 dollars.",
    "They're here, aren't they? I'LL SAY!",
    "two  spaces,\ttabs\n\nand   lines \n",
    "def f(x_1): return x_1**2  # naïve",
    "Übermut, 東京 and 🙂🙂",
)


def same_ids(one: PreTrainedTokenizerBase, two: PreTrainedTokenizerBase) -> float:
    """The share of SENTENCES that two tokenizers cut into the same ids, without special tokens."""
    cut = [[tokenizer(text, add_special_tokens=False)["input_ids"] for text in SENTENCES] for tokenizer in (one, two)]
    return sum(a == b for a, b in zip(*cut, strict=True)) / len(SENTENCES)
