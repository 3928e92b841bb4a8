"""Streaming JSON parser: one value at a time, so that memory use is bounded by one value.

Any malformed text raises BadInput with file and line. Not ijson: its errors carry no line number, it
rejects numbers that `json` accepts (NaN, 1e400), and it does not bound the size of a value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import msgspec

from engine.core.errors import BadInput
from engine.core.i18n import N_, _
from engine.memory.importers.readers.json_shape import CHAT_LISTS, ROW_LISTS, SPLITS, entries, is_wrapped_list

MAX_VALUE = 64 * 2**20
"""Characters of one JSON value or one line: the longest conversation that is imported."""
_WHITESPACE = re.compile(r"[\s\ufeff]*")
"""Files that were joined have a byte order mark in the middle."""
_LISTS = re.compile(r"\][\s\ufeff]*\[")


_BEGINNING = re.compile(r"(?:-|\\?u?[0-9a-fA-F]{0,4}|tr?u?|fa?l?s?|nu?l?|Na?|-?In?f?i?n?i?t?)\s*")
"""What may stand between the place of an error and the end of a file that was cut off: nothing, or part of a word."""
_NEXT_LINE = re.compile(r"\n(?:(?!\n)[\s\ufeff])*+[{\[]")
_on_broken_line: ContextVar[Callable[[BadInput], None] | None] = ContextVar("on_broken_line", default=None)


@contextmanager
def tolerating(on_broken_line: Callable[[BadInput], None]) -> Iterator[None]:
    """Within the block, a broken line of JSONL is reported and the lines after it are read."""
    before = _on_broken_line.get()
    _on_broken_line.set(on_broken_line)
    try:
        yield
    finally:
        _on_broken_line.set(before)


class TooLong(BadInput):
    """One value is longer than `MAX_VALUE`."""

    member = ""
    """Name of the member, when an object is read member by member."""


class _Buffer:
    """The unparsed part of the text, with its line number in the file."""

    def __init__(self, chunks: Iterator[str]) -> None:
        self._chunks = chunks
        self.text = ""
        self.at = 0
        self.line = 1
        self.ended = False

    def read_more(self) -> bool:
        """Doubles the buffered text, so that a long value is parsed a few times only; stays near `MAX_VALUE`."""
        parts = [self.text[self.at :]]
        self.text, self.at = "", 0
        wanted = max(min(len(parts[0]), MAX_VALUE + 1 - len(parts[0])), 1)
        while wanted > 0 and (chunk := next(self._chunks, None)) is not None:
            parts.append(chunk)
            wanted -= len(chunk)
        self.ended = wanted > 0
        self.text, self.at = "".join(parts), 0
        return len(parts) > 1

    def advance(self, end: int) -> None:
        self.line += self.text.count("\n", self.at, end)
        self.at = end

    def peek(self) -> str:
        """The next character that is not white space, without consuming it; "" at the end."""
        while True:
            match = _WHITESPACE.match(self.text, self.at)
            self.advance(match.end() if match else self.at)
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.read_more():
                return ""

    def skip_line(self) -> bool:
        """Goes on to the next line that begins with an object or a list; False, without moving, when there is none."""
        while not (match := _NEXT_LINE.search(self.text, self.at + 1)):
            if self.ended or len(self.text) - self.at > MAX_VALUE or not self.read_more():
                return False
        self.advance(match.end() - 1)
        return True

    def value(self, path: Path, by_line: bool) -> Any:
        """Parses and consumes the JSON value at the current position. Raises BadInput."""
        while True:
            try:
                value, end = _decode(self.text, self.at)
            except (ValueError, RecursionError) as error:
                if (
                    isinstance(error, json.JSONDecodeError)
                    and not self.ended
                    and _may_be_incomplete(error, self.text)
                ):
                    if len(self.text) - self.at > MAX_VALUE:
                        raise value_too_long(path, self.line) from None
                    # Parse again even at the end of the file: the error's positions refer to the old buffer.
                    self.read_more()
                    continue
                if self.ended and _is_cut_off(error, self.text):
                    line = self.line + self.text.count("\n", self.at, len(self.text.rstrip()))
                    raise BadInput(ends_in_an_entry(), path=path, line=line) from None
                raise _malformed(error, self.text, self.at, path, self.line, by_line) from None
            if end == len(self.text) and not self.ended and self.read_more():
                continue
            self.advance(end)
            return value


_decode = json.JSONDecoder().raw_decode


def _may_be_incomplete(error: json.JSONDecodeError, text: str) -> bool:
    """Whether the error may only be due to the end of the buffer."""
    return error.msg.startswith("Unterminated string") or error.pos > len(text) - 16


def _is_cut_off(error: Exception, text: str) -> bool:
    """Whether a value that cannot be parsed is whole but for its end, where the file ends."""
    return isinstance(error, json.JSONDecodeError) and (
        error.msg.startswith("Unterminated string") or bool(_BEGINNING.fullmatch(text, error.pos))
    )


def ends_in_an_entry() -> str:
    """The reason for a file that was cut off."""
    return _("The file ends in the middle of an entry")


class Layout(msgspec.Struct, frozen=True):
    """Where the entries of a JSON file are."""

    keys: tuple[str, ...] = ()
    """The members that lead from a top-level object to the list of entries; empty without a wrapper. The parts of a
    data set stand for each other."""
    lists: bool = False
    """The file is a sequence of lists, each on its own."""


def layout(chunks: Iterator[str], path: Path) -> Layout:
    """The layout of a file, by its beginning. Malformed text has the plain one: reading it raises the error."""
    buffer = _Buffer(chunks)
    try:
        first = buffer.peek()
        if first == "{":
            return Layout(keys=_wrapper(buffer, path, ()))
        if first == "[":
            return Layout(lists=_is_followed_by_list(buffer))
    except BadInput:
        pass
    return Layout()


def _is_followed_by_list(buffer: _Buffer) -> bool:
    if not _LISTS.search(buffer.text, buffer.at):
        return False
    try:
        _value, end = _decode(buffer.text, buffer.at)
    except (ValueError, RecursionError):
        return False
    buffer.advance(end)
    return buffer.peek() == "["


def _wrapper(buffer: _Buffer, path: Path, outer: tuple[str, ...]) -> tuple[str, ...]:
    """The keys down to the list of entries in the object at the current position; () when it is no wrapper."""
    buffer.advance(buffer.at + 1)
    while buffer.peek() == '"':
        key = buffer.value(path, by_line=False)
        if buffer.peek() != ":":
            return ()
        buffer.advance(buffer.at + 1)
        mark = buffer.peek()
        if mark == "{" and key in ROW_LISTS and not outer:
            return _wrapper(buffer, path, (key,))
        if mark == "[" and key in ROW_LISTS | CHAT_LISTS | SPLITS:
            buffer.advance(buffer.at + 1)
            if buffer.peek() != "]":
                first = buffer.value(path, by_line=False)
                return (*outer, key) if is_wrapped_list(key, first) else ()
            buffer.advance(buffer.at + 1)
        elif not _skip_plain(buffer, path, mark):
            return ()
        if buffer.peek() != ",":
            return ()
        buffer.advance(buffer.at + 1)
        buffer.peek()
    return ()


def _skip_plain(buffer: _Buffer, path: Path, mark: str) -> bool:
    """Consumes a member that may stand beside the list of a wrapper: a number, a text, a flat object.

    False for any other: it belongs to a conversation, and is not parsed twice.
    """
    if mark not in ("{", "["):
        buffer.value(path, by_line=False)
        return True
    try:
        value, end = _decode(buffer.text, buffer.at)
    except (ValueError, RecursionError):
        return False
    buffer.advance(end)
    return _is_plain(value, 2)


def _is_plain(value: Any, depth: int) -> bool:
    """Whether a value holds facts about an export, at most `depth` objects deep, and no list of objects."""
    if isinstance(value, dict):
        return depth > 0 and all(_is_plain(part, depth - 1) for part in value.values())
    return not isinstance(value, list) or not any(isinstance(part, list | dict) for part in value)


def values(chunks: Iterator[str], path: Path, where: Layout = Layout()) -> Iterator[tuple[int, Any]]:  # noqa: B008
    """The entries of one list, or a sequence of values (JSONL), each with its line number; see `json_shape`."""
    buffer = _Buffer(chunks)
    first = buffer.peek()
    if not first:
        raise BadInput(_("The file is empty"), path=path)
    if first != "[" or where.lists:
        while buffer.peek():
            if where.keys and buffer.text[buffer.at] == "{":
                found = _inner(buffer, path, where.keys)
            else:
                found = _next_value(buffer, path)
            yield from ((line, entry) for line, value in found for entry in entries(value))
        return
    yield from (
        (line, entry)
        for line, value in _elements(buffer, path)
        for entry in (entries(value) if isinstance(value, list) else (value,))
    )
    if buffer.peek():
        raise BadInput(_("Extra data after the end of the JSON"), path=path, line=buffer.line)


def _next_value(buffer: _Buffer, path: Path) -> Iterator[tuple[int, Any]]:
    """The value at the current position; none for a broken line that `tolerating` reports."""
    line = buffer.line
    try:
        yield line, buffer.value(path, by_line=True)
    except TooLong:
        raise
    except BadInput as error:
        on_broken_line = _on_broken_line.get()
        # A fault on a later line is in an object of several lines, not in a line of JSONL.
        if on_broken_line is None or error.line != line or not buffer.skip_line():
            raise
        on_broken_line(error)


def _inner(buffer: _Buffer, path: Path, keys: tuple[str, ...]) -> Iterator[tuple[int, Any]]:
    """The elements of the list that `keys` lead to in the object at the current position."""
    for key in _keys(buffer, path):
        mark = buffer.peek()
        if key == keys[0] and len(keys) > 1 and mark == "{":
            yield from _inner(buffer, path, keys[1:])
        elif mark == "[" and (key == keys[0] or (key in SPLITS and keys[0] in SPLITS)):
            yield from _elements(buffer, path)
        else:
            buffer.value(path, by_line=False)


def _elements(buffer: _Buffer, path: Path) -> Iterator[tuple[int, Any]]:
    """The elements of the list at the current position, each with its line number."""
    buffer.advance(buffer.at + 1)
    ended = buffer.peek() == "]"
    while not ended:
        buffer.peek()
        line = buffer.line
        yield line, buffer.value(path, by_line=False)
        mark = buffer.peek()
        if mark not in (",", "]"):
            reason = (
                _("The JSON ends in the middle of a list")
                if not mark
                else _("A comma is missing in the JSON")
            )
            raise BadInput(reason, path=path, line=buffer.line)
        ended = mark == "]"
        if not ended:
            buffer.advance(buffer.at + 1)
    buffer.advance(buffer.at + 1)


def members(chunks: Iterator[str], path: Path, expand: frozenset[str]) -> Iterator[tuple[str, Any]]:
    """The members of an object, see `files.json_members`."""
    return _members(_Buffer(chunks), path, "", expand)


def _members(buffer: _Buffer, path: Path, prefix: str, expand: frozenset[str]) -> Iterator[tuple[str, Any]]:
    """The members of the object at the current position, their names after `prefix`."""
    for name in _keys(buffer, path):
        key = prefix + name
        mark = buffer.peek()
        expanded = key in expand or (prefix and f"{prefix}*" in expand)
        if expanded and mark == "{":
            yield from _members(buffer, path, f"{key}.", expand)
        elif expanded and mark == "[":
            yield from ((key, value) for _line, value in _elements(buffer, path))
        else:
            try:
                value = buffer.value(path, by_line=False)
            except TooLong as error:
                error.member = key
                raise
            yield key, value


def _keys(buffer: _Buffer, path: Path) -> Iterator[str]:
    """The names in the object at the current position; the caller consumes the value of each."""

    def expect(marks: str) -> str:
        mark = buffer.peek()
        if not mark or mark not in marks:
            reason = _("{mark} expected").format(mark=" / ".join(marks))
            raise BadInput(
                _("Invalid JSON ({reason})").format(reason=reason) if mark else ends_in_an_entry(),
                path=path,
                line=buffer.line,
            )
        return mark

    expect("{")
    buffer.advance(buffer.at + 1)
    ended = buffer.peek() == "}"
    while not ended:
        expect('"')
        key = buffer.value(path, by_line=False)
        expect(":")
        buffer.advance(buffer.at + 1)
        yield key
        ended = expect(",}") == "}"
        if not ended:
            buffer.advance(buffer.at + 1)
    buffer.advance(buffer.at + 1)


_REASONS = {
    "Expecting value": N_("value expected"),
    "Expecting ',' delimiter": N_("comma expected"),
    "Expecting ':' delimiter": N_("colon expected"),
    "Expecting property name enclosed in double quotes": N_("name in double quotes expected"),
    "Unterminated string starting at": N_("unterminated string"),
    "Invalid control character at": N_("control character in a string"),
    "Invalid \\escape": N_("invalid backslash escape"),
    "Invalid \\uXXXX escape": N_("invalid \\u escape"),
    "Extra data": N_("extra data after the end"),
}
"""Translatable texts for the messages of `json.JSONDecodeError`."""


def _malformed(error: Exception, text: str, at: int, path: Path, line: int, by_line: bool) -> BadInput:
    if isinstance(error, json.JSONDecodeError):
        reason = _(_REASONS.get(error.msg, error.msg))
        cut = text.find("\n", at)
        # A truncated JSONL line is reported itself, not the next line, where the parser failed.
        if not (by_line and 0 <= cut < error.pos and text[cut + 1 : cut + 2] == "{"):
            line += text.count("\n", at, error.pos)
    else:
        reason = _("nested too deeply") if isinstance(error, RecursionError) else _("number too long")
    return BadInput(_("Invalid JSON ({reason})").format(reason=reason), path=path, line=line)


def value_too_long(path: Path, line: int) -> TooLong:
    return TooLong(
        _("One conversation or line is longer than {n} MB").format(n=MAX_VALUE // 2**20), path=path, line=line
    )
