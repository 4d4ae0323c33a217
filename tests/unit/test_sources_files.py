"""Local files: every kind is read, compressed or not, and every fault is named with its file and row."""

import gzip
import io
import json
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
import zstandard
from tqdm import tqdm

from lm_recipes.launch import UserError
from lm_recipes.sources import describe, load_documents, load_table, load_texts, resolve_model
from lm_recipes.sources.files import LONGEST_BYTES, TEXT_DOCUMENT_BYTES

ROWS = [{"id": "a", "text": 'first, with "quotes"\nand a line'}, {"id": "b", "text": "zweite Zeile: größer"}]

REMOTE = "memory://bucket/raw"  # a folder that only fsspec can reach
DUMP = """<mediawiki><siteinfo><namespaces><namespace key="4">Wikipedia</namespace></namespaces></siteinfo>
<page><title>Cat: the film</title><id>1</id><revision><id>9</id><text>A &lt;b&gt;cat&lt;/b&gt;.</text></revision></page>
<page><title>Wikipedia:Cats</title><id>2</id><revision><id>9</id><text>Not an article.</text></revision></page>
<page><title>Old: cats</title><ns>0</ns><id>3</id><revision><id>9</id><text>An article.</text></revision></page>
<page><title>Talk</title><ns>1</ns><id>4</id><revision><id>9</id><text>Not an article.</text></revision></page>
</mediawiki>"""


def write_rows(path: Path) -> None:
    table = pyarrow.Table.from_pylist(ROWS)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
    elif path.suffix in (".csv", ".tsv"):
        table.to_pandas().to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def compress(path: Path, suffix: str) -> Path:
    packed = path.with_name(path.name + suffix)
    packed.write_bytes((gzip if suffix == ".gz" else zstandard).compress(path.read_bytes()))
    path.unlink()
    return packed


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet"])
def test_rows_read_the_same_from_every_kind_of_file(tmp_path, kind, compression):
    path = tmp_path / f"rows.{kind}"
    write_rows(path)
    if compression:
        path = compress(path, compression)
    assert [{"id": d.id, "text": d.text} for d in load_documents(str(path))] == ROWS
    assert [d.kind for d in load_documents(str(path))] == ["text", "text"]
    if not (kind == "parquet" and compression):
        assert load_table(str(path)).to_list() == ROWS


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
def test_whole_files_keep_their_kind(tmp_path, compression):
    contents = {"a.html": "<p>A</p>", "b.md": "# B", "c.txt": "\ufeffC", "d.htm": "<p>D</p>"}
    for name, text in contents.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        if compression:
            compress(tmp_path / name, compression)
    documents = list(load_documents(str(tmp_path)))
    assert [d.kind for d in documents] == ["html", "markdown", "text", "html"]
    assert [d.text for d in documents] == ["<p>A</p>", "# B", "C", "<p>D</p>"]


def test_the_bar_ends_full_whatever_the_files(tmp_path):
    for name in ("a.jsonl", "b.parquet", "c.csv"):
        write_rows(tmp_path / name)
    (tmp_path / "d.html").write_text("<p>D</p>")
    compress(tmp_path / "a.jsonl", ".gz")
    with tqdm(file=io.StringIO()) as bar:
        documents = list(load_documents(str(tmp_path), bar=bar))
    assert len(documents) == 7
    assert bar.total == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert bar.n >= 0.5 * bar.total  # Parquet's reader skips what it does not need
    for name in ("c.csv", "d.html"):
        with tqdm(file=io.StringIO()) as bar:
            list(load_documents(str(tmp_path / name), bar=bar))
        assert bar.n == bar.total == (tmp_path / name).stat().st_size


def test_with_a_limit_the_bar_counts_documents(tmp_path):
    write_rows(tmp_path / "a.jsonl")
    with tqdm(file=io.StringIO()) as bar:
        list(load_documents(str(tmp_path), limit=1, bar=bar))
    assert (bar.n, bar.total) == (1, 1)


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
def test_files_behind_a_url_read_like_local_ones(tmp_path, bucket, compression):
    for kind in ("jsonl", "csv", "parquet"):
        write_rows(tmp_path / f"rows.{kind}")
        path = compress(tmp_path / f"rows.{kind}", compression) if compression else tmp_path / f"rows.{kind}"
        bucket.put_file(str(path), f"/bucket/raw/deep/{path.name}")
    assert [d.text for d in load_documents(REMOTE)] == [row["text"] for row in ROWS] * 3
    assert [d.text for d in load_documents(f"{REMOTE}/**/*.csv{compression}")] == [row["text"] for row in ROWS]
    assert describe(REMOTE)["what"] == "3 files"
    with pytest.raises(UserError, match=f"{REMOTE}/none: no such file or folder"):
        list(load_documents(f"{REMOTE}/none"))
    with pytest.raises(UserError, match="nowhere://x: "):
        list(load_documents("nowhere://x"))


