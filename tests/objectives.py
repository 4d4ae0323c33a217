"""Every objective of the pretraining scripts, as a user asks for it, and a way to run scripts in this process."""

import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import corpus
import pytest

RECIPES = Path(__file__).parents[1] / "recipes"
OBJECTIVES = {
    "clm": "gpt/pretrain.py",
    "prefix": "gpt/pretrain.py --objective prefix",
    "fim": "gpt/pretrain.py --objective fim",
    "hybrid": "gpt/pretrain.py --objective hybrid",
    "token": "bert/pretrain.py",
    "whole_word": "bert/pretrain.py --masking whole_word",
    "span": "bert/pretrain.py --masking span",
    "ngram": "bert/pretrain.py --masking ngram",
    "falling": "bert/pretrain.py --exact_masks True --mlm_probability_end 0.15",
    "permutation": "bert/pretrain.py --family xlnet",
    "replaced": "bert/pretrain_electra.py",
    "spans": "t5/pretrain.py",
}
RESERVED = ["fim", "mask", "sentinels=16"]


def write_data(directory: Path) -> Path:
    """Per track `tokenizer-*`, with all the tokens that objectives need, and `packed-*`, a few dozen blocks of 64."""
    from lm_recipes.tokenization.training import train_tokenizer

    text = corpus.write_corpus(directory / "corpus", limit=12)
    for track, model_type, reserved in (("bert", "wordpiece", []), ("gpt", "bpe", RESERVED)):
        tokenizer, packed = directory / f"tokenizer-{track}", directory / f"packed-{track}"
        train_tokenizer(corpus.documents()[:400], model_type, 512, reserved=reserved).save_pretrained(tokenizer)
        flags = f"--data {text} --tokenizer_name_or_path {tokenizer} --output_dir {packed} --block_size 64"
        launch([str(RECIPES / "corpus" / "pack.py"), *flags.split()])
    return directory


def command(objective: str, data: Path, output: Path, *flags: object) -> list[str]:
    """The real script, small, in fp32 on the CPU, on what `write_data` wrote."""
    script, *asked = OBJECTIVES[objective].split()
    track = "bert" if script.startswith("bert") else "gpt"  # T5 reads the GPT's tokens
    fixed = f"--data {data}/packed-{track} --tokenizer_name_or_path {data}/tokenizer-{track} --output_dir {output} "
    fixed += "--size tiny --use_cpu True --bf16 False --logging_steps 1 --save_strategy no --disable_tqdm True "
    fixed += "--report_to none --eval_blocks 4"
    return [str(RECIPES / script), *asked, *fixed.split(), *map(str, flags)]


def launch(arguments: list[str]) -> None:
    """Run a script without starting Python anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", arguments)
        runpy.run_path(arguments[0], run_name="__main__")


def kill_after(command: list[str], checkpoint: Path) -> None:
    """Run a training in a process of its own and kill it as soon as it has written `checkpoint`, before its end."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=RECIPES.parent)
    deadline = time.time() + 120
    while not (checkpoint / "trainer_state.json").exists():
        assert process.poll() is None
        assert time.time() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (checkpoint.parent / "model.safetensors").exists()
