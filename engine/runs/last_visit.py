"""What scheduled runs did since the user last opened the app; `config/last_seen.json` holds that time."""

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
    """The scheduled run to report: the newest that promoted a model or failed, else the newest."""

    run_id: str
    view: RunView
    ended_at: float
    new_conversations: int | None
    """Conversations added to the memory since the last corpus that the user has seen; None without one."""
    other_runs: int
    """Other scheduled runs that ended since then."""

    @property
    def backup_stamp(self) -> str:
        """Stamp of the backup that rolls its promotion back, "" without a promotion."""
        return self.view.promoted.backup.rpartition(".")[2] if self.view.promoted else ""


def is_scheduled(run: RunDir) -> bool:
    """Whether a schedule started the run."""
    if run.spec.kind is not RunKind.TRAIN:
        return False
    with contextlib.suppress(msgspec.ValidationError):
        return params_of(run.spec, TrainParams).scheduled
    return False


def news_since_last_visit(ws: Workspace, now: float | None = None) -> LastVisitNews | None:
    """Scheduled runs that ended since the last call, which this call replaces; None without any."""
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
    at, run, view = _most_relevant(sorted(ended, key=lambda pair: pair[0], reverse=True))
    earlier = [other for other in runs if other.spec.created_at < run.spec.created_at]
    # Since the last visit, not since a corpus that the user built from the command line in between.
    before = [other for other in earlier if other.spec.created_at <= seen]
    new_conversations = _new_conversations(view, before)
    new_conversations = _new_conversations(view, earlier) if new_conversations is None else new_conversations
    return LastVisitNews(run.run_id, view, at, new_conversations, len(ended) - 1)


def _most_relevant(ended: list[tuple[float, RunDir]]) -> tuple[float, RunDir, RunView]:
    """The newest that promoted a model or failed, else the newest: a skipped run hides no promotion."""
    views = [(at, run, load_view(run)) for at, run in ended]
    return next((one for one in views if one[2].promoted or one[2].status is RunStatus.FAILED), views[0])


def _new_conversations(view: RunView, earlier: list[RunDir]) -> int | None:
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
        stored: Any = msgspec.json.decode((ws.config / FILE).read_bytes())
        return float(stored["at"])
    except (OSError, msgspec.DecodeError, KeyError, TypeError, ValueError):
        return 0.0
