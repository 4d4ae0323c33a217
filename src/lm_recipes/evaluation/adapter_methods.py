"""Which ways of fine-tuning are compared, on which tasks, and what does a run of each give?"""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

from lm_recipes.artifacts import read_json
from lm_recipes.evaluation.runs import Runs, launch

RECIPES = Path(__file__).parents[3] / "recipes"


@dataclass(frozen=True)
class Task:
    """A script with its config, and how much training each method gets.

    Attributes:
        seconds: that a run with LoRA takes on two cores; for the plan alone.
        score: of the test split, in the run's results.
        budget: what `flags` mean, in words that stand above the table.
    """

    script: str
    config: str
    flags: tuple[str, ...]
    seconds: float
    score: str
    budget: str


TASKS = {
    "sentiment": Task(
        "bert/classify.py", "bert/configs/classify-minilm-lora.yaml",
        ("--train_rows", "2000", "--num_train_epochs", "1", "--per_device_train_batch_size", "16",
         "--baselines", "False"),
        55, "accuracy",
        "MiniLM-L6 on film reviews: one pass over 2,000 of them, the best of three learning rates on validation, one "
        "seed. In brackets what resampling the test rows gives (95 %): methods closer than that are not told apart.",
    ),
    "dialogues": Task(
        "gpt/sft.py", "gpt/configs/sft-smollm2-lora.yaml",
        ("--max_steps", "30", "--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "1",
         "--max_length", "512", "--general", "", "--eval_strategy", "no", "--save_strategy", "no"),
        150, "bits_per_byte",
        "SmolLM2-135M-Instruct on doctor-patient dialogues: 30 steps of two rows of 512 tokens, one seed, and one "
        "learning rate for each kind of method that nobody tuned: less is better, and small differences say nothing.",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Method:
    """What a way of fine-tuning changes in a task's config.

    Attributes:
        flags: of both scripts.
        rates: per task the learning rates; of several the best on validation is taken.
        needs: a package that it cannot do without.
    """

    flags: tuple[str, ...]
    rates: dict[str, tuple[float, ...]]
    needs: str | None = None


LORA = {"sentiment": (5e-4, 1e-3, 2e-3), "dialogues": (5e-4,)}
ALL = {"sentiment": (5e-5, 1e-4, 2e-4), "dialogues": (5e-5,)}  # a tenth of LoRA's (LoRA Without Regret)
FEW = {"sentiment": (3e-3, 1e-2, 3e-2), "dialogues": (1e-2,)}  # few parameters take larger steps
METHODS = {
    "all weights": Method(("--use_peft", "False"), ALL),
    "head only": Method(("--use_peft", "False", "--freeze_encoder", "True"), {"sentiment": (1e-3, 3e-3, 1e-2)}),
    "LoRA": Method((), LORA),
    "rsLoRA, rank 64": Method(("--lora_r", "64", "--use_rslora", "True"), LORA),
    "DoRA": Method(("--use_dora", "True"), LORA),
    "PiSSA": Method(("--peft_settings", "init_lora_weights=pissa"), LORA),
    "QLoRA": Method(("--load_in_4bit", "True"), LORA, needs="bitsandbytes"),
    "OFT": Method(("--peft_method", "oft"), LORA),
    "IA3": Method(("--peft_method", "ia3"), FEW),
}


def command(task: str, name: str, rate: float, output: Path, max_steps: int | None = None) -> list[object]:
    """The script and its flags; later flags win over earlier ones and over the config."""
    about = TASKS[task]
    return [
        RECIPES / about.script, "--config", RECIPES / about.config, *about.flags, "--merge_adapter", "False",
        *METHODS[name].flags, "--learning_rate", rate, *(("--max_steps", max_steps) if max_steps else ()),
        "--output_dir", output,
    ]  # fmt: skip


def budget(task: str, max_steps: int | None = None) -> str:
    """What each method is given, in words."""
    return (f"A trial of {max_steps} steps instead of: " if max_steps else "") + TASKS[task].budget


def measured(runs: Runs, task: str, name: str, rate: float, max_steps: int | None = None) -> dict | None:
    """One run: scores on `test` and, with several rates to choose from, on `validation`; `trainable` and all
    `parameters`, `saved_bytes`, `peak_bytes`, `train_seconds`. None: not made yet, in a plan.
    """
    words = [str(word) for word in command(task, name, rate, Path("model"), max_steps)]
    settings = {"words": [word.removeprefix(str(RECIPES)) for word in words]}

    def train(directory: Path) -> dict:
        model, memory = directory / "model", directory / "memory.json"
        wrapper = ["-m", "lm_recipes.evaluation.peak_memory", memory]
        launch([*wrapper, *command(task, name, rate, model, max_steps)], directory)
        found = _result(TASKS[task], model) | {"peak_bytes": max(read_json(memory, "peak memory").values())}
        shutil.rmtree(model)
        return found

    return runs(f"{task} {name} {rate:g}", settings, TASKS[task].seconds, train)


def _result(task: Task, model: Path) -> dict:
    record = read_json(model / "results.json", "results")
    metrics = record["metrics"]
    weights = [file for file in model.glob("*.safetensors") if file.name.startswith(("adapter_model", "model"))]
    return {
        "validation": metrics.get("validation", {}).get(task.score),
        "test": {name: value for name, value in metrics["test"].items() if name.startswith(task.score)},
        "trainable": metrics["trainable_parameters"],
        "parameters": metrics["parameters"],
        "saved_bytes": sum(file.stat().st_size for file in weights),
        "train_seconds": record["seconds"]["train"],
    }


def compared(runs: Runs, task: str, name: str, max_steps: int | None = None) -> dict | None:
    """A method's run at the `learning_rate` that is best on validation; None: there are runs to be made yet."""
    tried = {rate: measured(runs, task, name, rate, max_steps) for rate in METHODS[name].rates[task]}
    if None in tried.values():
        return None
    rate = best(tried)
    return {"learning_rate": rate} | tried[rate]


def best(tried: dict[float, dict]) -> float:
    """The learning rate with the highest score on validation; one that diverged is none."""

    def goodness(rate: float) -> float:
        score = tried[rate]["validation"]
        return score if score is not None and math.isfinite(score) else -math.inf

    return max(tried, key=goodness)
