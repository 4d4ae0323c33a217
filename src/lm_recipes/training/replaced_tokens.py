"""How is replaced-token detection trained? Two networks by one loss; they part when the run is over."""

import math
from pathlib import Path

import torch
from sklearn.metrics import roc_auc_score

from lm_recipes.launch import UserError
from lm_recipes.training.trainer import LanguageModelTrainer


class ReplacedTokenTrainer(LanguageModelTrainer):
    """`LanguageModelTrainer` for a `models.replaced_tokens.GeneratorAndDiscriminator`.

    Checkpoints hold both networks. What the run leaves behind are plain transformers directories: the discriminator in
    `output_dir` and the generator in `output_dir/generator`.

    Evaluation reports `nats_per_token` and `accuracy` of the generator on masked tokens (worse than those of a BERT, of
    whose 15 % a tenth is not masked and can be copied), and `replaced_accuracy`, `original_accuracy` and `auc` of the
    discriminator (1: every replaced token looks more replaced than every original; 0.5: chance).
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.compute_metrics = self._metrics
        self._discriminated = 1  # counted with the labels of each step; the doctor asks for a loss before the first
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise UserError(
                "replaced-token detection shares weights between two models, FSDP/DeepSpeed split them; use DDP"
            )

    def _get_num_items_in_batch(self, batch_samples, device):
        """Labels of the whole step; and, by the same count, the tokens of which the discriminator is asked."""
        asked = [{"labels": torch.where(batch["discriminated"], 1, -100)} for batch in batch_samples]
        self._discriminated = super()._get_num_items_in_batch(asked, device)
        return super()._get_num_items_in_batch(batch_samples, device)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Both means over the whole step: all accumulated batches, all processes."""
        output = model(**inputs)
        weight = self.accelerator.unwrap_model(model).discriminator_weight
        loss = output.nats.sum() / num_items_in_batch
        loss = loss + weight * output.discriminator_nats.sum() / self._discriminated
        return loss * (self.accelerator.num_processes if self.args.average_tokens_across_devices else 1)

    @torch.no_grad()
    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Per token `[B, L]`: the generator's loss (NaN: not asked) and hit; the discriminator's logit (NaN: not asked)
        and what it should have said."""
        inputs = self._prepare_inputs(inputs)
        output, labels = model(**inputs), inputs["labels"]
        nats = torch.full(labels.shape, math.nan, device=labels.device)
        hits = torch.zeros_like(labels, dtype=torch.bool)
        nats[labels != -100], hits[labels != -100] = output.nats, output.hits
        logits = output.logits.masked_fill(~inputs["discriminated"], math.nan)
        return output.loss, (nats, hits, logits, output.replaced), labels

    def _metrics(self, prediction) -> dict[str, float]:
        nats, hits, logits, replaced = prediction.predictions
        asked, judged = nats == nats, logits == logits
        logits, replaced = logits[judged], replaced[judged].astype(bool)
        return {
            "nats_per_token": float(nats[asked].mean(dtype="float64")),
            "accuracy": float(hits[asked].mean()),
            "tokens": int(asked.sum()),
            "replaced_accuracy": float((logits > 0)[replaced].mean()),
            "original_accuracy": float((logits <= 0)[~replaced].mean()),
            "auc": float(roc_auc_score(replaced, logits)),
        }

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if output_dir is not None:  # a checkpoint
            super().save_model(output_dir, _internal_call)
        elif self.args.should_save:
            both = self.accelerator.unwrap_model(self.model)
            for model, directory in ((both.discriminator, ""), (both.generator, "generator")):
                model.save_pretrained(Path(self.args.output_dir, directory))
                self.processing_class.save_pretrained(Path(self.args.output_dir, directory))
