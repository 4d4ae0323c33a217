"""Results appear whole or not at all, on this disk and behind a URL."""

import pyarrow
import pyarrow.parquet
import pytest

from lm_recipes.artifacts import atomic_directory, fingerprint, work_directory
from lm_recipes.launch import UserError
from lm_recipes.sources import load_texts

URL = "memory://bucket/corpus"


def write_corpus(path: str, text: str) -> None:
    with atomic_directory(path) as directory:
        pyarrow.parquet.write_table(pyarrow.table({"text": [text]}), directory / "train.parquet")
        (directory / "results.json").write_text("{}")


def test_a_corpus_behind_a_url_is_written_replaced_and_read(bucket):
    for text in ("first", "second"):
        write_corpus(URL, text)
        assert list(load_texts(URL, "train")) == [text]
    assert sorted(path.rpartition("/")[2] for path in bucket.find("/bucket")) == ["results.json", "train.parquet"]


def test_results_arrive_last_behind_a_url(bucket, monkeypatch):
    arrived, put = [], type(bucket).put_file
    monkeypatch.setattr(type(bucket), "put_file", lambda fs, *paths: arrived.append(paths[1]) or put(fs, *paths))
    with atomic_directory(URL) as directory:
        for name in ("results.json", *"abcdefgh"):
            (directory / name).write_text("{}")
    assert len(arrived) == 9
    assert arrived[-1].endswith("/results.json")


def fail_after_writing(directory, name: str) -> None:
    (directory / name).write_text("done")
    raise ZeroDivisionError


def test_nothing_appears_behind_a_url_when_the_run_fails(bucket):
    with pytest.raises(ZeroDivisionError), atomic_directory(URL) as directory:
        fail_after_writing(directory, "train.parquet")
    assert not bucket.exists("/bucket/corpus")


def test_what_is_not_ours_behind_a_url_stays(bucket):
    bucket.pipe_file("/bucket/corpus/thesis.txt", b"mine")
    with pytest.raises(UserError, match="not a result of ours"):
        write_corpus(URL, "text")
    assert bucket.cat_file("/bucket/corpus/thesis.txt") == b"mine"


@pytest.mark.parametrize("output", ["corpus", URL])
def test_work_is_kept_after_a_failure_and_removed_after_success(tmp_path, monkeypatch, output):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    output = str(tmp_path / output) if "://" not in output else output
    with pytest.raises(ZeroDivisionError), work_directory(output) as work:
        fail_after_writing(work, "part")
    with work_directory(output) as work:
        assert (work / "part").read_text() == "done"
        with pytest.raises(UserError, match="another run is making it"), work_directory(output):
            pass
    assert not work.exists()


def test_a_fingerprint_knows_names_and_bytes_but_not_times(tmp_path):
    for name, text in (("a", "same"), ("b", "same"), ("c", "other")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").write_text(text)
        (tmp_path / name / "results.json").write_text(name)
        (tmp_path / name / "report.html").write_text(name)
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b") != fingerprint(tmp_path / "c")
