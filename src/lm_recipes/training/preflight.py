"""What must be true before the first step? Each check is silent or one line that says what to mend."""

import json
import logging
import math
from itertools import islice
from pathlib import Path

import torch
from transformers import TrainingArguments
from transformers.trainer_utils import SaveStrategy

from lm_recipes.artifacts import fingerprint, read_json, write_json
from lm_recipes.launch import UserError, is_main_process
from lm_recipes.models import describe_model, flops_per_token, positions_of
from lm_recipes.training import hardware

logger = logging.getLogger(__name__)

# Reading a text up to four times teaches about as much as new text would (https://arxiv.org/abs/2305.16264); with masks
# drawn afresh in every epoch BERT was read forty times (https://arxiv.org/abs/1810.04805).
WORTHWHILE_EPOCHS = {"the same": 4, "fresh masks": 40}


def check_arguments(args: TrainingArguments) -> None:
    """The settings can train something, and report to nobody who was not asked for. Before any data is read.

    Raises:
        UserError: a learning rate is 0, the warm-up is as long as the run, or `--report_to codecarbon`.
    """
    for name in ("learning_rate", "muon_learning_rate"):
        rate = getattr(args, name, None)
        if rate is not None and not rate > 0:
            raise UserError(f"--{name} {rate}: nothing would be learned; it must be above 0")
    if 0 < args.max_steps <= args.warmup_steps:
        raise UserError(f"--warmup_steps {args.warmup_steps:g}: the run is over (--max_steps {args.max_steps}) by then")
    if "codecarbon" in args.report_to:
        raise UserError("--report_to codecarbon asks web services where you are; use --energy_country, it is offline")
    if args.bf16 and args.use_cpu and not torch.cpu.get_capabilities().get("avx512_bf16", False):
        logger.warning("--bf16: this processor has no bf16 instructions and emulates them, slower than fp32")


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


def doctor(trainer, tokenizer, counts: dict[str, float] | None = None) -> None:
    """What can be told of a run before its first step, in ten lines; and a refusal where something is wrong.

    Args:
        trainer: `LanguageModelTrainer`, ready to train.
        counts: of the training split, as `objectives.packing.write_packed` returned them; None where the run's length
            is not that of the data (streams).

    Raises:
        UserError: no labels, ids beyond the vocabulary, blocks longer than the model's positions, no room on the disk.
    """
    args, data, model = trainer.args, trainer.train_dataset, trainer.model
    rows = list(islice(iter(data), max(args.per_device_train_batch_size, 2)))
    batch = trainer.data_collator(rows[: args.per_device_train_batch_size])
    check_batch(batch, tokenizer)
    length = batch["input_ids"].shape[1]
    _check_positions(model.config, length)
    steps, epochs = planned(args, len(data) if hasattr(data, "__len__") else None, trainer.rows_per_step)
    tokens = trainer.rows_per_step * length
    logger.info(
        "step    %s tokens: %d rows x %d accumulated x %d processes x %d; %s steps, %s tokens%s",
        f"{tokens:,}", args.per_device_train_batch_size, args.gradient_accumulation_steps, args.world_size, length,
        f"{steps:,}", f"{steps * tokens:,}", f", {epochs:.2f} epochs" if counts and epochs else "",
    )  # fmt: skip
    _warn_of_repeats(epochs if counts else None, hasattr(getattr(trainer, "training_collator", None), "epoch"))
    if counts and "documents_cut" in counts:  # older records lack it
        logger.info(
            "data    %s blocks of %d: %.2f %% padding; %.1f %% of the documents are cut into pieces, nothing is lost",
            f"{counts['blocks']:,}", length, 100 * counts["padding_share"],
            100 * counts["documents_cut"] / max(counts["documents"], 1),
        )  # fmt: skip
    _say_work(model, batch, steps * tokens, args)
    muon = getattr(args, "muon_learning_rate", None) is not None
    _say_memory(trainer, rows, muon)
    _check_disk(args, steps, hardware.checkpoint_bytes(model, muon))