def test_a_dump_gives_its_articles(tmp_path):
    (tmp_path / "dump.xml").write_text(DUMP)
    documents = list(load_documents(str(tmp_path / "dump.xml")))
    assert [(d.id, d.text) for d in documents] == [("1 Cat: the film", "A <b>cat</b>."), ("3 Old: cats", "An article.")]
    assert {d.kind for d in documents} == {"wikitext"}


def test_folders_and_globs_are_read_in_the_order_of_names(tmp_path):
    for name in ("b/2.txt", "a/1.txt", "a/.hidden.txt", ".cache/3.txt", "README.md", "picture.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [d.id for d in load_documents(str(tmp_path))] == ["a/1.txt", "b/2.txt"]
    assert [d.text for d in load_documents(str(tmp_path / "*" / "*.txt"))] == ["a/1.txt", "b/2.txt"]
    assert describe(str(tmp_path))["what"] == "2 files"


def test_a_long_text_is_cut_at_blank_lines_and_nothing_is_lost(tmp_path):
    text = "".join(f"{'word ' * 200}{i}\n\n" for i in range(200))
    (tmp_path / "long.txt").write_text(text)
    documents = list(load_documents(str(tmp_path / "long.txt")))
    assert len(documents) > 2
    assert "".join(d.text for d in documents) == text
    assert all(d.text.endswith("\n") and len(d.text) < 2 * TEXT_DOCUMENT_BYTES for d in documents)


def test_a_web_page_is_read_in_the_encoding_it_declares(tmp_path):
    page = '<meta charset="{}"><p>naïve</p>'
    (tmp_path / "a.html").write_bytes(page.format("iso-8859-1").encode("latin1"))
    (tmp_path / "b.html").write_bytes(page.format("utf-8").encode())
    assert ["naïve" in document.text for document in load_documents(str(tmp_path))] == [True, True]


def test_rows_without_an_id_are_named_by_file_and_row(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"body": "one"}\n\n{"body": null}\n')
    assert [(d.id, d.text) for d in load_documents(str(tmp_path / "x.jsonl"), "body")] == [
        ("x.jsonl:1", "one"),
        ("x.jsonl:3", ""),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b'{"text": "a"}\n{"text": \n', "x.jsonl: row 2: not valid JSON"),
        ("x.jsonl", b'{"text": "a"}\n["b"]\n', "x.jsonl: row 2: expected a JSON object"),
        ("x.jsonl", b'{"text": "a"}\n{"body": "b"}\n', "x.jsonl: row 2: no column `text`; it has body"),
        ("x.jsonl", b'{"text": "a"}\n{"text": 7}\n', "x.jsonl: row 2: `text` is a int"),
        ("x.csv", b"id,text\n1,a\n2\n", r"x.csv: row 2 \(line 3\): fewer cells than the 2 of the header"),
        ("x.csv", b"id,text\n1,a,b\n", r"x.csv: row 1 \(line 2\): more cells"),
        ("x.csv", b"id,body\n1,a\n", "x.csv: row 1: no column `text`; it has id, body"),
        ("x.parquet", b"PAR1 and nonsense", "x.parquet: not a readable Parquet file"),
        ("x.txt", b"fine\nna\xefve\n", r"x.txt: line 2: not UTF-8 \(byte 0xef"),
        ("x.html", bytes(range(256)), "x.html: not text in an encoding"),
        ("x.md", b"# na\xefve", "x.md: not UTF-8"),
        ("x.jsonl.gz", gzip.compress(b'{"text": "a line"}\n' * 1000, mtime=0)[:60], "x.jsonl.gz: cut off or damaged"),
        ("x.txt.gz", b"not gzip at all", "x.txt.gz: cut off or damaged"),
        ("x.txt.zst", b"not zstandard", "x.txt.zst: cut off or damaged"),
        ("x.txt.zst", zstandard.compress(b"abc" * 999)[:-1], "x.txt.zst: cut off or damaged"),
        ("x.xml", b"<mediawiki><page></mediawiki>", "x.xml: line 1: not well-formed XML"),
        ("x.png", b"", "x.png: not a kind of file that is read here"),
    ],
)
def test_a_broken_file_is_one_line_with_file_and_row(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        list(load_documents(str(tmp_path / name)))
    assert "\n" not in str(error.value)


def test_what_cannot_be_read_is_reported_and_the_rest_is_read(tmp_path):
    rows = [b'{"text": "one"}', b'{"text": "caf\xe9"}', b"{", b'{"text": 7}', b'{"text": "two\x00"}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([*rows, b'{"text": "' + b"x" * LONGEST_BYTES + b'"}', rows[0]]))
    (tmp_path / "b.csv").write_bytes(b'text,n\ngood,1\ncaf\xe9,2\nshort\n"open,4\n')
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b"".join(b'{"text": "%d"}\n' % i for i in range(99_999)))[:-9])
    (tmp_path / "d.txt").write_bytes(b"")
    (tmp_path / "e.txt").write_bytes(b"fine")
    faults = []
    texts = [d.text for d in load_documents(str(tmp_path), report=lambda where, why: faults.append((where, why)))]
    cut_off = len(texts) - 5
    assert texts == ["one", "two\x00", "one", "good", *map(str, range(cut_off)), "fine"]
    assert cut_off > 0
    assert [(where.split("/")[-1].split(" (")[0], why.split(" (")[0]) for where, why in faults] == [
        ("a.jsonl: row 2", "not UTF-8"),
        ("a.jsonl: row 3", "not valid JSON"),
        ("a.jsonl: row 4", "`text` is a int, not a text"),
        ("a.jsonl: line 6", "longer than 32 MB"),
        ("b.csv: row 2", "not UTF-8"),
        ("b.csv: row 3", "fewer cells than the 2 of the header"),
        ("b.csv: row 4", "not valid CSV"),
        ("c.jsonl.gz", "cut off or damaged"),
        ("d.txt", "an empty file"),
    ]


