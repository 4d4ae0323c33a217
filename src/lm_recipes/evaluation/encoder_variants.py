"""What can be changed about the pretraining of an encoder, and how is a model of each variant made and put to use?"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median

import yaml

from lm_recipes.artifacts import read_json
from lm_recipes.evaluation.runs import RECIPES, Runs, launch, words
from lm_recipes.evaluation.tracks import TASKS

CALIBRATION_STEPS = 60
LEARNING_RATES = (5e-4, 1e-3, 3e-3)  # of fine-tuning; chosen on validation, by the first seed
EMBEDDING_RATE_FACTOR = 5.0  # of pretrained embeddings, which are large; see `FineTuningTrainer`
ROWS_SEEN, MOST_EPOCHS = 5_000, 10
IN_DOMAIN_REPEATS, WIKI_CHARACTERS = 3, 8_000_000


@dataclass(frozen=True)
class Variant:
    """A way to pretrain: the quickstart's, but for what is named here.

    Attributes:
        flags: of the script.
        script: below recipes/.
        vocab_size, block_size: of the blocks it reads.
        in_domain: the texts of the tasks' training splits, without their labels, are part of the corpus.
    """

    flags: dict = field(default_factory=dict)
    script: str = "bert/pretrain.py"
    vocab_size: int = 4096
    block_size: int = 128
    in_domain: bool = False

    @property
    def decoder(self) -> bool:
        return self.script.startswith("gpt")


QUICKSTART, NONE = "as in the quickstart", "no pretraining"
HYBRID = {"objective": "hybrid", "family": "qwen3", "per_device_train_batch_size": 32}
VARIANTS = {
    QUICKSTART: Variant(),
    "random embeddings": Variant({"initial_embeddings": "random"}),
    "15 % masks": Variant({"mlm_probability": 0.15}),
    "40 % masks": Variant({"mlm_probability": 0.4}),
    "40 % masks falling to 15 %": Variant({"mlm_probability": 0.4, "mlm_probability_end": 0.15}),
    "whole words": Variant({"masking": "whole_word"}),
    "spans": Variant({"masking": "span"}),
    "batch of 16 blocks": Variant({"per_device_train_batch_size": 16}),
    "batch of 64 blocks": Variant({"per_device_train_batch_size": 64}),
    "blocks of 64": Variant({"per_device_train_batch_size": 64}, block_size=64),
    "blocks of 256": Variant({"per_device_train_batch_size": 16}, block_size=256),
    "local attention of 16": Variant({"config_overrides": "local_attention=16"}),
    "Muon at 0.01": Variant({"muon_learning_rate": 0.01}),
    "Muon at 0.04": Variant({"muon_learning_rate": 0.04}),
    "AdamW at 1e-2 for the rest": Variant({"learning_rate": 1e-2}),
    "vocabulary of 8,192": Variant(vocab_size=8_192),
    "vocabulary of 16,384": Variant(vocab_size=16_384),
    "output embeddings of its own": Variant({"config_overrides": "tie_word_embeddings=false"}),
    "BERT": Variant({"family": "bert"}),
    "256x3": Variant({"size": "256x3"}),
    "256x3, vocabulary of 8,192": Variant({"size": "256x3"}, vocab_size=8_192),
    "replaced tokens": Variant(script="bert/pretrain_electra.py"),
    "hybrid": Variant(HYBRID, script="gpt/pretrain.py"),
    "tasks' texts too": Variant(in_domain=True),
    "tasks' texts too, vocabulary of 8,192": Variant(in_domain=True, vocab_size=8_192),
}


@dataclass
class Workshop:
    """Makes models and classifiers by the real scripts, each at most once.

    Args:
        text: directory of a cleaned corpus.
        seconds: of training that each model gets, start-up not counted.
        seeds: how many, in fine-tuning.
    """

    runs: Runs
    text: Path
    work: Path
    seconds: float
    seeds: int

    def pretrained(self, name: str) -> dict | None:
        """`directory` of a model trained for `seconds`, its steps, tokens, speed and validation loss (nats)."""
        variant = VARIANTS[name]
        key = {"variant": repr(variant), "config": self._settings(variant), "text": str(self.text)}

        def train(directory: Path, steps: int) -> dict:
            self._train(variant, steps, directory)
            log = json.loads((directory / "model" / "trainer_state.json").read_text())["log_history"]
            speeds = [entry["tokens_per_second"] for entry in log if "tokens_per_second" in entry]
            losses = [entry["eval_nats_per_token"] for entry in log if "eval_nats_per_token" in entry]
            record = read_json(directory / "model" / "results.json", "results")
            found = {"steps": steps, "train_seconds": record["seconds"]["train"], "loss": losses[-1]}
            found |= {"tokens": record["metrics"]["train_tokens"], "parameters": record["metrics"]["parameters"]}
            # the first step is logged by itself, and the window after it still warms up
            return found | {"tokens_per_second": median(speeds[2:]), "directory": str(directory / "model")}

        def calibrate(directory: Path) -> dict:
            found = train(directory, CALIBRATION_STEPS)
            shutil.rmtree(directory / "model")
            return found

        speed = self.runs(f"speed of {name}", key, 30.0, calibrate)
        steps = int(speed["tokens_per_second"] * self.seconds * speed["steps"] / speed["tokens"]) if speed else 0
        key |= {"seconds": self.seconds}
        return self.runs(name, key, self.seconds + 25, lambda directory: train(directory, steps))

    def classified(self, name: str, task: str, number: str, from_scratch: bool = False) -> dict | None:
        """Validation and test accuracy of each seed, fine-tuned on so many labelled rows ("all": every one).

        Args:
            from_scratch: the same architecture and tokenizer with random weights: what is pretraining worth?
        """
        model = self.pretrained(name)
        rows = TASKS[task].rows if number == "all" else int(number)
        epochs = min(max(round(ROWS_SEEN / rows), 1), MOST_EPOCHS)
        flags = {
            "source": TASKS[task].source, "max_length": TASKS[task].max_length, "num_train_epochs": epochs,
            "train_rows": None if number == "all" else number, "from_scratch": from_scratch,
            "bidirectional": VARIANTS[name].decoder, "num_seeds": self.seeds,
            "per_device_train_batch_size": 32, "per_device_eval_batch_size": 128, "attn_implementation": "eager",
            "lr_scheduler_type": "linear", "warmup_steps": 0.1, "weight_decay": 0.01, "baselines": False,
            "train_sampling_strategy": "group_by_length", "eval_strategy": "no", "save_strategy": "no",
            "embedding_rate_factor": 1.0 if from_scratch else EMBEDDING_RATE_FACTOR,
        }  # fmt: skip

        def train(directory: Path) -> dict:
            rates = ["--learning_rates", *LEARNING_RATES]
            paths = ["--model_name_or_path", model["directory"], "--output_dir", directory / "model"]
            command = [RECIPES / "bert" / "classify.py", *words(flags), *rates, *paths]
            launch(command, directory, {"OMP_NUM_THREADS": "1"})
            metrics = read_json(directory / "model" / "results.json", "results")["metrics"]
            shutil.rmtree(directory / "model")
            scores = {split: [run[split] for run in metrics["per_seed"]] for split in ("validation", "test")}
            return scores | {"learning_rate": metrics["learning_rate"], "train_rows": metrics["train_rows"]}

        key = flags | {"learning_rates": LEARNING_RATES, "model": model["directory"] if model else name}
        learned = rows * epochs * TASKS[task].tokens / 24_000  # two at a time on two cores
        estimate = 6 + (len(LEARNING_RATES) + self.seeds - 1) * (learned + 1.5)
        return self.runs(f"{task} {number} {NONE + ' of ' if from_scratch else ''}{name}", key, estimate, train)

    # ---- What they are made of

    def _train(self, variant: Variant, steps: int, directory: Path) -> None:
        packed, tokenizer = self._packed(variant)
        evaluation = {"eval_strategy": "steps", "eval_steps": steps, "save_strategy": "no"}
        flags = {
            "config": self._config(variant), "data": packed,
            "tokenizer_name_or_path": tokenizer, "output_dir": directory / "model", "max_steps": steps,
            "logging_steps": max(1, steps // 8), **evaluation, **variant.flags,
        }  # fmt: skip
        launch([RECIPES / variant.script, *words(flags)], directory)

    def _config(self, variant: Variant) -> Path:
        folder = (RECIPES / variant.script).parent / "configs"
        return folder / (
            "pretrain-electra.yaml" if variant.script.endswith("electra.py") else "pretrain-quickstart.yaml"
        )

    def _settings(self, variant: Variant) -> dict:
        return yaml.safe_load(self._config(variant).read_text(encoding="utf-8"))

    def _packed(self, variant: Variant) -> tuple[Path, Path]:
        """Blocks and tokenizer: a decoder's has the mask token that the hybrid needs."""
        kind = "bpe" if variant.decoder else "wordpiece"
        tokenizer = self.work / f"{kind}-{variant.vocab_size}"
        text = self._in_domain() if variant.in_domain else self.text
        packed = self.work / f"{tokenizer.name}-{variant.block_size}{'-in-domain' if variant.in_domain else ''}"
        self.work.mkdir(parents=True, exist_ok=True)
        if not tokenizer.exists():
            flags = {"data": self.text, "model_type": kind, "vocab_size": variant.vocab_size, "output_dir": tokenizer}
            flags |= {"reserved_tokens": "mask"} if variant.decoder else {}
            launch([RECIPES / "corpus" / "train_tokenizer.py", *words(flags)], self.work)
        if not packed.exists():
            flags = {"data": text, "tokenizer_name_or_path": tokenizer, "block_size": variant.block_size}
            launch([RECIPES / "corpus" / "pack.py", *words(flags | {"output_dir": packed})], self.work)
        return packed, tokenizer

    def _in_domain(self) -> Path:
        """A part of the corpus and, several times, the texts of the tasks' training splits."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from lm_recipes.artifacts import atomic_directory, write_json
        from lm_recipes.sources import load_texts
        from lm_recipes.sources.labelled import load_labelled

        output = self.work / "in-domain"
        if output.exists():
            return output
        texts = [text for task in TASKS.values() for text in load_labelled(task.source)[0]["train"]["text"]]
        texts, characters = texts * IN_DOMAIN_REPEATS, 0
        for text in load_texts(str(self.text), "train"):
            if (characters := characters + len(text)) > WIKI_CHARACTERS:
                break
            texts.append(text)
        with atomic_directory(output) as directory:
            pq.write_table(pa.table({"text": texts}), directory / "train.parquet")
            for split in ("validation", "test"):
                shutil.copy(self.text / f"{split}.parquet", directory)
            record = read_json(self.text / "results.json", "record of a corpus")
            write_json(directory / "results.json", record | {"metrics": {"texts": len(texts)}})
        return output


def average(name: str, scores: dict, number: str, split: str = "validation") -> float:
    """Mean accuracy over tasks and seeds."""
    return mean(mean(cells[number][name][split]) for cells in scores.values())
