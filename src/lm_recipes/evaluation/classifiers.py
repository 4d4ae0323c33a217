"""A head, an answer or a question: which runs make the same classifier in different ways, and what did they find?"""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from lm_recipes.evaluation.tracks import RECIPES, Run, known_task

HEAD, SFT, FEW_SHOT = "with a head", "by SFT", "few-shot"
# the name of a way -> whose model, how
WAYS = {
    "encoder, head": ("encoder", HEAD),
    "decoder, head": ("decoder", HEAD),
    "decoder, SFT": ("decoder", SFT),
    "decoder, few-shot": ("decoder", FEW_SHOT),
    "decoder, few-shot, calibrated": ("decoder", FEW_SHOT),
}
# Tried with the first seed; the best on validation is taken for all. Of adapters and of all weights.
LEARNING_RATES = {True: ("2e-4", "1e-3"), False: ("5e-5", "2e-4")}
SFT_LEARNING_RATE = {True: "5e-4", False: "5e-5"}
LORA = ("--use_peft", "True", "--lora_r", "16", "--lora_alpha", "32", "--lora_dropout", "0")
# What stands before a text and its label in a few-shot prompt.
ASKED = {"sentiment": ("Review", "Sentiment"), "topic": ("Article", "Topic"), "question": ("Question", "Asks for")}
SFT_EVALUATION = "16"  # dialogues that sft.py measures with; few_shot.py measures with all test rows


def runs(
    root: Path,
    tasks: Sequence[str],
    *,
    models: dict[str, str],
    peft: dict[str, bool],
    train_rows: int | None,
    epochs: float,
    shots: int,
    num_seeds: int,
) -> dict[tuple[str, str], list[Run]]:
    """For each task and way the runs that it takes, in their order. All learn from the same rows of the same seeds, and
    all are measured on the same test rows; few-shot prompts see `shots` rows of each class.

    Args:
        models: "encoder" and "decoder" -> directory, demo model or Hub id. peft: whether they learn through LoRA.
        train_rows: labelled rows to learn from; None: all.

    Raises:
        UserError: there is no such task.
    """
    few = () if train_rows is None else ("--train_rows", str(train_rows))
    shared = (*few, "--num_train_epochs", f"{epochs:g}", "--eval_strategy", "no", "--save_strategy", "no")
    shared = (*shared, "--lr_scheduler_type", "linear", "--warmup_steps", "0.1", "--report_to", "none")
    plan = {}
    for task in tasks:
        source = known_task(task).source
        length = str(known_task(task).max_length)
        for model in ("encoder", "decoder"):
            flags = ("--model_name_or_path", models[model], "--source", source, "--max_length", length, *shared)
            flags = (*flags, "--learning_rates", *LEARNING_RATES[peft[model]], "--num_seeds", str(num_seeds))
            flags = (*flags, "--baselines", "False", *(LORA if peft[model] else ()))
            name = f"{model}, head"
            plan[task, name] = [_run(root, f"{task}, {name}", "bert/classify.py", flags)]
        plan[task, "decoder, SFT"] = [
            run
            for seed in range(num_seeds)
            for run in _taught(root, task, models["decoder"], peft["decoder"], (*shared, "--seed", str(seed)))
        ]
        asked = ("--model_name_or_path", models["decoder"], "--source", source, "--max_length", length)
        asked = (*asked, "--text_name", ASKED[task][0], "--label_name", ASKED[task][1])
        asked = (*asked, "--shots", str(shots), "--num_seeds", str(num_seeds))
        prompted = _run(root, f"{task}, decoder, few-shot", "gpt/few_shot.py", asked)
        plan[task, "decoder, few-shot"] = plan[task, "decoder, few-shot, calibrated"] = [prompted]
    return plan


def _taught(root: Path, task: str, model: str, peft: bool, shared: tuple) -> list[Run]:
    """The decoder that learns to answer with the class, and how well it does."""
    seed, source, length = shared[-1], known_task(task).source, known_task(task).max_length
    # A turn has the template around the text, and its label after it.
    flags = ("--model_name_or_path", model, "--source", source, "--max_length", str(2 * length + 64))
    flags = (*flags, "--prompt_column", "text", "--answer_column", "label", *shared)
    flags = (*flags, "--packing", "True", "--per_device_train_batch_size", "4", "--eval_dialogues", SFT_EVALUATION)
    flags = (*flags, "--learning_rate", SFT_LEARNING_RATE[peft])
    flags = (*flags, "--activation_checkpointing", "False", *(LORA if peft else ()))
    taught = _run(root, f"{task}, decoder, SFT, seed {seed}", "gpt/sft.py", flags)
    asked = ("--model_name_or_path", str(taught.output_dir), "--source", source, "--max_length", str(length))
    asked = (*asked, "--chat", "True", "--shots", "0", "--scoring", "plain")
    return [taught, _run(root, f"{task}, decoder, SFT, seed {seed}, measured", "gpt/few_shot.py", asked)]


def _run(root: Path, name: str, script: str, flags: tuple) -> Run:
    directory = root / "-".join(name.replace(",", "").split())
    return Run(name, RECIPES / script, flags, directory, seconds=0.0)


def finding(way: str, records: Sequence[dict]) -> dict:
    """Of the records of a way's runs: test accuracies of all seeds, their mean and standard deviation; labelled rows
    used, parameters trained, minutes taken.

    Args:
        records: the `results.json` of each run, in the order of `runs`.
    """
    first, how = records[0]["metrics"], WAYS[way][1]
    if how == HEAD:
        labelled, trained = first["train_rows"], first["trainable_parameters"]
        accuracies = [run["test"] for run in first["per_seed"]]
    elif how == SFT:
        labelled, trained = first["train_dialogues"], first["trainable_parameters"]
        accuracies = [record["metrics"]["per_seed"][0]["test"] for record in records[1::2]]
    else:
        labelled, trained = first["examples"], 0
        accuracies = first["per_seed_by_scoring"]["calibrated" if way.endswith("calibrated") else "plain"]
    return {
        "accuracy": mean(accuracies),
        "standard_deviation": stdev(accuracies) if len(accuracies) > 1 else None,
        "per_seed": accuracies,
        "labelled_rows": labelled,
        "trained_parameters": trained,
        "minutes": sum(record["seconds"]["total"] for record in records) / 60,
    }
