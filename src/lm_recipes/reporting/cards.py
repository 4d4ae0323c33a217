"""What does a reader of a result have to know before using it?"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

_PIPELINE = "from transformers import pipeline\n\n"
LOADING = {
    "text-classification": _PIPELINE + 'pipeline("text-classification", model="{path}")("What a film!")',
    "fill-mask": _PIPELINE
    + 'fill = pipeline("fill-mask", model="{path}")\nfill(f"The film was {{fill.tokenizer.mask_token}}.")',
    "text-generation": _PIPELINE + 'pipeline("text-generation", model="{path}")("The city of", max_new_tokens=32)',
    "chat": _PIPELINE + 'chat = pipeline("text-generation", model="{path}")\n'
    'chat([{{"role": "user", "content": "Hello!"}}], max_new_tokens=64)',
    "token-classification": _PIPELINE
    + 'tag = pipeline("token-classification", model="{path}", aggregation_strategy="first")\ntag("Ada met Babbage.")',
    "question-answering": "import torch\nfrom transformers import AutoModelForQuestionAnswering, AutoTokenizer\n\n"
    'tokenizer = AutoTokenizer.from_pretrained("{path}")\n'
    'model = AutoModelForQuestionAnswering.from_pretrained("{path}")\n'
    'question, context = "Who wrote the notes?", "Ada Lovelace wrote the notes."\n'
    'row = tokenizer(question, context, return_offsets_mapping=True, return_tensors="pt")\n'
    'offsets = row.pop("offset_mapping")[0]\n'
    "with torch.no_grad():\n    output = model(**row)\n"
    "first, last = output.start_logits.argmax(), output.end_logits.argmax()\n"
    "context[offsets[first][0] : offsets[last][1]]  # the recipe's ask.py searches long texts and refuses nonsense",
    "multiple-choice": "import torch\nfrom transformers import AutoModelForMultipleChoice, AutoTokenizer\n\n"
    'tokenizer, model = AutoTokenizer.from_pretrained("{path}"), AutoModelForMultipleChoice.from_pretrained("{path}")\n'
    'choices = ["She went home.", "She became a cloud."]\n'
    'rows = tokenizer(["It was late."] * 2, choices, padding=True, return_tensors="pt")\n'
    "with torch.no_grad():\n    logits = model(**{{name: ids[None] for name, ids in rows.items()}}).logits\n"
    "choices[logits.argmax()]",
    "feature-extraction": _PIPELINE + 'pipeline("feature-extraction", model="{path}")("The city of")',
    "sentence-similarity": "from sentence_transformers import SentenceTransformer\n\n"
    'model = SentenceTransformer("{path}")\n'
    'vectors = model.encode(["Where is the Louvre?", "It stands in Paris.", "Foxes hunt at night."])\n'
    "vectors[0] @ vectors[1:].T",
    "text2text-generation": "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer\n\n"
    'tokenizer, model = AutoTokenizer.from_pretrained("{path}"), AutoModelForSeq2SeqLM.from_pretrained("{path}")\n'
    'ids = tokenizer("The city of <|extra_0|> is the capital.<|eos|>", return_tensors="pt").input_ids\n'
    "tokenizer.decode(model.generate(ids, max_new_tokens=16)[0])",
}
_LABELS = (
    'about = PeftConfig.from_pretrained("{path}").auto_mapping["config"]\n'
    'about["id2label"] = {{int(number): name for number, name in about["id2label"].items()}}\n'
)
# AutoModelFor...from_pretrained("{path}") has no names of classes, no room for new tokens, and not every method of peft
LOADING_ADAPTER = {
    "text-classification": "from peft import AutoPeftModelForSequenceClassification, PeftConfig\n"
    f"from transformers import AutoTokenizer, pipeline\n\n{_LABELS}"
    'model = AutoPeftModelForSequenceClassification.from_pretrained("{path}", **about)\n'
    'tokenizer = AutoTokenizer.from_pretrained("{path}")\n'
    'pipeline("text-classification", model=model, tokenizer=tokenizer)("What a film!")',
    "token-classification": "from peft import AutoPeftModelForTokenClassification, PeftConfig\n"
    f"from transformers import AutoTokenizer, pipeline\n\n{_LABELS}"
    'model = AutoPeftModelForTokenClassification.from_pretrained("{path}", **about)\n'
    'tokenizer = AutoTokenizer.from_pretrained("{path}")\n'
    'tag = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="first")\n'
    'tag("Ada met Babbage.")',
    "chat": "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer, pipeline\n\n"
    'model = AutoPeftModelForCausalLM.from_pretrained("{path}")\n'
    'chat = pipeline("text-generation", model=model, tokenizer=AutoTokenizer.from_pretrained("{path}"))\n'
    'chat([{{"role": "user", "content": "Hello!"}}], max_new_tokens=64)',
}

HUB_LICENCES = set(
    "mit apache-2.0 bsd-3-clause gpl-3.0 gfdl cc0-1.0 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-4.0 "
    "cc-by-nc-sa-4.0 odc-by odbl pddl unlicense".split()
)
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
        _how_it_was_made(record),
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
        **_licence(source["licence"]),
        language=languages or None,
        task_categories=["text-generation", "fill-mask"],
        task_ids=["language-modeling", "masked-language-modeling"],
        size_categories=[next(name for limit, name in SIZES if documents < limit)],
        source_datasets=[hub] if (hub := _hub_id(source)) else None,
        configs=[files],
        tags=["lm-recipes"],
    )


def _filled_splits(record: dict) -> dict[str, dict]:
    """The splits that have documents: `datasets` cannot load a Parquet file without rows."""
    return {name: split for name, split in record["metrics"]["splits"].items() if split["documents"]}


def _licence(stated: str) -> dict[str, str]:
    """The Hub's identifier of a licence, or `other` with a name in the form that the Hub takes."""
    name = re.sub(r"[^a-z0-9.]+", "-", stated.lower()).strip("-")
    if not name:
        return {"license": "unknown"}
    return {"license": name} if name in HUB_LICENCES else {"license": "other", "license_name": name}


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
        base_model=_hub_id(base),
        datasets=[name for name in map(_hub_id, datasets) if name] or None,
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
        _how_it_was_made(record),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _model_licence(base: dict, datasets: Sequence[dict]) -> dict[str, str]:
    """The base's licence; or that of data which forbids commercial use, as a reader of the card must know of it."""
    stated = [about.get("licence", "") for about in datasets]
    restrictive = [licence for licence in stated if re.search(r"\bNC\b", licence, re.IGNORECASE)]
    licence = (restrictive or [base.get("licence", "")])[0]
    return _licence(licence) if licence else {}


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
    if bits := [name for name in ("load_in_4bit", "load_in_8bit") if record["config"].get(name)]:
        note += (
            f" It was trained on a base in {bits[0][-4]} bits; give `from_pretrained` the same `quantization_config`."
        )
    return f"```python\n{code}\n```{note}"


def _how_it_was_made(record: dict) -> str:
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


def _hub_id(source: dict) -> str | None:
    """The Hub repository a source stands for, if it is one."""
    homepage = source.get("homepage", "")
    return homepage.removeprefix("https://huggingface.co/") if homepage.startswith("https://huggingface.co/") else None
