"""The README and the configs promise commands: they name scripts, files and flags that exist, and they run."""

import csv
import json
import re
import shlex
import subprocess
import sys
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from lm_recipes.artifacts import read_json
from lm_recipes.models.size import Size
from lm_recipes.reporting.kept import results_page, summary_table

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *ROOT.glob("docs/*.md")]
CONFIGS = [*sorted(ROOT.glob("recipes/*/configs/*.yaml")), *sorted(ROOT.glob("accelerate_configs/*.yaml"))]


def commands(path: Path) -> list[str]:
    """Every `... recipes/x.py ...` command on a page or in a config's header, continuation lines joined."""
    text = path.read_text()
    if path.suffix == ".md":
        blocks = re.findall(r"```(?:bash)?\n(.*?)```", text, flags=re.S)
        lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    else:
        header = [line for line in text.splitlines() if line.startswith("#")]
        joined = re.sub(r"\\\n#\s*", " ", "\n".join(header))
        lines = [re.sub(r"^#\s*(\w+\s{1,}(?=python|accelerate))?", "", line) for line in joined.splitlines()]
    found = [re.search(r"(python|accelerate launch)\s.*recipes/\w+.*", line) for line in lines]
    return [match.group(0) for match in found if match]


@cache
def help_of(script: str) -> str:
    done = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", [*PAGES, *CONFIGS], ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_name_scripts_configs_and_flags_that_exist(path):
    found = commands(path)
    assert found or path.parent.name == "docs", "no command on this page"
    for command in found:
        words = shlex.split(command.replace("...", ""))
        scripts = [word for word in words if word.startswith("recipes/") and word.endswith(".py")]
        assert len(scripts) == 1, command
        assert (ROOT / scripts[0]).is_file(), command
        for word in words:
            if word.endswith(".yaml"):
                assert (ROOT / word).is_file(), f"{word} in: {command}"
        for flag in [word for word in words[words.index(scripts[0]) :] if word.startswith("--")]:
            assert flag == "--config" or re.search(rf"{flag}\b", help_of(scripts[0])), f"{flag} in: {command}"


@pytest.mark.parametrize(
    "path", CONFIGS[: len(list(ROOT.glob("recipes/*/configs/*.yaml")))], ids=lambda path: path.stem
)
def test_every_config_opens_with_what_it_makes_needs_and_how_to_launch_it(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 70
    assert lines[0].startswith("# ")
    assert any(f"--config {path.relative_to(ROOT)}" in command for command in commands(path))


def test_recipe_scripts_stay_short_enough_to_read_in_one_sitting():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in ROOT.glob("recipes/**/*.py")}
    assert len(lengths) >= 11
    assert max(lengths.values()) <= 150, lengths


def test_the_table_in_the_readme_is_the_one_that_was_measured():
    text = (ROOT / "README.md").read_text()
    shown = text.split("results/quickstart.json -->\n")[1].split("\n<!-- /quickstart")[0]
    assert shown == summary_table(read_json(ROOT / "results" / "quickstart.json", "record"))


def test_the_page_of_results_is_made_of_the_records():
    assert (ROOT / "results" / "README.md").read_text() == results_page(ROOT / "results")


@pytest.mark.parametrize("track", ["gpt", "bert"])
def test_3m_has_the_shape_that_was_measured_to_be_the_best(track):
    best = read_json(ROOT / "results" / "bench-dial.json", "record")["metrics"][f"{track}, 3M, 120 s"]["best"]
    assert best.split(",")[0] == "{0.width}x{0.layers}".format(Size.named("3M"))


@pytest.mark.parametrize(
    ("record", "unit", "rows"),
    [
        (
            "bench-pretraining-gpt-180",
            "bits_per_byte",
            {
                "run_clm as shipped": "run_clm as shipped",
                "run_clm, learning rate swept": "run_clm, best of six learning rates",
                "run_clm, fully tuned": "run_clm, every setting tuned",
                "nanoGPT as shipped": "nanoGPT as shipped",
                "nanoGPT, tuned": "nanoGPT, tuned",
            },
        ),
        (
            "bench-pretraining-bert",
            "nats_per_masked_token",
            {
                "run_mlm as shipped": "as shipped",
                "run_mlm, learning rate swept": "best of six learning rates",
                "run_mlm, fully tuned": "every setting tuned",
            },
        ),
    ],
)
def test_the_times_to_equal_losses_in_the_readme_are_those_that_were_measured(record, unit, rows):
    text = (ROOT / "README.md").read_text()
    metrics = read_json(ROOT / "results" / f"{record}.json", "record")["metrics"]
    for name, shown in rows.items():
        theirs, ours = metrics[name], metrics[name]["ours"]
        cells = [f"{theirs[unit]:.3f}", f"{theirs['seconds']:.0f} s", f"{ours['our_seconds']:.1f} s"]
        cells.append("{times_sooner:.1f}x ({times_sooner_least:.1f} to {times_sooner_most:.1f})".format_map(ours))
        cells += [f"{ours['times_fewer_tokens']:.1f}x", f"{ours['times_faster']:.1f}x"]
        assert f"| {shown} | {' | '.join(cells)} |" in text


