"""Makes text from outside (data, models, logs, file names) safe to show: the terminal never interprets it.

`plain` makes a string harmless, `safe` makes it Content for a widget; neither ever reads markup. Widgets get
Content built here or by `Content.assemble`, never a string with markup in it.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textual.content import Content

_UNCHANGED = frozenset("\n\u200c\u200d")
"""Unchanged characters: line ends, and the joiners that Persian, Indic scripts and emoji need."""

_INTERPRETED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories that a terminal may interpret, or that hide text from the reader."""

_VARIATION_SELECTORS = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
"""They choose a glyph; terminals disagree about their width."""
_BLANKS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
"""Letters and marks that are drawn as nothing or as a space."""
_UNSEEN = re.compile(f"[{_VARIATION_SELECTORS}{_BLANKS}]")
_DROPPED = re.compile(f"[{_VARIATION_SELECTORS}]")

TAB = "    "


def _replacement(character: str) -> str:
    """The visible replacement of a character that must not reach the terminal."""
    code = ord(character)
    if character == "\t":
        return TAB
    if _DROPPED.match(character):
        return ""
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"<U+{code:04X}>"


def plain(text: str) -> str:
    """`text` with every control, escape, bidi and invisible character as a visible mark.

    Line ends stay, tabs become four spaces, bytes of file names that are not UTF-8 become `\\xe9`, so that
    the result can always be encoded. Control characters become their pictures (ESC is ␛), others `<U+202E>`.
    """
    if text.isprintable() and (text.isascii() or not _UNSEEN.search(text)):
        return text
    return "".join(
        _replacement(character)
        if character not in _UNCHANGED
        and (unicodedata.category(character) in _INTERPRETED or _UNSEEN.match(character))
        else character
        for character in text
    )


def json_escaped(document: str, *, ascii_only: bool = False) -> str:
    """A JSON document in which every character that `plain` replaces is a `\\u` escape; its values are unchanged.

    `ascii_only`: every other character beyond ASCII too.
    """
    if document.isascii() and "\x7f" not in document:
        return document
    return "".join(
        _json_escape(character)
        if character == "\x7f" or (character > "\x7f" and (ascii_only or plain(character) != character))
        else character
        for character in document
    )


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def one_line(text: str) -> str:
    """`plain`, with line ends as `⏎`, for places where a second line would be a forgery."""
    return plain(text.replace("\r\n", "\n")).replace("\n", "⏎")


def safe(text: str, style: str = "") -> Content:
    """`plain(text)` as Content for a widget, without markup. `style` is one of ours, e.g. "$text-accent"."""
    from textual.content import Content

    return Content.styled(plain(text), style) if style else Content(plain(text))


def cells(text: str) -> int:
    """Width of `text` in terminal cells (a 汉字 is two)."""
    from rich.cells import cell_len

    return cell_len(text)


def fit(text: str, width: int) -> str:
    """`text` on one line in exactly `width` cells: cut with `…`, or filled with spaces."""
    from rich.cells import cell_len, set_cell_size

    line = one_line(text)
    if width <= 0:
        return ""
    if cell_len(line) <= width:
        return line + " " * (width - cell_len(line))
    return set_cell_size(set_cell_size(line, width - 1).rstrip() + "…", width)
