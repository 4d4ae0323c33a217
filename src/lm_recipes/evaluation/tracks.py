"""Encoder, decoder, or both in one: which runs answer that, and what did they find?"""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev

from lm_recipes.artifacts import fingerprint, read_json
from lm_recipes.launch import UserError
from lm_recipes.models.size import Size

RECIPES = Path("recipes")
REFERENCE = "TF-IDF + logistic regression"


@dataclass(frozen=True)
class Task:
    """Texts of one class each, out of which `labels` many are learned from."""

    source: str
    max_length: int  # tokens; longer texts are cut
    rows: int  # to learn from, at most
    tokens: float  # of a row, on average, cut and with its two special tokens


# Rows and tokens (of the quickstart's BPE) are for the plan alone. A topic shows in the first sentence.
TASKS = {
    "sentiment": Task("demo:movie-reviews", 128, 8_103, 37),
    "topic": Task("demo:wiki-topics", 48, 7_257, 47.5),
    "question": Task("demo:question-types", 64, 4_243, 18),
}

# What is compared: whose weights, and how they are read and moved while a task is learned.
_PRETRAINED = ("--embedding_rate_factor", "5")  # embeddings are large after so little; see `FineTuningTrainer`
TRACKS = {
    "encoder": ("encoder", _PRETRAINED),
    "decoder": ("decoder", _PRETRAINED),
    "hybrid, left to right": ("hybrid", _PRETRAINED),
    "hybrid, both ways": ("hybrid", ("--bidirectional", "True", *_PRETRAINED)),
    "encoder, not pretrained": ("encoder", ("--from_scratch", "True")),
    "decoder, not pretrained": ("decoder", ("--from_scratch", "True")),
}

# transformers has no classifier for the other decoders.
FAMILIES = ("qwen3", "llama", "gpt2")

# Every cell tries all of them with its first seed, and takes what is best on validation for all seeds.
LEARNING_RATES = (5e-4, 1e-3, 3e-3)
ROWS_SEEN, MOST_EPOCHS = 5_000, 10

# Seen on two cores at size 1M: tokens a second in training and, of each of two tasks at a time, in learning and in
# predicting it; seconds that a process takes to start.
TRAINING, FINE_TUNING, PREDICTING, START = 20_000, 12_000, 40_000, 10


@dataclass(frozen=True)
class Run:
    """One run of a script, which is finished when its directory has a `results.json`."""

    name: str
    script: Path
    flags: tuple[str, ...]
    output_dir: Path
    seconds: float  # as estimated
    at_a_time: int = 1  # of its kind

    @property
    def command(self) -> list[str]:
        return [os.path.relpath(self.script), *self.flags, "--output_dir", str(self.output_dir)]

    def record(self) -> dict | None:
        """What an earlier start of this run wrote; None if it did not finish.

        Raises:
            UserError: another command wrote it, or its inputs have changed since.
        """
        if not (self.output_dir / "results.json").exists():
            return None
        record = read_json(self.output_dir / "results.json", "results")
        if record["command"] != " ".join(["python", *self.command]):
            raise UserError(f"{self.output_dir}: made by another command; delete it or choose another --output_dir")
        for name, made_from in record["inputs"].items():
            if made_from["fingerprint"] and fingerprint(made_from["path"]) != made_from["fingerprint"]:
                raise UserError(f"{self.output_dir}: its {name}, {made_from['path']}, has changed since; delete it")
        return record

    def carry_out(self, environment: dict[str, str] | None = None) -> dict:
        """Run the script to its end, its words beside the output (`<name>.log`), and read what it wrote.

        Args:
            environment: what differs from this process's.

        Raises:
            UserError: it failed, with its last line.
        """
        log = self.output_dir.with_name(f"{self.output_dir.name}.log")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as stream:
            ended = subprocess.run(
                [sys.executable, *self.command], stdout=stream, stderr=subprocess.STDOUT,
                env=os.environ | (environment or {}),
            )  # fmt: skip
        if ended.returncode:
            (self.output_dir / "results.json").unlink(missing_ok=True)  # what came after it is missing
            said = log.read_text(encoding="utf-8").strip().splitlines() or ["no word"]
            raise UserError(f"{self.name}: failed ({said[-1]}); all it said is in {log}")
        return self.record()


