"""Starting, refusing and ending: one line and exit code 2 for what a user can mend, never a traceback."""

import os
import platform
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lm_recipes.artifacts import atomic_directory, fingerprint, read_json, write_json, write_results
from lm_recipes.launch import LARGE_HEAP, UserError

SCRIPT = """
from dataclasses import dataclass
from lm_recipes.launch import UserError, parse, recipe

@dataclass
class Arguments:
    text_column: str = "text"
    share: float = 0.1

def main():
    (args,) = parse(Arguments)
    if args.share > 1:
        raise UserError(f"share is {args.share}; it must be at most 1")
    print(args.text_column, args.share)

recipe(main)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT))

    def run(*arguments: str, config: str | None = None):
        if config is not None:
            (tmp_path / "config.yaml").write_text(config)
            arguments = ("--config", str(tmp_path / "config.yaml"), *arguments)
        return subprocess.run([sys.executable, str(path), *arguments], capture_output=True, text=True)

    return run


def test_flags_override_yaml_and_yaml_overrides_defaults(script):
    assert script().stdout.split() == ["text", "0.1"]
    assert script(config="share: 1e-3").stdout.split() == ["text", "0.001"]
    assert script("--share", "0.5", config="share: 1e-3\ntext_column: body").stdout.split() == ["body", "0.5"]


@pytest.mark.parametrize(
    ("arguments", "config", "expected"),
    [
        ([], "text_colum: body", "unknown key `text_colum`; did you mean `text_column`?"),
        ([], "[1, 2]", "expected `key: value` lines"),
        ([], "a: [", "not valid YAML"),
        (["--shar", "1"], None, "unknown flag --shar; did you mean `share`?"),
        (["--share", "much"], None, "invalid float value: 'much'"),
        (["--share", "2"], None, "share is 2.0; it must be at most 1"),
        (["--config", "missing.yaml"], None, "missing.yaml: no such config file"),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_exit_code_2(script, arguments, config, expected):
    done = script(*arguments, config=config)
    assert done.returncode == 2
    assert expected in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_a_script_keeps_large_tensors_on_the_heap_unless_the_user_says_otherwise(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(
        "import os; from lm_recipes.launch import recipe; recipe(lambda: print(os.environ['GLIBC_TUNABLES']))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
    for given, expected in ((environment, LARGE_HEAP), (environment | {"GLIBC_TUNABLES": ""}, "")):
        done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, env=given)
        assert (done.returncode, done.stdout.strip()) == (0, expected), done.stderr


def test_a_directory_appears_only_when_it_is_whole(tmp_path):
    target = tmp_path / "out"
    with pytest.raises(NotADirectoryError), atomic_directory(target) as directory:  # noqa: PT012
        (directory / "half").write_text("x")
        (directory / "half" / "below").write_text("x")
    assert list(tmp_path.iterdir()) == []
    for content in ("first", "second"):
        with atomic_directory(target) as directory:
            write_json(directory / "results.json", {"content": content})
    assert read_json(target / "results.json", "results")["content"] == "second"
    assert list(tmp_path.iterdir()) == [target]


def test_somebody_elses_directory_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="not a result of ours"), atomic_directory(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_a_fingerprint_follows_content_and_names_and_not_times(tmp_path):
    def make(name: str, **files: str) -> Path:
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
        return tmp_path / name

    first = make("a", x="1", y="2")
    same = make("b", x="1", y="2")
    write_results(same, config={}, inputs={}, metrics={}, seconds={"total": 1.0})
    assert fingerprint(first) == fingerprint(same)
    assert len({fingerprint(make(n, **f)) for n, f in [("c", {"x": "2", "y": "2"}), ("d", {"z": "1", "y": "2"})]}) == 2
    assert fingerprint(first) != fingerprint(tmp_path / "c")


def test_results_name_their_inputs_by_fingerprint(tmp_path, monkeypatch):
    (tmp_path / "data").write_text("x")
    (tmp_path / "rates.yaml").write_text("learning_rate: 1e-3")
    monkeypatch.setattr("sys.argv", ["pretrain.py", "--config", str(tmp_path / "rates.yaml")])
    record = write_results(
        tmp_path, config={"a": 1}, inputs={"data": str(tmp_path / "data"), "model": "org/name"}, metrics={}, seconds={}
    )
    assert record["inputs"]["data"]["fingerprint"] == fingerprint(tmp_path / "data")
    assert record["inputs"]["model"]["fingerprint"] is None
    assert record["inputs"]["config"]["fingerprint"] == fingerprint(tmp_path / "rates.yaml")
    assert read_json(tmp_path / "results.json", "results") == record
