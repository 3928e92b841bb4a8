"""The folder of a run: its files, whether it is alive, how runs are found, and readers of its journal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import msgspec

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.runs import lock
from engine.runs.events import JournalRecord
from engine.runs.journal import JournalReader
from engine.runs.spec import RunSpec, decode_spec
from engine.runs.view import RunSummary, RunView

SPEC = "spec.json"
EVENTS = "events.jsonl"
STATE = "state.json"
LOG = "engine.log"
LOCK = "lock"
CHECKPOINTS = "checkpoints"
TRAIN_LOCK = ".train.lock"
CHECKPOINTS_LINK = "training_checkpoints"
_TICK_S = 0.1


class RunDir:
    """`<data-dir>/runs/<run_id>`. Creating the object touches no file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"RunDir({self.run_id!r})"

    @property
    def run_id(self) -> str:
        return self.path.name

    @cached_property
    def spec(self) -> RunSpec:
        """The specification. Raises BadInput when `spec.json` is missing or invalid."""
        file = self.path / SPEC
        try:
            return decode_spec(file.read_bytes())
        except OSError as problem:
            raise BadInput(_("the run's specification cannot be read"), path=file) from problem
        except msgspec.DecodeError as problem:
            raise BadInput(_("the run's specification is invalid"), path=file) from problem

    @property
    def events_path(self) -> Path:
        return self.path / EVENTS

    @property
    def state_path(self) -> Path:
        return self.path / STATE

    @property
    def log_path(self) -> Path:
        """Raw output of the engine, with tracebacks."""
        return self.path / LOG

    @property
    def lock_path(self) -> Path:
        return self.path / LOCK

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.path.parent.parent)

    def alive(self) -> bool:
        """Whether an engine, or a launcher about to start one, holds the run's lock."""
        return lock.is_locked(self.lock_path)


def list_runs(ws: Workspace) -> list[RunDir]:
    """All runs of the workspace, newest first. Folders without a readable spec are skipped."""
    try:
        folders = [entry for entry in ws.runs.iterdir() if not entry.name.startswith(".")]
    except OSError:
        return []
    runs: list[RunDir] = []
    for folder in folders:
        run = RunDir(folder)
        try:
            run.spec  # noqa: B018  read now, so that every listed run can be shown
        except BadInput:
            continue
        runs.append(run)
    return sorted(runs, key=lambda run: (run.spec.created_at, run.run_id), reverse=True)


def find_run(ws: Workspace, prefix: str) -> RunDir:
    """The run whose id equals `prefix` or is the only one that starts with it; "latest" is the newest. Raises BadInput."""
    runs = list_runs(ws)
    if prefix == "latest" and runs:
        return runs[0]
    matches = [run for run in runs if run.run_id.startswith(prefix)]
    for run in matches:
        if run.run_id == prefix:
            return run
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = _(", ").join(run.run_id for run in matches[:4])
        raise BadInput(
            _("{prefix} matches several runs: {names}").format(prefix=prefix, names=names),
            hint="h2q-tui runs list",
        )
    raise BadInput(_("there is no run {prefix}").format(prefix=prefix), hint="h2q-tui runs list")


def training_run_id(ws: Workspace) -> str:
    """Id of the run that is training, "" for none."""
    path = ws.runs / TRAIN_LOCK
    if not lock.is_locked(path):
        return ""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def link_checkpoints(run: RunDir) -> None:
    """Links `training_checkpoints` of the workspace to the checkpoints of `run`. A real folder there stays.

    Raises OSError.
    """
    link = run.workspace.root / CHECKPOINTS_LINK
    if link.exists() and not link.is_symlink():
        return
    temporary = link.with_name(f".{link.name}.{run.run_id}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(run.checkpoints.relative_to(run.workspace.root))
    temporary.replace(link)


def load_view(run: RunDir) -> RunView:
    """The run's view from its whole journal. Raises BadInput for an invalid spec."""
    view, reader = RunView(run.spec), JournalReader(run.events_path)
    while records := reader.poll():
        for record in records:
            view.apply(record)
    return view


def summarise(run: RunDir) -> RunSummary:
    """Summary for lists: from `state.json` (up to two seconds old) while it is valid, else from the journal.

    Raises BadInput for an invalid spec.
    """
    alive = run.alive()
    try:
        state = msgspec.json.decode(run.state_path.read_bytes(), type=RunSummary)
    except (OSError, msgspec.DecodeError):
        state = None
    if state is not None and alive != state.status.over:
        return state
    return load_view(run).summary(run.alive())


def newest_alive(runs: list[RunDir]) -> RunDir | None:
    """The newest run that is alive."""
    return next((run for run in runs if run.alive()), None)


def follow(run: RunDir, *, tick_s: float = _TICK_S) -> Iterator[list[JournalRecord]]:
    """Batches of records from the start until the run has ended or is dead; an empty batch at each idle tick."""
    reader = JournalReader(run.events_path)
    over = False
    while True:
        # Check the lock before reading the journal, so that the last records of a run are read too.
        over = not run.alive()
        records = reader.poll()
        if records:
            yield records
        elif over:
            return
        else:
            yield []
            time.sleep(tick_s)
