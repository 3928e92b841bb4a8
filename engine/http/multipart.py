"""A `multipart/form-data` body, read as it arrives: small fields whole, the content of files in parts.

The client's file names are not looked at.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.message import Message

from engine.http.refused import RequestRefused, bad_request

MAX_FIELDS = 32
MAX_FIELD_BYTES = 1 << 20
"""Of all fields together."""
_MAX_HEAD = 16 << 10
_MAX_PREAMBLE = 1 << 10
_BOUNDARY = re.compile(r"[ -~]{1,200}")


@dataclass(frozen=True)
class FilePart:
    """Bytes of the file that came in the field `name`, in order."""

    name: str
    data: bytes


@dataclass
class FormFields:
    """The fields that were not files, filled while the body is read."""

    values: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    """Names of the fields that were files, empty ones too."""


async def read_form(
    content_type: str, parts: AsyncIterator[bytes], fields: FormFields
) -> AsyncIterator[FilePart]:
    """The content of files, while `fields` fills. Raises RequestRefused for a body that is no form, or ends early."""
    reader = _FormReader(_boundary(content_type), fields)
    async for part in parts:
        for found in reader.feed(part):
            yield found
    if not reader.is_complete:
        raise bad_request("the form ends before its last boundary")


class _FormReader:
    """The state between two parts of a body."""

    def __init__(self, boundary: bytes, fields: FormFields) -> None:
        self._mark = b"\r\n--" + boundary
        self._fields = fields
        # So that a body may begin with the boundary itself.
        self._buffer = bytearray(b"\r\n")
        self._name, self._is_file, self._in_head = "", False, False
        self._value = bytearray()
        self._preamble = True
        self._spent = 0
        self.is_complete = False

    def feed(self, data: bytes) -> list[FilePart]:
        found: list[FilePart] = []
        if self.is_complete:
            return found  # an epilogue says nothing
        self._buffer += data
        while not self.is_complete:
            if self._in_head:
                if not self._read_head():
                    break
            elif not self._read_content(found):
                break
        return found

    def _read_head(self) -> bool:
        """What follows a boundary: the end, or the headers of the next part; False while bytes are missing."""
        if self._buffer.startswith(b"--"):
            self.is_complete = True
            return True
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _MAX_HEAD:
                raise bad_request("the headers of a part of the form are too long")
            return False
        padding, _newline, head = bytes(self._buffer[:end]).partition(b"\r\n")
        if padding.strip(b" \t"):
            raise bad_request("a boundary of the form is followed by something else")
        del self._buffer[: end + 4]
        self._start_part(head)
        self._in_head = False
        return True

    def _start_part(self, head: bytes) -> None:
        message = Message()
        for line in head.decode("utf-8", "replace").split("\r\n"):
            name, _colon, value = line.partition(":")
            if name.strip().lower() == "content-disposition":
                message["content-disposition"] = value.strip()
        given = message.get_param("name", header="content-disposition")
        if not isinstance(given, str) or not 0 < len(given) <= 100:
            raise bad_request("a part of the form has no name")
        if len(self._fields.values) + len(self._fields.files) >= MAX_FIELDS:
            raise bad_request("the form has too many fields")
        self._name = given
        self._is_file = message.get_param("filename", header="content-disposition") is not None
        if self._is_file:
            self._fields.files.append(given)

    def _read_content(self, found: list[FilePart]) -> bool:
        """Bytes up to the next boundary; False while it has not arrived."""
        end = self._buffer.find(self._mark)
        sure = end if end >= 0 else len(self._buffer) - len(self._mark) + 1
        if sure > 0:
            self._take(bytes(self._buffer[:sure]), found)
            del self._buffer[:sure]
        if end < 0:
            return False
        if not self._preamble and not self._is_file:
            if self._name in self._fields.values:
                raise bad_request(f"the form has the field {self._name!r} twice")
            self._fields.values[self._name] = self._value.decode("utf-8", "replace")
            self._value.clear()
        del self._buffer[: len(self._mark)]
        self._preamble, self._in_head = False, True
        return True

    def _take(self, data: bytes, found: list[FilePart]) -> None:
        if self._preamble or not self._is_file:
            self._spent += len(data)
            if self._spent > (_MAX_PREAMBLE if self._preamble else MAX_FIELD_BYTES):
                raise RequestRefused(413, "the fields of the form are too long")
        if self._preamble:
            return
        if self._is_file:
            found.append(FilePart(self._name, data))
        else:
            self._value += data


def _boundary(content_type: str) -> bytes:
    message = Message()
    message["content-type"] = content_type
    boundary = message.get_param("boundary")
    if message.get_content_type() != "multipart/form-data" or not isinstance(boundary, str):
        raise RequestRefused(415, "the body must be multipart/form-data")
    if not _BOUNDARY.fullmatch(boundary):
        raise bad_request("the boundary of the form is none")
    return boundary.encode("ascii")
