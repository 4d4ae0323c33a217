"""How is a GGUF file run: by transformers, as the weights that it stands for, or by llama.cpp itself?"""

import atexit
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from lm_recipes.launch import UserError
from lm_recipes.models.loading import loading, without_loading_report


def load_gguf(path: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The weights that a GGUF file stands for, as a float32 model of transformers in eval mode, and its tokenizer.

    Raises:
        UserError: there is no such file, or transformers does not know its architecture.
    """
    from transformers import GgufConfig

    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such GGUF file")
    where = {"gguf_file": path.name}
    with loading(str(path)), without_loading_report():
        tokenizer = AutoTokenizer.from_pretrained(path.parent, **where)
        config = AutoConfig.from_pretrained(path.parent, **where)
        if (width := _key_length(path, config.model_type)) is not None:
            config.head_dim = width  # transformers does not read it of a Qwen, and takes its default
        model = AutoModelForCausalLM.from_pretrained(
            path.parent, config=config, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True), **where
        )
    return model.eval(), tokenizer


def _key_length(path: Path, architecture: str) -> int | None:
    from gguf import GGUFReader

    field = GGUFReader(path).fields.get(f"{architecture}.attention.key_length")
    return None if field is None else int(field.contents())


class LlamaCpp:
    """llama.cpp through its Python binding (`llama-cpp-python`), one prompt at a time."""

    def __init__(self, path: str | Path, context: int = 512) -> None:
        """context: tokens of a prompt and what follows it. As many threads as torch has."""
        if find_spec("llama_cpp") is None:
            raise UserError("running llama.cpp needs its binding, which is compiled: pip install llama-cpp-python")
        from llama_cpp import GGML_TYPE_F32, Llama

        exact = {"type_k": GGML_TYPE_F32, "type_v": GGML_TYPE_F32}  # it keeps the cache in 16 bits of its own accord
        threads = torch.get_num_threads()
        self.model = Llama(model_path=str(path), n_ctx=context, n_threads=threads, verbose=False, **exact)
        atexit.register(self.model.close)  # its own destructor fails when Python is ending

    def continue_prompts(
        self, encoded: Sequence[Sequence[int]], max_new_tokens: int, ends: set[int]
    ) -> list[list[int]]:
        """The likeliest token each time; row i is what follows `encoded[i]`, up to and with the token that ended it."""
        found = []
        for prompt in encoded:
            row: list[int] = []
            self.model.reset()
            for token in self.model.generate(list(prompt), top_k=1, temp=0.0, repeat_penalty=1.0):
                row.append(int(token))
                if len(row) == max_new_tokens or token in ends:
                    break
            found.append(row)
        return found
