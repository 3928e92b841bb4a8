"""Reading files that people bring: JSON values one at a time in bounded memory, lines, and zip archives.

Whatever a file holds, only BadInput comes out, with the file and the line.
"""

from __future__ import annotations

import codecs
import json
import re
import shlex
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

from engine.errors import BadInput
from engine.i18n import _
from engine.memory.importers.archive import MAX_FILE, export_members, opened_archive, opened_member

MAX_VALUE = 64 * 2**20
"""Characters of one JSON value or one line: the longest conversation that is taken."""
_READ = 2**18
T = TypeVar("T")
_WHITE = re.compile(r"\s*")


_FIRST = 8
"""Members of a very large object that are looked at to recognise its program."""


class TooLong(BadInput):
    """One value is longer than `MAX_VALUE`."""

    member = ""
    """Its name, of an object that is read member by member."""


OnBytes = Callable[[int], None]
"""Called with the number of bytes read since the last call."""


def ignore_bytes(count: int) -> None:
    """For a reader that shows no progress."""


def is_zip(path: Path) -> bool:
    with _opened(path) as file:
        return file.read(4) == b"PK\x03\x04"


def size_of(path: Path) -> int:
    """Bytes that reading `path` will go through: of a zip, those of the members that are read."""
    if is_zip(path):
        with opened_archive(path) as archive:
            return sum(member.file_size for member in export_members(archive, path))
    if path.name == "MANIFEST":
        # Of a Badger folder: the tables that it names lie beside it.
        return sum(table.stat().st_size for table in path.parent.glob("*.sst"))
    return path.stat().st_size


def json_values(path: Path, on_bytes: OnBytes = ignore_bytes) -> Iterator[tuple[int, Any]]:
    """The values of a JSON array, of JSONL, or one JSON object, each with the line on which it begins.

    Of a zip, those of every `conversations.json` in it. Memory stays at the size of one value. Raises
    BadInput: missing, empty, a web page, not UTF-8, broken JSON, a value over `MAX_VALUE`, an unsafe zip.
    """
    return _each(path, on_bytes, _values)


def json_members(
    path: Path, on_bytes: OnBytes = ignore_bytes, *, opened: Collection[str] = ()
) -> Iterator[tuple[str, Any]]:
    """The keys and values of one JSON object, for programs that put everything they have into one.

    Those named in `opened` are not read whole: the members of an object come one by one as `outer.inner`, the
    elements of a list one by one under its name; `outer.*` names all members of an object. Memory stays at the size of one value that is read. Raises
    BadInput as `json_values` does, and when it is no object.
    """

    def parse(file: IO[bytes], path: Path, on_bytes: OnBytes) -> Iterator[tuple[str, Any]]:
        return _members(_buffer(file, path, on_bytes), path, "", frozenset(opened))

    return _each(path, on_bytes, parse)


def first_value(path: Path) -> Any:
    """The first JSON value of `path`; None when it holds none or is no JSON. Of an object over `MAX_VALUE`,
    its first members, the one that is too long as an empty object. Raises BadInput for broken JSON."""
    bare = b"{"
    if not is_zip(path):
        with _opened(path) as file:
            start = file.read(4096)
        bare = start.removeprefix(codecs.BOM_UTF8).lstrip()
        if not bare.startswith((b"[", b"{")) or (
            bare[:1] == b"[" and bare[1:].lstrip()[:1] not in (b"{", b"[", b"]", b"")
        ):
            return None
    try:
        return next((value for _line, value in json_values(path)), None)
    except TooLong:
        if not bare.startswith(b"{"):
            raise
    # Outside: the error holds what was read until it is let go.
    found: dict[str, Any] = {}
    try:
        for key, value in islice(json_members(path), _FIRST):
            found[key] = value
    except TooLong as problem:
        found[problem.member] = {}
    return found


def _each(
    path: Path, on_bytes: OnBytes, parse: Callable[[IO[bytes], Path, OnBytes], Iterator[T]]
) -> Iterator[T]:
    """What `parse` makes of the file, or of each member of a zip that holds conversations."""
    if is_zip(path):
        with opened_archive(path) as archive:
            for member in export_members(archive, path):
                with opened_member(archive, member, path) as file:
                    yield from parse(file, path, on_bytes)
        return
    with _opened(path) as file:
        yield from parse(file, path, on_bytes)


