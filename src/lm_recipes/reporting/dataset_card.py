"""What does a reader of a corpus have to know before training on it?"""

import json
import re
from pathlib import Path

from lm_recipes.reporting.cards import how_it_was_made, hub_id, licence_of, markdown_rows

SIZES = (  # documents -> the Hub's size category
    (1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"), (1e8, "10M<n<100M"),
    (1e9, "100M<n<1B"), (float("inf"), "n>1B"),
)  # fmt: skip


def dataset_card(directory: str | Path, source: dict[str, str], record: dict) -> None:
    """Write `directory/README.md`, a Hub dataset card for a corpus of `<split>.parquet` files in it.

    Args:
        source: what `sources.describe` says.
        record: its results.json, as `reporting.corpus.write_corpus_report` takes it.
    """
    from lm_recipes.artifacts import write_text
    from lm_recipes.reporting.corpus import as_size, known_limits, totals

    sums = totals(record)
    sections = [
        f"---\n{_dataset_metadata(source, record).to_yaml()}\n---\n# {_plain(source['name'])}, cleaned",
        f"{sums['documents_out']:,} documents, {as_size(sums['bytes_out'])} of text, out of {sums['documents_in']:,} "
        f"({as_size(sums['bytes_in'])}). Made by `recipes/corpus/clean.py` of lm-recipes; `report.html` beside this "
        "card shows it in pictures and examples, `results.json` has every number and setting.",
        "## Source\n\n"
        + "\n".join(f"- **{key}**: {_plain(value)}" for key, value in source.items() if value)
        + ("" if source["licence"] else "\n- **licence**: not stated"),
        _contents(record),
        "## What cleaning removed\n\n" + _removals(record),
        "## Personal data\n\n" + _counts(record, "pii", "pii_types", "Not removed", "pieces replaced by a placeholder"),
        "## Duplicates\n\n" + _duplicates(record),
        "## Evaluation sets\n\n"
        + _counts(record, "decontamination", "evaluation_sets", "Not compared with any", "overlaps"),
        "## Known limits\n\n" + "\n".join(f"- {limit}" for limit in known_limits(source, record)),
        how_it_was_made(record),
    ]
    card = "\n\n".join(sections) + "\n"
    write_text(Path(directory, "README.md"), card.encode("utf-8", "replace").decode())


def _dataset_metadata(source: dict[str, str], record: dict):
    """The card's front matter: a huggingface_hub.DatasetCardData."""
    from huggingface_hub import DatasetCardData

    from lm_recipes.reporting.corpus import steps_that_ran, totals

    documents = totals(record)["documents_out"]
    languages = record["config"].get("languages") if "language" in steps_that_ran(record) else None
    splits = _filled_splits(record)
    # `datasets` caches what it loads by the directory's last name and this front matter alone: without hashes in it, a
    # corpus made anew, or another one of that name, would be answered with the old rows.
    files = {
        "config_name": "default",
        "description": "SHA-256: " + ", ".join(f"{name} {n['sha256'][:16]}" for name, n in splits.items()),
        "data_files": [{"split": name, "path": f"{name}.parquet"} for name in splits],
    }
    return DatasetCardData(
        pretty_name=" ".join(f"{source['name']}, cleaned".split()),
        **licence_of(source["licence"]),
        language=languages or None,
        task_categories=["text-generation", "fill-mask"],
        task_ids=["language-modeling", "masked-language-modeling"],
        size_categories=[next(name for limit, name in SIZES if documents < limit)],
        source_datasets=[hub] if (hub := hub_id(source)) else None,
        configs=[files],
        tags=["lm-recipes"],
    )


def _filled_splits(record: dict) -> dict[str, dict]:
    """The splits that have documents: `datasets` cannot load a Parquet file without rows."""
    return {name: split for name, split in record["metrics"]["splits"].items() if split["documents"]}


def _contents(record: dict) -> str:
    splits, output = record["metrics"]["splits"], record["config"]["output_dir"]
    rows = [[name, f"{n['documents']:,}", f"{n['bytes']:,}", f"`{n['sha256']}`"] for name, n in splits.items()]
    files = {name: f"{output.rstrip('/')}/{name}.parquet" for name in _filled_splits(record)}
    how = f'"parquet", data_files={json.dumps(files)}' if "://" in output else json.dumps(output, ensure_ascii=False)
    return (
        "## Contents\n\nOne row per document: `id`, `text`. Splits are drawn by a hash of the document's text, "
        "so copies never straddle.\n\n"
        + markdown_rows(["split", "documents", "bytes of text", "SHA-256 of the file"], rows)
        + f"\n\n```python\nfrom datasets import load_dataset\n\ncorpus = load_dataset({how})\n```"
    )


def _removals(record: dict) -> str:
    """A row per step; a negative number is what the step added."""
    from lm_recipes.reporting.corpus import ledger_of, token_name

    rows = [
        [
            "`" + entry.step.replace("`", "'") + "`",
            f"{entry.documents_in - entry.documents_out:,}",
            f"{entry.bytes_in - entry.bytes_out:,}",
            f"{entry.tokens_in - entry.tokens_out:,}",
            "; ".join(f"{_plain(reason)} {count:,}" for reason, count in entry.reasons.items()),
        ]
        for entry in ledger_of(record)
    ]
    return markdown_rows(["step", "documents", "bytes", _plain(token_name(record)), "why, documents"], rows)


def _counts(record: dict, step: str, key: str, when_not: str, what: str) -> str:
    """What a step found, of the things that the setting `key` lists."""
    from lm_recipes.reporting.corpus import counted_changes

    counts = counted_changes(record, step)
    if counts is None:
        return f"{when_not}: the step `{step}` did not run."
    sought = ", ".join(map(_plain, record["config"].get(key, [])))
    rows = [[_plain(name), f"{count:,}"] for name, count in counts.items()]
    found = "\n\n" + markdown_rows(["", what], rows) if rows else " Nothing found."
    return f"Looked for{': ' if sought else ''}{sought}.{found}"


def _duplicates(record: dict) -> str:
    from lm_recipes.reporting.corpus import DUPLICATES, steps_that_ran

    ran = steps_that_ran(record)
    lines = []
    for step, what in DUPLICATES.items():
        found = "not looked for"
        if step in ran:
            dropped = f"{ran[step].documents_in - ran[step].documents_out:,} documents dropped"
            found = ", ".join([dropped, *(f"{count:,} {name}" for name, count in ran[step].changes.items())])
        lines.append(f"- {what} (`{step}`): {found}")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text in one line that Markdown shows as it is."""
    from lm_recipes.reporting.corpus import reveal

    return re.sub(r"([\\`*<>\[\]])", r"\\\1", reveal(" ".join(text.split())))
