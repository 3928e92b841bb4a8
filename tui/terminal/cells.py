"""The cells of a terminal: what a strip of Textual looks like in each of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from rich.cells import get_character_cell_size
from rich.color import ColorSystem
from rich.style import Style
from textual.strip import Strip

CONTINUATION = ""
"""Text of the second cell of a wide character."""
DRAWN_ON_BLANKS = frozenset({"4", "7", "9", "21", "53"})
"""Codes that are visible on a blank: underline, reverse, strike, double underline, overline."""
_CHECK_MARKS = "✓✗"
"""Among the symbols, those that the app draws: neutral in width, and no emoji."""


class Look(NamedTuple):
    """The appearance of a cell: SGR codes."""

    attributes: frozenset[str] = frozenset()
    foreground: str = ""
    background: str = ""
    link: str = ""
    """The target of a hyperlink."""

    def of_blank(self) -> Look:
        """What of it is seen on a blank: the colour of the text only where a line or the reverse is drawn with it."""
        drawn = self.attributes & DRAWN_ON_BLANKS
        return Look(drawn, self.foreground if drawn else "", self.background, self.link)


PLAIN = Look()


class Cell(NamedTuple):
    """One cell of the terminal; a wide character is followed by a cell without text."""

    text: str
    look: Look

    def differs(self, other: Cell | None) -> bool:
        """Whether it looks different. The colour of the text of a blank is not seen."""
        if other is None or self.text != other.text:
            return True
        if self.look is other.look:
            return False
        if self.text == " ":
            return self.look.of_blank() != other.look.of_blank()
        return self.look != other.look


class Piece(NamedTuple):
    """Cells to show side by side, from column `x` of row `y` on."""

    x: int
    y: int
    cells: Sequence[Cell]
    certain: bool
    """Whether every terminal agrees about the widths of the characters."""


def cells_of(strip: Strip, colors: ColorSystem) -> tuple[list[Cell], bool]:
    """The cells of a strip, and whether every terminal agrees about their widths."""
    cells: list[Cell] = []
    certain = True
    for text, style, control in strip._segments:
        if control:
            continue
        look = PLAIN if style is None else _look(style, colors)
        if text.isascii():
            cells += _ascii_cells(text, look)
            continue
        for character in text:
            width = get_character_cell_size(character)
            certain = certain and is_certain(character)
            if width == 0 and cells:
                last = next(n for n in range(len(cells) - 1, -1, -1) if cells[n].text != CONTINUATION)
                cells[last] = Cell(cells[last].text + character, cells[last].look)
            elif width:
                cells.append(Cell(character, look))
                cells += [Cell(CONTINUATION, look)] * (width - 1)
    return cells, certain


@lru_cache(maxsize=4096)
def _ascii_cells(text: str, look: Look) -> tuple[Cell, ...]:
    return tuple(Cell(character, look) for character in text)


@lru_cache(maxsize=4096)
def is_certain(character: str) -> bool:
    """Whether terminals agree about the width: not for emoji, combining marks and joiners."""
    if character < "\u0300" or character in _CHECK_MARKS:
        return True
    if unicodedata.category(character) in ("Mn", "Me", "Mc", "Cf", "Co", "Cn"):
        return False
    return not (
        "\u2600" <= character <= "\u27bf" or "\u2b00" <= character <= "\u2bff" or character >= "\U0001f000"
    )


@lru_cache(maxsize=4096)
def _look(style: Style, colors: ColorSystem) -> Look:
    codes = Strip.render_ansi(style, colors).split(";")
    attributes: set[str] = set()
    foreground = background = ""
    at = 0
    while at < len(codes):
        code = codes[at]
        length = {"5": 3, "2": 5}.get(codes[at + 1], 1) if code in ("38", "48") and at + 1 < len(codes) else 1
        whole = ";".join(codes[at : at + length])
        number = int(code or 0)
        if number == 38 or 30 <= number <= 37 or 90 <= number <= 97 or number == 39:
            foreground = whole if number != 39 else ""
        elif number == 48 or 40 <= number <= 47 or 100 <= number <= 107 or number == 49:
            background = whole if number != 49 else ""
        elif number:
            attributes.add(code)
        at += length
    return Look(frozenset(attributes), foreground, background, style.link or "")
