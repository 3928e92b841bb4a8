"""What the Validate tab reads and changes; every function blocks: call it in a thread."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from engine.core.errors import BadInput, H2QError
from engine.core.paths import Workspace
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
from engine.validation.report import ValidationReport, newest_report
from tui.host.shutdown import uninterruptible


@dataclass(frozen=True)
class ModelState:
    """The newest report, and the models that can be validated, promoted and rolled back to."""

    report: ValidationReport | None = None
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
    """Reads the report and the models."""
    problem = ""
    try:
        used = in_use(workspace) or ""
    except BadInput as error:
        used, problem = "", str(error)
    return ModelState(
        report=newest_report(workspace),
        in_use=used,
        candidates=tuple(card.name for card in list_models(workspace) if card.name != used),
        backup=next(iter(backups(workspace)), None),
        problem=problem,
    )


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
