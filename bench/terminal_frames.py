"""Screens of a terminal as pictures: an asciicast, and SVG that holds every row once. Nothing is fetched to show them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple
from xml.sax.saxutils import escape

import pyte
from rich.cells import cell_len

CELL_W, CELL_H = 8.4, 18.0
"""Pixels of a cell."""
MARGIN = 10.0
FONT = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, 'Noto Sans Mono CJK SC', 'WenQuanYi Zen Hei Mono', monospace"
BACKGROUND, FOREGROUND = "121212", "e0e0e0"
_NAMED = {
    "black": "000000", "red": "cd3131", "green": "0dbc79", "brown": "e5e510", "yellow": "e5e510", "blue": "2472c8",
    "magenta": "bc3fbc", "cyan": "11a8cd", "white": "e5e5e5",
}  # fmt: skip


_WORDS = re.compile(r" +|[!-~]+(?: [!-~]+)*|[^ -~]+")
"""Spaces, Latin text, and other text, which a terminal draws in another font."""


class FrameLook(NamedTuple):
    """Colours as six hex digits, and weight, of a piece of text."""

    fore: str
    back: str
    bold: bool
    underline: bool


class FramePiece(NamedTuple):
    """Text of one look from a column on."""

    column: int
    text: str
    look: FrameLook


Row = tuple[FramePiece, ...]


@dataclass(frozen=True)
class Frame:
    """What a terminal shows for some time."""

    rows: tuple[Row, ...]
    at: float
    """Seconds from the start of the recording."""


def frame_of(screen: pyte.Screen, at: float) -> Frame:
    """The screen as it is now."""
    return Frame(tuple(_row(screen, y) for y in range(screen.lines)), at)


def thinned(frames: Sequence[Frame], most: int, hold: float) -> list[Frame]:
    """At most `most` of the frames, evenly chosen, each held for `hold` seconds from the time of the first one."""
    step = max(1, -(-len(frames) // most))
    return [replace(frame, at=frames[0].at + hold * number) for number, frame in enumerate(frames[::step])]


def _row(screen: pyte.Screen, y: int) -> Row:
    cells = [(x, screen.buffer[y][x]) for x in range(screen.columns)]
    pieces = []
    for look, group in groupby(cells, key=lambda cell: _look(cell[1])):
        members = list(group)
        text = "".join(char.data for _x, char in members)
        if text.strip() or look.back != BACKGROUND:
            pieces.append(FramePiece(members[0][0], text, look))
    return tuple(pieces)


def _look(char: pyte.screens.Char) -> FrameLook:
    fore, back = _colour(char.fg, FOREGROUND), _colour(char.bg, BACKGROUND)
    if char.reverse:
        fore, back = back, fore
    return FrameLook(fore, back, char.bold, char.underscore)


def _colour(name: str, default: str) -> str:
    return default if name == "default" else _NAMED.get(name.removeprefix("bright"), name)


# asciicast v2


def asciicast(frames: Sequence[Frame], columns: int, lines: int, title: str) -> str:
    """The frames as https://docs.asciinema.org/manual/asciicast/v2/: each writes the rows that changed."""
    head = {
        "version": 2,
        "width": columns,
        "height": lines,
        "title": title,
        "env": {"TERM": "xterm-256color"},
    }
    out = [json.dumps(head, ensure_ascii=False)]
    before: tuple[Row, ...] = ()
    for frame in frames:
        parts = ["\x1b[2J"] if not before else []
        for y, row in enumerate(frame.rows):
            if y >= len(before) or before[y] != row:
                parts.append(f"\x1b[{y + 1};1H\x1b[0m\x1b[K{''.join(map(_ansi, row))}")
        if parts:
            out.append(json.dumps([round(frame.at, 3), "o", "".join(parts) + "\x1b[0m"], ensure_ascii=False))
        before = frame.rows
    return "\n".join(out) + "\n"


def _ansi(piece: FramePiece) -> str:
    codes = ["0"] + ["1"] * piece.look.bold + ["4"] * piece.look.underline
    for kind, colour, default in ((38, piece.look.fore, FOREGROUND), (48, piece.look.back, BACKGROUND)):
        if colour != default:
            red, green, blue = bytes.fromhex(colour)
            codes.append(f"{kind};2;{red};{green};{blue}")
    return f"\x1b[{piece.column + 1}G\x1b[{';'.join(codes)}m{piece.text}"


# SVG


def svg(frames: Sequence[Frame], columns: int, title: str, *, last_s: float = 3.0) -> str:
    """One frame as a still picture, several as a loop of CSS alone."""
    rows: dict[Row, int] = {}
    placed = [[rows.setdefault(row, len(rows)) for row in frame.rows] for frame in frames]
    width, height = columns * CELL_W + 2 * MARGIN, len(frames[0].rows) * CELL_H + 2 * MARGIN
    defs = "".join(f'<g id="r{number}">{_svg_row(row)}</g>' for row, number in rows.items() if row)
    empty = {number for row, number in rows.items() if not row}
    strip = "".join(_svg_frame(numbers, empty, place * width) for place, numbers in enumerate(placed))
    style = f"text{{font:14px {FONT};white-space:pre}}.b{{font-weight:bold}}.u{{text-decoration:underline}}"
    if len(frames) > 1:
        total = frames[-1].at + last_s
        steps = "".join(
            f"{100 * frame.at / total:.3f}%{{transform:translateX({-place * width:g}px)}}"
            for place, frame in enumerate(frames)
        )
        style += f"@keyframes p{{{steps}}}#s{{animation:p {total:.2f}s steps(1,end) infinite}}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img"><title>{escape(title)}</title><style>{style}</style><defs>{defs}</defs>'
        f'<rect width="100%" height="100%" rx="8" fill="#{BACKGROUND}"/><g id="s" fill="#{FOREGROUND}">{strip}</g></svg>\n'
    )


def _svg_frame(numbers: Sequence[int], empty: set[int], x: float) -> str:
    uses = "".join(
        f'<use href="#r{number}" y="{y * CELL_H:g}"/>'
        for y, number in enumerate(numbers)
        if number not in empty
    )
    return f'<g transform="translate({x + MARGIN:g} {MARGIN:g})">{uses}</g>'


def _svg_row(row: Row) -> str:
    return "".join(map(_svg_piece, row))


def _svg_piece(piece: FramePiece) -> str:
    """Background, then each word at its own place: spaces are not drawn, and no font moves what follows."""
    out, column = "", piece.column
    if piece.look.back != BACKGROUND:
        width = cell_len(piece.text) * CELL_W
        out += (
            f'<rect x="{column * CELL_W:g}" width="{width:g}" height="{CELL_H:g}" fill="#{piece.look.back}"/>'
        )
    classes = " ".join(["b"] * piece.look.bold + ["u"] * piece.look.underline)
    attributes = f' class="{classes}"' if classes else ""
    if piece.look.fore != FOREGROUND:
        attributes += f' fill="#{piece.look.fore}"'
    for word in _WORDS.findall(piece.text):
        cells = cell_len(word)
        if word.strip():
            length = f' textLength="{cells * CELL_W:g}"' if cells > 1 else ""
            length += ' lengthAdjust="spacingAndGlyphs"' if length and not word.isascii() else ""
            x, y = column * CELL_W, CELL_H * 0.76
            out += f'<text x="{x:g}" y="{y:g}"{attributes}{length}>{escape(word)}</text>'
        column += cells
    return out
