"""What the Validate tab reads and changes; every function blocks: call it in a thread."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.core.errors import BadInput, H2QError
from engine.core.paths import Workspace
from engine.corpus.clusters import current_window
from engine.memory.store import MemoryStore
from engine.models.registry import (
    STAMP_FORMAT,
    Promotion,
    PromotionBackup,
    backups,
    in_use,
    list_models,
    promote,
    rollback,
)
from engine.validation.report import BlindVote
from engine.validation.stored_verdicts import StoredVerdict, VerdictFiles, read_conversation
from engine.validation.verdict_export import export_verdict, verdict_folder
from engine.validation.votes import remove_vote, save_vote
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

    verdicts: tuple[StoredVerdict, ...] = ()
    """Newest first."""
    window: OpenWindow | None = None
    """None before the first corpus build with a test set."""
    in_use: str = ""
    """Name of the model in use, "" for none."""
    since: float | None = None
    """When it was put into use, in seconds since the epoch; None where no backup tells."""
    models: tuple[str, ...] = ()
    """Names of all models, newest first."""
    backup: PromotionBackup | None = None
    """What a rollback would restore: the newest backup with another model in use."""
    problem: str = ""

    @property
    def pair(self) -> tuple[str, str] | None:
        """Base and new model of the next validation: the model in use and the newest other one."""
        others = [name for name in self.models if name != self.in_use]
        if not self.in_use:
            return (others[1], others[0]) if len(others) > 1 else None
        return (self.in_use, others[0]) if others else None

    @property
    def any_model(self) -> bool:
        return bool(self.in_use or self.models)

    @property
    def unjudged(self) -> tuple[str, str] | None:
        """`pair` where it has no verdict yet and the new model is newer than the one in use."""
        pair, known = self.pair, {verdict.pair for verdict in self.verdicts}
        if pair is None or pair in known:
            return None
        base, new = pair
        older = base in self.models and self.models.index(new) > self.models.index(base)
        return None if older and self.verdicts else pair


def read_state(workspace: Workspace, files: VerdictFiles) -> ModelState:
    """Reads the reports, the test set and the models."""
    problem = ""
    try:
        used = in_use(workspace) or ""
    except BadInput as error:
        used, problem = "", str(error)
    saved = backups(workspace)
    return ModelState(
        verdicts=files.read(workspace),
        in_use=used,
        since=used_since(used, saved),
        models=tuple(card.name for card in list_models(workspace)),
        backup=next((backup for backup in saved if backup.readable and backup.model != used), None),
        problem=problem,
        window=_open_window(workspace),
    )


def used_since(used: str, saved: Sequence[PromotionBackup]) -> float | None:
    """When `used` was put into use, by the backups, newest first: each holds what was in use before its stamp."""
    since = None
    for backup in saved:
        with suppress(ValueError, OverflowError):
            since = time.mktime(time.strptime(backup.stamp, STAMP_FORMAT))
        if backup.model != used:
            break
    return since


def _open_window(workspace: Workspace) -> OpenWindow | None:
    if not workspace.memory_db.exists():
        return None
    try:
        with MemoryStore(workspace.memory_db, readonly=True) as store:
            window = current_window(store)
    except (H2QError, sqlite3.Error):
        return None
    return None if window is None else OpenWindow(window.id, len(window.clusters), window.looks)


def change_model(workspace: Workspace, name: str, stamp: str | None) -> Promotion:
    """Promotes `name`, or rolls back to the backup `stamp` where `name` is "". Raises H2QError and OSError."""
    with uninterruptible():
        return promote(workspace, name) if name else rollback(workspace, stamp)


def vote(file: Path, case: str, choice: str) -> None:
    """Stores a blind vote in the report; "" takes it back. Raises H2QError and OSError."""
    with uninterruptible():
        if choice:
            save_vote(file, BlindVote(conversation=case, choice=choice, at=time.time()))
        else:
            remove_vote(file, case)


def export(workspace: Workspace, verdict: StoredVerdict) -> Path:
    """Writes a verdict into the workspace's exports; returns the folder. Raises H2QError and OSError."""
    folder = verdict_folder(workspace, verdict.report)
    with uninterruptible():
        export_verdict(verdict.report, folder, lambda id_: read_conversation(workspace, id_))
    return folder
