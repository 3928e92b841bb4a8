"""Searches every byte of a folder for texts, also inflated and in every encoding that the program writes."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path


def places_with(root: Path, texts: Iterable[str]) -> list[str]:
    """Files below `root`, relative, whose name or content has one of the texts; in archives `file:member`."""
    wanted = {data for text in texts for data in _spellings(text)}
    found = []
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if any(data in name.encode().lower() for data in wanted):
            found.append(name)
        elif path.is_file() and not path.is_symlink():
            found += [
                place for place, data in _contents(name, path.read_bytes()) if any(w in data for w in wanted)
            ]
    return found


def _spellings(text: str) -> Iterator[bytes]:
    """Lower-case spellings; UTF-16 and escapes of JSON and of Python included."""
    lower = text.lower()
    for one in (text, lower, text.upper()):
        yield one.encode().lower()
        yield one.encode("utf-16-le").lower()
        yield one.encode("utf-16-be").lower()
        yield json.dumps(one)[1:-1].encode().lower()
        yield ascii(one)[1:-1].encode().lower()


def _contents(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    yield name, data.lower()
    if data[:2] == b"\x1f\x8b":
        inflated = zlib.decompressobj(31).decompress(data)
        yield f"{name}:inflated", inflated.lower()
        if tarfile.is_tarfile(io.BytesIO(data)):
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                for member in archive:
                    file = archive.extractfile(member)
                    if file is not None:
                        yield from _contents(f"{name}:{member.name}", file.read())
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            for packed_name in packed.namelist():
                yield from _contents(f"{name}:{packed_name}", packed.read(packed_name))
