"""What does a reader of a result have to know before using it?"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from lm_recipes.reporting.loading_examples import LOADING, LOADING_ADAPTER

HUB_LICENCES = set(
    "mit apache-2.0 bsd-3-clause gpl-3.0 gfdl cc0-1.0 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-4.0 "
    "cc-by-nc-sa-4.0 odc-by odbl pddl unlicense".split()
)


def tokenizer_card(directory: str | Path, *, title: str, data: str, metrics: dict) -> None:
    """Write `directory/README.md` for a tokenizer.

    Args:
        metrics: as in results.json; numbers become rows of a table, `example` (tokens) a line below it.
    """
    rows = [
        [key, f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"]
        for key, value in metrics.items()
        if key != "example"
    ]
    parts = [
        f"# {title}",
        f"Trained by `recipes/corpus/train_tokenizer.py` of lm-recipes on `{data}`; measured on its validation split.",
        markdown_rows(["measure", "value"], rows),
        f"`{'|'.join(metrics['example'])}`",
    ]
    Path(directory, "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def markdown_rows(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    lines = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def model_card(
    *,
    title: str,
    summary: str,
    record: dict,
    pipeline_tag: str,
    base_model: str | None = None,
    datasets: Sequence[dict] = (),
    limits: str = "",
) -> str:
    """A README.md for the Hub: metadata, what it is, how it was trained, on what, how good, within which limits.

    Args:
        summary: one or two sentences.
        record: what `artifacts.write_results` returned; all numbers on the card come from it.
        pipeline_tag: the Hub's name of the task; decides the loading example.
        base_model: what was fine-tuned, as the user named it (Hub id, directory or demo name).
        datasets: what `sources.describe` says of each data source.
        limits: what the model is not to be trusted with; one paragraph.
    """
    from huggingface_hub import ModelCardData

    from lm_recipes.sources import describe

    is_directory = base_model is not None and Path(base_model).is_dir()
    base = {"name": base_model} if is_directory else describe(base_model) if base_model else {}
    adapter = bool(record["config"].get("use_peft"))
    metadata = ModelCardData(
        model_name=title,
        library_name="peft" if adapter else "transformers",
        pipeline_tag=pipeline_tag,
        base_model=hub_id(base),
        datasets=[name for name in map(hub_id, datasets) if name] or None,
        **_model_licence(base, datasets),
        eval_results=_eval_results(record["metrics"], pipeline_tag, datasets) or None,
        tags=["lm-recipes"],
    )
    sections = [
        f"---\n{metadata.to_yaml()}\n---\n# {title}",
        summary,
        _how_to_load(record, pipeline_tag, adapter),
        "## Results\n\n" + results_table(record["metrics"]),
        _by_class(record["metrics"]),
        _samples(record["metrics"]),
        "## Data\n\n" + "\n".join(map(_source_line, datasets)) if datasets else "",
        "## Base model\n\n" + _source_line(base) if base else "",
        "## Limits\n\n" + (limits or "Measured on the data above only; try it on your own before relying on it."),
        how_it_was_made(record),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _model_licence(base: dict, datasets: Sequence[dict]) -> dict[str, str]:
    """The base's licence; or that of data which forbids commercial use, as a reader of the card must know of it."""
    stated = [about.get("licence", "") for about in datasets]
    restrictive = [licence for licence in stated if re.search(r"\bNC\b", licence, re.IGNORECASE)]
    licence = (restrictive or [base.get("licence", "")])[0]
    return licence_of(licence) if licence else {}


def results_table(metrics: dict) -> str:
    """Numbers of a record as a Markdown table; nested ones with their path, `x_low` and `x_high` as x's interval."""
    rows = []
    numbers = dict(_numbers(metrics))
    for name, value in numbers.items():
        if name.removesuffix("_low") in numbers and name.endswith("_low"):
            continue
        if name.removesuffix("_high") in numbers and name.endswith("_high"):
            continue
        low, high = numbers.get(f"{name}_low"), numbers.get(f"{name}_high")
        interval = f" (95 %: {_show(low)} to {_show(high)})" if low is not None and high is not None else ""
        rows.append([name.replace("_", " "), _show(value) + interval])
    return markdown_rows(["", "value"], rows)


