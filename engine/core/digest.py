"""Hashes of files that are too large to be read at once."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path


def file_sha256(path: Path, step: Callable[[], None] | None = None) -> str:
    """sha256 of a file's bytes in hex; `step` is called between pieces and may raise to stop. Raises OSError."""
    digest = sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
            if step is not None:
                step()
    return digest.hexdigest()
