"""What does a step ask of the model? A loss where labels are, and nothing computed where none is."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from lm_recipes.models import expert_load


class WithAsked:
    """A collator that also says which positions have labels: `asked`, int64 `[M]`, into the flattened `[B * L]`.

    Counted where the batch is made, on the CPU, so that a step on an accelerator need not wait to learn M.
    """

    def __init__(self, collator: Callable[[list[dict[str, np.ndarray]]], dict]) -> None:
        self.collator = collator

    def __call__(self, rows: list[dict[str, np.ndarray]]) -> dict:
        batch = self.collator(rows)
        return batch | {"asked": torch.nonzero(batch["labels"].reshape(-1) != -100).squeeze(1)}


class LanguageModelLoss:
    """The cross-entropy of a language model's labels, in nats, at as little cost as its head allows.

    - Encoders and encoder-decoders: the head sees the hidden states of the asked positions only, whatever its form
      (a hook behind the body hands it `[1, M, D]`). At 15 % masks that is a seventh of the head's work.
    - Causal models whose head is one matrix: the model makes no logits (`logits_to_keep`), `linear_cross_entropy`
      does, in the precision of the matrix product, without an fp32 copy. On an accelerator they come in chunks and
      never exist as a whole.

    Args:
        model: of a class `AutoModelFor{CausalLM, MaskedLM, Seq2SeqLM}` makes; not wrapped.
        whole: the parameters are whole, not sharded (FSDP, DeepSpeed), so that the head's matrix can be used alone.
        dtype: what autocast computes matrix products in; None: as the weights are.
    """

    def __init__(self, model: PreTrainedModel, whole: bool = True, dtype: torch.dtype | None = None) -> None:
        self.model, self.dtype = model, dtype
        # XLNet can generate, but its labels stand where they are asked
        self.shifted = (
            model.can_generate() and not model.config.is_encoder_decoder and model.config.model_type != "xlnet"
        )
        self.expert_load: torch.Tensor | None = None  # of the last batch, `[layers, experts]`
        self._watching, self._asked, self._hidden = False, None, None
        body = model.get_decoder() if model.config.is_encoder_decoder else model.base_model
        body.register_forward_hook(self._after_body)
        self.chunked = whole and self.shifted and self._head_is_one_matrix()

    def __call__(self, forward: Callable, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum of the losses of all labels, and what the model adds to their mean (experts' balance; mostly 0).

        Args:
            forward: the model as the trainer wrapped it (DDP, compiled).
            batch: a collator's, through `WithAsked`; `labels` follow the convention of the model's class.

        Returns:
            two float32 scalars.
        """
        inputs, targets = self._split(batch)
        if self.chunked:
            output, hidden = self._run(forward, inputs | {"logits_to_keep": targets[:0]}, None)
            weight = self.model.get_output_embeddings().weight
            hidden, weight = (one.to(self.dtype or one.dtype) for one in (hidden.flatten(0, 1), weight))
            # Chunks cost time on a CPU. Token by token: a sum in bf16 would keep three digits.
            options = torch.nn.LinearCrossEntropyOptions() if hidden.is_cuda else None
            nats = functional.linear_cross_entropy(hidden, weight, targets, reduction="none", options=options).float()
        else:
            output, _ = self._run(forward, inputs, None if self.shifted else batch["asked"])
            nats = functional.cross_entropy(output.logits.flatten(0, -2).float(), targets, reduction="none")
        if getattr(output, "router_logits", None) is not None:
            self.expert_load = expert_load(output.router_logits, self.model.config.num_experts_per_tok)
        balance = getattr(output, "aux_loss", None)
        added = nats.new_zeros(()) if balance is None else self.model.config.router_aux_loss_coef * balance
        return nats.sum(), added

    @torch.no_grad()
    def per_token(self, forward: Callable, batch: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss in nats (float32, NaN where no label) and whether the likeliest token is right (bool): `[B, L]` each.

        A causal model's stand where the prediction is made, one place before the token.
        """
        inputs, targets = self._split(batch)
        output, _ = self._run(forward, inputs, None if self.shifted else batch["asked"])
        logits = output.logits.flatten(0, -2)
        nats, right = functional.cross_entropy(logits.float(), targets, reduction="none"), logits.argmax(-1) == targets
        asked = torch.nonzero(targets != -100).squeeze(1) if self.shifted else batch["asked"]
        labels = batch["labels"]
        all_nats = torch.full((labels.numel(),), math.nan, device=labels.device)
        all_right = torch.zeros(labels.numel(), dtype=torch.bool, device=labels.device)
        chosen = asked if self.shifted else slice(None)
        all_nats[asked], all_right[asked] = nats[chosen], right[chosen]
        return all_nats.view_as(labels), all_right.view_as(labels)

    def _split(self, batch: dict) -> tuple[dict, torch.Tensor]:
        """What the model is given, and what each row of logits is to be: int64 `[B * L]`, or `[M]` where gathered."""
        inputs = {name: value for name, value in batch.items() if name not in ("labels", "asked")}
        if self.shifted:
            return inputs, functional.pad(batch["labels"][:, 1:], (0, 1), value=-100).flatten()
        return inputs, batch["labels"].flatten()[batch["asked"]]

    def _run(self, forward: Callable, inputs: dict, asked: torch.Tensor | None):
        """The output of the model, whose head saw the asked positions (None: all), and of its body."""
        self._watching, self._asked = True, asked
        try:
            return forward(**inputs), self._hidden
        finally:
            self._watching, self._asked, self._hidden = False, None, None

    def _after_body(self, body: nn.Module, args: tuple, output):
        if not self._watching:
            return None  # somebody else uses the model: to generate, to evaluate
        if self._asked is not None:
            output["last_hidden_state"] = output[0].flatten(0, 1)[self._asked][None]
        self._hidden = output[0]
        return output

    @torch.no_grad()
    def _head_is_one_matrix(self) -> bool:
        """Whether the logits are the hidden states times the output embedding: tried out, on three tokens."""
        head, ids = self.model.get_output_embeddings(), torch.tensor([[1, 2, 3]], device=self.model.device)
        if type(head) is not nn.Linear or head.bias is not None:
            return False
        output, hidden = self._run(self.model, {"input_ids": ids, "use_cache": False}, None)
        return torch.allclose(output.logits, functional.linear(hidden, head.weight), atol=1e-4, rtol=1e-3)