def test_what_each_technique_adds_in_the_readme_is_what_was_measured():
    text = (ROOT / "README.md").read_text()
    records = [ROOT / "results" / f"bench-pretraining-{name}.json" for name in ("gpt-180", "bert")]
    gpt, bert = (read_json(path, "record")["metrics"]["ours with one thing changed"] for path in records)
    assert list(gpt) == list(bert)
    for name in list(gpt)[1:]:
        cells = [
            cell for row in (gpt[name], bert[name]) for cell in (f"{row['worse_by']:+.3f}", f"{row['speed']:.2f}x")
        ]
        assert f"| {name} | {' | '.join(cells)} |" in text


def test_your_own_data_commands_run_from_raw_text_to_tuned_models(documents, tmp_path):
    """The block under "Use your own data", as typed, but small: a folder, a CSV and a JSONL of this test's making."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (tmp_path / "my_folder").mkdir()
    for number, text in enumerate(documents):
        (tmp_path / "my_folder" / f"{number}.txt").write_text(text)
    with (tmp_path / "reviews.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["review", "stars"])
        rows.writerows([[text[:60], number % 2 + 1] for number, text in enumerate(documents[:200])])
    turns = [[text[:40], text[40:80]] for text in documents[:100]]
    chats = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in turns]
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, chats)))

    small = {
        "clean.py": "--validation 0.1 --test 0.1",
        "train_tokenizer.py": "--vocab_size 600",
        "pack.py": "--block_size 64",
        "pretrain.py": "--size tiny --max_steps 2 --per_device_train_batch_size 2 --warmup_steps 0",
        "classify.py": "--model_name_or_path runs/mine/bert --max_steps 2 --max_length 32 --baselines False",
        "sft.py": "--model_name_or_path runs/mine/gpt --max_steps 2 --max_length 64",
    }
    block = (ROOT / "README.md").read_text().split("## Use your own data")[1].split("```bash\n")[1].split("```")[0]
    typed = [shlex.split(line) for line in block.strip().splitlines()]
    assert [Path(words[1]).name for words in typed] == list(small)
    # classify.py is shown on MiniLM; here it takes an encoder made of the same corpus by the same commands
    encoder = [
        "python recipes/corpus/train_tokenizer.py --data runs/mine/corpus --model_type wordpiece "
        "--vocab_size 600 --output_dir runs/mine/wordpiece",
        "python recipes/corpus/pack.py --data runs/mine/corpus --tokenizer_name_or_path runs/mine/wordpiece "
        "--block_size 64 --output_dir runs/mine/packed-bert",
        "python recipes/bert/pretrain.py --data runs/mine/packed-bert --tokenizer_name_or_path runs/mine/wordpiece "
        "--size tiny --max_steps 2 --warmup_steps 0 --output_dir runs/mine/bert",
    ]
    for words in [*typed[:1], *map(shlex.split, encoder), *typed[1:]]:
        extra = small[Path(words[1]).name].split() if words in typed else []
        done = subprocess.run([sys.executable, *words[1:], *extra], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, f"{words}: {done.stderr[-2000:]}"
    for made in ("gpt", "stars", "chat"):
        assert (tmp_path / "runs" / "mine" / made / "model.safetensors").exists()
        assert (tmp_path / "runs" / "mine" / made / "README.md").exists()


def test_no_script_has_the_name_of_a_package():
    """Its directory is the first that Python looks in: scripts beside a `peft.py` would import it for peft."""
    installed = [path for path in sys.path if path.endswith("packages") or "python3" in path]
    scripts = {path.stem for path in ROOT.glob("recipes/**/*.py")}
    assert not [name for name in scripts if PathFinder.find_spec(name, installed)]
