"""How are tokens drawn, with what is asked of them and who sees whom? As strips and squares, in plain SVG."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby, pairwise

import numpy as np

from lm_recipes.reporting.plots import ACCENT, GRID, INK, MUTED, SECOND, STREAM

WIDTH, MARGIN = 900, 20  # pixels, as all that follows
LETTER = 7.25  # a monospaced letter at 12 px; small ones, at 10 px, have 6.1
GUTTER, CHIP, GAP, ARROW, CELL, LINE = 52, 26, 3, 20, 13, 20
NAMES = ("padding", "document 1", "document 2")
INKS, FILLS, UNSEEN = (MUTED, ACCENT, "#3d4f9f"), ("#f1f3f5", STREAM, "#dde2f5"), "#eef1f4"
MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace"
SANS = "system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif"
# Letters: m muted, s sans, b bold, e ends here, t small, w white. Shapes: l line, o orange; by document: c, f, k.
STYLE = (
    f"text{{fill:{INK};font:12px {MONO};text-anchor:middle;dominant-baseline:central}}.m{{fill:{MUTED}}}"
    f".s{{font-family:{SANS};text-anchor:start}}.b{{font-weight:600}}.e{{text-anchor:end}}.t{{font-size:10px}}"
    f".w{{fill:#fff}}.o{{fill:{SECOND}}}.l{{fill:none;stroke-width:1.3}}.ko{{stroke:{SECOND}}}.km{{stroke:{MUTED}}}"
    + "".join(f".c{i}{{fill:{INKS[i]}}}.f{i}{{fill:{FILLS[i]}}}.k{i}{{stroke:{INKS[i]}}}" for i in range(3))
)
ARROWHEAD = (
    '<marker id="a" viewBox="0 0 6 6" refX="4" refY="3" markerWidth="6" markerHeight="6" orient="auto">'
    f'<path d="M0 .5L5 3L0 5.5z" fill="{MUTED}"/></marker>'
)


@dataclass(frozen=True)
class Strip:
    """A row of tokens and below it what is asked, an entry per token.

    Attributes:
        tokens: what the model reads.
        looks: "text", "special" (frames a text), "hidden" (stands in the place of others) or "swapped" (is wrong).
        pieces: the document of each, from 1 up; 0: padding.
        asked: what has to be said; None: nothing.
        answers: which place has to say it, counted from its own: 0, or -1 for the one before.
        turns: when it is asked, where that has an order; stands in place of the arrow.
    """

    caption: str
    tokens: Sequence[str]
    looks: Sequence[str]
    pieces: Sequence[int]
    asked: Sequence[str | None]
    answers: int = 0
    turns: Sequence[int] | None = None


@dataclass(frozen=True)
class Matrix:
    """Who sees whom, bool `[queries, keys]`, and the strips whose tokens they are."""

    caption: str
    visible: np.ndarray
    queries: Strip
    keys: Strip


def picture(
    title: str, strips: Sequence[Strip], matrices: Sequence[Matrix] = (), legend: Sequence[tuple[str, str]] = ()
) -> str:
    """Strips below each other, then matrices side by side, then the legend, where there is room for it.

    Args:
        legend: (swatch, text): the swatch is a look of a token, "asked", "sees", or "" for a note.

    Returns:
        an SVG of its own, with a background, so that it reads the same on a dark page.
    """
    parts: list[str] = []
    top = MARGIN
    for strip in strips:
        drawn, top = _strip(strip, top)
        parts += drawn
    left, bottom = MARGIN, top
    for number, matrix in enumerate(matrices):
        named = number == 0 or matrix.queries is not matrices[number - 1].queries
        drawn, right, lowest = _matrix(matrix, left, top, named)
        parts, left, bottom = parts + drawn, right + 28, max(bottom, lowest)
    beside = left > MARGIN and WIDTH - MARGIN - left > 200
    drawn, lowest = _legend(legend, left if beside else MARGIN, top if beside else bottom)
    height = round(max(bottom, lowest))
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    paper = f'<rect x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="10" fill="#fff" stroke="{GRID}"/>'
    head = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">', f"<title>{escape(title)}</title>"]
    return "\n".join([*head, f"<style>{STYLE}</style>", ARROWHEAD, paper, *parts, *drawn, "</svg>\n"])


def _strip(strip: Strip, top: float) -> tuple[list[str], float]:
    """Caption, a bar per document, the tokens, arrows to what is asked. Also where the next thing may begin."""
    widths = [
        LETTER * max(len(token), len(asked or "")) + 8 for token, asked in zip(strip.tokens, strip.asked, strict=True)
    ]
    edges = MARGIN + GUTTER + np.cumsum([0, *(width + GAP for width in widths)])
    assert edges[-1] - GAP <= WIDTH - MARGIN, f"{strip.caption}: does not fit by {edges[-1] - WIDTH:.0f} pixels"
    middles = edges[:-1] + np.array(widths) / 2
    chips = top + 46
    asked = chips + CHIP + ARROW
    parts = [_text(MARGIN, top + 6, strip.caption, "s b"), _text(MARGIN, chips + CHIP / 2, "reads", "s m")]
    borders = [0, *(np.flatnonzero(np.diff(strip.pieces)) + 1), len(widths)]
    for first, end in pairwise(borders):
        piece, left, right = strip.pieces[first], edges[first], edges[end] - GAP
        parts.append(f'<path d="M{left:g} {chips - 7}H{right:g}" class="l k{piece}"/>')
        if right - left > 6.5 * len(NAMES[piece]):
            parts.append(_text(left, chips - 16, NAMES[piece], f"s t c{piece}"))
    for left, width, token, look, piece in zip(edges, widths, strip.tokens, strip.looks, strip.pieces, strict=False):
        parts += _chip(left, chips, width, token, look, piece)
    if not any(strip.asked):
        return parts, chips + CHIP + 22
    parts.append(_text(MARGIN, asked + CHIP / 2, "is asked", "s m"))
    for place, (left, width, said, piece) in enumerate(zip(edges, widths, strip.asked, strip.pieces, strict=False)):
        if said is None:
            parts.append(_text(middles[place], asked + CHIP / 2, "·", "m"))
            continue
        if strip.turns is None:
            start = f"{middles[place + strip.answers]:g} {chips + CHIP + 2:g}"
            end = f"{middles[place]:g} {asked - 4:g}"
            parts.append(f'<path d="M{start}L{end}" class="l km" marker-end="url(#a)"/>')
        else:
            parts.append(_text(middles[place], asked - ARROW / 2, str(strip.turns[place]), f"b c{piece}"))
        parts.append(_box(left + 0.7, asked + 0.7, width - 1.4, CHIP - 1.4, f"l k{piece}"))
        parts.append(_text(middles[place], asked + CHIP / 2, said, "b"))
    return parts, asked + CHIP + 24


def _chip(x: float, y: float, width: float, token: str, look: str, piece: int) -> list[str]:
    ink = {"hidden": "w b", "special": f"c{piece}", "swapped": "o b"}.get(look, "" if piece else "m")
    box = _box(x, y, width, CHIP, "o" if look == "hidden" else f"f{piece}")
    rim = [_box(x + 0.7, y + 0.7, width - 1.4, CHIP - 1.4, "l ko")] if look == "swapped" else []
    return [box, *rim, _text(x + width / 2, y + CHIP / 2, token, ink)]


def _matrix(matrix: Matrix, left: float, top: float, named: bool) -> tuple[list[str], float, float]:
    """Squares in the colour of the document of the token that looks; rows `named` or not. Also its right and bottom."""
    queries, keys = matrix.queries, matrix.keys
    x = left + (6.1 * max(map(len, queries.tokens)) + 8 if named else 0)
    y = top + 6.1 * max(map(len, keys.tokens)) + 26
    height, width = (CELL * number for number in matrix.visible.shape)
    parts = [_text(left, top + 6, matrix.caption, "s b")]
    for row, token in enumerate(queries.tokens if named else ()):
        parts.append(_text(x - 5, y + CELL * (row + 0.5), token, f"e t c{queries.pieces[row]}"))
    for column, token in enumerate(keys.tokens):
        turned = f'transform="translate({x + CELL * (column + 0.5):g} {y - 5:g})rotate(-90)"'
        kind = f't c{keys.pieces[column]}" style="text-anchor:start'
        parts.append(f'<text {turned} class="{kind}">{escape(token)}</text>')
    parts.append(f'<rect x="{x:g}" y="{y:g}" width="{width}" height="{height}" fill="{UNSEEN}"/>')
    for piece in sorted(set(queries.pieces)):
        seen = matrix.visible & (np.array(queries.pieces) == piece)[:, None]
        parts.append(f'<path class="c{piece}" d="{_runs(seen, x, y)}"/>')
    lines = [f"M{x + CELL * column:g} {y:g}v{height}" for column in range(1, len(keys.tokens))]
    lines += [f"M{x:g} {y + CELL * row:g}h{width}" for row in range(1, len(queries.tokens))]
    parts.append(f'<path d="{"".join(lines)}" stroke="#fff"/>')
    return parts, x + width, y + height + MARGIN


def _runs(cells: np.ndarray, x: float, y: float) -> str:
    """A rectangle for every run of cells in a row, as a path."""
    path = ""
    for number, row in enumerate(cells):
        column = 0
        for filled, run in groupby(row.tolist()):
            length = len(list(run))
            if filled:
                path += f"M{x + CELL * column:g} {y + CELL * number:g}h{CELL * length}v{CELL}h-{CELL * length}z"
            column += length
    return path


def _legend(entries: Sequence[tuple[str, str]], left: float, top: float) -> tuple[list[str], float]:
    parts, y, room = [], top + 6, int((WIDTH - MARGIN - left - 48) / 6.6)
    for swatch, text in entries:
        parts += _swatch(swatch, left, y - 8)
        for line in textwrap.wrap(text, room):
            parts.append(_text(left + 48, y, line, "s"))
            y += LINE
        y += 6
    return parts, y + 6


def _swatch(kind: str, x: float, y: float) -> list[str]:
    if kind == "sees":
        return [f'<path class="c{piece}" d="M{x + 14 * piece - 9:g} {y + 1:g}h13v13h-13z"/>' for piece in (1, 2)]
    boxes = {"asked": ["l k1"], "hidden": ["o"], "swapped": ["f1", "l ko"], "text": ["f1"]}
    return [_box(x + 0.7, y + 0.7, 36.6, 14.6, box) for box in boxes.get(kind, [])]


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}"{kind}>{escape(text)}</text>'


def _box(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" class="{kind}"/>'
