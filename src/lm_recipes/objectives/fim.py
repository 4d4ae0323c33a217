"""Fill in the middle: a span of a piece is asked of what stands on both sides of it, by a plain causal model."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from lm_recipes.launch import UserError
from lm_recipes.objectives.causal import CausalLanguageModeling
from lm_recipes.objectives.chance import row_generator
from lm_recipes.tokenization.special import FIM_TOKENS


@dataclass
class FillInTheMiddle:
    """Packed blocks to a batch for any `AutoModelForCausalLM`, some of whose pieces have their middle at the end.

    A piece `text eos` is cut at two places, all as likely, and shown as (https://arxiv.org/abs/2207.14255)

        <|fim_prefix|> prefix <|fim_suffix|> suffix <|fim_middle|> middle eos            (PSM)
        <|fim_prefix|> <|fim_suffix|> suffix <|fim_middle|> prefix middle eos            (SPM, the paper's second form)

    after its bos, if it opens with one. It stays as long as it was: what the three sentinels need (and an eos, in a
    piece of a cut document, which has none) comes off the end of its text before it is cut, so that only the suffix
    is shorter, and the middle is always whole and joins what follows it. Pieces of fewer than 7 tokens besides bos stay
    as they are. All tokens are asked, as in the paper and in plain causal modelling, the sentinels included.

    Unlike the paper's, the cuts fall between tokens, never inside one: characters are gone by now, and ids cut anew
    would change the length. A prompt whose prefix ends inside a word is therefore unlike what the model has seen; end
    it where a token ends.

    What becomes of a row depends on `(seed, epoch, row)` alone. Evaluate with `CausalLanguageModeling`.

    Attributes:
        fim_rate: share of the pieces that are rearranged; the paper finds plain modelling unharmed up to 0.9.
        spm_share: of those, the share in the SPM form; the paper trains on both, half and half.
    """

    tokenizer: object
    fim_rate: float = 0.5
    spm_share: float = 0.5
    seed: int = 0
    epoch: int = 0

    def __post_init__(self) -> None:
        missing = set(FIM_TOKENS) - self.tokenizer.get_vocab().keys()
        if missing:
            raise UserError(
                f"{self.tokenizer.name_or_path}: the tokenizer has no {', '.join(sorted(missing))}; train one that has "
                "them, `python recipes/corpus/train_tokenizer.py --reserved_tokens fim ...`, and pack again"
            )
        for name in ("fim_rate", "spm_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")
        self._sentinels = [np.array([token]) for token in self.tokenizer.convert_tokens_to_ids(list(FIM_TOKENS))]

    def __call__(self, examples: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor | bool]:
        """Rows of `input_ids` and `position_ids` `[L]` to the batch that `CausalLanguageModeling` makes of the
        rearranged rows."""
        return CausalLanguageModeling(self.tokenizer.pad_token_id)([self._rearranged(row) for row in examples])

    def _rearranged(self, row: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        ids = row["input_ids"].astype(np.int64)
        rng = row_generator(self.seed, self.epoch, ids)
        for start, stop in pairwise([*np.flatnonzero(row["position_ids"] == 0), len(ids)]):
            if rng.random() < self.fim_rate and ids[start] != self.tokenizer.pad_token_id:
                ids[start:stop] = self._piece(ids[start:stop], rng)
        return row | {"input_ids": ids}

    def _piece(self, piece: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The middle at the end: `[n]` ids to `[n]` ids."""
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        opening = piece[: int(piece[0] in (bos, eos))]  # packing opens documents with eos where there is no bos
        text = piece[len(opening) : -4]  # without its eos and three more tokens, or four
        if len(text) < 3:
            return piece
        prefix, middle, suffix = np.split(text, np.sort(rng.integers(len(text) + 1, size=2)))
        begin, ask, end = self._sentinels
        if rng.random() < self.spm_share:
            parts = (begin, end, suffix, ask, prefix, middle)
        else:
            parts = (begin, prefix, end, suffix, ask, middle)
        return np.concatenate([opening, *parts, [eos]])
