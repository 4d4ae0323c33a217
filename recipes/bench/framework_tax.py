"""What does training through our Trainer cost over a bare PyTorch loop? Steps of both in turn, in one process.

Initial weights, rows, collator, loss, optimizer and autocast are the same; Trainer has its data loader, callbacks and
logs, the loop has nothing. A turn is `--steps_per_turn` steps of Trainer, then as many of the loop; the ratio is the
median over turns. At the end the weights of both have to be the same.
"""

import copy
import time
from dataclasses import asdict, dataclass, field
from statistics import median

from lm_recipes.launch import UserError, done, parse, recipe

RATES = {"learning_rate": 5e-3, "muon_learning_rate": 0.03}


@dataclass
class FrameworkTaxBench:
    """Which model, how many steps, and where the record goes."""

    run_dir: str = field(default="runs/quickstart", metadata={"help": "Has packed-* and tokenizer-* directories."})
    size: str = field(default="1M", metadata={"help": "Size dial."})
    batch_size: int = field(default=16, metadata={"help": "Rows per step."})
    turns: int = field(default=100, metadata={"help": "Turns that count."})
    warmup: int = field(default=10, metadata={"help": "Turns that do not."})
    steps_per_turn: int = field(default=1, metadata={"help": "Steps of each side in a turn; on a GPU take 20."})
    attn_implementation: str = field(default="eager", metadata={"help": "eager is faster on a CPU; on a GPU sdpa."})
    output_dir: str = field(default="runs/bench-framework-tax", metadata={"help": "Directory for results.json."})


def main() -> None:
    (args,) = parse(FrameworkTaxBench, description=__doc__)

    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, TrainerCallback, set_seed

    from lm_recipes.artifacts import atomic_directory, write_results
    from lm_recipes.launch import has_bf16
    from lm_recipes.models import decoder_config, encoder_config, isolation_of
    from lm_recipes.objectives import CausalLanguageModeling, MaskedLanguageModeling, read_packed
    from lm_recipes.training.arguments import PretrainingArguments
    from lm_recipes.training.loss import LanguageModelLoss, WithAsked
    from lm_recipes.training.optimizer import MuonAdamW
    from lm_recipes.training.trainer import LanguageModelTrainer

    on_cpu = not torch.accelerator.is_available()
    device = torch.device("cpu") if on_cpu else torch.accelerator.current_accelerator()
    bf16, steps = has_bf16(on_cpu), (args.warmup + args.turns) * args.steps_per_turn

    def bare_loop(model, collator, rows):
        """One optimizer step per `next`, as one would write it by hand."""
        collator, loss_of = WithAsked(collator), LanguageModelLoss(model, True, torch.bfloat16 if bf16 else None)
        optimizer = MuonAdamW(model.train(), **RATES)
        forward = torch.autocast(device.type, torch.bfloat16, enabled=bf16)(model.forward)
        for first in range(0, len(rows), args.batch_size):
            batch = collator([rows[row] for row in range(first, first + args.batch_size)])
            batch = {name: _to(value, device) for name, value in batch.items()}
            nats, added = loss_of(forward, batch)
            (nats / (batch["labels"] != -100).sum() + added).backward()
            optimizer.step()
            optimizer.zero_grad()
            yield

    class InTurn(TrainerCallback):
        """Lets the loop do its steps whenever Trainer has done its own, and times both."""

        def __init__(self, loop) -> None:
            self.loop, self.times = loop, {"trainer": [], "loop": []}

        def now(self) -> float:
            if not on_cpu:
                torch.accelerator.synchronize()
            return time.perf_counter()

        def on_train_begin(self, _, state, control, **kwargs) -> None:
            self.mark = self.now()

        def on_step_end(self, _, state, control, **kwargs) -> None:
            if state.global_step % args.steps_per_turn == 0:
                between = self.now()
                for _ in range(args.steps_per_turn):
                    next(self.loop)
                self.times["trainer"].append(between - self.mark)
                self.mark = self.now()
                self.times["loop"].append(self.mark - between)

    def measure(track: str, scratch) -> dict:
        tokenizer = AutoTokenizer.from_pretrained(f"{args.run_dir}/tokenizer-{track}")
        corpus = read_packed(f"{args.run_dir}/packed-{track}")
        rows = corpus.train.select(row % len(corpus.train) for row in range(steps * args.batch_size))
        set_seed(0)
        if track == "gpt":
            config, kind = decoder_config(args.size, tokenizer, corpus.block_size), AutoModelForCausalLM
            collator = CausalLanguageModeling(tokenizer.pad_token_id)
        else:
            config, kind = encoder_config(args.size, tokenizer, corpus.block_size), AutoModelForMaskedLM
            isolation = isolation_of(config, args.attn_implementation)
            collator = MaskedLanguageModeling(tokenizer, 0.3, isolation=isolation)
        model = kind.from_config(config, attn_implementation=args.attn_implementation)
        twin = copy.deepcopy(model).to(device)
        clock = InTurn(bare_loop(twin, copy.deepcopy(collator), rows))
        trainer = LanguageModelTrainer(
            model=model, train_dataset=rows, data_collator=collator, eval_collator=collator, callbacks=[clock],
            args=PretrainingArguments(
                output_dir=scratch, max_steps=steps, per_device_train_batch_size=args.batch_size, bf16=bf16,
                lr_scheduler_type="constant", warmup_steps=0, weight_decay=0.0, max_grad_norm=0.0, **RATES,
                train_sampling_strategy="sequential", use_cpu=on_cpu, save_strategy="no", disable_tqdm=True,
            ),
        )  # fmt: skip
        trainer.train()
        ours, bare = (clock.times[name][args.warmup :] for name in ("trainer", "loop"))
        pairs = zip(model.parameters(), twin.parameters(), strict=True)
        apart = max(float((a - b).detach().abs().max()) for a, b in pairs)
        if not apart < 1e-2:  # zero on a CPU; some of a GPU's kernels add up in any order
            raise UserError(
                f"{track}: the two trained differently (weights {apart:.2g} apart), so do not compare times"
            )
        return {
            "ratio": median(a / b for a, b in zip(ours, bare, strict=True)),
            "trainer_milliseconds": 1000 * median(ours) / args.steps_per_turn,
            "bare_loop_milliseconds": 1000 * median(bare) / args.steps_per_turn,
            "largest_difference_of_weights": apart,
        }

    start = time.perf_counter()
    with atomic_directory(args.output_dir) as directory:
        metrics = {track: measure(track, directory) for track in ("gpt", "bert")}
        config = asdict(args) | {"bf16": bf16, "device": str(device), "threads": torch.get_num_threads()}
        inputs = {track: f"{args.run_dir}/packed-{track}" for track in metrics}
        write_results(
            directory, config=config, inputs=inputs, metrics=metrics, seconds={"total": time.perf_counter() - start}
        )
    done("the framework's tax", args.output_dir, f"python recipes/report.py --keep {args.output_dir}")


def _to(value, device):
    """Tensors, also those in dicts (ModernBERT's masks), on a device."""
    if isinstance(value, dict):
        return {name: _to(one, device) for name, one in value.items()}
    return value.to(device) if hasattr(value, "to") else value


if __name__ == "__main__":
    recipe(main)
