"""How is a domain learned without losing the rest? Its blocks are mixed with a share of general ones (replay)."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lm_recipes.launch import UserError
from lm_recipes.objectives.packed import PackedSplit
from lm_recipes.objectives.packing import Packer, write_packed

PROBE = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "c"},
    {"role": "assistant", "content": "d"},
]


def document_packer(tokenizer, block_size: int) -> Packer:
    """The packer for plain text of a model that is trained already, with its own tokens around documents.

    A base model's documents stand between its bos and eos token. Chat models often name the tokens of a turn so: those
    stay out of documents, and what stood between documents before (<|endoftext|>) takes their place. Where there is no
    pad token the one that opens documents fills blocks up.

    Raises:
        UserError: the tokenizer has no token that could open a document.
    """
    (start, end), pad = document_tokens(tokenizer), tokenizer.pad_token_id
    return Packer(
        block_size,
        start if pad is None else pad,
        document_prefix=(start,),
        document_suffix=() if end is None else (end,),
        overlap=1,
    )


def document_tokens(tokenizer) -> tuple[int, int | None]:
    """The tokens that open and close plain text, as `document_packer` says; None: nothing closes it.

    Raises:
        UserError: nothing could open it.
    """
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    of_turns = _turn_tokens(tokenizer)
    if start is None or start in of_turns:
        start = tokenizer.get_vocab().get("<|endoftext|>", end)
    if start is None:
        raise UserError(f"{tokenizer.name_or_path}: no bos or eos token, so documents cannot be told apart")
    return start, None if end in of_turns else end


def _turn_tokens(tokenizer) -> set[int]:
    """The special tokens that stand more than once in a dialogue of four turns."""
    if not tokenizer.chat_template:
        return set()
    ids = tokenizer.apply_chat_template(PROBE, return_dict=True)["input_ids"]
    return {id for id in tokenizer.all_special_ids if ids.count(id) > 1}


def pack_splits(texts: dict[str, Iterable[str]], tokenizer, packer: Packer, directory: Path) -> dict[str, dict]:
    """Pack the texts of each split into `directory/<split>`, and say what `write_packed` says of each.

    Raises:
        UserError: a split has no text.
    """
    counts = {split: write_packed(some, tokenizer, packer, directory / split) for split, some in texts.items()}
    for split, count in counts.items():
        if not count["blocks"]:
            raise UserError(f"no text in the {split} split of the {directory.name} texts; give more, or a larger share")
    return counts


def with_replay(domain: PackedSplit, general: PackedSplit, share: float, seed: int) -> PackedSplit:
    """All blocks of the domain, and behind them so many general ones that these are `share` of all (to the nearest
    block); which ones is drawn by `seed`. A share of 5 % keeps most of what was known (arXiv 2403.08763).

    Args:
        share: in [0, 1).

    Raises:
        UserError: the share is out of range, or there are not so many general blocks.
    """
    if not 0 <= share < 1:
        raise UserError(f"--replay_share {share}: must be at least 0 and below 1")
    wanted = round(len(domain) * share / (1 - share))
    if wanted > len(general):
        raise UserError(
            f"--replay_share {share}: {wanted:,} general blocks beside {len(domain):,} of the domain, but there are "
            f"{len(general):,}; give more general text or a smaller share"
        )
    if not wanted:
        return domain
    drawn = np.sort(np.random.default_rng(seed).permutation(len(general))[:wanted])
    return PackedSplit([*domain.parts, *general.select(drawn).parts])


def check_kept_apart(model, collator) -> None:
    """Two texts in one row do not see each other: what the first one is makes no difference to the second.

    Tried out, because most decoders keep packed texts apart by their position ids, and some ignore these.

    Raises:
        UserError: they do.
    """
    import torch

    second = np.arange(30, 46)
    positions = np.tile(np.arange(16), 2)
    rows = [
        {"input_ids": np.concatenate([first, second]), "position_ids": positions}
        for first in (np.arange(50, 66), np.arange(90, 106))
    ]
    batch = {name: value for name, value in collator(rows).items() if name != "labels"}
    batch = {name: value.to(model.device) if name != "use_cache" else value for name, value in batch.items()}
    training = model.training
    with torch.no_grad():
        one, other = model.eval()(**batch).logits[:, 16:].float()
    model.train(training)
    if not (one - other).abs().max() <= 1e-3 * max(1.0, float(one.abs().max())):
        raise UserError(
            f"{model.config.model_type}: texts that share a row would see each other in this model; continue another "
            "one, or with another --attn_implementation (sdpa, eager)"
        )
