"""Extract the main text of web pages, and the prose of wiki pages, with several libraries side by side.

Quality: words found and words too many (precision, recall and F1 of words, mean over pages) on articles and on
documentation, whose text is known; and the same of passages that people marked on web pages. Our rules were written
with the web pages that are not held out, the articles and the documentation in view; trafilatura's people marked the
passages.
Speed in MB of HTML a second on one core: the extractors take turns, medians over rounds; `speedup` is the median over
rounds of our speed over that of each, in the same round.
"""

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import mean, median

from lm_recipes.launch import done, parse, recipe


@dataclass
class ExtractionBench:
    """How much is extracted, how often, and where the record goes."""

    rounds: int = field(default=3, metadata={"help": "times that every extractor reads every page"})
    pages: int = field(default=60, metadata={"help": "at most so many pages of a set"})
    wiki_pages: int = field(default=1000, metadata={"help": "pages of demo:enwik8"})
    output_dir: str = field(default="runs/bench-extraction", metadata={"help": "directory for results.json"})


def words_right(found: str, known: str) -> tuple[float, float, float]:
    """Precision, recall and F1 of the words of a text, each counted as often as it occurs."""
    found, known = (Counter(re.findall(r"\w+", text)) for text in (found, known))
    right = (found & known).total()
    precision, recall = right / max(found.total(), 1), right / max(known.total(), 1)
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-9)


def passages_right(texts: list[str], pages: list) -> tuple[float, float, float]:
    """The same for passages, over all pages: one that should not be there is a false positive."""
    texts = [" ".join(text.split()) for text in texts]
    kept = [" ".join(passage.split()) in text for text, page in zip(texts, pages, strict=True) for passage in page.keep]
    extra = [
        " ".join(passage.split()) in text for text, page in zip(texts, pages, strict=True) for passage in page.drop
    ]
    precision, recall = sum(kept) / max(sum(kept) + sum(extra), 1), mean(kept)
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-9)


def race(extractors: dict[str, Callable], documents: list[str], rounds: int) -> tuple[dict, dict[str, list[str]]]:
    """MB a second of each extractor, and the texts that it found."""
    from tqdm import tqdm

    megabytes = sum(len(document.encode()) for document in documents) / 1e6
    seconds, texts = {name: [] for name in extractors}, {}
    for _ in tqdm(range(rounds), desc="rounds"):
        for name, extract in extractors.items():
            start = time.perf_counter()
            texts[name] = [extract(document) or "" for document in documents]
            seconds[name].append(time.perf_counter() - start)
    ours = next(iter(seconds.values()))
    speeds = {
        name: {
            "megabytes_per_second": megabytes / median(taken),
            "speedup": median(other / own for other, own in zip(taken, ours, strict=True)),
        }
        for name, taken in seconds.items()
    }
    return speeds, texts


def main() -> None:
    (args,) = parse(ExtractionBench, description=__doc__)

    import mwparserfromhell
    import trafilatura
    from resiliparse.extract.html2text import extract_plain_text

    from lm_recipes.artifacts import atomic_directory, write_results
    from lm_recipes.sources import load_documents
    from lm_recipes.sources.web_pages import PAGE_SETS
    from lm_recipes.text.markup import html_to_text, wikitext_to_text

    start = time.perf_counter()
    extractors = {
        "ours": html_to_text,
        "trafilatura": lambda page: trafilatura.extract(page, include_comments=False),
        "trafilatura, fast": lambda page: trafilatura.extract(page, include_comments=False, fast=True),
        "resiliparse": lambda page: extract_plain_text(page, main_content=True, comments=False),
        "resiliparse, all text": lambda page: extract_plain_text(page, main_content=False),
    }
    metrics: dict[str, dict] = {}
    for name, load in PAGE_SETS.items():
        pages = load()[: args.pages]
        metrics[name], texts = race(extractors, [page.html for page in pages], args.rounds)
        for extractor, found in texts.items():
            if pages[0].text is None:
                quality = passages_right(found, pages)
            else:
                scores = [words_right(text, page.text) for text, page in zip(found, pages, strict=True)]
                quality = tuple(map(mean, zip(*scores, strict=True)))
            metrics[name][extractor] |= dict(zip(("precision", "recall", "f1"), quality, strict=True))
        metrics[name]["pages"] = len(pages)

    readers = {"ours": wikitext_to_text, "mwparserfromhell": lambda text: mwparserfromhell.parse(text).strip_code()}
    wiki = [document.text for document in load_documents("demo:enwik8", limit=args.wiki_pages)]
    metrics["wiki pages"], _ = race(readers, wiki, args.rounds)
    metrics["wiki pages"]["pages"] = len(wiki)

    with atomic_directory(args.output_dir) as directory:
        inputs = {"pages": "demo:web-pages, demo:article-pages, demo:documentation-pages", "wiki pages": "demo:enwik8"}
        seconds = {"total": time.perf_counter() - start}
        write_results(directory, config=asdict(args), inputs=inputs, metrics=metrics, seconds=seconds)
    done("extraction: quality and speed", args.output_dir, f"python recipes/report.py --keep {args.output_dir}")


if __name__ == "__main__":
    recipe(main)
