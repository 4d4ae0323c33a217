"""How are dialogues learned on a CPU without computing what nobody asks? TRL's trainer, made sparse twice."""

from itertools import pairwise

import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from trl import SFTTrainer

BY_PIECE = "sdpa_by_piece"


def attend_by_piece(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """For `attn_implementation`: dialogues that share a row are attended to one after the other.

    A mask over the whole row asks for L^2 products where those of the dialogues, the causal half of each, would do.

    Args:
        query: `[1, heads, L, D]`; key and value: `[1, key/value heads, L, D]`.
        attention_mask: bool `[1, 1, L, L]`. Where there is none, or one that closes more than other dialogues and what
            comes later (a layer's window, say): as `sdpa`.
        cu_seq_lens_q: where dialogues begin, and L; TRL's collator makes it. Without it: as `sdpa`.

    Returns:
        `[1, L, heads, D]`
    """
    pieces = [] if cu_seq_lens_q is None or attention_mask is None else list(pairwise(cu_seq_lens_q.tolist()))
    open_places = sum((end - start) * (end - start + 1) // 2 for start, end in pieces)
    if not pieces or int(attention_mask.count_nonzero()) != open_places:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    found = [
        functional.scaled_dot_product_attention(
            *(one[:, :, start:end] for one in (query, key, value)),
            dropout_p=dropout, scale=scaling, is_causal=True, enable_gqa=query.shape[1] != key.shape[1],
        )
        for start, end in pieces
    ]  # fmt: skip
    return torch.cat(found, 2).transpose(1, 2).contiguous(), None


AttentionInterface.register(BY_PIECE, attend_by_piece)
AttentionMaskInterface.register(BY_PIECE, sdpa_mask)


class DialogueTrainer(SFTTrainer):
    """SFTTrainer whose output layer sees, on a CPU too, only the places before tokens with a label.

    TRL does so where Triton runs. Elsewhere the logits of questions are computed too, to be multiplied by zero: where
    an answer is a word, that is nearly all of the output layer's work. On a CPU rows that hold several dialogues are
    also attended to by `attend_by_piece`.
    """

    def __init__(self, model: PreTrainedModel, args, **kwargs) -> None:
        super().__init__(model, args, **kwargs)
        model = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        adapter = getattr(model, "active_peft_config", None)
        base = model if adapter is None else model.get_base_model()
        self._asked: torch.Tensor | None = None  # into the flattened [B * L], while a loss is computed
        # prompt tokens are a part of the hidden states, and smoothed labels want the logits whole
        prompted = adapter is not None and adapter.is_prompt_learning
        self._sparse = self.args.device.type == "cpu" and not prompted and not self.args.label_smoothing_factor
        if self._sparse:
            base.base_model.register_forward_hook(self._after_body)
            if self.padding_free and base.config._attn_implementation == "sdpa":
                base.set_attn_implementation(BY_PIECE)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not self._sparse or return_outputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        targets = functional.pad(inputs["labels"][:, 1:], (0, 1), value=-100).flatten()
        asked = torch.nonzero(targets != -100).squeeze(1)
        self._asked = asked if len(asked) else asked.new_zeros(1)  # one without a label: a loss of zero
        inputs = {name: value for name, value in inputs.items() if name != "labels"}
        try:
            return super().compute_loss(
                model, inputs | {"shift_labels": targets[self._asked][None]}, num_items_in_batch=num_items_in_batch
            )
        finally:
            self._asked = None

    def _after_body(self, body: torch.nn.Module, args: tuple, output):
        if self._asked is not None:
            output["last_hidden_state"] = output[0].flatten(0, 1)[self._asked][None]
        return output
