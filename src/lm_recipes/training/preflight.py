"""What must be true before the first step? Each check is silent or one line that says what to mend."""

import json
import logging
from pathlib import Path

from transformers import TrainingArguments

from lm_recipes.artifacts import fingerprint, read_json, write_json
from lm_recipes.launch import UserError, is_main_process

logger = logging.getLogger(__name__)


def check_vocabulary(tokenizer, model) -> None:
    """The model has an embedding for every id of the tokenizer, and padding is not the end of text."""
    embeddings = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > embeddings:
        raise UserError(
            f"{tokenizer.name_or_path}: {len(tokenizer)} tokens, but the model embeds {embeddings}; "
            "use the tokenizer the model was made with"
        )
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise UserError(
            f"{tokenizer.name_or_path}: the pad token equals eos ({tokenizer.eos_token}), so the end of a text would "
            "be masked and never learned; give the tokenizer a pad token of its own"
        )


def check_packed_with(corpus, tokenizer) -> None:
    """The blocks were made with this very tokenizer (by fingerprint, where both are local)."""
    path = Path(tokenizer.name_or_path)
    if corpus.tokenizer_fingerprint and path.is_dir() and fingerprint(path) != corpus.tokenizer_fingerprint:
        raise UserError(f"{path}: not the tokenizer the data was packed with; pack the corpus again with this one")


def check_batch(batch: dict, tokenizer) -> None:
    """The first batch asks something, in ids the tokenizer has; one example is shown with its labels."""
    labels, ids = batch["labels"], batch["input_ids"]
    supervised = labels.ne(-100)
    if not supervised.any():
        raise UserError(
            "no token of the first batch has a label, so nothing would be learned; check data and objective"
        )
    if int(ids.max()) >= len(tokenizer):
        raise UserError(
            f"{tokenizer.name_or_path}: the data holds id {int(ids.max())}, beyond its {len(tokenizer)} tokens"
        )
    row = int(supervised.sum(1).argmax())
    asked = labels[row][supervised[row]][:12]
    logger.info(
        "batch   %s tokens, %.1f %% with a label",
        "x".join(map(str, ids.shape)),
        100 * supervised.float().mean(),
    )
    logger.info("input   %s", tokenizer.decode(ids[row][:40]).replace("\n", " ⏎ ")[:160])
    logger.info("labels  %s", " | ".join(tokenizer.convert_ids_to_tokens(asked.tolist())))


def prepare_output_dir(args: TrainingArguments, identity: dict) -> str | None:
    """Claim `args.output_dir` for the run that `identity` describes; a killed run goes on where it stopped.

    Args:
        identity: everything that shapes the result (settings, fingerprints of the inputs), flat and JSON-able.

    Returns:
        The checkpoint to resume from, or None for a fresh start.

    Raises:
        UserError: the directory holds checkpoints of a run that differs, and says in what.
    """
    directory = Path(args.output_dir)
    checkpoint = last_complete_checkpoint(directory)
    record = directory / "run.json"
    if args.resume_from_checkpoint not in (None, False, "False", "false", True, "True", "true"):
        checkpoint = str(args.resume_from_checkpoint)
        if not Path(checkpoint).is_dir():
            raise UserError(f"--resume_from_checkpoint {checkpoint}: no such directory")
    elif checkpoint is not None:
        before = read_json(record, "run.json of the run that made these checkpoints")
        now = {key: str(value) for key, value in identity.items()}
        differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        if differing:
            key = differing[0]
            raise UserError(
                f"{directory}: holds checkpoints of another run ({key}: {before.get(key)} there, {now.get(key)} here); "
                "choose another --output_dir or delete it"
            )
        logger.info("resume  %s", checkpoint)
    if is_main_process():
        write_json(record, {key: str(value) for key, value in identity.items()})
    return checkpoint


def last_complete_checkpoint(directory: Path) -> str | None:
    """The newest checkpoint that was written to its end; a run killed while saving goes on from the one before.

    Trainer writes a checkpoint in place, with `trainer_state.json` last.
    """
    for checkpoint in sorted(directory.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1])):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
            return str(checkpoint)
        except (FileNotFoundError, json.JSONDecodeError):
            logger.warning("skip    %s: it was not written to its end", checkpoint)
    return None


def identity_of(args: TrainingArguments, **more: object) -> dict[str, object]:
    """The settings of a run that shape its weights, plus `more` (sizes, fingerprints of data and tokenizer)."""
    shaping = (
        "per_device_train_batch_size", "gradient_accumulation_steps", "max_steps", "num_train_epochs", "learning_rate",
        "muon_learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "optim",
        "lr_scheduler_type", "warmup_steps", "decay_share", "seed", "data_seed", "bf16", "fp16",
    )  # fmt: skip
    return {name: getattr(args, name) for name in shaping if hasattr(args, name)} | more
