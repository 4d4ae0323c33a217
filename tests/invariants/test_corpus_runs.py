"""The corpus depends on the input and the settings: not on workers, engines, interruptions or a full disk."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path

import pytest

from lm_recipes.artifacts import fingerprint
from lm_recipes.sources import load_texts
from lm_recipes.text.corpus import SPLITS
from lm_recipes.text.dedup import jaccard, shingles

ROOT = Path(__file__).parents[2]
FLAGS = "--source demo:enwik8 --limit 400 --output_dir corpus --validation 0.1 --test 0.1 --evaluation_sets demo:boolq"


def command(flags: str) -> list[str]:
    return [sys.executable, str(ROOT / "recipes/corpus/clean.py"), *FLAGS.split(), *flags.split()]


def launch(cwd: Path, flags: str = "--num_processes 1", **options) -> subprocess.CompletedProcess:
    cwd.mkdir(exist_ok=True)
    return subprocess.run(command(flags), cwd=cwd, capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    """One process, from start to end."""
    folder = tmp_path_factory.mktemp("straight")
    result = launch(folder)
    assert result.returncode == 0, result.stderr
    assert [path.name for path in folder.iterdir()] == ["corpus"]
    return folder / "corpus"


def ledger_of(corpus: Path) -> list[dict]:
    ledger = json.loads((corpus / "results.json").read_text())["metrics"]["ledger"]
    return [{key: value for key, value in record.items() if key != "seconds"} for record in ledger]


@pytest.mark.parametrize("flags", ["--num_processes 2", "--executor ray --num_processes 2"])
def test_every_engine_makes_the_same_corpus_and_ledger(straight, tmp_path, flags):
    result = launch(tmp_path, flags)
    assert result.returncode == 0, result.stderr
    assert fingerprint(tmp_path / "corpus") == fingerprint(straight)
    assert ledger_of(tmp_path / "corpus") == ledger_of(straight)


def parts(folder: Path) -> set[Path]:
    return set(folder.glob(".corpus.work/*.part"))


def test_a_killed_run_goes_on_where_it_was(straight, tmp_path):
    process = subprocess.Popen(
        command("--num_processes 1"), cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while not parts(tmp_path) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in parts(tmp_path)}
    assert done
    assert not (tmp_path / "corpus").exists()
    result = launch(tmp_path)
    assert result.returncode == 0, result.stderr
    assert f"{len(done)} were done before" in result.stderr
    assert fingerprint(tmp_path / "corpus") == fingerprint(straight)
    assert ledger_of(tmp_path / "corpus") == ledger_of(straight)
    assert not list(tmp_path.glob(".corpus.work*"))


def test_other_settings_do_not_take_over_what_an_interrupted_run_did(straight, tmp_path):
    result = launch(tmp_path, "--num_processes 1 --steps markup --validation 0", preexec_fn=lambda: limit(50_000))
    assert result.returncode == 2
    assert launch(tmp_path).returncode == 0
    assert fingerprint(tmp_path / "corpus") == fingerprint(straight)


def limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_is_one_line_and_what_is_done_is_kept(straight, tmp_path):
    # Parts fit below this limit for a file; the corpus does not.
    largest = 600_000
    result = launch(tmp_path, preexec_fn=lambda: limit(largest))
    assert result.returncode == 2, result.stderr
    assert "the disk is full" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    done = len(parts(tmp_path))
    assert done > 1
    result = launch(tmp_path)
    assert f"{done} were done before" in result.stderr
    assert fingerprint(tmp_path / "corpus") == fingerprint(straight)


def test_two_runs_do_not_write_the_same_corpus(tmp_path):
    process = subprocess.Popen(command("--num_processes 1"), cwd=tmp_path, stderr=subprocess.DEVNULL)
    while not (tmp_path / ".corpus.work/lock").exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.2)
    result = launch(tmp_path)
    process.kill()
    process.wait()
    assert result.returncode == 2
    assert "another run is making it" in result.stderr.splitlines()[-1]


def test_near_duplicates_never_straddle_splits(straight, tmp_path):
    texts = [text for split in SPLITS for text in load_texts(str(straight), split)][:60]
    copies = [text.replace(" the ", " that ", 2) for text in texts]
    raw = tmp_path / "raw.jsonl"
    raw.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts + copies))

    def straddling(*steps: str) -> int:
        flags = ["--source", raw, "--output_dir", tmp_path / "corpus", "--steps", *steps]
        command = [sys.executable, ROOT / "recipes/corpus/clean.py", *flags, "--validation", "0.3", "--test", "0.3"]
        subprocess.run([*map(str, command), "--num_processes", "1"], check=True, capture_output=True)
        sets = {split: list(map(shingles, load_texts(str(tmp_path / "corpus"), split))) for split in SPLITS}
        pairs = [(one, other) for a, b in combinations(SPLITS, 2) for one in sets[a] for other in sets[b]]
        return sum(jaccard(one, other) >= 0.8 for one, other in pairs)

    assert straddling("exact_duplicates") > 10
    assert straddling("exact_duplicates", "near_duplicates") == 0
