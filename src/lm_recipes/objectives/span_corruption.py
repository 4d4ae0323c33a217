"""Span corruption: spans taken out of a text are asked of the rest, by an encoder-decoder (T5)."""

from dataclasses import dataclass, field
from itertools import count, pairwise, takewhile

import numpy as np
import torch

from lm_recipes.launch import UserError
from lm_recipes.objectives.chance import row_generator
from lm_recipes.objectives.isolation import Isolation, additive


@dataclass
class SpanCorruption:
    """Packed blocks to a batch for T5 (https://arxiv.org/abs/1910.10683), other spans in every epoch.

    Every piece of a block is corrupted by itself: each span becomes a sentinel, `<|extra_0|>` first, and the target is
    each sentinel with its span, a last sentinel and eos. How many tokens and spans go follows from the piece's length,
    as in T5; where they stand depends on `(seed, epoch, row)` alone. Special tokens of the piece stay.

    It takes a lossless tokenizer with pad, eos and sentinels: Unigram (T5's own kind) or BPE, trained with
    `--reserved_tokens sentinels`. WordPiece has neither eos nor the way back to the text.

    Corrupted pieces share a row again, and so do their targets, apart from each other by masks. A row per piece would
    need none, but then a batch has more rows than its blocks, and evaluation in accelerate drops rows it did not
    deal out. The widths are fixed: the encoder's is `block_size`, since short pieces hardly shrink; the decoder's is
    `target_width`. A piece that has no room left there is not corrupted in this epoch.

    Attributes:
        block_size: tokens per block, L below.
        noise_density: share of a piece's tokens that are taken out.
        mean_noise_span_length: tokens per span on average.
    """

    tokenizer: object
    block_size: int
    noise_density: float = 0.15
    mean_noise_span_length: float = 3.0
    isolation: Isolation = field(default_factory=Isolation)
    seed: int = 0
    epoch: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.noise_density < 1 or self.mean_noise_span_length < 1:
            raise UserError(
                f"noise_density is {self.noise_density} and mean_noise_span_length {self.mean_noise_span_length}; "
                "the one must lie between 0 and 1, the other be at least 1"
            )
        noise, spans = self._counts(self.block_size)
        # One piece that fills the block, and room for what more of them cost: a last sentinel, eos and rounding each.
        self.target_width = -(-(noise + spans + 2 + self.block_size // 16) // 8) * 8
        self._pad, self._eos = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        vocabulary = self.tokenizer.get_vocab()
        named = takewhile(vocabulary.__contains__, (f"<|extra_{number}|>" for number in count()))
        self._sentinels = np.array([vocabulary[token] for token in named], dtype=np.int64)
        if self._pad is None or self._eos is None or len(self._sentinels) <= spans:
            raise UserError(
                f"{self.tokenizer.name_or_path}: span corruption of blocks of {self.block_size} tokens needs pad, eos "
                f"and {spans + 1} sentinels (there are {len(self._sentinels)}); make such a tokenizer with `python "
                f"recipes/corpus/train_tokenizer.py --model_type unigram --reserved_tokens sentinels={spans + 1}`"
            )
        self._is_special = np.isin(np.arange(len(self.tokenizer)), self.tokenizer.all_special_ids)

    def __call__(self, examples: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor | bool]:
        """Rows of `input_ids` and `position_ids` `[L]` to a batch for a model that `isolate_encoder` was called on.

        Returns:
            int64 `input_ids` `[B, L]`; `decoder_input_ids` (the target shifted right, behind pad) and `labels`
            `[B, target_width]`; masks in the form `isolation` says, `[B, 1, queries, keys]`: `encoder_mask`,
            `attention_mask` (of cross-attention) and `decoder_attention_mask`.
        """
        rows = [self._corrupt(row["input_ids"].astype(np.int64), row["position_ids"]) for row in examples]
        inputs, input_pieces, decoder_inputs, labels, target_pieces = map(np.stack, zip(*rows, strict=True))
        encoder, decoder = torch.from_numpy(input_pieces), torch.from_numpy(target_pieces)
        earlier = torch.ones(self.target_width, self.target_width, dtype=torch.bool).tril()
        return {
            "input_ids": torch.from_numpy(inputs),
            "decoder_input_ids": torch.from_numpy(decoder_inputs),
            "labels": torch.from_numpy(labels),
            "encoder_mask": self._form(_same(encoder, encoder)),
            "attention_mask": self._form(_same(decoder, encoder)),
            "decoder_attention_mask": self._form(_same(decoder, decoder) & earlier),
            "use_cache": False,
        }

    def _corrupt(self, ids: np.ndarray, position_ids: np.ndarray) -> tuple[np.ndarray, ...]:
        """Of a block `[L]`: inputs and their pieces, `[L]`; decoder inputs, labels and theirs, `[target_width]`."""
        rng = row_generator(self.seed, self.epoch, ids)
        starts = [*np.flatnonzero(position_ids == 0).tolist(), len(ids)]
        pieces = [ids[start:stop] for start, stop in pairwise(starts) if ids[start] != self._pad]
        made = [(piece, np.empty(0, np.int64)) for piece in pieces]
        room = self.target_width
        for number in rng.permutation(len(pieces)):  # so that it is not always the last ones for which no room is left
            corrupted, target = self.replace(pieces[number], self.choose(pieces[number], rng))
            if len(target) <= room:
                made[number], room = (corrupted, target), room - len(target)
        shifted = [np.concatenate([[self._pad], target])[:-1] for _, target in made]
        return (
            *_row([corrupted for corrupted, _ in made], len(ids), self._pad),
            _row(shifted, self.target_width, self._pad)[0],
            *_row([target for _, target in made], self.target_width, -100),
        )

    def choose(self, piece: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Which tokens of a piece are taken out, bool `[n]`: kept and taken stretches of its text in turn, a kept one
        first, their lengths drawn evenly from all ways to cut both sums into as many parts. Of one token, none."""
        taken = np.zeros(len(piece), dtype=bool)
        text = ~self._is_special[piece]
        length = int(text.sum())
        noise, spans = self._counts(length)
        if noise:
            lengths = np.stack([_parts(length - noise, spans, rng), _parts(noise, spans, rng)], axis=1)
            taken[text] = np.repeat(np.tile([False, True], spans), lengths.ravel())
        return taken

    def replace(self, piece: np.ndarray, taken: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids of a piece `[n]` to what the encoder reads and what the decoder writes (empty: nothing was taken)."""
        begins = taken & ~np.concatenate([[False], taken[:-1]])
        spans = int(begins.sum())
        if not 0 < spans < len(self._sentinels):  # more than expected only where special tokens cut spans in two
            return piece, np.empty(0, np.int64)
        corrupted = piece.copy()
        corrupted[begins] = self._sentinels[:spans]
        target = np.insert(piece[taken], np.flatnonzero(begins[taken]), self._sentinels[:spans])
        return corrupted[begins | ~taken], np.concatenate([target, [self._sentinels[spans], self._eos]])

    def _counts(self, length: int) -> tuple[int, int]:
        """Tokens and spans taken out of a text of `length` tokens."""
        noise = max(min(max(round(length * self.noise_density), 1), length - 1), 0)
        return noise, min(max(round(noise / self.mean_noise_span_length), 1), length - noise)

    def _form(self, mask: torch.Tensor) -> torch.Tensor:
        return additive(mask) if self.isolation.additive else mask


def isolate_encoder(model) -> None:
    """Let the encoder of an encoder-decoder take `encoder_mask`, `[B, 1, L, L]`, out of a batch.

    `forward` has one `attention_mask` for the encoder and for cross-attention, whose queries are other tokens. The
    hook is not saved; without it (and without `encoder_mask`) the model is as it was.
    """

    def take(encoder, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        mask = kwargs.pop("encoder_mask", None)
        return args, kwargs if mask is None else kwargs | {"attention_mask": mask}

    model.get_encoder().register_forward_pre_hook(take, with_kwargs=True)


def _parts(total: int, parts: int, rng: np.random.Generator) -> np.ndarray:
    """`total` as a sum of `parts` numbers from 1 up, every way equally likely."""
    cuts = np.sort(rng.choice(total - 1, parts - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def _row(parts: list[np.ndarray], width: int, filler: int) -> tuple[np.ndarray, np.ndarray]:
    """Parts end to end, filled up to `width`, and the number of the part at each place, from 1 up; 0: filler."""
    row, numbers = np.full(width, filler, dtype=np.int64), np.zeros(width, dtype=np.int64)
    lengths = [len(part) for part in parts]
    row[: sum(lengths)] = np.concatenate(parts)
    numbers[: sum(lengths)] = np.repeat(np.arange(len(parts)) + 1, lengths)
    return row, numbers


def _same(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Whether two places belong to one piece: `[B, Q]` and `[B, K]` numbers to bool `[B, 1, Q, K]`."""
    return (queries[:, :, None] == keys[:, None, :])[:, None]
