"""How does an exported ONNX graph answer? With numpy and onnxruntime alone: no torch, no transformers."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lm_recipes.launch import UserError

Cache = dict[str, np.ndarray]  # name of an input of the graph -> float32 [B, heads, tokens, width]


def open_session(directory: str | Path, threads: int = 0):
    """An `onnxruntime.InferenceSession` of `directory/model.onnx` on the CPU.

    Args:
        threads: 0: one for each physical core.

    Raises:
        UserError: there is none, or onnxruntime is not installed.
    """
    path = Path(directory, "model.onnx")
    if not path.is_file():
        raise UserError(f"{directory}: no model.onnx here; make it with recipes/compress/export_onnx.py")
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("running ONNX needs onnxruntime: pip install -e '.[export]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class OnnxEncoder:
    """A graph without a cache: a classifier, a tagger, ..."""

    def __init__(self, directory: str | Path, threads: int = 0) -> None:
        self.session = open_session(directory, threads)
        self.inputs = {node.name for node in self.session.get_inputs()}
        self.outputs = [node.name for node in self.session.get_outputs()]

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Answers by name (`logits`, `last_hidden_state`, ...) to int64 inputs by name; more inputs do not matter."""
        fed = {name: np.ascontiguousarray(values) for name, values in batch.items() if name in self.inputs}
        return dict(zip(self.outputs, self.session.run(self.outputs, fed), strict=True))


class OnnxDecoder:
    """A graph with a cache, and greedy search over it."""

    def __init__(self, directory: str | Path, threads: int = 0) -> None:
        self.session = open_session(directory, threads)
        self.inputs = {node.name for node in self.session.get_inputs()}
        self.cache = {node.name: node for node in self.session.get_inputs() if "past_key_values" in node.name}
        if not self.cache:
            raise UserError(f"{directory}: this graph has no cache; it was not exported from a decoder")
        outputs = {node.name for node in self.session.get_outputs()}
        paths = {name: name.removeprefix("input.") for name in self.cache}
        # what the graph returns under this name is what it takes, in the next step, under that
        self.kept = {name: f"output.{path}" if f"output.{path}" in outputs else path for name, path in paths.items()}
        settings = Path(directory, "generation_config.json")
        self.settings = json.loads(settings.read_text("utf-8")) if settings.is_file() else {}

    @property
    def ends(self) -> set[int]:
        """Tokens after which a text is over."""
        ends = self.settings.get("eos_token_id")
        return set(ends if isinstance(ends, list) else [ends]) - {None}

    def empty(self, rows: int) -> Cache:
        """The cache before the first token."""
        shapes = {name: [str(size) for size in node.shape] for name, node in self.cache.items()}  # "s44", "2", ...
        for name, shape in shapes.items():
            if len(shape) != 4 or not (shape[1].isdigit() and shape[3].isdigit()):
                raise UserError(f"{name} {shape}: not keys or values of plain attention; this cache is not run here")
        return {name: np.zeros((rows, int(shape[1]), 0, int(shape[3])), np.float32) for name, shape in shapes.items()}

    def step(self, ids: np.ndarray, mask: np.ndarray, cache: Cache) -> tuple[np.ndarray, Cache]:
        """Read tokens behind what is cached.

        Args:
            ids: int64 `[B, L]`. mask: int64 `[B, cached + L]`, 0 at padding, which stands at the left.

        Returns:
            Logits float32 `[B, L, V]`, and the cache with these tokens in it.
        """
        positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)[:, -ids.shape[1] :]
        fed = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        fed = {name: np.ascontiguousarray(values) for name, values in fed.items() if name in self.inputs}
        logits, *kept = self.session.run(["logits", *self.kept.values()], fed | cache)
        return logits, dict(zip(self.kept, kept, strict=True))

    def logits(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Logits of whole rows that are padded at the left, as an encoder answers."""
        ids = batch["input_ids"]
        return {"logits": self.step(ids, batch["attention_mask"], self.empty(len(ids)))[0]}

    def continue_prompts(
        self, encoded: Sequence[Sequence[int]], max_new_tokens: int, ends: set[int] | None = None
    ) -> list[list[int]]:
        """The likeliest token each time; row i is what follows `encoded[i]`, up to and with the token that ended it.

        Args:
            encoded: token ids of the prompts, all answered as one batch.
            ends: default: those of generation_config.json.
        """
        ends = self.ends if ends is None else ends
        width = max(map(len, encoded))
        pad = min(ends, default=0)
        ids = np.array([[pad] * (width - len(row)) + list(row) for row in encoded], np.int64)
        mask = np.array([[0] * (width - len(row)) + [1] * len(row) for row in encoded], np.int64)
        cache, found = self.empty(len(encoded)), [[] for _ in encoded]
        for _ in range(max_new_tokens):
            logits, cache = self.step(ids, mask, cache)
            ids = logits[:, -1].argmax(-1)[:, None]
            mask = np.concatenate([mask, np.ones_like(ids)], axis=1)
            for row, token in zip(found, ids[:, 0].tolist(), strict=True):
                if not row or row[-1] not in ends:
                    row.append(token)
            if all(row[-1] in ends for row in found):
                break
        return found
