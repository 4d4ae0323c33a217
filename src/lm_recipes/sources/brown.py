"""Which part of speech is each word of the Brown corpus?"""

from collections.abc import Iterator

# The 12 parts of speech that tag sets of many languages share (Petrov, Das and McDonald, arXiv 1104.2086), from those
# of Brown's about 80 simple tags that stand for them. Punctuation marks are their own tags. The table is ours: NLTK's
# `tagset="universal"` counts "his" as a determiner, for one, so scores on it are near these, not the same.
UNIVERSAL = {
    tag: universal
    for universal, tags in {
        "ADJ": "jj jjr jjs jjt ap od",
        "ADP": "in cs",
        "ADV": "rb rbr rbt rn ql qlp wrb wql *",
        "CONJ": "cc",
        "DET": "at dt dti dts dtx abl abn abx wdt",
        "NOUN": "nn nns np nps nr nrs",
        "NUM": "cd",
        "PRON": "pn pp ppl ppls ppo pps ppss wp wpo wps",
        "PRT": "rp to uh ex",
        "VERB": "be bed bedz beg bem ben ber bez do dod doz hv hvd hvg hvn hvz md vb vbd vbg vbn vbz",
    }.items()
    for tag in tags.split()
}


def read_sentences(text: str) -> Iterator[dict]:
    """Rows `{tokens, tags}` of one sample (a file of about 2,000 words), tags as in `universal`.

    A line is a sentence; a word stands before the last slash, its tag behind it.
    """
    for line in text.split("\n"):
        pairs = [pair.rpartition("/") for pair in line.split()]
        if pairs:
            yield {"tokens": [word for word, _, _ in pairs], "tags": [universal(tag) for _, _, tag in pairs]}


def universal(tag: str) -> str:
    """One of the 12 universal parts of speech for one of Brown's tags.

    Left out of the tag are its marks for titles, headlines and cited words (nn-tl), for possessives (nn$) and negation
    (md*), and all but the first part of contractions (ppss+bem: I'm). Foreign words (fw-nn) and what is neither are X.
    """
    tag = tag.lower()
    if tag.startswith("fw-"):
        return "X"
    first = (tag.split("-")[0] or tag).split("+")[0]
    if first != "*" and not first[:1].isalpha():
        return "."
    return UNIVERSAL.get(first.rstrip("$*") or first, "X")
