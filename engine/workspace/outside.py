"""Outputs beside the workspace: what a killed process left next to one is deleted when the workspace is opened again.

A note in the workspace names the output while it is written; its process has the note locked.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.core.files import is_in_use, locked_folder, remove_stale
from engine.core.outputs import recover_replaced
from engine.core.paths import Workspace, resolve_path

_NOTE = ".output."
_PATH = "path"
_MARK = re.compile(r"(?:new|old)\.[a-z0-9_]{8}|[a-z0-9_]{8}\.tmp")
"""What `outputs.new_folder` and `files.atomic_file` put behind the name of what they write."""


@contextmanager
def outside_output(workspace: Workspace, output: Path) -> Iterator[None]:
    """Held while the file or folder `output` is written. Inside the workspace nothing is noted: it is swept anyway.

    Raises OSError when the workspace cannot be written.
    """
    place = resolve_path(output.parent) / output.name
    if resolve_path(workspace.root) in place.parents:
        yield
        return
    with locked_folder(workspace.root, _NOTE) as note:
        (note / _PATH).write_bytes(str(place).encode("utf-8", "surrogateescape"))
        yield


def sweep_outside(workspace: Workspace) -> int:
    """Deletes what killed processes left beside their outputs; returns how many. Raises OSError."""
    removed = 0
    for note in workspace.root.glob(f"{_NOTE}*"):
        if note.is_symlink() or not note.is_dir() or is_in_use(note):
            continue
        with suppress(OSError):
            removed += _sweep_beside(Path((note / _PATH).read_bytes().decode("utf-8", "surrogateescape")))
        remove_stale(note)
    return removed


def _sweep_beside(output: Path) -> int:
    """Only what bears the name of the output and a mark of ours, and holds no folders."""
    removed = 0
    recover_replaced(output.parent, output.name)
    prefix = f".{output.name}."
    for path in output.parent.glob(f"{glob.escape(prefix)}*"):
        if not _MARK.fullmatch(path.name.removeprefix(prefix)) or path.is_symlink():
            continue
        if path.is_file() or all(entry.is_file() and not entry.is_symlink() for entry in path.iterdir()):
            removed += remove_stale(path)
    return removed
