"""How does a reader see what the quickstart made? One self-contained page and one table, from the results files."""

import math
from pathlib import Path

from lm_recipes.artifacts import read_json, write_text

STEPS = {  # directory -> what it is called on the page
    "corpus": "clean the corpus",
    "tokenizer-bert": "train WordPiece",
    "tokenizer-gpt": "train byte-level BPE",
    "packed-bert": "pack for BERT",
    "packed-gpt": "pack for GPT",
    "bert": "pretrain BERT",
    "gpt": "pretrain GPT",
    "sentiment": "fine-tune on sentiment, 3 seeds",
    "sentiment-from-scratch": "the same without pretraining, 3 seeds",
    "sentiment-minilm": "tune MiniLM",
}


def read_run(run_dir: str | Path) -> dict[str, dict]:
    """The results.json of every step, plus `history` (trainer logs) of both pretraining runs and `continuations`."""
    root = Path(run_dir)
    run = {step: read_json(root / step / "results.json", f"results.json of `{step}`") for step in STEPS}
    for track in ("bert", "gpt"):
        run[track]["history"] = read_json(root / track / "trainer_state.json", "trainer state")["log_history"]
    run["continuations"] = read_json(root / "continuations.json", "continuations")
    return run


def summary_rows(run: dict[str, dict]) -> list[tuple[str, str, str]]:
    """What was measured, its value, and what to hold it against."""
    gpt, bert = run["gpt"]["metrics"], run["bert"]["metrics"]
    text = run["packed-gpt"]["metrics"]["test"]
    baselines = run["sentiment"]["metrics"]["baselines"]
    rows = [
        (
            "GPT, bits per byte on test",
            f"{gpt['test_bits_per_byte']:.3f}",
            f"{gpt['ngram_order']}-gram {gpt['ngram_bits_per_byte']:.3f}, xz {text['xz_bits_per_byte']:.3f}, "
            f"gzip {text['gzip_bits_per_byte']:.3f}",
        ),
        (
            "BERT, masked tokens right on test",
            f"{bert['test_masked_accuracy']:.1%}",
            f"always the commonest token {bert['test_unigram_accuracy']:.1%}",
        ),
    ]
    for step, name in SENTIMENT.items():
        test = run[step]["metrics"]["test"]
        rows.append((f"sentiment, {name}", f"{test['accuracy']:.1%}", _interval(test)))
    rows.append(
        (
            "sentiment, without a language model",
            f"{accuracy_of(baselines['tfidf_logistic_regression']):.1%}",
            f"TF-IDF + logistic regression; majority {accuracy_of(baselines['majority']):.1%}",
        )
    )
    seconds = sum(total_seconds(run[step]) for step in STEPS)
    rows.append(("time inside the steps", f"{seconds:.0f} s", f"{run['gpt']['machine']['cpus']} CPU cores"))
    return rows


SENTIMENT = {
    "sentiment-from-scratch": "BERT without pretraining",
    "sentiment": "BERT pretrained above",
    "sentiment-minilm": "MiniLM, pretrained at scale",
}


def accuracy_of(baseline: float | dict) -> float:
    return baseline["accuracy"] if isinstance(baseline, dict) else baseline


def total_seconds(record: dict) -> float:
    return record["seconds"].get("total") or sum(record["seconds"].values())


def _interval(test: dict) -> str:
    return f"95 %: {test['accuracy_low']:.1%} to {test['accuracy_high']:.1%}"


def write_report(run: dict[str, dict], output: str | Path, run_dir: str) -> None:
    """Write the page: HTML with its pictures inside, no scripts, nothing loaded from anywhere."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("lm_recipes.reporting", "."), autoescape=True, trim_blocks=True)
    environment.filters |= {"share": "{:.1%}".format, "comma": "{:,}".format, "visible": visible}
    page = environment.get_template("quickstart.html.jinja").render(
        run=run,
        run_dir=run_dir,
        rows=summary_rows(run),
        pictures=pictures(run),
        ledger=run["corpus"]["metrics"]["ledger"],
        cuts={
            "WordPiece (BERT)": run["tokenizer-bert"]["metrics"],
            "byte-level BPE (GPT)": run["tokenizer-gpt"]["metrics"],
        },
        steps=[(name, run[step]["command"], total_seconds(run[step])) for step, name in STEPS.items()],
        exp=math.exp,
    )
    write_text(output, page)


def visible(token: str) -> str:
    """A token as text a reader can see: spaces and line breaks as signs."""
    return token.replace(" ", "·").replace("\n", "⏎").replace("Ġ", "·").replace("Ċ", "⏎")


def pictures(run: dict[str, dict]) -> dict[str, str]:
    """Name -> SVG."""
    from lm_recipes.reporting import plots

    gpt, bert = run["gpt"]["metrics"], run["bert"]["metrics"]
    text = run["packed-gpt"]["metrics"]["test"]
    ledger = run["corpus"]["metrics"]["ledger"]
    baselines = run["sentiment"]["metrics"]["baselines"]
    sentiment = {name: run[step]["metrics"]["test"] for step, name in SENTIMENT.items()}
    return {
        "ledger": plots.bars(
            ["raw", *(entry["step"] for entry in ledger)],
            [ledger[0]["bytes_in"] / 1e6, *(entry["bytes_out"] / 1e6 for entry in ledger)],
            unit="megabytes of text left after each step",
            number="{:.1f}",
        ),
        "gpt": plots.curve(
            *_history(run["gpt"], "eval_bits_per_byte"),
            title="GPT: bits per byte of unseen text (lower is better)",
            unit="bits per byte",
            levels={f"{gpt['ngram_order']}-gram": gpt["ngram_bits_per_byte"], "xz": text["xz_bits_per_byte"]},
            final=gpt["test_bits_per_byte"],
        ),
        "bert": plots.curve(
            *_history(run["bert"], "eval_accuracy"),
            title="BERT: masked tokens filled in right (higher is better)",
            unit="share of 15 % masked tokens",
            levels={"always the commonest token": bert["test_unigram_accuracy"]},
            final=bert["test_masked_accuracy"],
        ),
        "sentiment": plots.bars(
            ["majority", "TF-IDF + logistic regression", *sentiment],
            [
                accuracy_of(baselines["majority"]),
                accuracy_of(baselines["tfidf_logistic_regression"]),
                *(test["accuracy"] for test in sentiment.values()),
            ],
            intervals=[None, None, *((test["accuracy_low"], test["accuracy_high"]) for test in sentiment.values())],
            highlight=[False, False, *(True for _ in sentiment)],
            unit="accuracy on held-out film reviews (bars start at 40 %)",
            number="{:.1%}",
            start=0.4,
        ),
        "time": plots.bars(
            list(STEPS.values()), [total_seconds(run[step]) for step in STEPS], unit="seconds", number="{:.0f}"
        ),
    }


def _history(record: dict, key: str) -> tuple[list[float], list[float]]:
    """(tokens seen, value) of each evaluation during training."""
    entries = [entry for entry in record["history"] if key in entry]
    last = max(entry["step"] for entry in record["history"])
    per_step = record["metrics"]["train_tokens"] / last
    return [entry["step"] * per_step for entry in entries], [entry[key] for entry in entries]
