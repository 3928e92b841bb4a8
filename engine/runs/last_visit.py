"""What scheduled runs did since the person last opened the app: `config/last_seen.json` keeps when that was."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Any

import msgspec

from engine.core.errors import BadInput
from engine.core.files import write_json
from engine.core.paths import Workspace
from engine.runs.events import RunStatus
from engine.runs.kinds import KINDS, RunKind, TrainParams
from engine.runs.rundir import RunDir, list_runs, load_view, summarise
from engine.runs.spec import params_of
from engine.runs.view import RunView

FILE = "last_seen.json"


@dataclass(frozen=True)
class LastVisitNews:
    """The scheduled run that ended since then and is told: the newest, or the newest of consequence."""

    run_id: str
    view: RunView
    ended_at: float
    came_in: int | None
    """Conversations that memory has more than at the last corpus that the person has seen; None without one."""
    others: int
    """Scheduled runs that ended since then beside this one."""

    @property
    def undo(self) -> str:
        """Stamp of the backup that takes its promotion back, "" when it promoted nothing."""
        return self.view.promoted.backup.rpartition(".")[2] if self.view.promoted else ""


def is_scheduled(run: RunDir) -> bool:
    """Whether a schedule started it."""
    if run.spec.kind is not RunKind.TRAIN:
        return False
    with contextlib.suppress(msgspec.ValidationError):
        return params_of(run.spec, TrainParams).scheduled
    return False


def news_since_last_visit(ws: Workspace, now: float | None = None) -> LastVisitNews | None:
    """What ended since the last look; the next look begins where this one ends. None when nothing did."""
    seen, now = _last_seen(ws), time.time() if now is None else now
    runs = list_runs(ws)
    ended = []
    for run in (run for run in runs if is_scheduled(run)):
        summary = summarise(run)
        if summary.status.over and summary.finished_at is not None and seen < summary.finished_at <= now:
            ended.append((summary.finished_at, run))
    if ws.config.is_dir():
        with contextlib.suppress(OSError):
            write_json(ws.config / FILE, {"at": now})
    if not ended:
        return None
    at, run, view = _telling(sorted(ended, key=lambda pair: pair[0], reverse=True))
    earlier = [other for other in runs if other.spec.created_at < run.spec.created_at]
    # Since the last look, not since a corpus that the person built from the command line in between.
    before = [other for other in earlier if other.spec.created_at <= seen]
    came_in = _came_in(view, before)
    came_in = _came_in(view, earlier) if came_in is None else came_in
    return LastVisitNews(run.run_id, view, at, came_in, len(ended) - 1)


def _telling(ended: list[tuple[float, RunDir]]) -> tuple[float, RunDir, RunView]:
    """The newest that put a model to use or failed; else the newest: a skipped one hides no promotion."""
    views = [(at, run, load_view(run)) for at, run in ended]
    return next((one for one in views if one[2].promoted or one[2].status is RunStatus.FAILED), views[0])


def _came_in(view: RunView, earlier: list[RunDir]) -> int | None:
    if view.funnel is None:
        return None
    for run in earlier:
        if KINDS[run.spec.kind].builds_corpus:
            with contextlib.suppress(BadInput):
                before = load_view(run).funnel
                if before is not None:
                    return max(0, view.funnel.collected - before.collected)
    return None


def _last_seen(ws: Workspace) -> float:
    try:
        told: Any = msgspec.json.decode((ws.config / FILE).read_bytes())
        return float(told["at"])
    except (OSError, msgspec.DecodeError, KeyError, TypeError, ValueError):
        return 0.0
