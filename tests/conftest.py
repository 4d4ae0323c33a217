"""Nothing in the tests reaches the Hub. What several of them need is made once, by the real code and scripts."""

import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import corpus
import fsspec
import pytest
from hypothesis import settings
from transformers import AutoTokenizer

# The same examples every time; `make test-all` draws others.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def documents() -> list[str]:
    return corpus.documents()


@pytest.fixture
def bucket() -> Iterator[fsspec.AbstractFileSystem]:
    """fsspec's file system in memory, empty: it lives as long as the process, for all tests alike."""
    fs = fsspec.filesystem("memory")
    yield fs
    fs.rm("/", recursive=True)


@pytest.fixture(scope="session")
def corpus_dir(tmp_path_factory) -> Path:
    """A cleaned corpus: train/validation/test.parquet."""
    return corpus.write_corpus(tmp_path_factory.mktemp("data") / "corpus")


@pytest.fixture(scope="session")
def tokenizer_dirs(tmp_path_factory, documents) -> dict[str, Path]:
    """Per track a tokenizer directory with 512 entries."""
    from lm_recipes.tokenization.training import train_tokenizer

    directories = {}
    for track, model_type in (("bert", "wordpiece"), ("gpt", "bpe")):
        directories[track] = tmp_path_factory.mktemp("tokenizers") / track
        train_tokenizer(documents[:400], model_type, 512).save_pretrained(directories[track])
    return directories


@pytest.fixture
def bert_tokenizer(tokenizer_dirs):
    return AutoTokenizer.from_pretrained(tokenizer_dirs["bert"])


@pytest.fixture
def gpt_tokenizer(tokenizer_dirs):
    return AutoTokenizer.from_pretrained(tokenizer_dirs["gpt"])


@pytest.fixture(scope="session")
def packed(tmp_path_factory, corpus_dir, tokenizer_dirs) -> dict[str, tuple[Path, Path]]:
    """Per track the packed corpus (blocks of 64) and its tokenizer, made by recipes/corpus/pack.py."""
    made = {}
    for track, tokenizer in tokenizer_dirs.items():
        output = tmp_path_factory.mktemp("packed") / track
        flags = f"--data {corpus_dir} --tokenizer_name_or_path {tokenizer} --output_dir {output} --block_size 64"
        script = ROOT / "recipes" / "corpus" / "pack.py"
        subprocess.run([sys.executable, script, *flags.split()], check=True, capture_output=True)
        made[track] = (output, tokenizer)
    return made


@pytest.fixture
def launch(monkeypatch, capsys):
    """Run a script of recipes/ in this process: (exit code, standard output, last line of standard error)."""

    def run(script: str, *flags: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [script, *map(str, flags)])
        capsys.readouterr()
        try:
            runpy.run_path(str(ROOT / "recipes" / script), run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code
        output = capsys.readouterr()
        return code, output.out, output.err.strip().split("\n")[-1]

    return run
