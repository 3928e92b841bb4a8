"""Reads untrusted files in bounded memory: JSON values one at a time, rows of tables, and text lines.

Archives and compressed files are unpacked before, see `unpack`.
Any malformed content raises BadInput with file and line.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

from engine.core.errors import BadInput
from engine.core.filenames import shell_word
from engine.core.i18n import _
from engine.memory.importers.readers import encodings, json_stream, tables

T = TypeVar("T")


class WebPage(BadInput):
    """The file is HTML."""


class NotText(BadInput):
    """The file is neither text nor a database."""


class WrongEncoding(BadInput):
    """The text is in an encoding that is not read."""

    def __init__(self, message: str, path: Path, line: int, encoding: str) -> None:
        super().__init__(message, path=path, line=line)
        self.encoding = encoding
        """What `iconv -f` takes; "" when it is unknown."""
        self.set_command(f"iconv {{options}} {shell_word(path)}", path.name)

    def set_command(self, command: str, name: str) -> None:
        """Makes the hint from a command with `{options}` for `iconv`, and the name of the file."""
        if self.encoding:
            stem, dot, suffix = name.rpartition(".")
            target = f"{stem}.utf8.{suffix}" if dot and stem else f"{name}.utf8"
            source, _space, flags = self.encoding.partition(" ")
            options = " ".join(part for part in (f"-f {source} -t UTF-8", flags) if part)
            self.hint = command.replace("{options}", options) + f" > {shell_word(target)}"


MAX_FILE = 8 * 2**30
"""Bytes of a file, or of an archive member after decompression."""
_READ_BYTES = 2**18
_MEMBERS_TO_CHECK = 8
"""Members of a very large object that are read to detect its format."""
_VALUES_TO_CHECK = 50
_BYTES_TO_CHECK = 4 * 2**20
"""Entries, and bytes of them, that are read to detect the format of a file."""

OnBytes = Callable[[int], None]
"""Called with the number of bytes read since the last call."""


def ignore_bytes(count: int) -> None:
    """The default: no progress."""


def is_zip(path: Path) -> bool:
    return file_start(path, 4) == b"PK\x03\x04"


def file_start(path: Path, count: int = encodings.SAMPLE) -> bytes:
    """The first bytes of a file. Raises BadInput when it is missing, empty, too large or unreadable."""
    with _opened(path) as file:
        return file.read(count)


def json_values(path: Path, on_bytes: OnBytes = ignore_bytes) -> Iterator[tuple[int, Any]]:
    """The entries of a file, each with the number of its first line: the elements of a JSON list, the values of
    JSONL, one JSON object, the rows of a CSV or Parquet file.

    Generic wrappers such as `{"data": [...]}` are removed, see `json_shape`. Memory use is bounded by one value.
    Raises BadInput for a missing or empty file, a web page, text that is not UTF-8 or UTF-16, invalid JSON, and a
    value over `json_stream.MAX_VALUE`.
    """
    if path.suffix.lower() in tables.SUFFIXES:
        return _csv_rows(path, on_bytes)
    start = file_start(path)
    if start.startswith(tables.PARQUET_MAGIC):
        return _parquet_rows(path, on_bytes)
    encoding = encodings.text_encoding(start)
    with _opened(path) as file:
        where = json_stream.layout(_decoded(file, encoding, path, ignore_bytes), path)
    return _parse(path, on_bytes, lambda chunks, path: json_stream.values(chunks, path, where))


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
    """The first of `first_values`; None when there is none."""
    return next(iter(first_values(path, limit=1)), None)


def first_values(path: Path, *, limit: int = _VALUES_TO_CHECK) -> Iterator[Any]:
    """The first entries of `path`, and after them the object that wraps them; nothing when it is not JSON and no table.

    Of a first object over `json_stream.MAX_VALUE`, its first members, with `{}` in place of an oversized one. Text
    that is malformed after the first entry ends the values. Raises BadInput for malformed text before.
    """
    start = file_start(path)
    is_table = path.suffix.lower() in tables.SUFFIXES or start.startswith(tables.PARQUET_MAGIC)
    bare = encodings.sample_text(start).lstrip("\ufeff \t\r\n")
    if not is_table and not _begins_json(bare):
        return
    done = 0

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count

    first_keys: object = None
    count = 0
    broken: list[BadInput] = []
    try:
        for _line, value in _values_despite(path, on_bytes, broken.append):
            first_keys = first_keys if count else _keys_of(value)
            count += 1
            yield value
            if count >= limit or done > _BYTES_TO_CHECK:
                break
    except json_stream.TooLong:
        if not count and not bare.startswith("{"):
            raise
    except BadInput:
        if not count:
            raise
    if broken and not count:
        raise broken[0]
    if bare.startswith("{") and not is_table:
        whole = _first_members(path)
        if whole and (not count or whole.keys() != first_keys):
            yield whole


def _values_despite(
    path: Path, on_bytes: OnBytes, on_broken_line: Callable[[BadInput], None]
) -> Iterator[tuple[int, Any]]:
    values = json_values(path, on_bytes)
    while True:
        # Not around a `yield`: the caller's own reading is not meant.
        with json_stream.tolerating(on_broken_line):
            item = next(values, None)
        if item is None:
            return
        yield item


def _begins_json(text: str) -> bool:
    return text.startswith("{") or (text.startswith("[") and text[1:].lstrip()[:1] in ("{", "[", "]", ""))


def _keys_of(value: Any) -> object:
    return value.keys() if isinstance(value, dict) else None


def _first_members(path: Path) -> dict[str, Any]:
    """The first members of a top-level object, with `{}` in place of an oversized one."""
    first: dict[str, Any] = {}
    try:
        for key, value in islice(json_members(path), _MEMBERS_TO_CHECK):
            first[key] = value
    except json_stream.TooLong as error:
        first[error.member] = {}
    except BadInput:
        pass
    return first


def _csv_rows(path: Path, on_bytes: OnBytes) -> Iterator[tuple[int, Any]]:
    lines = (line + "\n" for _number, line in text_lines(path, on_bytes))
    return tables.csv_rows(lines, path, json_stream.MAX_VALUE)


def _parquet_rows(path: Path, on_bytes: OnBytes) -> Iterator[tuple[int, Any]]:
    yield from tables.parquet_rows(path)
    on_bytes(path.stat().st_size)


def _parse(path: Path, on_bytes: OnBytes, parse: Callable[[Iterator[str], Path], Iterator[T]]) -> Iterator[T]:
    """Applies `parse` to the text of the file."""
    with _opened(path) as file:
        encoding = encodings.text_encoding(file.read(encodings.SAMPLE))
        file.seek(0)
        yield from parse(_decoded(file, encoding, path, on_bytes), path)


def text_lines(path: Path, on_bytes: OnBytes = ignore_bytes) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers, without line ends. Raises BadInput as `json_values` does."""
    with _opened(path) as file:
        encoding = encodings.text_encoding(file.read(encodings.SAMPLE))
        file.seek(0)
        number = length = 0
        pending: list[str] = []
        is_old_mac: bool | None = None
        for text in _decoded(file, encoding, path, on_bytes):
            # `splitlines` would also split at U+2028 and form feeds.
            if is_old_mac is None:
                is_old_mac = "\r" in text and "\n" not in text
            if is_old_mac:
                text = text.replace("\r", "\n")
            *complete, rest = text.split("\n")
            if complete:
                complete[0] = "".join((*pending, complete[0]))
                pending, length = [], 0
            for line in complete:
                number += 1
                yield number, line.removesuffix("\r").lstrip("\ufeff")
            pending.append(rest)
            length += len(rest)
            if length > json_stream.MAX_VALUE:
                raise json_stream.value_too_long(path, number + 1)
        if rest := "".join(pending):
            yield number + 1, rest.lstrip("\ufeff")


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


