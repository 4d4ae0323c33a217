"""How is a training of ours or of a peer run for a given time, and how good is what it leaves behind?"""

import hashlib
import json
import math
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from statistics import median

from lm_recipes.artifacts import read_json
from lm_recipes.evaluation import pretraining_peers as peers
from lm_recipes.evaluation.contest_texts import Texts
from lm_recipes.evaluation.runs import FEWEST_STEPS, RECIPES, Runs, launch, steps_within, tune, words

CALIBRATION_STEPS, SAMPLE_TOKENS = 40, 200_000
TURNS = 3  # samples of each, by turns: the median of their ratios is free of a machine that slows down and recovers
TRIAL_SHARE = 1 / 3  # of a run's steps: what a trial of a search gets
CALIBRATION_SECONDS, EVALUATION_SECONDS = 30.0, 15.0  # what a plan reckons with
# Not a matter of a step's time: one calibration serves all values.
SAME_SPEED = {*"learning_rate lr_scheduler_type decay_share warmup_steps schedule weight_decay packing".split()}
# Of a YAML of ours, what the comparison decides instead.
DECIDED_HERE = re.compile(r"data|tokenizer_name_or_path|output_dir|max_steps|num_train_epochs|seed|(eval|save|log)\w+")


@dataclass
class Contest:
    """Trainings on one corpus, ours and the peers', each for a given time in a process of its own.

    A result has wall_seconds (process start to saved model: imports and compilation included), steps, step_seconds,
    start_up_seconds (what is left without steps), tokens, tokens_per_second (while training), parameters, loss (of the
    saved model, see `Texts.loss_of`) and log.

    Args:
        ours: settings of recipes/<track>/pretrain.py; the comparison decides about data, steps and seed.
        warm_compile_cache: what `torch.compile` made is kept for later runs; otherwise each run pays for its own.
        shapes: of peers (width, layers, heads); by default matched to our parameters.
    """

    runs: Runs
    texts: Texts
    ours: dict
    nanogpt: Path | None = None
    warm_compile_cache: bool = False
    shapes: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ours = {key: value for key, value in self.ours.items() if not DECIDED_HERE.fullmatch(key)}

    def trained(self, who: str, settings: dict, seed: int, seconds: float, share: float = 1.0) -> dict | None:
        """A training that ends, as well as can be foreseen, after `seconds`; None: not made yet, in a plan.

        Args:
            who: "ours", or a peer of `pretraining_peers`.
            settings: of ours what differs from `self.ours` (None leaves a flag out, names in capitals are of the
                environment, `packing` is that of the data); of a peer its flags.
            share: of the steps that fit into `seconds`; start-up and compilation weigh as they would in all of them.
        """
        name = " ".join([who, *(f"{key} {value}" for key, value in settings.items()), f"{seconds:g} s seed {seed}"])
        settings = self._whole(who, settings)
        calibration = self._calibrated(who, settings)

        def train(directory: Path) -> dict:
            steps = max(1, round(share * steps_within(seconds, calibration)))
            return self._judged(who, settings, steps, seed, directory)

        key = self._key(settings) | {"seconds": seconds, "seed": seed, "eval_kilobytes": self.texts.eval_kilobytes}
        key["warm_compile_cache"] = self.warm_compile_cache
        if share < 1:
            name, key = f"{name} share {share:g}", key | {"share": share}
        return self.runs(name, key, share * seconds + EVALUATION_SECONDS, train)

    def trained_for(self, change: dict, seed: int, steps: int | None, seconds: float) -> dict | None:
        """Ours with a change, for so many steps (see `steps_in_equal_time`); they take about `seconds`, says a plan."""
        settings = self._whole("ours", change)
        key = self._key(settings) | {"steps": steps, "seed": seed, "eval_kilobytes": self.texts.eval_kilobytes}
        changed = [f"{flag} {value}" for flag, value in change.items()]
        name = " ".join(["ours", *changed, f"{steps or 'some'} steps seed {seed}"])

        def train(directory: Path) -> dict:
            return self._judged("ours", settings, steps, seed, directory)

        return self.runs(name, key, seconds + EVALUATION_SECONDS, train)

    def steps_in_equal_time(self, variants: dict[str, dict], seconds: float) -> dict[str, int | None]:
        """How many steps of ours with each change take `seconds`, start-up included; None: not known yet, in a plan.

        A single calibration may fall into a slow minute, and the variant would get fewer steps for it. So samples are
        taken by turns: of the first the medians count, of the others the medians of what they are beside the first.

        Args:
            variants: name -> change, of which the first is what the others are held against.
        """
        samples: dict[str, list] = {name: [] for name in variants}
        for turn, (name, change) in product(range(TURNS), variants.items()):
            matters = {key: value for key, value in change.items() if key not in SAME_SPEED}
            samples[name].append(self.sample("ours", matters, turn))
        if not all(run for runs in samples.values() for run in runs):
            return dict.fromkeys(variants)
        first = next(iter(samples.values()))
        step, start = (median(run[key] for run in first) for key in ("step_seconds", "start_up_seconds"))
        steps = {}
        for name, runs in samples.items():
            pairs = list(zip(runs, first, strict=True))
            times = median(run["step_seconds"] / base["step_seconds"] for run, base in pairs)
            later = median(run["start_up_seconds"] - base["start_up_seconds"] for run, base in pairs)
            steps[name] = steps_within(seconds, {"step_seconds": step * times, "start_up_seconds": start + later})
        return steps

    def tuned(
        self, who: str, start: dict, stages: Sequence[Sequence[dict]], seed: int, seconds: float
    ) -> tuple[dict, bool]:
        """The settings that end lowest of those `tune` tries, and whether it is known of all how they end.

        Trials get `TRIAL_SHARE` of the steps; then the best gets all of them, and half and twice its rate until neither
        is better.
        """
        missing = self.runs.missing

        def loss_of(settings: dict, share: float) -> float:
            run = self.trained(who, settings, seed, seconds, share)
            return math.inf if run is None else run["loss"]

        best, rate = start, None
        if stages:
            best = tune(start, stages, partial(loss_of, share=TRIAL_SHARE))
            while rate != best["learning_rate"]:
                rate = best["learning_rate"]
                best = tune(best, [peers.rates(rate / 2, rate * 2)], partial(loss_of, share=1.0))
        return best, self.runs.missing == missing

    def with_vocabulary(self, entries: int, shapes: dict[str, tuple[int, int, int]]) -> "Contest":
        """The same with another tokenizer, and with shapes of the peers."""
        return replace(self, texts=self.texts.with_vocabulary(entries, learn=not self.runs.dry), shapes=shapes)

    def sample(self, who: str, settings: dict, turn: int) -> dict | None:
        """A run over SAMPLE_TOKENS, in its turn, to see how fast it trains; without a loss.

        It is held against ours of the same turn: where ours has changed since, it is made anew, even of a peer.
        """
        settings = self._whole(who, settings)
        steps = max(FEWEST_STEPS, SAMPLE_TOKENS // self._tokens_per_step(settings))
        key = self._key(settings) | {"steps": steps, "turn": turn, "beside": self.ours}

        def train(directory: Path) -> dict:
            return _tidy(self._launch(who, settings, steps, 0, directory), directory)

        return self.runs(f"sample of {who} turn {turn}", key, CALIBRATION_SECONDS, train)

    def _calibrated(self, who: str, settings: dict) -> dict | None:
        """A short run that is not counted: how long these settings take to start, and for a step."""
        speed = {name: value for name, value in settings.items() if name not in SAME_SPEED}
        if speed.get("muon_learning_rate") is not None:
            speed["muon_learning_rate"] = "some"

        def train(directory: Path) -> dict:
            return _tidy(self._launch(who, settings, CALIBRATION_STEPS, 0, directory), directory)

        key = self._key(speed) | {"warm_compile_cache": self.warm_compile_cache}
        return self.runs(f"speed of {who}", key, CALIBRATION_SECONDS, train)

    def _judged(self, who: str, settings: dict, steps: int, seed: int, directory: Path) -> dict:
        result = self._launch(who, settings, steps, seed, directory)
        result["loss"] = self.texts.loss_of(directory / "model", packed=who == "ours")
        return _tidy(result, directory)

    def _whole(self, who: str, settings: dict) -> dict:
        if who == "ours":
            return self.ours | settings
        return settings | dict(zip(("width", "layers", "heads"), self._shape_of(who), strict=True))

    def _shape_of(self, peer: str) -> tuple[int, int, int]:
        """The peer's width, layers and heads at our number of parameters (within 2 %)."""
        if peer not in self.shapes:
            calibration = self._calibrated("ours", self.ours)
            if calibration is None:
                return (0, 0, 0)  # a plan made before anything ran
            from lm_recipes.models import SIZES

            count = peers.parameters_of(peer, self.texts.tokenizer, self.texts.block_size)
            layers = SIZES[self.ours["size"]].layers
            self.shapes[peer] = peers.matched_shape(count, calibration["parameters"], layers)
        return self.shapes[peer]

    def _key(self, settings: dict) -> dict:
        """What tells a run from another one, beside its length."""
        tokenizer = str(self.texts.tokenizer_dir)
        return settings | {"text": str(self.texts.text), "tokenizer": tokenizer, "block_size": self.texts.block_size}

    def _tokens_per_step(self, settings: dict) -> int:
        rows = settings.get("batch_size") or settings["per_device_train_batch_size"]
        return rows * settings.get("gradient_accumulation_steps", 1) * self.texts.block_size

    # ---- One training

    def _launch(self, who: str, settings: dict, steps: int, seed: int, directory: Path) -> dict:
        launched = self._launch_ours if who == "ours" else partial(self._launch_peer, who)
        result = launched(settings, steps, seed, directory)
        tokens = self._tokens_per_step(settings)
        return result | {
            "steps": steps,
            "tokens": steps * tokens,
            "tokens_per_second": tokens / result["step_seconds"],
            "start_up_seconds": result["wall_seconds"] - steps * result["step_seconds"],
        }

    def _launch_ours(self, settings: dict, steps: int, seed: int, directory: Path) -> dict:
        """Our script until its last checkpoint is written: test split and n-gram baseline, which it would go on with,
        are no part of training."""
        environment = {name: str(value) for name, value in settings.items() if name.isupper()}
        model = directory / "model"
        flags = {name: value for name, value in settings.items() if name not in {"packing", *environment}} | {
            "data": self.texts.packed(settings.get("packing", "best_fit")),
            "tokenizer_name_or_path": self.texts.tokenizer_dir,
            "output_dir": model,
            "max_steps": steps,
            "save_steps": steps,
            "seed": seed,
            "logging_steps": max(1, steps // 8),
        }
        state = model / f"checkpoint-{steps}" / "trainer_state.json"  # the file that is written last
        script = [RECIPES / self.texts.track / "pretrain.py", *words(flags)]
        began = launch(script, directory, self._environment(directory) | environment, until=partial(_is_whole, state))
        logged = [entry for entry in json.loads(state.read_text())["log_history"] if "tokens_per_second" in entry]
        wall = state.stat().st_mtime - began
        for file in state.parent.iterdir():  # the model lies where a peer's does
            file.rename(model / file.name)
        # the first step is logged by itself, and the window after it still warms up
        rate = median(entry["tokens_per_second"] for entry in (logged[2:] or logged[-1:]))
        return {
            "wall_seconds": wall,
            "step_seconds": self._tokens_per_step(settings) / rate,
            "parameters": saved_parameters(model),
            "log": [{"step": entry["step"], "loss": entry["loss"]} for entry in logged],
            "code": our_code(),
        }

    def _launch_peer(self, peer: str, settings: dict, steps: int, seed: int, directory: Path) -> dict:
        model = directory / "model"
        flags = settings | {
            "data": self.texts.stream(seed) if peer == "nanogpt" else self.texts.grouped(),
            "tokenizer": self.texts.tokenizer_dir,
            "output": model,
            "steps": steps,
            "seed": seed,
            "block_size": self.texts.block_size,
            "nanogpt": self.nanogpt,
            "logging_steps": max(1, steps // 16),
        }
        script = ["-m", peers.__name__, peer, *words(flags), "--started", time.time()]
        launch(script, directory, self._environment(directory))
        result = read_json(model / "result.json", "result of a peer")
        windows = [(b["seconds"] - a["seconds"]) / (b["step"] - a["step"]) for a, b in pairwise(result["log"])]
        # where compilation took all of the time, a single step is all there is
        step = median(windows[1:] or windows or [result["saved_seconds"] / steps])
        return result | {"wall_seconds": result["saved_seconds"], "step_seconds": step}

    def _environment(self, directory: Path) -> dict[str, str]:
        cache = (self.texts.work if self.warm_compile_cache else directory) / "compiled"
        return {"TORCHINDUCTOR_CACHE_DIR": str(cache), "HF_HUB_OFFLINE": "1"}


def _is_whole(file: Path) -> bool:
    """Whether a JSON file is there and written to its end."""
    try:
        return bool(json.loads(file.read_text()))
    except (FileNotFoundError, json.JSONDecodeError):
        return False


def _tidy(result: dict, directory: Path) -> dict:
    for name in ("model", "compiled"):
        shutil.rmtree(directory / name, ignore_errors=True)
    return result


def our_code() -> str:
    """A hash of what decides how our models train: results of before and after a change are not to be mixed unseen."""
    folders = [RECIPES.parent / "src" / "lm_recipes" / room for room in ("training", "objectives", "models")]
    digest = hashlib.sha256()
    for file in sorted(file for folder in folders for file in folder.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def saved_parameters(model_dir: Path) -> int:
    """Parameters of a saved model, shared ones once: what its safetensors files hold."""
    from safetensors import safe_open

    total = 0
    for file in model_dir.glob("*.safetensors"):
        with safe_open(file, "np") as tensors:
            total += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return total
