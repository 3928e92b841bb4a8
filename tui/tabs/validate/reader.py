"""What the Validate tab reads and changes; every function blocks: call it in a thread."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace

from engine.core.errors import BadInput, H2QError
from engine.core.paths import Workspace
from engine.corpus.clusters import current_window
from engine.corpus.review.store import ReviewStore
from engine.memory.records import Conversation
from engine.memory.store import MemoryStore
from engine.models.registry import (
    Promotion,
    PromotionBackup,
    backups,
    in_use,
    list_models,
    promote,
    rollback,
)
from engine.validation.report import ValidationReport, list_reports, load_report
from tui.host.shutdown import uninterruptible


@dataclass(frozen=True)
class OpenWindow:
    """The test set that the next verdict is given on."""

    id: int
    groups: int
    """Near-duplicate clusters in it."""
    looks: int
    """Verdicts given on it so far."""


@dataclass(frozen=True)
class ModelState:
    """The reports, and the models that can be validated, promoted and rolled back to."""

    report: ValidationReport | None = None
    """The newest one."""
    judged: ValidationReport | None = None
    """The newest one of `pair`."""
    window: OpenWindow | None = None
    """None before the first corpus build with a test set."""
    in_use: str = ""
    """Name of the model in use, "" for none."""
    candidates: tuple[str, ...] = ()
    """Names of the other models, newest first."""
    backup: PromotionBackup | None = None
    """What a rollback would restore."""
    problem: str = ""

    @property
    def pair(self) -> tuple[str, str] | None:
        """Base and new model of the next validation: the model in use and the newest other one."""
        if not self.in_use:
            return (self.candidates[1], self.candidates[0]) if len(self.candidates) > 1 else None
        return (self.in_use, self.candidates[0]) if self.candidates else None

    @property
    def any_model(self) -> bool:
        return bool(self.in_use or self.candidates)


def read_state(workspace: Workspace) -> ModelState:
    """Reads the reports, the test set and the models."""
    problem = ""
    try:
        used = in_use(workspace) or ""
    except BadInput as error:
        used, problem = "", str(error)
    state = ModelState(
        in_use=used,
        candidates=tuple(card.name for card in list_models(workspace) if card.name != used),
        backup=next(iter(backups(workspace)), None),
        problem=problem,
        window=_open_window(workspace),
    )
    newest, judged = _newest_reports(workspace, state.pair)
    return replace(state, report=newest, judged=judged)


def _newest_reports(
    workspace: Workspace, pair: tuple[str, str] | None
) -> tuple[ValidationReport | None, ValidationReport | None]:
    """The newest report, and the newest one of `pair`; broken files are skipped."""
    newest = None
    for file in list_reports(workspace):
        try:
            report = load_report(file)
        except BadInput:
            continue
        if report is None:
            continue
        newest = newest or report
        if pair is None:
            break
        if (report.verdict.base.name, report.verdict.new.name) == pair:
            return newest, report
    return newest, None


def _open_window(workspace: Workspace) -> OpenWindow | None:
    if not workspace.memory_db.exists():
        return None
    try:
        with MemoryStore(workspace.memory_db, readonly=True) as store:
            window = current_window(store)
    except (H2QError, sqlite3.Error):
        return None
    return None if window is None else OpenWindow(window.id, len(window.clusters), window.looks)


def read_conversation(workspace: Workspace, id_: str) -> Conversation | None:
    """A conversation as it is trained on; None when memory has it no more, or cannot be read."""
    try:
        with MemoryStore(workspace.memory_db, readonly=True) as store:
            conversation = store.get(id_)
        if conversation is None:
            return None
        with ReviewStore(workspace.memory_db, readonly=True) as review:
            return review.as_trained(conversation)
    except (H2QError, sqlite3.Error):
        return None


def change_model(workspace: Workspace, name: str, stamp: str | None) -> Promotion:
    """Promotes `name`, or rolls back to the backup `stamp` where `name` is "". Raises H2QError and OSError."""
    with uninterruptible():
        return promote(workspace, name) if name else rollback(workspace, stamp)