def _numbers(metrics: dict, path: str = "") -> Iterable[tuple[str, float]]:
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{path}{name}: ")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield path + name, value


def _show(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _by_class(metrics: dict) -> str:
    """What `evaluation.tagging.report` says of each type of entity or tag, and what was taken for what."""
    if not metrics.get("per_class"):
        return ""
    columns = ("precision", "recall", "f1")
    rows = [[row["name"], *(_show(row[of]) for of in columns), f"{row['number']:,}"] for row in metrics["per_class"]]
    errors = ", ".join(f"{e['truth']} as {e['predicted']} ({e['words']:,})" for e in metrics["commonest_errors"])
    mistaken = f"\n\nWords mistaken most often: {errors}." if errors else ""
    return "## By class, on test\n\n" + markdown_rows(["", *columns, "number"], rows) + mistaken


def _samples(metrics: dict) -> str:
    sample = metrics.get("sample")
    if not sample:
        return ""
    quotes = (f"**{name}**\n\n> " + str(text).replace("\n", "\n> ") for name, text in sample.items())
    return "## Sample\n\n" + "\n\n".join(quotes)


def _eval_results(metrics: dict, pipeline_tag: str, datasets: Sequence[dict]) -> list:
    """The numbers of the test split in the Hub's model-index form."""
    from huggingface_hub import EvalResult

    name = Path(datasets[0]["name"]).name if datasets else "held-out documents"
    test = metrics.get("test") or {
        key.removeprefix("test_"): value for key, value in metrics.items() if key.startswith("test_")
    }
    return [
        EvalResult(
            task_type=pipeline_tag,
            dataset_type=re.sub(r"[^\w.-]+", "-", name),
            dataset_name=name,
            dataset_split="test",
            metric_type=metric,
            metric_value=value,
        )
        for metric, value in test.items()
        if isinstance(value, float) and not metric.endswith(("_low", "_high"))
    ]


def _how_to_load(record: dict, pipeline_tag: str, adapter: bool) -> str:
    path = record["config"].get("hub_model_id") or "path/to/this/directory"
    kind = "chat" if record["config"].get("assistant_only_loss") else pipeline_tag
    code = (LOADING | LOADING_ADAPTER if adapter else LOADING)[kind].format(path=path)
    note = "\n\nAn adapter: its base model is loaded with it." if adapter else ""
    if record["config"].get("load_in_4bit"):
        note += " It was trained on a base in 4 bits; give `from_pretrained` the same `quantization_config`."
    return f"```python\n{code}\n```{note}"


def how_it_was_made(record: dict) -> str:
    settings = "\n".join(
        f"{name}: {value}" for name, value in record["config"].items() if value not in (None, "", [], False)
    )
    inputs = "\n".join(
        f"- {name}: `{entry['path']}`" + (f" (sha256 {entry['fingerprint']})" if entry["fingerprint"] else "")
        for name, entry in record["inputs"].items()
    )
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in record["seconds"].items())
    return (
        f"## How it was made\n\n```\n{record['command']}\n```\n\n{inputs}\n\n"
        f"<details><summary>Settings</summary>\n\n```yaml\n{settings}\n```\n</details>\n\n"
        f"{seconds} on {record['machine']['cpus']} CPU threads ({record['machine']['processor']}); {versions}."
    )


def _source_line(source: dict) -> str:
    licence = f" Licence: {source['licence']}." if source.get("licence") else " Licence: not stated."
    what = f": {source['what']}." if source.get("what") else "."
    homepage = f" {source['homepage']}" if source.get("homepage") else ""
    return f"- {source['name']}{what}{licence}{homepage}"


def hub_id(source: dict) -> str | None:
    """The Hub repository a source stands for, if it is one."""
    homepage = source.get("homepage", "")
    return homepage.removeprefix("https://huggingface.co/") if homepage.startswith("https://huggingface.co/") else None


def licence_of(stated: str) -> dict[str, str]:
    """The Hub's identifier of a licence, or `other` with a name in the form that the Hub takes."""
    name = re.sub(r"[^a-z0-9.]+", "-", stated.lower()).strip("-")
    if not name:
        return {"license": "unknown"}
    return {"license": name} if name in HUB_LICENCES else {"license": "other", "license_name": name}
