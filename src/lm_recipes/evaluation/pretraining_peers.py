"""How do other people's scripts pretrain? Their behaviour, by their own libraries' calls, each in its own process.

    python -m lm_recipes.evaluation.pretraining_peers run_clm --data BLOCKS --tokenizer DIR --output DIR --steps 500

- run_clm, run_mlm: transformers' examples from scratch. GPT-2 and BERT, stock Trainer, stock collators, and every
  setting at its default unless a flag says otherwise.
- nanogpt: the user's checkout of https://github.com/karpathy/nanoGPT, its own train.py as its README runs it on a CPU.

Text is tokenised beforehand (`write_grouped`, `write_stream`), which no time includes. `OUTPUT/result.json` has seconds
since the process started; the model beside it is one that transformers loads.
"""

import argparse
import json
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np

from lm_recipes.launch import UserError

STARTED = time.time()


def rates(*values: float) -> list[dict]:
    return [{"learning_rate": value} for value in values]


# Flags of each peer as it ships, and the stages of a search for better ones (`runs.tune`): the first sweeps the rate,
# the others go through what else could win, each on the best so far, and the rates once more.
_TRAINER = {"learning_rate": 5e-5, "batch_size": 8, "dropout": 0.1, "schedule": "linear"}
SHIPPED = {"run_clm": _TRAINER, "run_mlm": _TRAINER, "nanogpt": {"learning_rate": 1e-3, "batch_size": 12}}
_STAGES = [
    rates(5e-4, 1e-3, 2e-3, 4e-3, 8e-3),
    [{"bf16": True}, {"compile": True}, {"bf16": True, "compile": True}],
    [{"dropout": 0.0}],
    [{"batch_size": 2}, {"batch_size": 4}, {"batch_size": 16}, {"batch_size": 32}],
    rates(1e-3, 2e-3, 4e-3, 8e-3),
    [{"schedule": "cosine"}, {"warmup_steps": 0.05}, {"schedule": "cosine", "warmup_steps": 0.05}],
]
STAGES = {
    "run_clm": _STAGES,
    "run_mlm": _STAGES,
    "nanogpt": [rates(5e-4, 2e-3, 4e-3, 8e-3), [{"compile": True}], [{"batch_size": 6}, {"batch_size": 24}]],
}
SPEEDS = {  # changes to what ships, where nothing but speed is compared
    "as shipped": {},
    "bf16": {"bf16": True},
    "bf16, compiled": {"bf16": True, "compile": True},
    "bf16, batch 32": {"bf16": True, "batch_size": 32},
    "bf16, batch 32, compiled": {"bf16": True, "batch_size": 32, "compile": True},
}


