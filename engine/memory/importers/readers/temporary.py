"""Where the readers put copies of private files: the folder of the import, which is swept after a killed process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

_folder: ContextVar[Path | None] = ContextVar("folder", default=None)


@contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Within the block, `temporary_folder` creates its folders in `folder`; else in the system's."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A private folder that is deleted at the end of the block. Raises OSError."""
    with tempfile.TemporaryDirectory(prefix="h2q-", dir=_folder.get()) as folder:
        yield Path(folder)
