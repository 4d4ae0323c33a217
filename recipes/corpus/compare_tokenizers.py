"""Hold tokenizers against each other on the same texts: languages, code, dialogues, numbers, your corpus.

Writes results.json, a self-contained page (comparison.html) with the same sentences cut by each, and comparison.png.
"""

import logging
import time
from dataclasses import asdict, dataclass, field

from lm_recipes.launch import UserError, done, parse, recipe

logger = logging.getLogger("lm_recipes")


@dataclass
class ComparisonArguments:
    """Which tokenizers, on which texts."""

    tokenizers: list[str] = field(
        metadata={"help": "tokenizer directories, Hub ids, demo:smollm2, demo:minilm; name=path gives one a name"}
    )
    output_dir: str = field(metadata={"help": "directory for page, picture and results.json"})
    texts: list[str] = field(
        default_factory=lambda: ["demo:wiki-summaries", "demo:doctor-patient", "python", "numbers"],
        metadata={"help": "corpus directories from clean.py, files, demo sets, python (this interpreter's), numbers"},
    )
    text_column: str = field(default="text", metadata={"help": "the column that holds the text, in tables"})
    kilobytes: float = field(default=150.0, metadata={"help": "measure on at most this much of each text"})
    sentences: list[str] = field(default_factory=list, metadata={"help": "sentences to cut; default: a few"})


def main() -> None:
    (args,) = parse(ComparisonArguments, description=__doc__)

    from pathlib import Path

    from tqdm import tqdm

    from lm_recipes.artifacts import atomic_directory, write_results, write_text
    from lm_recipes.reporting.tokenizers import SENTENCES, comparison_page, comparison_picture
    from lm_recipes.tokenization.comparison import compare, encoding_speeds, load_tokenizer
    from lm_recipes.tokenization.fertility import cut
    from lm_recipes.tokenization.samples import comparison_texts

    start = time.perf_counter()
    # 1. Names and texts. A tokenizer is called by its directory unless it says name=path.
    paths: dict[str, str] = {}
    for given in args.tokenizers:
        name, path = given.split("=", 1) if "=" in given else (Path(given).name, given)
        if name in paths:
            raise UserError(f"tokenizers: two are called `{name}`; give them names: first={paths[name]} second={path}")
        paths[name] = path
    tokenizers = {name: load_tokenizer(path) for name, path in paths.items()}
    texts: dict[str, list[str]] = {}
    for source in args.texts:
        texts |= comparison_texts(source, args.kilobytes, args.text_column)

    # 2. Measure; 3. cut the same sentences.
    measured = time.perf_counter()
    records = {name: compare(tokenizers[name], texts) for name in tqdm(tokenizers, desc="measure")}
    speeds = encoding_speeds(tokenizers, [text for documents in texts.values() for text in documents])
    cuts = {
        sentence: {name: cut(tokenizer, sentence) for name, tokenizer in tokenizers.items()}
        for sentence in args.sentences or SENTENCES
    }
    for name, record in records.items():
        record["megabytes_per_second"] = speeds[name]
        mean = sum(record["bytes_per_token"].values()) / len(texts)
        logger.info("%-24s %7s entries, %.2f bytes per token", name, f"{record['vocab_size']:,}", mean)

    with atomic_directory(args.output_dir) as directory:
        written = write_results(
            directory,
            config=asdict(args),
            inputs=paths,
            metrics={
                "tokenizers": records,
                "text_kilobytes": {
                    name: sum(len(text.encode()) for text in documents) / 1000 for name, documents in texts.items()
                },
                "cuts": [{"sentence": sentence, "tokens": tokens} for sentence, tokens in cuts.items()],
            },
            seconds={"total": time.perf_counter() - start, "measure": time.perf_counter() - measured},
        )
        write_text(directory / "comparison.html", comparison_page(written))
        comparison_picture(written, directory / "comparison.png")
    page = Path(args.output_dir, "comparison.html")
    done(f"a comparison of {len(tokenizers)} tokenizers on {len(texts)} texts", page, f"open {page}")


if __name__ == "__main__":
    recipe(main)
