"""Room on the disk for an export, looked for before it begins."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from engine.core.errors import BadInput, RunFailed
from engine.core.i18n import _

_ROOM = 64 << 20
"""Bytes that stay free on the disk."""


def check_room(folder: Path, size: int) -> None:
    """Raises RunFailed when `size` bytes more would fill the disk of `folder`, which is made; BadInput when it cannot."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as problem:
        raise BadInput(
            _("nothing can be written into this folder ({reason})").format(reason=problem.strerror),
            path=folder,
        ) from problem
    free = shutil.disk_usage(folder).free
    if free < size + _ROOM:
        raise RunFailed(
            _("the export needs {need:.2f} GB and the disk has {free:.2f} GB free: {path}").format(
                need=(size + _ROOM) / 2**30, free=free / 2**30, path=folder
            ),
            hint="df -h",
        )
