"""What the semantic stage asks of an embedder, whichever program computes the vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Matrix: TypeAlias = NDArray[np.float32]


class Embedder(Protocol):
    """Texts to vectors whose products are cosines."""

    @property
    def name(self) -> str:
        """Another for other weights: vectors are kept under it."""
        ...

    def encode(self, texts: Sequence[str]) -> Matrix:
        """Vectors of length 1, shape (texts, dimensions). Raises ServiceUnreachable, BadInput."""
        ...

    def unknown_share(self, texts: Sequence[str]) -> float:
        """Share of the tokens of `texts` that its tokenizer does not know; 0.0 where that cannot be seen."""
        ...

    def reads_whole(self, text: str) -> bool:
        """Whether `text` is read to its end and not cut."""
        ...