def test_a_file_that_vanishes_while_others_are_read_is_reported(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(name)
    faults = []
    documents = load_documents(str(tmp_path), report=lambda where, why: faults.append((Path(where).name, why)))
    assert next(documents).text == "a"
    (tmp_path / "b.txt").unlink()
    assert [d.text for d in documents] == ["c"]
    assert faults == [("b.txt", "the file is gone")]


@pytest.mark.parametrize(
    "source", ["./missing.txt", "/no/such/folder", "missing.jsonl", "data/missing.csv.gz", "runs/nothing", "*.nothing"]
)
def test_a_missing_file_is_not_taken_for_a_hub_id(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no such file or folder|no files of a kind"):
        list(load_documents(source))
    with pytest.raises(UserError, match=r"no such file or folder|no files of a kind"):
        load_table(source)


def test_tables_name_the_broken_row(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(UserError, match=r"x\.jsonl: row 2: not valid JSON"):
        load_table(str(tmp_path / "x.jsonl"))
    (tmp_path / "y.csv").write_text("text,label\n")
    with pytest.raises(UserError, match="no rows"):
        load_table(str(tmp_path / "y.csv"))


def test_a_folder_of_splits_is_read_by_split(tmp_path):
    for split in ("train", "test"):
        write_rows(tmp_path / f"{split}.jsonl")
    (tmp_path / "train.jsonl").write_text('{"text": "only training"}\n')
    assert load_table(str(tmp_path))["text"] == ["only training"]
    assert load_table(str(tmp_path), "test").to_list() == ROWS
    with pytest.raises(UserError, match="no split `validation` here; it has"):
        load_table(str(tmp_path), "validation")


def test_texts_of_a_corpus_and_of_a_table_folder(tmp_path):
    write_rows(tmp_path / "train.parquet")
    assert list(load_texts(str(tmp_path), "train")) == [row["text"] for row in ROWS]
    with pytest.raises(UserError, match="no split `validation`"):
        list(load_texts(str(tmp_path), "validation"))


def test_a_hub_id_that_cannot_be_reached_is_one_line(monkeypatch):
    # An earlier test may have imported the libraries before the environment said so.
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"nobody/nothing: no such local file, and not to be had from the Hub") as error:
        list(load_documents("nobody/nothing"))
    assert "\n" not in str(error.value)


def test_models_on_disk_and_on_the_hub_keep_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs/model").mkdir(parents=True)
    assert resolve_model("runs/model") == "runs/model"
    assert resolve_model("HuggingFaceTB/SmolLM2-135M") == "HuggingFaceTB/SmolLM2-135M"
    for missing in ("runs/other", "./model", "a/b/c"):
        with pytest.raises(UserError, match="no such model directory"):
            resolve_model(missing)
