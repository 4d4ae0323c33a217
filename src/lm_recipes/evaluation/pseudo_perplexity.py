"""How well does a model guess each token of a text from all the others?"""

import math
from collections.abc import Iterable, Sequence

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from lm_recipes.launch import UserError
from lm_recipes.objectives.packing import Packer
from lm_recipes.training.loss import LanguageModelLoss


def pseudo_perplexity(
    model: PreTrainedModel, tokenizer, texts: Sequence[str], batch_tokens: int = 8_192
) -> dict[str, float]:
    """Pseudo-perplexity (Salazar et al., https://arxiv.org/abs/1910.14659): every token is masked in turn, no other is.

    Exact: all tokens of all texts are asked, in copies of a text of one length, so there is no padding. It is no
    likelihood, and not to be compared with the perplexity of a causal model; in bits per byte neither.

    Args:
        model: of `AutoModelForMaskedLM`; or a hybrid (`objectives/hybrid.py`) of `AutoModelForCausalLM` with
            `config.is_causal = False`, which answers one place earlier.
        texts: each between the tokens that open and close a document in pretraining; no longer than the model reads.
        batch_tokens: of the copies that the model sees at once.

    Returns:
        pseudo_perplexity: exp of the mean nats of a token. pseudo_bits_per_byte: their sum per UTF-8 byte of text, in
        which tokenizers can differ. tokens, texts: how many were asked.

    Raises:
        UserError: the tokenizer has no mask token.
    """
    if tokenizer.mask_token_id is None:
        raise UserError(f"{tokenizer.name_or_path}: the tokenizer has no mask token; pseudo-perplexity needs one")
    packer = Packer.for_tokenizer(tokenizer, block_size=4)  # for what it puts around a document
    opening, closing = packer.prefix or packer.document_prefix, packer.suffix or packer.document_suffix
    loss = LanguageModelLoss(model.eval())
    nats = tokens = size = 0
    for text in tqdm(texts, desc="pseudo-perplexity", leave=False, disable=None):
        inside = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        ids = torch.tensor([*opening, *inside, *closing], device=model.device)
        places = torch.arange(len(opening), len(opening) + len(inside), device=model.device)
        for some in places.split(max(batch_tokens // len(ids), 1)):
            nats += _nats(loss, model, ids, some, tokenizer.mask_token_id)
        tokens, size = tokens + len(inside), size + len(text.encode())
    return {
        "pseudo_perplexity": math.exp(nats / tokens),
        "pseudo_bits_per_byte": nats / math.log(2) / size,
        "tokens": tokens,
        "texts": len(texts),
    }


def _nats(loss: LanguageModelLoss, model, ids: torch.Tensor, places: torch.Tensor, mask_token_id: int) -> float:
    """The summed nats of the tokens at `places` `[N]` of `ids` `[L]`, each hidden in a copy of its own."""
    copies, labels = ids.repeat(len(places), 1), ids.new_full((len(places), len(ids)), -100)
    rows = torch.arange(len(places), device=ids.device)
    copies[rows, places], labels[rows, places] = mask_token_id, ids[places]
    batch = {
        "input_ids": copies,
        "attention_mask": torch.ones_like(copies),
        "labels": labels,
        "asked": rows * len(ids) + places,
    }
    return float(loss.per_token(model, batch)[0].nansum(dtype=torch.float64))


def passages(texts: Iterable[str], number: int, shortest: int = 120, longest: int = 400) -> list[str]:
    """`number` paragraphs, evenly spread over all paragraphs of `shortest` to `longest` characters."""
    lines = [line.strip() for text in texts for line in text.split("\n")]
    fitting = [line for line in lines if shortest <= len(line) <= longest]
    return fitting[:: max(len(fitting) // number, 1)][:number]
