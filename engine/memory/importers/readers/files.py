"""Reads untrusted files in bounded memory: JSON values one at a time, text lines, and JSON inside zip archives.

Any malformed content raises BadInput with file and line.
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
from engine.memory.importers.readers import json_stream
from engine.memory.importers.readers.zip_archive import MAX_FILE, export_members, open_archive, open_member

T = TypeVar("T")

_READ_BYTES = 2**18
_MEMBERS_TO_CHECK = 8
"""Members of a very large object that are read to detect its format."""

OnBytes = Callable[[int], None]
"""Called with the number of bytes read since the last call."""


def ignore_bytes(count: int) -> None:
    """The default: no progress."""


def is_zip(path: Path) -> bool:
    with _opened(path) as file:
        return file.read(4) == b"PK\x03\x04"


def import_size(path: Path) -> int:
    """Bytes that importing `path` reads: of a zip, the unpacked members; of a Badger folder, its tables."""
    if is_zip(path):
        with open_archive(path) as archive:
            return sum(member.file_size for member in export_members(archive, path))
    if path.name == "MANIFEST":
        return sum(table.stat().st_size for table in path.parent.glob("*.sst"))
    return path.stat().st_size


def json_values(path: Path, on_bytes: OnBytes = ignore_bytes) -> Iterator[tuple[int, Any]]:
    """The values of a JSON array, of JSONL, or one JSON object, each with the number of its first line.

    In a zip, the values of every `conversations.json`. Memory use is bounded by one value. Raises BadInput for
    a missing or empty file, a web page, invalid UTF-8 or JSON, a value over `json_stream.MAX_VALUE`, an unsafe zip.
    """
    return _parse(path, on_bytes, json_stream.values)


def json_members(
    path: Path, on_bytes: OnBytes = ignore_bytes, *, expand: Collection[str] = ()
) -> Iterator[tuple[str, Any]]:
    """The keys and values of one JSON object, for programs that export everything as one object.

    Members named in `expand` are streamed: an object yields its members as `outer.inner`, a list its elements
    under its own name; `outer.*` names all members of an object. Memory use is bounded by one yielded value.
    Raises BadInput as `json_values` does, and when the file holds no object.
    """
    names = frozenset(expand)
    return _parse(path, on_bytes, lambda chunks, path: json_stream.members(chunks, path, names))


def first_value(path: Path) -> Any:
    """The first JSON value of `path`; None when it holds none or is not JSON.

    For an object over `json_stream.MAX_VALUE`, its first members, with `{}` in place of an oversized one.
    Raises BadInput for malformed JSON.
    """
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
    # Outside the except block: the exception keeps the text that was read alive.
    first: dict[str, Any] = {}
    try:
        for key, value in islice(json_members(path), _MEMBERS_TO_CHECK):
            first[key] = value
    except json_stream.TooLong as error:
        first[error.member] = {}
    return first


def _parse(path: Path, on_bytes: OnBytes, parse: Callable[[Iterator[str], Path], Iterator[T]]) -> Iterator[T]:
    """Applies `parse` to the text of the file, or of each conversations member of a zip."""
    if is_zip(path):
        with open_archive(path) as archive:
            for member in export_members(archive, path):
                with open_member(archive, member, path) as file:
                    yield from parse(_decoded(file, "utf-8-sig", path, on_bytes), path)
        return
    with _opened(path) as file:
        yield from parse(_decoded(file, _encoding(file), path, on_bytes), path)


def text_lines(path: Path, on_bytes: OnBytes = ignore_bytes) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers, without line ends. Raises BadInput as `json_values` does."""
    with _opened(path) as file:
        encoding = _encoding(file)
        number = length = 0
        pending: list[str] = []
        for text in _decoded(file, encoding, path, on_bytes):
            # `splitlines` would also split at U+2028 and form feeds.
            *complete, rest = text.split("\n")
            if complete:
                complete[0] = "".join((*pending, complete[0]))
                pending, length = [], 0
            for line in complete:
                number += 1
                yield number, line.removesuffix("\r")
            pending.append(rest)
            length += len(rest)
            if length > json_stream.MAX_VALUE:
                raise json_stream.value_too_long(path, number + 1)
        if rest := "".join(pending):
            yield number + 1, rest


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        if not path.is_file():
            raise BadInput(
                _("This is not a regular file") if path.exists() else _("There is no such file"),
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


def _decoded(file: IO[bytes], encoding: str, path: Path, on_bytes: OnBytes) -> Iterator[str]:
    """The decoded text in chunks. Raises BadInput when it begins like a web page."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    first = True
    while True:
        data = file.read(_READ_BYTES)
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
