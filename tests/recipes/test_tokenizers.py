"""train_tokenizer.py, compare_tokenizers.py and the vocabulary sweep as they are launched."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path

import pytest
import yaml
from transformers import AutoTokenizer

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "recipes" / "corpus" / "configs").glob("tokenizer-*.yaml"))


def launch(script: str, *flags: str, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "recipes" / script, *map(str, flags)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ, "COLUMNS": "100"})


@pytest.fixture(scope="module")
def trained(corpus_dir, tmp_path_factory) -> Path:
    """A Unigram tokenizer with reserved tokens, and a parity BPE of three languages, by the script."""
    folder = tmp_path_factory.mktemp("trained")
    flags = {
        "unigram": f"--data {corpus_dir} --model_type unigram --pre_tokenizer qwen2 --reserved_tokens fim sentinels=2",
        "parity": f"--config {ROOT}/recipes/corpus/configs/tokenizer-parity.yaml --sample_megabytes 0.3",
    }
    for name, words in flags.items():
        wanted = f"{words} --vocab_size 600 --output_dir {folder}/{name}"
        result = launch("corpus/train_tokenizer.py", *wanted.split(), cwd=folder)
        assert result.returncode == 0, result.stderr
    return folder


def test_unigram_is_trained_with_its_reserved_tokens_and_loaded(trained):
    tokenizer = AutoTokenizer.from_pretrained(trained / "unigram")
    assert len(tokenizer) == 600
    assert tokenizer.convert_tokens_to_ids(["<|fim_prefix|>", "<|extra_1|>"]) == [5, 9]
    text = "Ein  Wort,\n 1984 日本"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    record = json.loads((trained / "unigram" / "results.json").read_text())
    assert record["metrics"]["unknown_rate"] == 0
    assert record["config"]["reserved_tokens"] == ["fim", "sentinels=2"]
    assert (trained / "unigram" / "README.md").read_text().startswith("# unigram tokenizer, 600 entries")


def test_parity_bpe_reports_each_language_and_treats_them_alike(trained):
    languages = json.loads((trained / "parity" / "results.json").read_text())["metrics"]["languages"]
    assert list(languages) == ["en", "fr", "es"]
    costs = [language["bytes_per_token"] for language in languages.values()]
    assert max(costs) / min(costs) < 1.05


def test_tokenizers_are_compared_on_a_page(trained, corpus_dir, tokenizer_dirs, tmp_path):
    flags = f"--tokenizers {trained}/unigram {trained}/parity word={tokenizer_dirs['bert']} MiniLM=demo:minilm"
    flags += f" --texts {corpus_dir} demo:wiki-summaries python numbers --kilobytes 20 --output_dir comparison"
    result = launch("corpus/compare_tokenizers.py", *flags.split(), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "comparison" / "results.json").read_text())["metrics"]
    assert list(metrics["tokenizers"]) == ["unigram", "parity", "word", "MiniLM"]
    assert list(metrics["text_kilobytes"])[1:] == ["English", "French", "Spanish", "Python code", "numbers"]
    assert set(metrics["tokenizers"]["unigram"]["lossless_share"].values()) == {1}
    assert metrics["tokenizers"]["parity"]["parity"] < metrics["tokenizers"]["unigram"]["parity"]
    assert "The same sentences" in (tmp_path / "comparison" / "comparison.html").read_text()
    assert (tmp_path / "comparison" / "comparison.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        ("train_tokenizer.py", "--data demo:wiki-summaries --model_type parity_bpe", "language_column"),
        ("train_tokenizer.py", "--data {corpus} --model_type bpe --reserved_tokens chat", "reserved_tokens: `chat`"),
        ("compare_tokenizers.py", "--tokenizers nowhere/ --texts numbers", "nowhere"),
        (
            "compare_tokenizers.py",
            "--tokenizers demo:minilm demo:minilm --texts numbers",
            "two are called `demo:minilm`",
        ),
    ],
)
def test_a_mistake_is_one_line(corpus_dir, tmp_path, script, flags, message):
    words = flags.format(corpus=corpus_dir).split()
    result = launch(f"corpus/{script}", *words, "--output_dir", "out", cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_made_of_keys_its_script_knows(path):
    script = "compare_tokenizers" if path.stem == "tokenizer-comparison" else "train_tokenizer"
    spec = importlib.util.spec_from_file_location(script, ROOT / "recipes" / "corpus" / f"{script}.py")
    module = sys.modules[script] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (arguments,) = [thing for thing in vars(module).values() if is_dataclass(thing)]
    given = arguments(**yaml.safe_load(path.read_text()))  # a key that is unknown or missing raises
    assert isinstance(given.texts if script == "compare_tokenizers" else given.data, list)


@pytest.mark.slow
def test_the_vocabulary_sweep_measures_every_size_and_kind(corpus_dir, tmp_path):
    flags = f"--data {corpus_dir} --sizes 300 600 --seconds 1 --eval_kilobytes 5 --output_dir bench"
    result = launch("bench/vocabulary.py", *flags.split(), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = json.loads((tmp_path / "bench" / "results.json").read_text())["metrics"]["vocabularies"]
    assert [row["vocab_size"] for row in rows[:2]] == [300, 600]
    assert len(rows) == 6
    assert rows[0]["bytes_per_token"] < rows[1]["bytes_per_token"]
    assert all(0 < row["bits_per_byte"] < 8 for row in rows)
