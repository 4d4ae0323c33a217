"""The trainer tells collators how far the run is: with a remainder of accumulation, workers, and after a resume."""

from pathlib import Path

import pytest
import torch

from lm_recipes.models import encoder_config, isolation_of, new_model
from lm_recipes.objectives import MaskedLanguageModeling, read_packed
from lm_recipes.training.arguments import PretrainingArguments
from lm_recipes.training.trainer import LanguageModelTrainer

ROWS, BATCH, ACCUMULATION, EPOCHS = 54, 4, 4, 2.5
BATCHES = 14  # of an epoch: three steps of 4 and one of 2
TOTAL = 2 * BATCHES + 2 * ACCUMULATION  # the run ends after two steps of its third epoch


class Watched(LanguageModelTrainer):
    """Keeps the batches that it trains on."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        self.seen.append({name: inputs[name] for name in ("input_ids", "labels", "position_ids")})
        return super().training_step(model, inputs, num_items_in_batch)


@pytest.fixture
def train(bert_tokenizer, packed, tmp_path):
    rows = read_packed(packed["bert"][0]).train.select(range(ROWS))
    config = encoder_config("tiny", bert_tokenizer, 64)

    def run(workers: int, checkpoint: Path | None = None) -> list[dict[str, torch.Tensor]]:
        args = PretrainingArguments(
            output_dir=tmp_path, use_cpu=True, bf16=False, disable_tqdm=True, report_to="none", num_train_epochs=EPOCHS,
            per_device_train_batch_size=BATCH, gradient_accumulation_steps=ACCUMULATION, dataloader_num_workers=workers,
            save_strategy="no" if checkpoint else "steps", save_steps=3, save_total_limit=None,
        )  # fmt: skip
        collator = falling(bert_tokenizer, 0.5, mlm_probability_end=0.2, isolation=isolation_of(config, "sdpa"))
        trainer = Watched(
            model=new_model(config), args=args, train_dataset=rows, data_collator=collator, eval_collator=collator
        )
        trainer.seen = []
        trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
        return trainer.seen

    return run


def falling(tokenizer, ratio: float, **settings) -> MaskedLanguageModeling:
    return MaskedLanguageModeling(tokenizer, ratio, exact=True, **settings)


def expected(number: int, batch: dict[str, torch.Tensor], tokenizer) -> dict[str, torch.Tensor]:
    """What the `number`th batch of the run should ask of the same rows."""
    asked = batch["labels"] != -100
    ids = torch.where(asked, batch["labels"], batch["input_ids"])  # as they were
    rows = [
        {"input_ids": i.numpy(), "position_ids": p.numpy()} for i, p in zip(ids, batch["position_ids"], strict=True)
    ]
    return falling(tokenizer, 0.5 - 0.3 * number / (TOTAL - 1), epoch=number // BATCHES)(rows)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_batch_has_the_masks_of_its_epoch_and_the_ratio_of_its_place_in_the_run(
    workers, train, bert_tokenizer, tmp_path
):
    """Steps 3, 6 and 9 stand in the middle of the first, second and third epoch."""
    whole = train(workers)
    assert len(whole) == TOTAL
    for step, done in ((0, 0), (3, 12), (6, BATCHES + 8), (9, 2 * BATCHES + 4)):
        seen = train(workers, tmp_path / f"checkpoint-{step}") if step else whole
        assert len(seen) == TOTAL - done
        for number, batch in enumerate(seen, start=done):
            right = expected(number, batch, bert_tokenizer)
            for name in ("input_ids", "labels"):
                assert torch.equal(batch[name], whole[number][name]), (step, number, name)
                assert torch.equal(batch[name], right[name]), (step, number, name)
