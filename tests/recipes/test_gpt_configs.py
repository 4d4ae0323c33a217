"""Every YAML for a pretrained decoder is read by its script, key by key."""

from pathlib import Path

import pytest
import yaml
from objectives import RECIPES, launch

SCRIPTS = {"sft": "sft.py", "adapt": "adapt.py", "few": "few_shot.py"}
CONFIGS = [path for path in sorted((RECIPES / "gpt" / "configs").glob("*.yaml")) if path.name.split("-")[0] in SCRIPTS]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_script_knows_every_key_and_asks_for_the_model(path, tmp_path, capsys):
    script = RECIPES / "gpt" / SCRIPTS[path.name.split("-")[0]]
    with pytest.raises(SystemExit) as end:
        launch([str(script), "--config", str(path), "--model_name_or_path", "./none", "--output_dir", str(tmp_path)])
    assert end.value.code == 2
    assert "./none: no such model directory" in capsys.readouterr().err


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_header_says_how_to_launch_it(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 60
    script = f"recipes/gpt/{SCRIPTS[path.name.split('-')[0]]}"
    launched = f"python {script} --config recipes/gpt/configs/{path.name}"
    assert any(line.startswith("# Launch") and launched in line for line in lines)
    assert Path(yaml.safe_load(path.read_text())["output_dir"]).parts[0] == "runs"