def main(arguments: list[str] | None = None) -> None:
    """Train a peer as the flags say and write what it took."""
    args = _parser().parse_args(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    result = nanogpt(args) if args.peer == "nanogpt" else transformers_script(args)
    (args.output / "result.json").write_text(json.dumps(result), encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lm_recipes.evaluation.pretraining_peers", description=__doc__)
    parser.add_argument("peer", choices=["run_clm", "run_mlm", "nanogpt"])
    for name in ("data", "tokenizer", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name, default in {"steps": 100, "block_size": 256, "width": 128, "layers": 4, "heads": 2, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--learning_rate", type=float, default=5e-5)
    parser.add_argument("--schedule", default="linear")
    parser.add_argument("--warmup_steps", type=float, default=0.0)
    parser.add_argument("--dropout", type=float, default=0.1)
    for name in ("bf16", "compile"):
        parser.add_argument(f"--{name}", type="True".__eq__, default=False, help="True or False")
    parser.add_argument("--logging_steps", type=int, default=20)
    parser.add_argument("--nanogpt", type=Path, help="Checkout of karpathy/nanoGPT.")
    parser.add_argument("--started", type=float, default=STARTED, help="Unix time the clock starts at.")
    return parser


# ---- transformers' run_clm.py and run_mlm.py


def model_config(peer: str, tokenizer, *, width: int, layers: int, heads: int, block_size: int, dropout: float = 0.1):
    """GPT-2's (also for nanoGPT) or BERT's configuration with their usual proportions, at this width and depth."""
    from transformers import BertConfig, GPT2Config

    if peer == "run_mlm":
        return BertConfig(
            vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
            intermediate_size=4 * width, max_position_embeddings=block_size, pad_token_id=tokenizer.pad_token_id,
            hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
        )  # fmt: skip
    return GPT2Config(
        vocab_size=len(tokenizer), n_embd=width, n_layer=layers, n_head=heads, n_positions=block_size,
        resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip


def transformers_script(args: argparse.Namespace) -> dict:
    """Train as run_clm.py and run_mlm.py do; seconds since the start, tokens, the losses that Trainer logged."""
    from datasets import load_from_disk
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForMaskedLM,
        AutoTokenizer,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        default_data_collator,
        set_seed,
    )

    stamps, log = {"imports_seconds": time.time() - args.started}, []

    class Clock(TrainerCallback):
        def on_step_end(self, _, state, control, **kwargs) -> None:
            stamps.setdefault("first_step_seconds", time.time() - args.started)

        def on_log(self, _, state, control, logs=None, **kwargs) -> None:
            if "loss" in logs:
                entry = {"step": state.global_step, "seconds": time.time() - args.started}
                log.append(entry | {"loss": float(logs["loss"])})

    set_seed(args.seed)
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    shape = {name: getattr(args, name) for name in ("width", "layers", "heads", "block_size", "dropout")}
    kind = AutoModelForMaskedLM if args.peer == "run_mlm" else AutoModelForCausalLM
    model = kind.from_config(model_config(args.peer, tokenizer, **shape))
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(args.output),
            max_steps=args.steps,
            per_device_train_batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            lr_scheduler_type=args.schedule,
            warmup_steps=args.warmup_steps,
            bf16=args.bf16,
            torch_compile=args.compile,
            seed=args.seed,
            use_cpu=not _on_gpu(),
            # Checkpoints would only cost it time; a log costs nothing and gives the curve.
            save_strategy="no",
            logging_steps=args.logging_steps,
            disable_tqdm=True,
        ),
        train_dataset=load_from_disk(str(args.data)),
        data_collator=DataCollatorForLanguageModeling(tokenizer) if args.peer == "run_mlm" else default_data_collator,
        callbacks=[Clock()],
    )
    trainer.train()
    trainer.save_model(str(args.output))
    return stamps | {
        "saved_seconds": time.time() - args.started,
        "tokens": args.steps * args.batch_size * args.block_size,
        "parameters": model.num_parameters(),
        "log": log,
    }


def _on_gpu() -> bool:
    import torch

    return torch.accelerator.is_available()


def write_grouped(parquet: Path, tokenizer, block_size: int, output: Path) -> None:
    """Blocks as the examples' `group_texts` makes them, all columns kept, as a `datasets` directory.

    A causal tokenizer is made to put eos after every text, as nanoGPT's preparation does: without it no model could
    tell where a text ends, and ours can.
    """
    import tempfile

    from lm_recipes.evaluation.corpus_peers import grouped

    masked = tokenizer.mask_token_id is not None
    tokenize = partial(tokenizer, return_special_tokens_mask=True) if masked else with_eos(tokenizer)
    with tempfile.TemporaryDirectory() as scratch:
        blocks = grouped(parquet, tokenize, block_size, None, Path(scratch))
        if masked:  # run_mlm's has none; its collator makes them
            blocks = blocks.remove_columns("labels")
        blocks.save_to_disk(str(output))


def with_eos(tokenizer):
    """A copy of a tokenizer that puts eos after every text."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    copy = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    special = [(copy.eos_token, copy.eos_token_id)]
    copy.backend_tokenizer.post_processor = TemplateProcessing(single=f"$A {copy.eos_token}", special_tokens=special)
    return copy


def stream_of(texts: Iterable[str], tokenizer) -> np.ndarray:
    """All texts as one row of ids, an eos before the first and after every one: uint16 (uint32 beyond 65,536 ids)."""
    from lm_recipes.tokenization.fast import encode_batches

    dtype = np.uint16 if len(tokenizer) <= 2**16 else np.uint32
    parts = [np.array([tokenizer.eos_token_id], dtype)]
    for ids, offsets in encode_batches(tokenizer, texts):
        parts.append(np.insert(ids, offsets[1:], tokenizer.eos_token_id).astype(dtype))
    return np.concatenate(parts)


def matched_shape(count: Callable[[int, int, int], int], parameters: int, layers: int) -> tuple[int, int, int]:
    """Width, layers and heads whose model comes within 2 % of `parameters`: as deep as asked for if that can be.

    Of the shapes tried on two cores at 1.84M parameters, the one as deep as ours was the fastest; deeper and narrower
    ones took longer for a step.

    Args:
        count: parameters of a model of (width, layers, heads); grows with the width.
    """
    for depth in (layers, layers + 1, layers - 1, layers + 2, layers + 3):
        low, high = 2, 2048  # widths in fours
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if count(*_shape(4 * middle, depth)) < parameters else (low, middle)
        shapes = [_shape(4 * width, depth) for width in (low - 1, low)] if depth > 0 else []
        off, shape = min(((abs(count(*shape) / parameters - 1), shape) for shape in shapes), default=(1.0, None))
        if off <= 0.02:
            return shape
    raise UserError(f"no {layers}-layer model of the peer has {parameters:,} parameters within 2 %; use another size")


def _shape(width: int, layers: int) -> tuple[int, int, int]:
    heads = [n for n in range(1, width) if width % n == 0]
    return width, layers, min(heads, key=lambda n: abs(width / n - 64))


def parameters_of(peer: str, tokenizer, block_size: int) -> Callable[[int, int, int], int]:
    """For `matched_shape`: a count without the memory. Embeddings are included, shared ones once."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    kind = AutoModelForMaskedLM if peer == "run_mlm" else AutoModelForCausalLM

    def count(width: int, layers: int, heads: int) -> int:
        config = model_config(peer, tokenizer, width=width, layers=layers, heads=heads, block_size=block_size)
        with torch.device("meta"):
            return kind.from_config(config).num_parameters()

    return count


# ---- nanoGPT


def nanogpt(args: argparse.Namespace) -> dict:
    """Run train.py of a checkout with the settings its README gives for a CPU, our shape, and what the flags say.

    It has no flag for the seed: `write_stream` turns the text instead. On a CPU it trains in fp32 whatever `dtype`
    says. It evaluates before step 0 and wherever it saves; two batches then, so that this costs it nothing.
    """
    check_nanogpt(args.nanogpt)
    rate = args.learning_rate
    flags = {
        # what its README adds for a CPU, and its config for small runs
        "device": "cuda" if _on_gpu() else "cpu", "compile": args.compile, "dropout": 0.0, "warmup_iters": 100,
        "beta2": 0.99, "gradient_accumulation_steps": 1, "dtype": "bfloat16",
        # the comparison's
        "dataset": str(args.data.resolve()), "out_dir": str(args.output.resolve()), "n_embd": args.width,
        "n_layer": args.layers, "n_head": args.heads, "block_size": args.block_size, "batch_size": args.batch_size,
        "learning_rate": rate, "min_lr": rate / 10, "max_iters": args.steps, "lr_decay_iters": args.steps,
        "eval_interval": args.steps, "eval_iters": 1, "log_interval": args.logging_steps,
    }  # fmt: skip
    command = [sys.executable, "-u", "train.py", *(f"--{name}={value}" for name, value in flags.items())]
    stamps, log = {}, []
    with subprocess.Popen(
        command, cwd=args.nanogpt, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as run:
        for line in run.stdout:
            print(line, end="")  # into the log of this process
            if said := re.match(r"iter (\d+): loss ([\d.]+|nan)", line):
                entry = {"step": int(said[1]) + 1, "seconds": time.time() - args.started, "loss": float(said[2])}
                log.append(entry)
                stamps.setdefault("first_step_seconds", entry["seconds"])
            elif said := re.match(r"step \d+: train loss [\d.]+, val loss ([\d.]+)", line):
                stamps["its_own_validation_loss"] = float(said[1])
    checkpoint = args.output / "ckpt.pt"
    if run.returncode or not checkpoint.is_file():
        raise UserError(
            f"{args.nanogpt}: train.py ended with {run.returncode} and no checkpoint; the log has its reason"
        )
    saved = checkpoint.stat().st_mtime - args.started
    model = gpt2_of_nanogpt(checkpoint)
    checkpoint.unlink()
    model.save_pretrained(args.output)
    return stamps | {
        "saved_seconds": saved,
        "tokens": args.steps * args.batch_size * args.block_size,
        "parameters": model.num_parameters(),
        "log": log[:-1] if log and log[-1]["step"] > args.steps else log,
    }


def check_nanogpt(directory: Path | None) -> None:
    """UserError unless this is a checkout of nanoGPT."""
    if directory is None or not Path(directory, "train.py").is_file():
        raise UserError(f"--nanogpt {directory}: no train.py there; clone https://github.com/karpathy/nanoGPT")


def write_stream(train: np.ndarray, validation: np.ndarray, vocab_size: int, seed: int, output: Path) -> None:
    """The directory that nanoGPT calls a dataset: train.bin, val.bin, meta.pkl. The seed turns the text by a share."""
    output.mkdir(parents=True, exist_ok=True)
    np.roll(train, seed * (len(train) // 17)).tofile(output / "train.bin")
    validation.tofile(output / "val.bin")
    (output / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": vocab_size}))


def gpt2_of_nanogpt(checkpoint: Path):
    """A nanoGPT checkpoint as transformers' GPT-2: the same function, in a form that is evaluated like the others.

    nanoGPT's linear layers hold [out, in], GPT-2's [in, out]; absent biases are zero; its GELU is the exact one.
    """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    shape = saved["model_args"]
    config = GPT2Config(
        vocab_size=shape["vocab_size"], n_embd=shape["n_embd"], n_layer=shape["n_layer"], n_head=shape["n_head"],
        n_positions=shape["block_size"], activation_function="gelu", bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    weights = {name: torch.zeros_like(value) for name, value in model.state_dict().items() if name.endswith(".bias")}
    for name, value in saved["model"].items():
        name = name.removeprefix("_orig_mod.")  # of a compiled model
        if not name.endswith((".attn.bias", ".attn.masked_bias")):  # buffers of its slow attention
            weights[name] = value.t() if name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")) else value
    model.load_state_dict(weights)
    return model


if __name__ == "__main__":
    main()
