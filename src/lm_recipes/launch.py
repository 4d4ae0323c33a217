"""How does a recipe script start, refuse and end?

Every script is `recipe(main)`: flags and YAML become dataclasses, a mistake of the user becomes one line and
exit code 2, and a finished run says what it made and what to type next.
"""

import argparse
import difflib
import errno
import logging
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

import lm_recipes  # noqa: F401  (sets the environment before transformers is imported)

logger = logging.getLogger("lm_recipes")


class UserError(Exception):
    """Something the user can mend. The message is one line: what is wrong, where, and what to do."""


def is_main_process() -> bool:
    return int(os.environ.get("RANK", 0)) == 0


def parse(*dataclass_types: type, description: str | None = None) -> tuple:
    """Flags over `--config FILE.yaml` over defaults, as one instance per dataclass, in order.

    On top of `trl.TrlParser` (YAML numbers such as `1e-4`, flags override): unknown keys are named together with
    the nearest known key, and `TrainingArguments` pick the hardware up: CPU when there is no accelerator, and
    bf16 where the processor has bf16 instructions, unless a flag or the YAML says otherwise.

    Raises:
        UserError: for an unknown or missing key, a value of the wrong type, or a config that is not there.
    """
    from trl import TrlParser

    class Parser(TrlParser):
        def error(self, message: str) -> None:
            raise UserError(f"{message} (see --help)")

    parser = Parser(dataclass_types, description=description, allow_abbrev=False)
    known = {action.dest for action in parser._actions}
    arguments = sys.argv[1:]
    if "--config" in arguments:
        _check_config(arguments, known, parser)
    if "use_cpu" in known:
        import torch

        on_cpu = not torch.accelerator.is_available()
        parser.set_defaults(use_cpu=on_cpu, bf16=has_bf16(on_cpu))
    try:
        return parser.parse_args_and_config(arguments)
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(_unknown_flags(str(error), known) or " ".join(str(error).split())) from error


def has_bf16(on_cpu: bool) -> bool:
    import torch

    if on_cpu:
        # Without these instructions the CPU emulates bf16, several times slower than fp32.
        return torch.cpu.get_capabilities().get("avx512_bf16", False)
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported()


def _check_config(arguments: list[str], known: set[str], parser: argparse.ArgumentParser) -> None:
    position = arguments.index("--config") + 1
    if position == len(arguments):
        raise UserError("--config needs the path of a YAML file")
    path = Path(arguments[position])
    if not path.is_file():
        raise UserError(f"{path}: no such config file; the ones that ship are in recipes/*/configs/")
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: expected `key: value` lines, found {type(config).__name__}")
    choices = {action.dest: action.choices for action in parser._actions if action.choices}
    for key, value in config.items():
        if key not in known and key != "env":
            raise UserError(f"{path}: unknown key `{key}`{_nearest(key, known)}")
        # argparse looks at the choices of flags only
        if key in choices and not isinstance(value, list | None) and value not in choices[key]:
            raise UserError(f"{path}: {key}: {value}: must be one of {', '.join(map(str, choices[key]))}")


def _unknown_flags(message: str, known: set[str]) -> str | None:
    marker = "not used by the HfArgumentParser: "
    if marker not in message:
        return None
    flags = [flag for flag in yaml.safe_load(message.split(marker)[1]) if str(flag).startswith("--")]
    flag = str(flags[0]).split("=")[0] if flags else message.split(marker)[1]
    return f"unknown flag {flag}{_nearest(flag.lstrip('-'), known)}"


def _nearest(key: str, known: set[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean `{close[0]}`?" if close else "; see --help for the keys there are"


# By default glibc maps every block of 32 MB and more from the kernel, page by page, and gives it back when freed:
# each training step on a CPU then pays for its large tensors anew. These settings keep them on the heap; a step takes
# about 0.7 of the time. They must be in the environment before the process starts.
LARGE_HEAP = ":".join(
    f"glibc.malloc.{setting}"
    for setting in ("mmap_threshold=8589934592", "trim_threshold=17179869184", "top_pad=268435456", "hugetlb=1")
)


def _start_with_large_heap(script: str) -> None:
    """Start this very command once more with `LARGE_HEAP`.

    Nothing happens where GLIBC_TUNABLES is set (also to nothing), where there is no glibc, and where the process was
    started for something else and only calls the script.
    """
    started = script in map(os.path.abspath, sys.orig_argv[1:])
    if started and platform.libc_ver()[0] == "glibc" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = LARGE_HEAP
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space left; over the user's quota; over the limit for a file


def recipe(main: Callable[[], None]) -> None:
    """Run a script's `main`: `UserError` ends it with one line on stderr and exit code 2, without a traceback."""
    _start_with_large_heap(os.path.abspath(main.__code__.co_filename))
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logger.setLevel(logging.INFO if is_main_process() else logging.ERROR)
    # peft imports bitsandbytes and torchao where they are installed, which then tell of kernels that no run here needs
    for name in ("bitsandbytes.backends.cpu.ops", "torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        main()
    except UserError as error:
        if is_main_process():
            # of an error in a loader's worker torch makes a message with all its traceback
            line = str(error).rstrip().splitlines()[-1].removeprefix("lm_recipes.launch.UserError: ")
            print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in FULL:
            raise
        print(
            f"error: {error.filename or 'output'}: the disk is full ({error.strerror}); make room and run the same "
            "command again",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def done(made: str, where: str | Path, next_command: str) -> None:
    """Say what a run made, where it is and what to type next (main process only)."""
    if is_main_process():
        logger.info("\nmade  %s\nin    %s\nnext  %s", made, where, next_command)
