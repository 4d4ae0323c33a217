"""Which ways of fine-tuning are compared, on which tasks, and what does a run of each give?"""

import json
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

from lm_recipes.artifacts import read_json
from lm_recipes.evaluation.runs import Runs, launch

RECIPES = Path(__file__).parents[3] / "recipes"


@dataclass(frozen=True)
class Task:
    """A script with its config.

    Attributes:
        seconds: that a run with LoRA takes on two cores; for the plan alone.
        score: of the test split, in the run's results.
        sign: 1 where more is better, -1 where less is.
        attention: names of the query and value layers.
    """

    script: str
    config: str
    seconds: float
    score: str
    sign: int
    attention: tuple[str, str]
    flags: tuple[str, ...] = ()


TASKS = {
    "sentiment": Task(
        "bert/classify.py", "bert/configs/classify-minilm-lora.yaml", 240, "accuracy", 1, ("query", "value"),
        ("--baselines", "False", "--num_seeds", "1"),
    ),
    "dialogues": Task(
        "gpt/sft.py", "gpt/configs/sft-smollm2-lora.yaml", 620, "bits_per_byte", -1, ("q_proj", "v_proj"),
        ("--save_strategy", "no"),
    ),
}  # fmt: skip

LORA_RATES = {"sentiment": (5e-4, 1e-3, 2e-3), "dialogues": (2.5e-4, 5e-4, 1e-3)}
SMALL_RATES = {"sentiment": (3e-3, 1e-2, 3e-2), "dialogues": (3e-3, 1e-2, 3e-2)}  # few parameters take larger steps


@dataclass(frozen=True)
class Method:
    """What a way of fine-tuning changes in a task's config.

    Attributes:
        flags: of the script; "ATTENTION" stands for the names of the task's query and value layers.
        rates: per task the learning rates to choose from, on validation.
        needs: a package that it cannot do without.
    """

    flags: tuple[str, ...] = ()
    rates: dict[str, tuple[float, ...]] = field(default_factory=lambda: LORA_RATES)
    needs: str | None = None


METHODS = {
    "all weights": Method(
        ("--use_peft", "False"), {"sentiment": (5e-5, 1e-4, 2e-4), "dialogues": (2.5e-5, 5e-5, 1e-4)}
    ),
    "head only": Method(("--use_peft", "False", "--freeze_encoder", "True"), {"sentiment": (1e-3, 3e-3, 1e-2)}),
    "LoRA": Method(),
    "LoRA, rank 2": Method(("--lora_r", "2")),
    "LoRA, rank 64": Method(("--lora_r", "64")),
    "LoRA, query and value": Method(("--lora_target_modules", "ATTENTION")),
    "rsLoRA, rank 64": Method(("--lora_r", "64", "--use_rslora", "True")),
    "DoRA": Method(("--use_dora", "True")),
    "PiSSA": Method(("--peft_settings", "init_lora_weights=pissa")),
    "OLoRA": Method(("--peft_settings", "init_lora_weights=olora")),
    "QLoRA": Method(("--load_in_4bit", "True"), needs="bitsandbytes"),
    "IA3": Method(("--peft_method", "ia3"), SMALL_RATES),
    "VeRA": Method(("--peft_method", "vera"), SMALL_RATES),
    "OFT": Method(("--peft_method", "oft")),
}


def command(task: str, name: str, rate: float, seed: int, output: Path, max_steps: int = -1) -> list[object]:
    """The script and its flags; later flags win over earlier ones and over the config."""
    asked = []
    for word in METHODS[name].flags:
        asked += TASKS[task].attention if word == "ATTENTION" else [word]
    about = TASKS[task]
    return [
        RECIPES / about.script, "--config", RECIPES / about.config, *about.flags, "--merge_adapter", "False", *asked,
        "--learning_rate", rate, "--seed", seed, "--max_steps", max_steps, "--output_dir", output,
    ]  # fmt: skip


def measured(runs: Runs, task: str, name: str, rate: float, seed: int, max_steps: int = -1) -> dict | None:
    """One run: `validation` and `test` scores, `trainable` and all `parameters`, `saved_bytes`, `peak_bytes`,
    `train_seconds`. None: not made yet, in a plan.
    """
    words = [str(word) for word in command(task, name, rate, seed, Path("model"), max_steps)]
    settings = {"words": [word.removeprefix(str(RECIPES)) for word in words]}

    def train(directory: Path) -> dict:
        model, memory = directory / "model", directory / "memory.json"
        wrapper = ["-m", "lm_recipes.evaluation.peak_memory", memory]
        launch([*wrapper, *command(task, name, rate, seed, model, max_steps)], directory)
        found = _result(TASKS[task], model) | {"peak_bytes": max(read_json(memory, "peak memory").values())}
        shutil.rmtree(model)
        return found

    return runs(f"{task} {name} {rate:g} seed {seed}", settings, TASKS[task].seconds, train)


def _result(task: Task, model: Path) -> dict:
    record = read_json(model / "results.json", "results")
    metrics = record["metrics"]
    if "validation" in metrics:
        validation = metrics["validation"][task.score]
    else:
        history = json.loads((model / "trainer_state.json").read_text())["log_history"]
        validation = [entry["eval_loss"] for entry in history if "eval_loss" in entry][-1]
    weights = [file for file in model.glob("*.safetensors") if file.name.startswith(("adapter_model", "model"))]
    return {
        "validation": validation,
        "test": metrics["test"][task.score],
        "trainable": metrics["trainable_parameters"],
        "parameters": metrics["parameters"],
        "saved_bytes": sum(file.stat().st_size for file in weights),
        "train_seconds": record["seconds"]["train"],
    }


def compared(runs: Runs, task: str, name: str, seeds: list[int], max_steps: int = -1) -> dict | None:
    """The best learning rate of a method on validation, by the first seed, and its runs with all seeds."""
    rates = METHODS[name].rates[task]
    tried = {rate: measured(runs, task, name, rate, seeds[0], max_steps) for rate in rates}
    if None in tried.values():
        for seed in seeds[1:]:  # so that a plan counts them; their rate is not known yet
            measured(runs, task, name, rates[0], seed, max_steps)
        return None
    rate = best(tried, TASKS[task].sign)
    made = [tried[rate], *(measured(runs, task, name, rate, seed, max_steps) for seed in seeds[1:])]
    if None in made:
        return None
    means = {key: mean(run[key] for run in made) for key in ("validation", "test", "train_seconds")}
    about = {key: made[0][key] for key in ("trainable", "parameters", "saved_bytes")}
    return means | about | {
        "learning_rate": rate, "tests": [run["test"] for run in made],
        "peak_bytes": max(run["peak_bytes"] for run in made),
    }  # fmt: skip


def best(tried: dict[float, dict], sign: int) -> float:
    """The learning rate with the best validation score; one that diverged is none."""

    def goodness(rate: float) -> float:
        score = sign * tried[rate]["validation"]
        return score if math.isfinite(score) else -math.inf

    return max(tried, key=goodness)
