"""What does replaced-token detection train? ELECTRA's generator and discriminator, on one table of embeddings."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining
from transformers.models.electra.modeling_electra import ElectraPreTrainedModel
from transformers.utils import ModelOutput

EMBEDDINGS = ("word_embeddings", "position_embeddings", "token_type_embeddings")


@dataclass
class ReplacedTokenOutput(ModelOutput):
    """Of the M masked tokens: `nats`, the generator's losses, and `hits`, whether its likeliest token is right (`[M]`;
    hits in evaluation only). Of all tokens `[B, L]`: `discriminator_nats`, 0 where nothing is asked, `logits` (above 0:
    replaced) and `replaced`. `loss`: both means, weighted."""

    loss: torch.Tensor | None = None
    nats: torch.Tensor | None = None
    hits: torch.Tensor | None = None
    discriminator_nats: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    replaced: torch.Tensor | None = None


class GeneratorAndDiscriminator(ElectraPreTrainedModel):
    """Both networks of ELECTRA (https://arxiv.org/abs/2003.10555), trained together.

    The generator fills the masks, a token is sampled from what it thinks (no gradient flows through that), and the
    discriminator says of every token whether it is the original; a sample that happens to be the original counts as
    original. They share their embeddings with LayerNorm. Each is one of transformers' classes, and `save_pretrained` of
    each makes a plain directory; this class is for training and its checkpoints only.

    Args:
        config: of the discriminator, such as `encoder_config(..., family="electra")`; `generator_config` derives the
            generator's. The generator's output is tied to the embeddings, as published, whatever the config says.
        special_ids: token ids that are never sampled.
        attn_implementation: of both.
    """

    _tied_weights_keys: ClassVar[dict[str, str]] = {
        f"generator.electra.embeddings.{name}": f"discriminator.electra.embeddings.{name}"
        for name in (*(f"{table}.weight" for table in EMBEDDINGS), "LayerNorm.weight", "LayerNorm.bias")
    }
    discriminator_weight = 50.0  # as published: a token's yes or no weighs less than one of V words

    def __init__(self, config: ElectraConfig, special_ids: Sequence[int], attn_implementation: str = "sdpa") -> None:
        config = copy.deepcopy(config)
        config.tie_word_embeddings, config._attn_implementation = True, attn_implementation
        super().__init__(config)
        self.discriminator = ElectraForPreTraining(config)
        self.generator = ElectraForMaskedLM(generator_config(config))
        never = torch.zeros(config.vocab_size, dtype=torch.bool)
        never[list(special_ids)] = True
        self.never_sampled = nn.Buffer(never, persistent=False)
        self.post_init()  # ties what `_tied_weights_keys` names
        self._keys_to_ignore_on_save = set(self.all_tied_weights_keys)  # else Trainer warns of them when it resumes

    def get_input_embeddings(self) -> nn.Embedding:
        return self.discriminator.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Linear:
        return self.generator.get_output_embeddings()

    def forward(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
        draws: torch.Tensor,
        discriminated: torch.Tensor,
        asked: torch.Tensor | None = None,
        **context: torch.Tensor,
    ) -> ReplacedTokenOutput:
        """Losses of a batch that `objectives.replaced_tokens.ReplacedTokenDetection` made.

        Args:
            input_ids: int64 `[B, L]`, masked.
            labels: int64 `[B, L]`, the original where masked, else -100.
            draws: float32 `[B, L]` in [0, 1), what each sample is drawn with.
            discriminated: bool `[B, L]`, where the discriminator is asked.
            asked: int64 `[M]`, where labels are in the flattened batch; found out (which waits for the device) if None.
            context: `attention_mask`, `position_ids`.
        """
        asked = torch.nonzero(labels.flatten() != -100).squeeze(1) if asked is None else asked
        originals = labels.flatten()[asked]
        hidden = self.generator.electra(input_ids, **context)[0].flatten(0, 1)[asked]
        words = self.generator.generator_lm_head(self.generator.generator_predictions(hidden)).float()
        nats = functional.cross_entropy(words, originals, reduction="none")

        sampled = self.sample(words.detach(), draws.flatten()[asked])
        ids = input_ids.flatten().index_copy(0, asked, sampled).view_as(input_ids)
        replaced = torch.zeros_like(ids, dtype=torch.bool).flatten().index_copy(0, asked, sampled != originals)
        replaced = replaced.view_as(ids)
        logits = self.discriminator.discriminator_predictions(self.discriminator.electra(ids, **context)[0]).float()
        losses = functional.binary_cross_entropy_with_logits(logits, replaced.float(), reduction="none")
        losses = losses * discriminated
        return ReplacedTokenOutput(
            loss=nats.mean() + self.discriminator_weight * losses.sum() / discriminated.sum(),
            nats=nats,
            hits=None if self.training else words.argmax(-1) == originals,
            discriminator_nats=losses,
            logits=logits.detach(),
            replaced=replaced,
        )

    @torch.no_grad()
    def sample(self, words: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """A token from the softmax of each row of logits `[M, V]`, by inverting its distribution function at `draws`
        `[M]` in [0, 1): int64 `[M]`. Special tokens have no chance."""
        reached = words.masked_fill(self.never_sampled, -torch.inf).softmax(-1).cumsum(-1)
        # Divided by its last entry, which rounding leaves beside 1, so that every draw falls below it.
        return torch.searchsorted(reached / reached[:, -1:], draws[:, None], right=True).squeeze(1)


def generator_config(config: ElectraConfig) -> ElectraConfig:
    """Of the generator beside this discriminator: the same depth and a quarter of the width, the paper's best, but one
    head of 64 at least, and at most half."""
    generator, width = copy.deepcopy(config), config.hidden_size
    generator.hidden_size = max(width // 4, min(64, width // 2))
    generator.num_attention_heads = max(generator.hidden_size * config.num_attention_heads // width, 1)
    generator.intermediate_size = config.intermediate_size * generator.hidden_size // width
    return generator
