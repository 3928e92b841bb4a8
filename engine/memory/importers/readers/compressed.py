"""Unpacks single compressed files (gzip, bzip2, xz, Zstandard) in bounded memory and size."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from engine.core.errors import BadInput
from engine.core.i18n import _

SUFFIXES = {".gz": ".gz", ".tgz": ".gz", ".bz2": ".bz2", ".xz": ".xz", ".zst": ".zst", ".zstd": ".zst"}
"""File suffixes and the kind of compression that each means."""
_MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ\x00": ".xz", b"\x28\xb5\x2f\xfd": ".zst"}
_ZSTANDARD_BYTES = 2**11
"""So few that what they expand to at most, 128 KB for each 4 bytes, fits into memory."""
COMMANDS = {".gz": "gzip -dc", ".bz2": "bzip2 -dc", ".xz": "xz -dc", ".zst": "zstd -dc"}
"""Shell commands that print the content."""


def compression(start: bytes) -> str:
    """The kind of compression of a file with these first bytes; "" when there is none."""
    return next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), "")


class CutOff(BadInput):
    """The file ends early: what was unpacked before is whole."""


@contextmanager
def open_compressed(path: Path, kind: str) -> Iterator[IO[bytes]]:
    """The unpacked content. Raises BadInput, also while it is read; CutOff where the file ends early."""
    openers: dict[str, Callable[[Path], Any]] = {
        ".gz": gzip.open,
        ".bz2": bz2.open,
        ".xz": lzma.open,
        ".zst": _open_zstandard,
    }
    try:
        with openers[kind](path) as file:
            yield cast("IO[bytes]", _InSteps(file) if hasattr(file, "read1") else file)
    except (zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile) as error:
        raise damaged(path, error) from None
    except OSError as error:
        # bz2 reports damage as an OSError without a number.
        if error.errno is None:
            raise damaged(path, error) from None
        raise
    except Exception as error:
        if type(error).__module__.split(".")[0] in ("zstandard", "_zstd", "compression"):
            raise damaged(path, error) from None
        raise


class _InSteps:
    """Reads as much as is unpacked at a time, so that nothing of what stands before a fault is lost with it."""

    def __init__(self, file: Any) -> None:
        self.read = file.read1


def damaged(path: Path, error: Exception) -> BadInput:
    kind = CutOff if isinstance(error, EOFError) else BadInput
    return kind(
        _("The compressed file is damaged ({reason})").format(reason=str(error) or type(error).__name__),
        path=path,
    )


def _open_zstandard(path: Path) -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd

        return zstd.open(path)
    try:
        import zstandard
    except ImportError:
        raise BadInput(
            _("Zstandard files need the package zstandard"),
            path=path,
            hint=f"{sys.executable} -m pip install zstandard",
        ) from None
    return _Zstandard(path.open("rb"), zstandard.ZstdDecompressor())


class _Zstandard(io.RawIOBase):
    """Reads all frames of a file. `zstandard.open` reads one, and takes a file that is cut off for a whole one."""

    def __init__(self, file: IO[bytes], decompressor: Any) -> None:
        self._file = file
        self._decompressor = decompressor
        self._frame: Any = None
        self._pending = b""

    def read(self, size: int = -1) -> bytes:
        """The next bytes, not `size` of them. Raises EOFError inside a frame."""
        while True:
            data = self._pending or self._file.read(_ZSTANDARD_BYTES)
            self._pending = b""
            if not data:
                if self._frame is not None:
                    raise EOFError("the last frame is cut off")
                return b""
            self._frame = self._frame or self._decompressor.decompressobj()
            text: bytes = self._frame.decompress(data)
            if self._frame.eof:
                self._pending, self._frame = self._frame.unused_data, None
            if text:
                return text

    def close(self) -> None:
        self._file.close()
        super().close()
