"""How a GGUF file stores a tensor of transformers: order of rows and columns, and a function of the values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Values = Callable[[Tensor], Tensor]
Order = Callable[[int], Tensor]
"""`order(n)` is `(n,)`: row `i` of the GGUF tensor is row `order(n)[i]` of transformers' tensor."""


@dataclass(frozen=True)
class TensorLayout:
    """The storage of one tensor. Values are changed one by one, so blocks of rows may be converted apart."""

    rows: Order | None = None
    columns: Order | None = None
    to_gguf: Values | None = None
    to_transformers: Values | None = None
    squeezed: bool = False
    """Transformers has an axis of length 1 in the middle, which GGUF leaves out: `(rows, 1, columns)`."""

    def gguf_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape in the file of a tensor that has `shape` in transformers."""
        return (shape[0], *shape[2:]) if self.squeezed and len(shape) == 3 else shape

    def hf_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape in transformers of a tensor that has `shape` in the file."""
        return (shape[0], 1, *shape[1:]) if self.squeezed else shape

    def encode(self, block: Tensor) -> Tensor:
        """Rows in the file's order from transformers' values, columns ordered and values changed."""
        if self.squeezed and block.ndim == 3:
            block = block.squeeze(1)
        if self.columns is not None:
            block = block[:, self.columns(block.shape[1])]
        return block if self.to_gguf is None else self.to_gguf(block)

    def decode(self, block: Tensor) -> Tensor:
        """The inverse of `encode`; the order of rows stays the file's."""
        if self.columns is not None:
            block = block[:, self.columns(block.shape[1]).argsort()]
        if self.to_transformers is not None:
            block = self.to_transformers(block.float())
        return block.unsqueeze(1) if self.squeezed else block


AS_STORED = TensorLayout()
"""The same in both."""


def paired(heads: int) -> TensorLayout:
    """Rows of each head in pairs (the rotary embedding of Llama in llama.cpp) instead of in halves."""
    return TensorLayout(rows=lambda rows: paired_rows(rows, heads))


def paired_rows(rows: int, heads: int) -> Tensor:
    """`(rows,)`: row `i` of the GGUF tensor is row `paired_rows[i]` of transformers' tensor."""
    return torch.arange(rows).view(heads, 2, rows // heads // 2).transpose(1, 2).reshape(-1)


def plus_one() -> TensorLayout:
    """The file stores the weight plus 1."""
    return TensorLayout(to_gguf=lambda block: block + 1, to_transformers=lambda block: block - 1)
