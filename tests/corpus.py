"""Small real text that is on every machine: the documentation inside Python's own standard library."""

import importlib
import inspect
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

MODULES = """argparse ast base64 bisect calendar collections configparser contextlib copy csv dataclasses datetime
decimal difflib dis email.message enum fractions functools gettext glob gzip hashlib heapq html http.client
inspect io ipaddress itertools json locale logging mailbox math mimetypes multiprocessing operator optparse os
pathlib pdb pickle platform plistlib pprint queue random re sched secrets selectors shelve shlex shutil socket
sqlite3 ssl statistics string struct subprocess tarfile tempfile textwrap threading timeit tokenize trace
traceback types typing unittest urllib.parse uuid warnings wave weakref xml.dom.minidom zipfile""".split()


@cache
def documents() -> list[str]:
    """About 600 docstrings of 200 characters and more, without repeats, in a fixed order.

    Read by an interpreter of their own, where no package has replaced a function of the library by one of its own.
    """
    return json.loads(subprocess.run([sys.executable, "-I", "-S", __file__], capture_output=True, check=True).stdout)


def docstrings() -> list[str]:
    found: dict[str, None] = {}
    for name in MODULES:
        module = importlib.import_module(name)
        for _, thing in [("", module), *sorted(vars(module).items())]:
            if inspect.ismodule(thing) and thing is not module:
                continue
            text = inspect.getdoc(thing) or ""
            if (inspect.isclass(thing) or inspect.isroutine(thing) or thing is module) and len(text) >= 200:
                found[text] = None
    return list(found)


def thresholds(rule) -> dict:
    """A filter's thresholds as they are if no YAML says otherwise."""
    from lm_recipes.text.settings import CleaningSettings

    settings = vars(CleaningSettings())
    return {name: settings[name] for name in inspect.signature(rule).parameters if name in settings}


def write_corpus(directory: Path, limit: int = 400) -> Path:
    """A corpus directory as clean.py leaves it: every 8th document validates, every 9th tests."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    directory.mkdir(parents=True)
    splits = {"train": [], "validation": [], "test": []}
    for number, text in enumerate(documents()[:limit]):
        splits["validation" if number % 8 == 0 else "test" if number % 9 == 0 else "train"].append(text)
    for split, texts in splits.items():
        table = pa.table({"id": [f"{split}-{i}" for i in range(len(texts))], "text": texts})
        pq.write_table(table, directory / f"{split}.parquet")
    return directory


if __name__ == "__main__":
    print(json.dumps(docstrings()))
