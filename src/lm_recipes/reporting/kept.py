"""Which measured runs does the repository show? Records under results/, and the tables made from them."""

from pathlib import Path

from lm_recipes.artifacts import read_json, write_json, write_text
from lm_recipes.reporting import (
    adapter_methods,
    classifiers,
    compression,
    decoding,
    encoder_variants,
    pretraining,
    side_by_side,
    tracks,
)
from lm_recipes.reporting.cards import results_table
from lm_recipes.reporting.quickstart import read_run, summary_rows

HEADER = """# Measured results

Written by the commands themselves (`python recipes/report.py --keep RUN_DIR`), each with the command that made it, its
inputs by fingerprint and the versions it ran on. The records are the JSON files beside this page.
"""
BUSY = 1.75  # processes that want a core, for each core: one training run alone makes about one


def keep(run_dir: str | Path, results_dir: str | Path = "results") -> Path:
    """Copy the record of a finished run to `results_dir/<name>.json` and write `results_dir/README.md` anew.

    The name is that of the directory, with those between it and `runs/`: runs/enwik8/corpus is kept as enwik8-corpus.

    A quickstart directory becomes one record: its summary table and the seconds of each step.
    """
    run_dir, results_dir = Path(run_dir), Path(results_dir)
    below_runs = run_dir.parts[run_dir.parts.index("runs") + 1 :] if "runs" in run_dir.parts else run_dir.parts[-1:]
    target = results_dir / f"{'-'.join(below_runs)}.json"
    if (run_dir / "continuations.json").exists():
        run = read_run(run_dir)
        rows = [{"measure": name, "value": value, "beside": beside} for name, value, beside in summary_rows(run)]
        about = {key: run["gpt"][key] for key in ("versions", "machine", "finished")}
        write_json(target, {"command": "make quickstart", "summary": rows, **about})
    else:
        record = read_json(run_dir / "results.json", "results.json of a finished run")
        record["metrics"].pop("errors", None)  # rows of the test set: they stay with the run
        write_json(target, record)
    write_text(results_dir / "README.md", results_page(results_dir))
    return target


def results_page(results_dir: str | Path) -> str:
    """`results/README.md`: a section per record."""
    parts = [HEADER]
    for path in sorted(Path(results_dir).glob("*.json")):
        record = read_json(path, "record")
        if "summary" in record:
            table = summary_table(record)
        elif "language_modelling" in record["metrics"]:
            table = tracks.markdown_table(record["metrics"])
        elif "bench/pretraining.py" in record["command"]:
            table = pretraining.markdown_table(record["metrics"])
        elif "bench/dial.py" in record["command"]:
            table = pretraining.dial_table(record["metrics"])
        elif "variants" in record["metrics"]:
            table = encoder_variants.markdown_table(record["metrics"])
        elif "methods" in record["metrics"]:
            table = adapter_methods.markdown_table(record["metrics"])
        elif "classifiers" in record["metrics"]:
            table = classifiers.markdown_table(record["metrics"]["classifiers"])
        elif "compressed" in record["metrics"]:
            table = compression.markdown_table(record["metrics"]["compressed"])
        elif "side_by_side" in record["metrics"]:
            table = side_by_side.markdown_tables(record["metrics"]["side_by_side"])
        elif "decoding" in record["metrics"]:
            table = decoding.markdown_table(record["metrics"]["decoding"])
        else:
            table = results_table(record["metrics"])
        machine = f"{record['machine']['cpus']} CPU cores ({record['machine']['processor']})"
        seconds = "".join(f", {name} {value:.0f} s" for name, value in record.get("seconds", {}).items())
        if record["machine"].get("load", 0) > BUSY * record["machine"]["cpus"]:
            seconds += f"; beside other work (load {record['machine']['load']}), so times are upper limits"
        parts.append(f"## {path.stem}\n\n```\n{record['command']}\n```\n\n{table}\n\n{machine}{seconds}.\n")
    return "\n".join(parts)


def summary_table(record: dict) -> str:
    """The summary of a quickstart as Markdown; the README shows this very text."""
    lines = ["| | | to compare |", "| --- | ---: | --- |"]
    return "\n".join(lines + [f"| {row['measure']} | {row['value']} | {row['beside']} |" for row in record["summary"]])