def pretraining_runs(
    root: Path, *, corpus: str, size: str, family: str, vocab_size: int, block_size: int, tokens: int
) -> list[Run]:
    """Tokenizer, packed blocks and the three models: the same tokens for all, in the same blocks.

    Rates and schedule are those of the tracks' quickstarts; the hybrid has the decoder's.

    Raises:
        UserError: there is no such size, or no classifier for such a family.
    """
    if family not in FAMILIES:
        raise UserError(f"--family {family}: transformers has classifiers for {', '.join(FAMILIES)}; take one of these")
    rows = max(4_096 // block_size, 1)
    steps = max(tokens // (rows * block_size), 1)
    tokenizer, packed = root / "tokenizer", root / "packed"
    made = ("--data", str(packed), "--tokenizer_name_or_path", str(tokenizer))
    shared = (*made, "--size", size, "--max_steps", str(steps), "--per_device_train_batch_size", str(rows))
    shared = (*shared, "--per_device_eval_batch_size", str(2 * rows), "--eval_strategy", "no")
    decoder = ("--config", str(RECIPES / "gpt/configs/pretrain-quickstart.yaml"), "--family", family, *shared)
    encoder = ("--config", str(RECIPES / "bert/configs/pretrain-quickstart.yaml"), *shared)
    learn = ("--data", corpus, "--model_type", "bpe", "--vocab_size", str(vocab_size), "--reserved_tokens", "mask")
    cut = ("--data", corpus, "--tokenizer_name_or_path", str(tokenizer), "--block_size", str(block_size))
    seconds = START + tokens * cost(size, vocab_size) / TRAINING
    gpt = RECIPES / "gpt/pretrain.py"
    return [
        Run("tokenizer", RECIPES / "corpus/train_tokenizer.py", learn, tokenizer, START),
        Run("packed", RECIPES / "corpus/pack.py", cut, packed, START),
        Run("encoder", RECIPES / "bert/pretrain.py", encoder, root / "encoder", seconds),
        Run("decoder", gpt, decoder, root / "decoder", seconds),
        Run("hybrid", gpt, (*decoder, "--objective", "hybrid"), root / "hybrid", seconds),
    ]


def finetuning_runs(
    root: Path, tasks: Sequence[str], labels: Sequence[str], *, num_seeds: int, jobs: int, size: str, vocab_size: int
) -> dict[tuple[str, str, str], Run]:
    """A run for each task, number of labels ("300", "all") and track, with a sweep of rates and all its seeds.

    Args:
        jobs: how many of them are run at a time.

    Raises:
        UserError: there is no such task, or a number of labels is none.
    """
    runs = {}
    for name in tasks:
        for number in labels:
            if number != "all" and not number.isdecimal():
                raise UserError(f"--labels {number}: neither a number nor all")
            rows = known_task(name).rows if number == "all" else int(number)
            for track in TRACKS:
                run = _finetuning_run(root, name, number, rows, track, num_seeds, cost(size, vocab_size))
                runs[name, number, track] = replace(run, at_a_time=jobs)
    return runs


def _finetuning_run(root: Path, name: str, number: str, rows: int, track: str, num_seeds: int, weight: float) -> Run:
    task, (model, options) = known_task(name), TRACKS[track]
    epochs = min(max(round(ROWS_SEEN / rows), 1), MOST_EPOCHS)
    few = () if number == "all" else ("--train_rows", number)
    flags = ("--model_name_or_path", str(root / model), "--source", task.source, "--max_length", str(task.max_length))
    flags = (*flags, *options, *few, "--num_train_epochs", str(epochs), "--num_seeds", str(num_seeds))
    flags = (*flags, "--learning_rates", *map(str, LEARNING_RATES), "--attn_implementation", "eager")
    flags = (*flags, "--lr_scheduler_type", "linear", "--warmup_steps", "0.1", "--weight_decay", "0.01")
    flags = (*flags, "--per_device_train_batch_size", "32", "--per_device_eval_batch_size", "128")
    flags = (*flags, "--train_sampling_strategy", "group_by_length", "--eval_strategy", "no", "--save_strategy", "no")
    learned, predicted = rows * epochs * task.tokens / FINE_TUNING, 0.25 * task.rows * task.tokens / PREDICTING
    seconds = START + (len(LEARNING_RATES) + num_seeds - 1) * (learned + predicted) * weight
    directory = "-".join([name, number, *track.replace(",", "").split()])
    script = RECIPES / "bert/classify.py"
    return Run(f"{name}, {number} labels: {track}", script, (*flags, "--baselines", "False"), root / directory, seconds)


def known_task(name: str) -> Task:
    if name not in TASKS:
        raise UserError(f"--tasks {name}: there is no such task; choose of {', '.join(TASKS)}")
    return TASKS[name]


def cost(size: str, vocab_size: int) -> float:
    """What a token costs, against size 1M and 4,096 entries: the parameters it meets."""
    return _met(size, vocab_size) / _met("1M", 4_096)


def _met(size: str, vocab_size: int) -> int:
    return Size.named(size).parameters + Size.named(size).width * vocab_size


def plan(runs: Sequence[Run]) -> tuple[str, float]:
    """The runs with their minutes, measured or estimated, as a table to read; and the minutes that are left.

    Estimates are corrected by what finished runs have taken.
    """
    records = {run.name: run.record() for run in runs}
    taken = {run.name: records[run.name]["seconds"].get("total", run.seconds) for run in runs if records[run.name]}
    pace = sum(taken.values()) / sum(run.seconds for run in runs if run.name in taken) if taken else 1.0
    lines = []
    for run in runs:
        minutes = taken.get(run.name, run.seconds * pace) / 60
        lines.append(f"{'done' if run.name in taken else '    '}  {minutes:5.1f} min  {run.name}")
    left = sum(run.seconds / run.at_a_time for run in runs if run.name not in taken) * pace / 60
    return "\n".join([*lines, f"{len(runs)} runs, {len(taken)} done; {left:.0f} minutes left"]), left


def reference(task: Task, number: str, num_seeds: int, tokenizer) -> dict:
    """What TF-IDF and logistic regression reach from the same rows of the same seeds, reading as much of a text."""
    from lm_recipes.evaluation.baselines import tfidf_logistic_regression
    from lm_recipes.sources.labelled import few_labels, load_labelled

    rows, _ = load_labelled(task.source)
    options = {"truncation": True, "max_length": task.max_length - 2}  # a model's texts have two special tokens

    def read(split) -> tuple[list[str], list[int]]:
        return tokenizer.batch_decode(tokenizer(list(split["text"]), **options)["input_ids"]), list(split["labels"])

    validation, test = read(rows["validation"]), read(rows["test"])
    per_seed = []
    for seed in range(num_seeds if number != "all" else 1):
        few = few_labels(rows["train"], None if number == "all" else int(number), seed)
        per_seed.append(tfidf_logistic_regression(read(rows["train"].select(few)), validation, test))
    return _summary(per_seed)


def found(record: dict) -> dict:
    """Of a fine-tuning: test accuracy of each seed, their mean and standard deviation, the rate, what was learned."""
    metrics = record["metrics"]
    return _summary([run["test"] for run in metrics["per_seed"]]) | {
        "learning_rate": metrics["learning_rate"],
        "validation_accuracy_by_learning_rate": metrics["validation_accuracy_by_learning_rate"],
        "train_rows": metrics["train_rows"],
    }


def _summary(accuracies: Sequence[float]) -> dict:
    spread = stdev(accuracies) if len(accuracies) > 1 else None
    return {"accuracy": mean(accuracies), "standard_deviation": spread, "per_seed": list(accuracies)}