def lines(path: Path, on_bytes: OnBytes = ignore_bytes) -> Iterator[tuple[int, str]]:
    """The lines of a text with their numbers, without their ends. Raises BadInput as `json_values` does."""
    with _opened(path) as file:
        encoding = _encoding(file)
        number = length = 0
        waiting: list[str] = []
        for text in _texts(file, encoding, path, on_bytes):
            # Only real line ends: `splitlines` would also cut at U+2028 and form feeds inside a text.
            *whole, rest = text.split("\n")
            if whole:
                whole[0] = "".join((*waiting, whole[0]))
                waiting, length = [], 0
            for line in whole:
                number += 1
                yield number, line.removesuffix("\r")
            waiting.append(rest)
            length += len(rest)
            if length > MAX_VALUE:
                raise _too_long(path, number + 1)
        if rest := "".join(waiting):
            yield number + 1, rest


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        if not path.is_file():
            raise BadInput(
                _("This is not a file that can be read") if path.exists() else _("There is no such file"),
                path=path,
            )
        size = path.stat().st_size
        file = path.open("rb")
    except OSError as error:
        raise BadInput(
            _("The file cannot be read ({reason})").format(reason=error.strerror), path=path
        ) from None
    if size == 0 or size > MAX_FILE:
        file.close()
        raise BadInput(
            _("The file is empty")
            if size == 0
            else _("The file is larger than {n} GB; split it").format(n=MAX_FILE // 2**30),
            path=path,
        )
    with file:
        try:
            yield file
        except OSError as error:
            raise BadInput(
                _("The file cannot be read ({reason})").format(reason=error.strerror), path=path
            ) from None


def _encoding(file: IO[bytes]) -> str:
    start = file.read(4)
    file.seek(0)
    return "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def _texts(file: IO[bytes], encoding: str, path: Path, on_bytes: OnBytes) -> Iterator[str]:
    """The file's text in pieces. Looks at the first one for a web page."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    first = True
    while True:
        data = file.read(_READ)
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise BadInput(
                _("The file is not UTF-8"),
                path=path,
                line=line + error.object[: error.start].count(b"\n"),
                mend=f"iconv -f GB18030 -t UTF-8 {shlex.quote(str(path))} > {shlex.quote(path.stem + '.utf8' + path.suffix)}",
            ) from None
        on_bytes(len(data))
        if first and text.lstrip()[:14].lower().startswith(("<!doctype html", "<html")):
            raise BadInput(
                _("This is a web page; import the conversations.json of the export instead"), path=path
            )
        first = False
        line += text.count("\n")
        if text:
            yield text
        if not data:
            return


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
                        raise _too_long(path, self.line) from None
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


def _buffer(file: IO[bytes], path: Path, on_bytes: OnBytes) -> _Buffer:
    encoding = _encoding(file) if file.seekable() else "utf-8-sig"
    return _Buffer(_texts(file, encoding, path, on_bytes))


def _values(file: IO[bytes], path: Path, on_bytes: OnBytes) -> Iterator[tuple[int, Any]]:
    buffer = _buffer(file, path, on_bytes)
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


def _broken(error: Exception, text: str, at: int, path: Path, line: int, by_line: bool) -> BadInput:
    if isinstance(error, json.JSONDecodeError):
        reason = error.msg
        cut = text.find("\n", at)
        # In JSONL a line that is cut off is the broken one, not the next, where the parser noticed.
        if not (by_line and 0 <= cut < error.pos and text[cut + 1 : cut + 2] == "{"):
            line += text.count("\n", at, error.pos)
    else:
        reason = _("nested too deeply") if isinstance(error, RecursionError) else _("a number is too long")
    return BadInput(_("The JSON is broken ({reason})").format(reason=reason), path=path, line=line)


def _too_long(path: Path, line: int) -> TooLong:
    return TooLong(
        _("One conversation or line is longer than {n} MB").format(n=MAX_VALUE // 2**20), path=path, line=line
    )
