"""Which words and tags does a file of columns hold: a word and its tag a line, an empty line after each sentence?"""

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

import fsspec

from lm_recipes.launch import UserError
from lm_recipes.sources import files

SUFFIXES = (".conll", ".bio", ".iob", ".iob2", ".tsv", ".txt")


def read_sentences(lines: Iterable[str], where: str) -> Iterator[dict]:
    """Rows `{tokens, tags}`: the first column is the word, the last one its tag.

    Columns are divided by tabs, or in a line without any by spaces. `-DOCSTART-` lines of CoNLL-2003 are left out.

    Args:
        where: what errors call the file.

    Raises:
        UserError: while iterating, with the line: a missing word or tag, or other columns than the first line's.
    """
    tokens: list[str] = []
    tags: list[str] = []
    columns = None
    for number, line in enumerate(lines, start=1):
        cells = _cells(line)
        if not cells or cells[0] == "-DOCSTART-":
            if tokens:
                yield {"tokens": tokens, "tags": tags}
                tokens, tags = [], []
            continue
        columns = columns or len(cells)
        if len(cells) != columns or columns < 2:
            wanted = f"expected {max(columns, 2)}, the word first and its tag last"
            raise UserError(f"{where}: line {number}: {len(cells)} column(s), {wanted}")
        if not cells[0].strip() or not cells[-1].strip():
            raise UserError(f"{where}: line {number}: no {'tag' if cells[0].strip() else 'word'}; fill the column")
        tokens.append(cells[0])
        tags.append(cells[-1])
    if tokens:
        yield {"tokens": tokens, "tags": tags}


def _cells(line: str) -> list[str]:
    line = line.rstrip("\r\n")
    if not line.strip(" \t"):
        return []
    # by these two only: a word may well be some other character that Python takes for a space
    return line.split("\t") if "\t" in line else re.split(" +", line.strip(" "))


def column_files(source: str, split: str | None) -> str | list[str] | None:
    """What holds `split` of a source in columns: the file (or glob) itself, or a folder's `train.conll` and the like;
    None where the source is a table or anything else.

    Raises:
        UserError: a split other than "train" of a single file.
    """
    if source.startswith("demo:"):
        return None
    if _suffix(source) in SUFFIXES:
        if split not in (None, "train"):
            raise UserError(f"{source}: no split `{split}` in one file; name a folder that has {split}.* as well")
        return source
    if not files.names_files(source) or not files.is_folder(source):
        return None
    fs, folder = fsspec.core.url_to_fs(source)
    names = [path for path in sorted(fs.ls(folder, detail=False)) if _suffix(path) in SUFFIXES]
    of_split = [path for path in names if re.split(r"[.-]", PurePosixPath(path).name)[0] == (split or "train")]
    return [fs.unstrip_protocol(path) for path in of_split] or None


def read_column_files(found: str | list[str], source: str) -> list[dict]:
    """The rows of what `column_files` found, UTF-8, also compressed (.gz, .zst), one file after the other.

    Raises:
        UserError: naming the file, and the line where there is one.
    """
    rows: list[dict] = []
    for file in fsspec.open_files(found, "rt", encoding="utf-8-sig", compression="infer"):
        where = source if found == source and file.path.endswith(PurePosixPath(source).name) else file.path
        try:
            with file as stream:
                rows += read_sentences(stream, where)
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: not UTF-8 ({error.reason}); convert it first, for example with iconv") from error
        except (OSError, EOFError) as error:
            raise UserError(f"{where}: cannot be read ({' '.join(str(error).split())})") from error
    return rows


def _suffix(path: str) -> str:
    suffixes = PurePosixPath(path).suffixes
    if suffixes and suffixes[-1].lower() in files.COMPRESSED:
        suffixes.pop()
    return suffixes[-1].lower() if suffixes else ""
