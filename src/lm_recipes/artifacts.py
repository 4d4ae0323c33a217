"""How is a result written so that nothing half-made is ever seen, and known again later?"""

import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from lm_recipes.launch import UserError


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """A fresh directory beside `path` that takes its name only if the block ends without an error.

    A result of an earlier run at `path` is replaced in the same moment. A directory that holds files we did not
    make (no `results.json`) is left alone: UserError.

    A URL that fsspec knows (s3://bucket/corpus) works too: the directory is made on this machine and copied there at
    the end, `results.json` last.
    """
    if "://" in str(path):
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
            _upload(Path(scratch), str(path))
        return
    path = Path(path)
    if path.exists() and (not path.is_dir() or (any(path.iterdir()) and not (path / "results.json").exists())):
        raise UserError(f"{path}: exists and is not a result of ours; choose another output directory")
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    scratch.chmod(0o755)
    try:
        yield scratch
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
            path.rename(old / path.name)
            scratch.rename(path)
            shutil.rmtree(old)
        else:
            scratch.rename(path)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _upload(directory: Path, url: str) -> None:
    import fsspec

    fs, root = fsspec.core.url_to_fs(url)
    if fs.exists(root) and fs.find(root) and not fs.exists(f"{root}/results.json"):
        raise UserError(f"{url}: exists and is not a result of ours; choose another output directory")
    if fs.exists(root):
        fs.rm(root, recursive=True)
    files = sorted((file for file in directory.rglob("*") if file.is_file()), key=lambda f: f.name == "results.json")
    for file in files:
        target = f"{root}/{file.relative_to(directory).as_posix()}"
        fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        fs.put_file(str(file), target)


@contextmanager
def work_directory(output: str | Path) -> Iterator[Path]:
    """A directory beside `output` for what a long run has done so far: removed when the block ends without an error,
    found again by the next run otherwise. Only one run at a time may hold it: UserError.
    """
    from filelock import FileLock, Timeout

    if "://" in str(output):
        name = hashlib.sha256(str(output).encode()).hexdigest()[:16]
        work = Path(tempfile.gettempdir(), f"lm-recipes-{name}.work")
    else:
        work = Path(output).parent / f".{Path(output).name}.work"
    work.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(work / "lock", timeout=0):
            yield work
            shutil.rmtree(work, ignore_errors=True)
    except Timeout as error:
        raise UserError(f"{output}: another run is making it ({work} is locked)") from error
    finally:
        if work.exists() and not any(file.name != "lock" for file in work.iterdir()):
            shutil.rmtree(work, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file; a reader sees the old one or the whole new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


def write_json(path: str | Path, value: object) -> None:
    """`write_text` of `value` as JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def read_json(path: str | Path, what: str) -> dict:
    """Read a JSON file, or say in one line that `what` is missing or broken there."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no {what} here") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from error


def fingerprint(path: str | Path) -> str:
    """SHA-256 (first 16 hex digits) of a file, or of the names and bytes of a directory's files.

    `results.json`, cards and reports are left out of a directory's fingerprint: they hold times, which change between
    runs that made the same thing.
    """
    path = Path(path)
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        if file is not path:
            if file.name in {"results.json", "README.md", "report.html"} or any(
                part.startswith(".") for part in file.relative_to(path).parts
            ):
                continue
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


VERSIONS = ("torch", "transformers", "datasets", "tokenizers", "trl", "peft")


def write_results(
    directory: str | Path,
    *,
    config: dict,
    inputs: dict[str, str],
    metrics: dict,
    seconds: dict[str, float],
    more_versions: Iterable[str] = (),
) -> dict:
    """Write `directory/results.json`, the record that cards, the report page and the README table are made from.

    Args:
        config: the settings that shaped the run (flat, JSON-able).
        inputs: name -> path or Hub id; local ones are stored with their fingerprint. The YAML of `--config` joins them.
        metrics: name -> number, or nested tables of them. Units are part of the name (`bits_per_byte`, `_bytes`).
        seconds: phase -> wall-clock seconds.
        more_versions: packages beside VERSIONS whose versions shaped the result.
    """
    if "--config" in sys.argv[:-1]:
        inputs = inputs | {"config": sys.argv[sys.argv.index("--config") + 1]}
    record = {
        "command": " ".join([f"python {os.path.relpath(sys.argv[0])}", *sys.argv[1:]]),
        "config": config,
        "inputs": {
            name: {"path": str(path), "fingerprint": fingerprint(path) if Path(path).exists() else None}
            for name, path in inputs.items()
        },
        "metrics": metrics,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "versions": {name: version(name) for name in (*VERSIONS, *more_versions)},
        "machine": {
            "cpus": os.cpu_count(),
            "load": round(os.getloadavg()[1], 1),  # of the last five minutes: did other work run beside it?
            "processor": platform.machine(),
            "python": platform.python_version(),
        },
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    write_json(Path(directory) / "results.json", record)
    return record
