"""How does an encoder learn that two texts belong together? Each anchor picks its own positive out of the batch's."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lm_recipes.artifacts import write_json
from lm_recipes.training.optimizer import FineTuningTrainer

SIDES = ("anchor", "positive")


def sentence_vectors(hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """The mean of a text's token vectors, without padding, at length 1: float `[B, L, D]`, 0/1 `[B, L]` -> `[B, D]`.

    Sentence-BERT (Reimers and Gurevych, arXiv 1908.10084) found the mean better than [CLS].
    """
    weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
    return functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)


def tokenize_pairs(rows, tokenizer: PreTrainedTokenizerBase, max_length: int):
    """Splits with columns `anchor` and `positive` as token ids, and `length`, of both together.

    Args:
        rows: a `DatasetDict` with `anchor` and `positive` as text, each cut to `max_length` tokens.
    """

    def tokenize(batch: dict) -> dict:
        cut = {
            side: tokenizer(list(batch[side]), truncation=True, max_length=max_length)["input_ids"] for side in SIDES
        }
        return cut | {"length": [len(anchor) + len(positive) for anchor, positive in zip(*cut.values(), strict=True)]}

    return rows.map(tokenize, batched=True, remove_columns=list(SIDES), desc="tokenizing")


@dataclass(frozen=True)
class PairCollator:
    """B pairs as one batch of 2 B rows for the encoder: the anchors, then their positives in the same order."""

    tokenizer: PreTrainedTokenizerBase

    def __call__(self, examples: list[dict]) -> dict[str, torch.Tensor]:
        """`input_ids` and `attention_mask`, int `[2 B, L]`."""
        ids = [example[side] for side in SIDES for example in examples]
        padded = self.tokenizer.pad({"input_ids": ids}, return_attention_mask=True, return_tensors="pt")
        return {name: padded[name] for name in ("input_ids", "attention_mask")}


class EmbeddingTrainer(FineTuningTrainer):
    """Minimises the cross-entropy of each anchor's own positive among all positives of its batch.

    InfoNCE (arXiv 1807.03748), which sentence-transformers calls MultipleNegativesRankingLoss. The batch is the task:
    a larger one is harder and teaches more, and accumulated batches do not add up to one.

    Args:
        scale: of cosine similarities before the softmax, one over its temperature.
    """

    loss_is_scaled_for_ga = False  # a mean over the pairs of a batch

    def __init__(self, *, scale: float = 20.0, **kwargs) -> None:
        super().__init__(**kwargs)
        self.scale = scale
        self.can_return_loss = True  # without labels, in evaluation too

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        vectors = sentence_vectors(outputs.last_hidden_state.float(), inputs["attention_mask"])
        loss = in_batch_loss(*vectors.chunk(2), self.scale)
        return (loss, {"vectors": vectors}) if return_outputs else loss


def in_batch_loss(anchors: torch.Tensor, positives: torch.Tensor, scale: float) -> torch.Tensor:
    """Mean nats of picking, for each of the anchors `[B, D]`, the positive in its own row of `[B, D]`."""
    with torch.autocast(anchors.device.type, enabled=False):  # in bf16 near ones would be equal
        similar = scale * anchors @ positives.T
    return functional.cross_entropy(similar, torch.arange(len(similar), device=similar.device))


def embeddings_of(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[list[int]], batch_size: int = 64
) -> np.ndarray:
    """Sentence vectors of tokenized texts, float32 `[N, D]`, in their order, in the precision of the weights."""
    model.eval()
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))  # batches of like length: less padding
    found = []
    with torch.no_grad():
        for start in range(0, len(order), batch_size):
            ids = [rows[row] for row in order[start : start + batch_size]]
            padded = tokenizer.pad({"input_ids": ids}, return_attention_mask=True, return_tensors="pt")
            batch = {name: padded[name].to(model.device) for name in ("input_ids", "attention_mask")}
            hidden = model(**batch).last_hidden_state.float()
            found.append(sentence_vectors(hidden, batch["attention_mask"]).cpu())
    return torch.cat(found).numpy()[np.argsort(order)]


def save_pooling(model_dir: str | Path, width: int, max_length: int) -> None:
    """Write beside a model what `SentenceTransformer(model_dir)` needs to pool as `sentence_vectors` does.

    The files are those of sentence-transformers/all-MiniLM-L6-v2, which all versions of the library read.
    """
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (path, kind) in enumerate(kinds)
    ]
    write_json(Path(model_dir, "modules.json"), modules)
    write_json(Path(model_dir, "sentence_bert_config.json"), {"max_seq_length": max_length, "do_lower_case": False})
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True}
    others = ("cls_token", "max_tokens", "mean_sqrt_len_tokens")
    pooling |= {f"pooling_mode_{kind}": False for kind in others}
    write_json(Path(model_dir, "1_Pooling", "config.json"), pooling)