def planned(args: TrainingArguments, rows: int | None, rows_per_step: int) -> tuple[int, float | None]:
    """Optimizer steps of the run, and how often it reads the data (None where its length is not known).

    Args:
        rows: of the training data. rows_per_step: batch x accumulation x processes.
    """
    if rows is None:
        return args.max_steps, None
    batches = -(-rows // (rows_per_step // args.gradient_accumulation_steps))
    per_epoch = max(-(-batches // args.gradient_accumulation_steps), 1)
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * per_epoch)
    return steps, steps / per_epoch


def _check_positions(config, length: int) -> None:
    positions = positions_of(config)
    if positions is not None and length > positions:
        raise UserError(
            f"blocks of {length} tokens, but the model has positions for {positions}; pack the corpus with a smaller "
            "--block_size, or make the model with more"
        )


def _warn_of_repeats(epochs: float | None, fresh_masks: bool) -> None:
    worthwhile = WORTHWHILE_EPOCHS["fresh masks" if fresh_masks else "the same"]
    if epochs is not None and epochs > worthwhile:
        logger.warning("repeat  the data is read %.0f times; beyond %d it teaches little more", epochs, worthwhile)


def _say_work(model, batch: dict, tokens: int, args: TrainingArguments) -> None:
    length, asked = batch["input_ids"].shape[1], asked_share(model, batch)
    flops = tokens * flops_per_token(model, length, asked)
    peak = hardware.peak_flops(hardware.device_name(args.device))
    least = f"; {flops / peak / args.world_size:.3g} s at this device's peak" if peak else ""
    logger.info("model   %s", describe_model(model, length, asked))
    logger.info("work    %.3g FLOP%s", flops, least)


def asked_share(model, batch: dict) -> float:
    """Share of the tokens whose logits are computed, as `models.flops_per_token` counts it."""
    if model.config.is_encoder_decoder:
        return batch["labels"].shape[1] / batch["input_ids"].shape[1]
    return 1.0 if model.can_generate() else float(batch["labels"].ne(-100).float().mean())


def _say_memory(trainer, rows: list, muon: bool) -> None:
    """An estimate, see `hardware.training_bytes`; sharded models (FSDP, DeepSpeed) are left out."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return

    def loss_of_rows(number: int) -> torch.Tensor:
        inputs = trainer._prepare_inputs(trainer.data_collator(rows[:number]))
        with trainer.accelerator.autocast():
            return trainer.compute_loss(trainer.model.train(), inputs, num_items_in_batch=torch.tensor(1))

    args, trainer.current_gradient_accumulation_steps = trainer.args, 1  # training sets it again
    kept = hardware.kept_for_backward(loss_of_rows, trainer.model, args.per_device_train_batch_size)
    parts = hardware.training_bytes(trainer.model, muon, kept)
    needed, free = sum(parts.values()), hardware.free_memory(args.device)
    logger.info(
        "memory  about %s in tensors, estimated: %s",
        _megabytes(needed), " + ".join(f"{_megabytes(part)} {name}" for name, part in parts.items()),
    )  # fmt: skip
    if needed > free:
        logger.warning(
            "memory  only %s are free: a smaller --per_device_train_batch_size with more --gradient_accumulation_steps "
            "learns the same",
            _megabytes(free),
        )


def _megabytes(number: int) -> str:
    return f"{number / 1e6:,.0f} MB"


def _check_disk(args: TrainingArguments, steps: int, one: int) -> None:
    """Room for the checkpoints that will lie there at once (one more than the limit, while one is written)."""
    if args.save_strategy == SaveStrategy.NO:
        return hardware.check_disk(args.output_dir, one)
    every = args.save_steps if args.save_steps >= 1 else max(steps * args.save_steps, 1)
    saves = math.ceil(steps / every) + 1 if args.save_strategy == SaveStrategy.STEPS else math.ceil(steps)
    there = len(list(Path(args.output_dir).glob("checkpoint-*")))
    number = min(saves, (args.save_total_limit or saves) + 1)
    hardware.check_disk(args.output_dir, max(number - there, 1) * one)


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
        "muon_learning_rate", "embedding_rate_factor", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon",
        "max_grad_norm", "optim", "lr_scheduler_type", "warmup_steps", "decay_share", "seed", "data_seed",
        "bf16", "fp16",
    )  # fmt: skip
    return {name: getattr(args, name) for name in shaping if hasattr(args, name)} | more
