"""Factors of adapters as numpy arrays, one pair at a time, and a safetensors file written tensor by tensor."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.hive.lora_file import ITEM_SIZES, BadAdapter, TensorEntry
from engine.hive.protocol import Rule

Matrix = NDArray[np.float64]


def read_matrix(fd: int, entry: TensorEntry, path: Path) -> Matrix:
    """A tensor as float64. Raises BadAdapter when the file has become shorter or holds NaN or infinity."""
    data = bytearray(entry.size)
    view, at = memoryview(data), 0
    while at < entry.size:
        count = os.preadv(fd, [view[at:]], entry.start + at)
        if count == 0:
            raise BadAdapter(Rule.HEADER, _("the file has become shorter"), path=path)
        at += count
    values = decode(data, entry.dtype).reshape(entry.shape)
    if not np.isfinite(values).all():
        raise BadAdapter(Rule.FINITE, _("it holds NaN or infinity"), path=path)
    return values


def decode(data: bytes | bytearray, dtype: str) -> Matrix:
    """Little-endian F32, F16 or BF16 as float64."""
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return np.frombuffer(data, "<f4" if dtype == "F32" else "<f2").astype(np.float64)


def encode(values: Matrix, dtype: str) -> bytes:
    """The bytes of `decode`, rounded to nearest even."""
    if dtype == "F16":
        return values.astype("<f2").tobytes()
    single = values.astype("<f4")
    if dtype == "F32":
        return single.tobytes()
    bits = single.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()


class SafetensorsWriter:
    """Writes the tensors of a header in its order; memory is that of one tensor."""

    def __init__(self, file: IO[bytes], shapes: Mapping[str, tuple[int, ...]], dtype: str) -> None:
        """`shapes`: of all tensors, in the order in which they will be written."""
        self._file, self._dtype = file, dtype
        self._left = list(shapes.items())[::-1]
        self._digest = sha256()
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, shape in shapes.items():
            start, end = end, end + int(np.prod(shape)) * ITEM_SIZES[dtype]
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._write(len(text).to_bytes(8, "little") + text)

    def add(self, name: str, values: Matrix) -> Matrix:
        """Writes the next tensor; returns it as a reader will find it. Raises BadInput for values beyond the format."""
        wanted, shape = self._left.pop()
        assert (name, values.shape) == (wanted, shape)
        with np.errstate(over="ignore"):
            data = encode(values, self._dtype)
        written = decode(data, self._dtype).reshape(shape)
        if not np.isfinite(written).all():
            raise BadInput(_("an update is too large for {dtype}").format(dtype=self._dtype))
        self._write(data)
        return written

    def close(self) -> str:
        """SHA-256 of the whole file."""
        assert not self._left
        return self._digest.hexdigest()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)


Progress = Callable[[int, int], None]
"""Called with matrices done and all of them; may raise to stop."""
