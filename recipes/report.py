"""Show what a quickstart run made: a self-contained HTML page, or its numbers in the terminal.

Reads the results.json of every step; trains and measures nothing itself.
"""

from dataclasses import dataclass, field
from pathlib import Path

from lm_recipes.launch import done, parse, recipe


@dataclass
class ReportArguments:
    """Which run, and where the page goes."""

    run_dir: str = field(default="runs/quickstart", metadata={"help": "Directory of a finished `make quickstart`."})
    output: str = field(default="runs/quickstart/report.html", metadata={"help": "The page to write."})
    summary: bool = field(default=False, metadata={"help": "Only print the numbers."})
    keep: list[str] | None = field(default=None, metadata={"help": "Run directories whose records go to results/."})


def main() -> None:
    (args,) = parse(ReportArguments, description=__doc__)

    from lm_recipes.reporting.kept import keep
    from lm_recipes.reporting.quickstart import read_run, summary_rows, write_report

    if args.keep:
        kept = [str(keep(run_dir)) for run_dir in args.keep]
        done(f"records {', '.join(kept)}", "results/README.md", "git diff results/")
        return
    run = read_run(args.run_dir)
    if not args.summary:
        write_report(run, args.output, args.run_dir)
        done("a report", args.output, f"open {args.output}")
        return
    rows = summary_rows(run)
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    print()
    for name, value, beside in rows:
        print(f"  {name:<{widths[0]}}  {value:>{widths[1]}}  {beside}")
    gpt = Path(args.run_dir, "gpt")
    done(
        "two language models and a report",
        Path(args.run_dir, "report.html"),
        f'.venv/bin/python recipes/gpt/generate.py --model_name_or_path {gpt} --prompt "The city" --show_probabilities',
    )


if __name__ == "__main__":
    recipe(main)
