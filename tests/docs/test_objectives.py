"""docs/objectives.md shows what the code does: drawings, sections, commands and files are those there are."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from test_readme import commands

from lm_recipes import launch, objectives
from lm_recipes.reporting.objectives import DRAWINGS, write_drawings
from lm_recipes.reporting.strips import CELL, Matrix, Strip, picture

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "objectives.md"
DRAWN = ROOT / "docs" / "objectives"
TEXT = PAGE.read_text()


def collators() -> list[str]:
    """What `lm_recipes.objectives` exports and makes batches of rows."""
    exported = {name: getattr(objectives, name) for name in objectives.__all__}
    return [name for name, thing in exported.items() if isinstance(thing, type) and "__call__" in vars(thing)]


@pytest.fixture(scope="module")
def drawn_anew(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("objectives")
    write_drawings(directory)
    return directory


def test_the_drawings_are_those_of_the_code(drawn_anew):
    assert {path.name for path in DRAWN.iterdir()} == {path.name for path in drawn_anew.iterdir()}
    for path in drawn_anew.iterdir():
        same = path.read_bytes() == (DRAWN / path.name).read_bytes()
        assert same, f"{path.name} is out of date: python -m lm_recipes.reporting.objectives docs/objectives"


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_is_small_has_a_background_and_is_shown_with_a_description(name):
    file = DRAWN / f"{name}.svg"
    assert file.stat().st_size < 40_000
    root = ElementTree.fromstring(file.read_bytes())
    assert int(root.get("width")) <= 900
    background = root.find("{http://www.w3.org/2000/svg}rect")
    assert background.get("fill") == "#fff"
    assert re.search(rf"!\[\w[^\]]+\]\(objectives/{name}\.svg\)", TEXT)


@pytest.mark.parametrize("name", collators())
def test_every_objective_has_a_section_with_drawing_paper_and_command(name):
    sections = [section for section in TEXT.split("\n## ")[1:] if f"\n`{name}`." in section]
    assert len(sections) == 1
    assert "](objectives/" in sections[0]
    assert "https://arxiv.org/abs/" in sections[0]
    assert re.search(r"```bash\n.*recipes/\w+/pretrain", sections[0], flags=re.S)


def test_links_lead_to_files_and_sections():
    targets = re.findall(r"\]\(([^)]+)\)", TEXT)
    headings = [re.sub(r"\W+", "-", line[3:].lower()) for line in TEXT.splitlines() if line.startswith("## ")]
    assert len(targets) > 20
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in headings
        elif not target.startswith("https://arxiv.org/abs/"):
            assert (PAGE.parent / target).exists(), target


class Parsed(Exception):
    """A script got as far as its settings."""


@pytest.mark.parametrize("command", commands(PAGE), ids=lambda command: " ".join(command.split()[1:4:2]))
def test_commands_parse_to_the_last_value(command, monkeypatch):
    """Not only the names of the flags: `--objective hybird` or `--fim_rate half` would fail."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", shlex.split(command)[1:])
    spec = importlib.util.spec_from_file_location("script", sys.argv[0])
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "script", script)  # dataclasses look their annotations up there
    spec.loader.exec_module(script)

    def parse(*types, **options):
        raise Parsed(launch.parse(*types, **options))

    monkeypatch.setattr(script, "parse", parse)
    with pytest.raises(Parsed):
        script.main()


def test_a_matrix_shows_the_cells_that_are_visible():
    """Every run of visible cells is a rectangle in the colour of the token that looks."""
    strip = Strip("", ["a", "b", "c"], ["text"] * 3, [1, 1, 2], [None] * 3)
    visible = np.array([[True, False, True], [True, True, False], [False, False, True]])
    root = ElementTree.fromstring(picture("", [strip], [Matrix("", visible, strip, strip)]))
    runs = {path.get("class"): path.get("d") for path in root.iter("{http://www.w3.org/2000/svg}path")}
    lengths = {kind: [int(run) // CELL for run in re.findall(r"h(\d+)v", runs[kind])] for kind in ("c1", "c2")}
    assert lengths == {"c1": [1, 1, 2], "c2": [1]}
