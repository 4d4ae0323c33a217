"""What do the metrics share? Their inputs wait on disk, in a directory of each metric's own that goes with it."""

import functools
import inspect
import shutil
import tempfile
import weakref
from typing import Any, ClassVar

import evaluate
from datasets import Features

from lm_recipes.launch import UserError


class Metric(evaluate.Metric):
    """`evaluate.Metric` that neither collides nor leaves anything behind.

    `add_batch` writes its rows to an Arrow file at once, and `compute` maps that file, so memory holds what is
    measured (ids, tags, texts) only in `compute`, and never logits. evaluate keeps these files in one cache
    directory of the user, where metrics of the same name and experiment wait for each other's lock, lock files
    stay, and so does the data of a run that was stopped. Here each metric has a temporary directory (TMPDIR says
    where), removed when the metric is collected or the process ends.

    Args:
        config_name: a key of FEATURES.
        options: defaults of `compute`.
    """

    SOURCE: ClassVar[str] = ""  # the paper of the measure, or of the library that computes it
    FEATURES: ClassVar[dict[str, Features | list[Features]]] = {}  # per configuration; of a list, the first that fits

    def __init__(self, config_name: str | None = None, **options: Any) -> None:
        inspect.signature(self._compute).bind_partial(**options)  # a misspelt one fails here, not after the evaluation
        directory = tempfile.mkdtemp(prefix="lm-recipes-metric-")
        weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
        # the seed: evaluate would take one from numpy's global state
        super().__init__(config_name, cache_dir=directory, seed=0)
        self._compute = functools.partial(self._compute, **options)

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in self.FEATURES:
            raise UserError(f"no configuration `{self.config_name}`; there is {', '.join(self.FEATURES)}")
        return evaluate.MetricInfo(
            description=inspect.getdoc(type(self)), citation=self.SOURCE, features=self.FEATURES[self.config_name]
        )


def paired(predicted: Any, wanted: Any = None) -> Features:
    """The inputs of most metrics: `predictions` of one type, and `references` of the same or another."""
    return Features({"predictions": predicted, "references": predicted if wanted is None else wanted})