def _decoded(
    file: IO[bytes], encoding: str, path: Path, on_bytes: OnBytes, *, web_page: bool = False
) -> Iterator[str]:
    """The decoded text in chunks. Raises WebPage when it begins like one, unless `web_page`; WrongEncoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    first = True
    while True:
        data = file.read(_READ_BYTES)
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            line += error.object[: error.start].count(b"\n")
            raise _wrong_encoding(error.object, error.start, path, line) from None
        on_bytes(len(data))
        if first and not web_page and text.lstrip()[:14].lower().startswith(("<!doctype html", "<html")):
            raise WebPage(_("This is a web page; export as JSON where the program offers it"), path=path)
        first = False
        line += text.count("\n")
        if text:
            yield text
        if not data:
            return


def not_text(path: Path) -> NotText:
    return NotText(_("This is not a text, JSON or database file"), path=path)


def _wrong_encoding(data: bytes, at: int, path: Path, line: int) -> BadInput:
    begin = max(0, at - encodings.SAMPLE // 2)
    encoding = encodings.legacy_encoding(data[begin : begin + encodings.SAMPLE])
    if encoding == encodings.BINARY:
        return not_text(path)
    if encoding == encodings.DAMAGED_UTF8:
        return WrongEncoding(
            _("Some bytes of this text are damaged: they are not UTF-8"), path, line, "UTF-8 -c"
        )
    if encoding:
        message = _("The text is in {encoding}, not in UTF-8").format(encoding=encoding)
        return WrongEncoding(message, path, line, encoding)
    return WrongEncoding(_("The file is not UTF-8"), path, line, "")
