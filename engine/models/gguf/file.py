"""The GGUF container: metadata, tensor table, and dequantized rows of a tensor.

The reader of the gguf library maps the file. This one reads by position, so pages are counted once in memory, and a
file that shrinks while open raises an error instead of SIGBUS. Format: ggml's GGUF specification, versions 2 and 3.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from torch import Tensor

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.models.gguf.header import ARRAY, GgufReader, open_binary, truncated

CHUNK = 1 << 22
"""Elements dequantized per call: 16 MB as float32, about four times that inside the gguf library."""
_UNQUANTIZED = {
    GGMLQuantizationType.F32: torch.float32,
    GGMLQuantizationType.F16: torch.float16,
    GGMLQuantizationType.BF16: torch.bfloat16,
}
READABLE = frozenset(
    kind
    for kind in GGMLQuantizationType
    if kind in _UNQUANTIZED
    or kind.name.startswith(("Q2_K", "Q3_K", "Q4_", "Q5_", "Q6_K", "Q8_0", "IQ", "TQ", "MXFP4"))
)
"""Types that the gguf library can dequantize."""


@dataclass(frozen=True)
class GgufTensor:
    """An entry of the tensor table. `shape` is in torch's order, rows first; `offset` is from the start of the file."""

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    offset: int
    nbytes: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class GgufFile:
    """The header of the file; tensor values stay on disk."""

    path: Path
    size: int
    metadata: dict[str, Any]
    types: dict[str, tuple[int, int | None]]
    """GGUF type number of each metadata value, for arrays also of their items."""
    tensors: dict[str, GgufTensor]

    def text(self, key: str, default: str = "") -> str:
        """A string. Raises BadInput when `key` has another type."""
        value = self.metadata.get(key, default)
        if not isinstance(value, str):
            raise self.invalid(key)
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        """An integer. Raises BadInput when `key` is missing without a default or has another type."""
        value = self.metadata.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.invalid(key)
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A number. Raises BadInput when `key` is missing without a default or is not a finite number."""
        value = self.metadata.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.invalid(key)
        return float(value)

    def items(self, key: str) -> list[Any]:
        """An array, empty when missing. Raises BadInput when `key` has another type."""
        value = self.metadata.get(key, [])
        if not isinstance(value, list):
            raise self.invalid(key)
        return value

    def invalid(self, key: str) -> BadInput:
        return BadInput(_("the GGUF file has no valid value for {key}").format(key=key), path=self.path)

    def rows(self, tensor: GgufTensor) -> Iterator[tuple[int, Tensor]]:
        """(first row, values `(n, columns)`) over all rows, in blocks of at most `CHUNK` elements.

        A one-dimensional tensor is one row. Raises BadInput as `read_rows`.
        """
        columns = tensor.shape[-1]
        total = tensor.elements // columns
        step = max(1, CHUNK // columns)
        for start in range(0, total, step):
            yield start, self.read_rows(tensor, start, min(start + step, total))

    def read_rows(self, tensor: GgufTensor, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop`, `(stop - start, columns)`: unquantized types as stored, others as float32.

        Raises BadInput when the file has become shorter.
        """
        row_bytes = tensor.nbytes // (tensor.elements // tensor.shape[-1])
        data = np.empty((stop - start, row_bytes), dtype=np.uint8)
        with self.path.open("rb", buffering=0) as file:
            if _fill(file, tensor.offset + start * row_bytes, data.reshape(-1)) != data.nbytes:
                raise truncated(self.path)
        return _values(data, tensor.type)

    def read(self, tensor: GgufTensor) -> Tensor:
        """All values of a small tensor as float32. Raises BadInput as `rows`."""
        return torch.cat([values.float() for _start, values in self.rows(tensor)]).reshape(tensor.shape)


def _fill(file: Any, offset: int, into: np.ndarray[Any, Any]) -> int:
    done, view = 0, into.data
    while done < len(view):
        count = os.preadv(file.fileno(), [view[done:]], offset + done)
        if count == 0:
            break
        done += count
    return done


def _values(blocks: np.ndarray[Any, Any], kind: GGMLQuantizationType) -> Tensor:
    if kind in _UNQUANTIZED:
        return torch.from_numpy(blocks).view(_UNQUANTIZED[kind])
    return torch.from_numpy(dequantize(blocks, kind))


def read_gguf(path: Path) -> GgufFile:
    """The header of the file at `path`, with all tensor offsets checked against the size of the file.

    Raises BadInput when the file is missing, unreadable, not GGUF, of another byte order or version, truncated, part
    of a split model, or has a tensor of an unsupported type.
    """
    with open_binary(path) as file:
        return _HeaderParser(path, file).parse()


class _HeaderParser(GgufReader):
    def parse(self) -> GgufFile:
        tensor_count, key_count = self.start(), self.count("Q")
        metadata: dict[str, Any] = {}
        types: dict[str, tuple[int, int | None]] = {}
        for _number in range(key_count):
            key, kind = self.string(), self.scalar("I")
            types[key] = kind, None
            if kind == ARRAY:
                types[key] = kind, self.scalar("I")
                metadata[key] = self.items(types[key][1])
            else:
                metadata[key] = self.value(kind)
        if metadata.get("split.count", 0) not in (0, 1):
            raise BadInput(
                _("this GGUF file is one part of a split model; merge the parts first"), path=self.path
            )
        table = [self.entry() for _number in range(tensor_count)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
            raise BadInput(_("the GGUF file has no valid value for {key}").format(key="general.alignment"))
        start = -(-self.file.tell() // alignment) * alignment
        tensors = {}
        for name, shape, kind, offset in table:
            tensor = self.tensor(name, shape, kind, start + offset)
            if name in tensors:
                raise self.broken()
            tensors[name] = tensor
        return GgufFile(self.path, self.size, metadata, types, tensors)

    def tensor(self, name: str, shape: tuple[int, ...], kind: int, offset: int) -> GgufTensor:
        try:
            type_ = GGMLQuantizationType(kind)
        except ValueError:
            raise self.unsupported(name, str(kind)) from None
        if type_ not in READABLE:
            raise self.unsupported(name, type_.name)
        block, block_bytes = GGML_QUANT_SIZES[type_]
        elements = math.prod(shape)
        if elements <= 0 or shape[-1] % block:
            raise self.broken()
        nbytes = elements // block * block_bytes
        if offset + nbytes > self.size:
            raise truncated(self.path)
        return GgufTensor(name, shape, type_, offset, nbytes)

    def entry(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self.string()
        dimensions: int = self.scalar("I")
        if not 1 <= dimensions <= 4:
            raise self.broken()
        shape = tuple(self.scalar("Q") for _number in range(dimensions))
        return name, shape[::-1], self.scalar("I"), self.scalar("Q")

    def unsupported(self, name: str, kind: str) -> BadInput:
        return BadInput(
            _("tensor {name} of the GGUF file has the unsupported type {kind}").format(name=name, kind=kind),
            path=self.path,
        )
