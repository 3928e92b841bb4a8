"""The curves of training runs as TensorBoard's event files, written by tensorboardX."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any

from engine.core.errors import UsageProblem
from engine.core.files import make_dirs
from engine.core.i18n import _
from engine.core.outputs import OwnedFolder, check_output_folder
from engine.core.paths import Workspace
from engine.runs.events import Evaluated, JournalRecord, MemoryUsage, Step
from engine.sinks.run_feed import RunFeed

_FOREIGN = re.compile(r"[^-/\w.]")
"""What a tag may not hold."""
_NOTHING = OwnedFolder(("\0",), ())
"""No folder that holds anything: a second writer would draw every point twice."""


class TensorBoardWriter:
    """Writes each training run into a folder of its own below one folder, from its first step, and continues with it."""

    def __init__(self, workspace: Workspace, folder: Path) -> None:
        """Raises UsageProblem without tensorboardX, and for a folder that holds anything; OSError."""
        self._make = _import_writer()
        check_output_folder(folder, _NOTHING)
        make_dirs(folder)
        self._folder = folder
        self._feed = RunFeed(workspace, finished=True)
        self._writers: dict[str, Any] = {}

    def write(self) -> int:
        """Writes what the runs have recorded; returns the number of points. Raises OSError."""
        points = 0
        for followed, records in self._feed.read():
            run = followed.run.run_id
            for record in records:
                for tag, value, step in scalars(record):
                    if run not in self._writers:
                        self._writers[run] = self._make(str(self._folder / run))
                    self._writers[run].add_scalar(tag, value, step, walltime=record.t)
                    points += 1
        for writer in self._writers.values():
            writer.flush()
        return points

    def close(self) -> None:
        """Ends the files."""
        for writer in self._writers.values():
            writer.close()


def _import_writer() -> Any:
    """tensorboardX's SummaryWriter, without torch: it would import that for tensors, 150 MB that a watcher need not have.

    Raises UsageProblem when it is not installed.
    """
    loaded: dict[str, Any] = sys.modules
    hidden = "torch" not in loaded
    if hidden:
        loaded["torch"] = None
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise UsageProblem(
            _("TensorBoard files need tensorboardX, which is not installed"),
            hint="pip install tensorboardX",
        ) from None
    finally:
        if hidden:
            del loaded["torch"]
    return SummaryWriter


def scalars(record: JournalRecord) -> list[tuple[str, float, int]]:
    """(tag, value, step) of a record: finite values of steps, evaluations and memory."""
    event = record.event
    found: list[tuple[str, float | None, int]] = []
    if isinstance(event, Step):
        found = [
            (f"{event.phase}/{name}", getattr(event, name), event.step)
            for name in ("loss", "lr", "grad_norm", "tokens_per_s")
        ]
    elif isinstance(event, Evaluated):
        found = [(f"{event.phase}/eval/{event.name}", event.loss, event.step)]
    elif isinstance(event, MemoryUsage):
        # Memory has no step: records are counted instead.
        found = [("memory/used_mb", event.used_mb, record.seq), ("memory/peak_mb", event.peak_mb, record.seq)]
    return [
        (_FOREIGN.sub("_", tag), value, step)
        for tag, value, step in found
        if value is not None and math.isfinite(value)
    ]
