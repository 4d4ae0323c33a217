"""Which tokens are no text? Those every track relies on, and those an owner reserves for later training."""

import re
from collections.abc import Sequence

from lm_recipes.launch import UserError

BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0..4
GPT_TOKENS = ("<|pad|>", "<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>")  # ids 0..4; the last two are for chats

# Fill in the middle: a document is shown as prefix, suffix, middle (https://arxiv.org/abs/2207.14255).
FIM_TOKENS = ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
# What hides a token in the masked rows of hybrid training (https://arxiv.org/abs/2410.24159); BERT's has its own.
MASK_TOKEN = "<|mask|>"
# One per span that span corruption takes out (T5, https://arxiv.org/abs/1910.10683, has 100).
SENTINELS = 100


def reserved_tokens(wishes: Sequence[str]) -> tuple[str, ...]:
    """The tokens that `wishes` name, in order; they take the ids from 5 up.

    Args:
        wishes: "fim" (3 tokens), "mask" (`<|mask|>`), "sentinels" (100: `<|extra_0|>` ... `<|extra_99|>`),
            "sentinels=32", or a token itself, such as `<|tool|>`.

    Raises:
        UserError: for anything else, and for a token named twice.
    """
    tokens: list[str] = []
    for wish in wishes:
        if wish == "fim":
            tokens += FIM_TOKENS
        elif wish == "mask":
            tokens.append(MASK_TOKEN)
        elif match := re.fullmatch(r"sentinels(?:=(\d+))?", wish):
            tokens += [f"<|extra_{number}|>" for number in range(int(match[1] or SENTINELS))]
        elif re.fullmatch(r"<\|\S+\|>", wish):
            tokens.append(wish)
        else:
            raise UserError(f"reserved_tokens: `{wish}` is none of fim, mask, sentinels, sentinels=32, <|name|>")
    twice = {token for token in [*tokens, *GPT_TOKENS] if [*tokens, *GPT_TOKENS].count(token) > 1}
    if twice:
        raise UserError(f"reserved_tokens: {', '.join(sorted(twice))} is there already")
    return tuple(tokens)
