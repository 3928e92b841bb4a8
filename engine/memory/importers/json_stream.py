"""JSON read as it comes, one value at a time, so that memory stays at the size of one.

Whatever the text holds, only BadInput comes out, with the file and the line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.core.errors import BadInput
from engine.core.i18n import N_, _

MAX_VALUE = 64 * 2**20
"""Characters of one JSON value or one line: the longest conversation that is taken."""
_WHITE = re.compile(r"\s*")


class TooLong(BadInput):
    """One value is longer than `MAX_VALUE`."""

    member = ""
    """Its name, of an object that is read member by member."""


class _Buffer:
    """The part of the text that is being read, and where in the file it is."""

    def __init__(self, texts: Iterator[str]) -> None:
        self._texts = texts
        self.text = ""
        self.at = 0
        self.line = 1
        self.ended = False

    def more(self) -> bool:
        """Reads as much as is waiting, so that a long value is tried a few times only, and never much more than
        the longest value."""
        pieces = [self.text[self.at :]]
        self.text, self.at = "", 0
        wanted = max(min(len(pieces[0]), MAX_VALUE + 1 - len(pieces[0])), 1)
        while wanted > 0 and (piece := next(self._texts, None)) is not None:
            pieces.append(piece)
            wanted -= len(piece)
        self.ended = wanted > 0
        self.text, self.at = "".join(pieces), 0
        return len(pieces) > 1

    def move(self, end: int) -> None:
        self.line += self.text.count("\n", self.at, end)
        self.at = end

    def next_character(self) -> str:
        """The next one that is not white space, not yet taken; "" at the end."""
        while True:
            match = _WHITE.match(self.text, self.at)
            self.move(match.end() if match else self.at)
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def value(self, path: Path, by_line: bool) -> Any:
        """The JSON value that begins here. Raises BadInput."""
        while True:
            try:
                value, end = _decode(self.text, self.at)
            except (ValueError, RecursionError) as error:
                if (
                    isinstance(error, json.JSONDecodeError)
                    and not self.ended
                    and _may_go_on(error, self.text)
                ):
                    if len(self.text) - self.at > MAX_VALUE:
                        raise too_long(path, self.line) from None
                    # Once more also at the end: the places in the error belong to the text as it was.
                    self.more()
                    continue
                raise _broken(error, self.text, self.at, path, self.line, by_line) from None
            if end == len(self.text) and not self.ended and self.more():
                continue
            self.move(end)
            return value


_decode = json.JSONDecoder().raw_decode


def _may_go_on(error: json.JSONDecodeError, text: str) -> bool:
    """Whether the value is only cut off at the end of what was read so far."""
    return error.msg.startswith("Unterminated string") or error.pos > len(text) - 16


def values(texts: Iterator[str], path: Path) -> Iterator[tuple[int, Any]]:
    """The elements of a list, or the values that stand one after another, each with its line."""
    buffer = _Buffer(texts)
    first = buffer.next_character()
    if not first:
        raise BadInput(_("The file is empty"), path=path)
    if first != "[":
        while buffer.next_character():
            line = buffer.line
            yield line, buffer.value(path, by_line=True)
        return
    yield from _elements(buffer, path)
    if buffer.next_character():
        raise BadInput(_("There is something after the end of the JSON"), path=path, line=buffer.line)


def _elements(buffer: _Buffer, path: Path) -> Iterator[tuple[int, Any]]:
    """The elements of the list that begins here, each with its line."""
    buffer.move(buffer.at + 1)
    ended = buffer.next_character() == "]"
    while not ended:
        buffer.next_character()
        line = buffer.line
        yield line, buffer.value(path, by_line=False)
        mark = buffer.next_character()
        if mark not in (",", "]"):
            reason = (
                _("The JSON ends in the middle of a list")
                if not mark
                else _("A comma is missing in the JSON")
            )
            raise BadInput(reason, path=path, line=buffer.line)
        ended = mark == "]"
        if not ended:
            buffer.move(buffer.at + 1)
    buffer.move(buffer.at + 1)


def members(texts: Iterator[str], path: Path, opened: frozenset[str]) -> Iterator[tuple[str, Any]]:
    """The members of an object, see `files.json_members`."""
    return _members(_Buffer(texts), path, "", opened)


def _members(buffer: _Buffer, path: Path, inside: str, opened: frozenset[str]) -> Iterator[tuple[str, Any]]:
    """The members of the object that begins here, `inside` before their names."""

    def wanted(marks: str) -> str:
        mark = buffer.next_character()
        if not mark or mark not in marks:
            raise BadInput(
                _("The JSON is broken ({reason})").format(
                    reason=_("{mark} expected").format(mark=" / ".join(marks))
                ),
                path=path,
                line=buffer.line,
            )
        return mark

    wanted("{")
    buffer.move(buffer.at + 1)
    ended = buffer.next_character() == "}"
    while not ended:
        wanted('"')
        key = inside + buffer.value(path, by_line=False)
        wanted(":")
        buffer.move(buffer.at + 1)
        mark = buffer.next_character()
        open_ = key in opened or (inside and f"{inside}*" in opened)
        if open_ and mark == "{":
            yield from _members(buffer, path, f"{key}.", opened)
        elif open_ and mark == "[":
            yield from ((key, value) for _line, value in _elements(buffer, path))
        else:
            try:
                value = buffer.value(path, by_line=False)
            except TooLong as problem:
                problem.member = key
                raise
            yield key, value
        ended = wanted(",}") == "}"
        if not ended:
            buffer.move(buffer.at + 1)
    buffer.move(buffer.at + 1)


_REASONS = {
    "Expecting value": N_("a value is expected"),
    "Expecting ',' delimiter": N_("a comma is expected"),
    "Expecting ':' delimiter": N_("a colon is expected"),
    "Expecting property name enclosed in double quotes": N_("a name in double quotes is expected"),
    "Unterminated string starting at": N_("a text does not end"),
    "Invalid control character at": N_("a control character in a text"),
    "Invalid \\escape": N_("a backslash before a sign that needs none"),
    "Invalid \\uXXXX escape": N_("a broken \\u sign"),
    "Extra data": N_("something stands after the end"),
}
"""What `json` says, in the person's language."""


def _broken(error: Exception, text: str, at: int, path: Path, line: int, by_line: bool) -> BadInput:
    if isinstance(error, json.JSONDecodeError):
        reason = _(_REASONS.get(error.msg, error.msg))
        cut = text.find("\n", at)
        # In JSONL a line that is cut off is the broken one, not the next, where the parser noticed.
        if not (by_line and 0 <= cut < error.pos and text[cut + 1 : cut + 2] == "{"):
            line += text.count("\n", at, error.pos)
    else:
        reason = _("nested too deeply") if isinstance(error, RecursionError) else _("a number is too long")
    return BadInput(_("The JSON is broken ({reason})").format(reason=reason), path=path, line=line)


def too_long(path: Path, line: int) -> TooLong:
    return TooLong(
        _("One conversation or line is longer than {n} MB").format(n=MAX_VALUE // 2**20), path=path, line=line
    )
