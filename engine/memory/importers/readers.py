"""Reading files that people bring: JSON values one at a time in bounded memory, lines, and zip archives.

Whatever a file holds, only BadInput comes out, with the file and the line.
"""

from __future__ import annotations

import codecs
import shlex
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.memory.importers import json_stream
from engine.memory.importers.archive import MAX_FILE, export_members, opened_archive, opened_member

_READ = 2**18
T = TypeVar("T")


_FIRST = 8
"""Members of a very large object that are looked at to recognise its program."""


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
    BadInput: missing, empty, a web page, not UTF-8, broken JSON, a value over `json_stream.MAX_VALUE`, an unsafe zip.
    """
    return _each(path, on_bytes, json_stream.values)


def json_members(
    path: Path, on_bytes: OnBytes = ignore_bytes, *, opened: Collection[str] = ()
) -> Iterator[tuple[str, Any]]:
    """The keys and values of one JSON object, for programs that put everything they have into one.

    Those named in `opened` are not read whole: the members of an object come one by one as `outer.inner`, the
    elements of a list one by one under its name; `outer.*` names all members of an object. Memory stays at the size of one value that is read. Raises
    BadInput as `json_values` does, and when it is no object.
    """

    names = frozenset(opened)
    return _each(path, on_bytes, lambda texts, path: json_stream.members(texts, path, names))


def first_value(path: Path) -> Any:
    """The first JSON value of `path`; None when it holds none or is no JSON. Of an object over `json_stream.MAX_VALUE`,
    its first members, the one that is too long as an empty object. Raises BadInput for broken JSON."""
    bare = b"{"
    if not is_zip(path):
        with _opened(path) as file:
            start = file.read(4096)
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            start = start.decode("utf-16", "ignore").encode()
        bare = start.removeprefix(codecs.BOM_UTF8).lstrip()
        if not bare.startswith((b"[", b"{")) or (
            bare[:1] == b"[" and bare[1:].lstrip()[:1] not in (b"{", b"[", b"]", b"")
        ):
            return None
    try:
        return next((value for _line, value in json_values(path)), None)
    except json_stream.TooLong:
        if not bare.startswith(b"{"):
            raise
    # Outside: the error holds what was read until it is let go.
    found: dict[str, Any] = {}
    try:
        for key, value in islice(json_members(path), _FIRST):
            found[key] = value
    except json_stream.TooLong as problem:
        found[problem.member] = {}
    return found


def _each(path: Path, on_bytes: OnBytes, parse: Callable[[Iterator[str], Path], Iterator[T]]) -> Iterator[T]:
    """What `parse` makes of the file, or of each member of a zip that holds conversations."""
    if is_zip(path):
        with opened_archive(path) as archive:
            for member in export_members(archive, path):
                with opened_member(archive, member, path) as file:
                    yield from parse(_texts(file, "utf-8-sig", path, on_bytes), path)
        return
    with _opened(path) as file:
        yield from parse(_texts(file, _encoding(file), path, on_bytes), path)


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
            if length > json_stream.MAX_VALUE:
                raise json_stream.too_long(path, number + 1)
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
                hint=f"iconv -f GB18030 -t UTF-8 {shlex.quote(str(path))} > {shlex.quote(path.stem + '.utf8' + path.suffix)}",
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
