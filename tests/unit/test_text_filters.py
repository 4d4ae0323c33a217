"""Each filter keeps what it should keep and drops, for its reason, what it should drop."""

import pytest
from profanity_check import predict_prob

from lm_recipes.text import filters

PROSE = (
    "The old harbour lies at the mouth of the river, and most of the town was built with stone that ships brought "
    "as ballast. In spring the market opens again, and people from the villages come to sell bread, cheese and wool.\n"
    "Nobody knows who built the tower; letters that have been found say it was standing before the church."
)
QUALITY = {
    "min_mean_word_length": 3,
    "max_mean_word_length": 10,
    "max_symbol_word_ratio": 0.1,
    "max_bullet_lines": 0.9,
    "max_ellipsis_lines": 0.3,
    "min_alphabetic_words": 0.8,
    "min_stop_words": 2,
}
ABUSE = "You are a stupid idiot and a complete moron, shut up."


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
        ("#cats and #dogs that love #fish " * 9, "too many symbols"),
        ("wait for it ... the end is ... coming and " * 9, "too many symbols"),
        ("\n".join(["- one of the items", "* another of the items"] * 9), "mostly bullet points"),
        ("\n".join(["The story that goes on and on with no end that anybody can see..."] * 9), "lines that break off"),
        ("the price and 1234 5678 9012 3456 " * 9, "too few words with letters"),
        ("kaksi kolme neljä viisi kuusi seitsemän " * 9, "too few stop words"),
    ],
)
def test_quality(text, reason):
    assert filters.quality(text, **QUALITY) == reason


def test_stop_words_are_english_and_can_be_switched_off():
    assert filters.quality("kaksi kolme neljä viisi " * 9, **(QUALITY | {"min_stop_words": 0})) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE, None),
        ("\n".join([PROSE, "Buy now", "Buy now"]), None),
        ("\n".join([PROSE, *["Buy now"] * 9]), "repeated lines"),
        ("\n".join([PROSE, *map(str, range(9)), PROSE]), "repeated text"),
        ("", None),
    ],
)
def test_repetition(text, reason):
    assert filters.repetition(text, max_duplicate_lines=0.3, max_duplicate_characters=0.2) == reason


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
    assert filters.language(text, languages, min_score=0.5) == reason


def test_a_guess_below_the_score_is_no_clear_language():
    assert filters.language(PROSE, ("en",), min_score=1.01) == "no clear language"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE, None),
        (ABUSE, "offensive language"),
        (f"{PROSE}\n{ABUSE}", "offensive language"),
        (f"{PROSE}\n" * 5 + ABUSE, None),  # an article that quotes abuse
        ("", None),
    ],
)
def test_inappropriate(text, reason):
    assert filters.inappropriate(text, line_score=0.8, max_share=0.1) == reason


def test_offensiveness_is_what_the_library_says():
    lines = [*PROSE.split("\n"), ABUSE, "", "shut up"]
    assert filters.offensiveness(lines) == pytest.approx(list(predict_prob(lines)), abs=1e-9)
