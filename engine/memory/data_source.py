"""`TrainingDataSource`, the protocol that the corpus collects from, and its implementation over the memory store.

Also reads and writes MindX's `last_training.json`.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from engine.core.chat import Role
from engine.core.errors import BadInput
from engine.core.filenames import shell_word
from engine.core.files import write_json
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.memory.importers.fields import parse_time
from engine.memory.records import Conversation, MemoryPoint
from engine.memory.store import MemoryStore
from engine.models.registry import in_use, list_models

_LABELS = {Role.USER: "User", Role.ASSISTANT: "Assistant", Role.SYSTEM: "System", Role.TOOL: "Tool"}
_SUMMARY_LENGTH = 80


class TrainingDataSource(Protocol):
    """What the corpus is collected from: `MemoryDataSource`, or another source in a test."""

    def get_all_memory_points(self) -> list[MemoryPoint]: ...

    def get_last_train_time(self) -> datetime | None: ...

    def update_last_train_time(self, time: datetime) -> None: ...


class MemoryDataSource:
    """A workspace's memory as a `TrainingDataSource`. Opens and closes the store in each call."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def get_all_memory_points(self) -> list[MemoryPoint]:
        """Every current conversation as one point, then the summary points."""
        with MemoryStore(self.workspace.memory_db, readonly=True) as store:
            points = [memory_point(conversation) for conversation in store.conversations()]
            rows = store.connection.execute(
                "SELECT p.id, p.content, p.summary, p.keywords, p.created_at FROM memory_points p "
                "LEFT JOIN imports i ON i.id = p.import_id "
                "WHERE p.import_id IS NULL OR i.completed_at IS NOT NULL ORDER BY p.created_at, p.id"
            ).fetchall()
        for id_, content, summary, keywords, created_at in rows:
            points.append(
                MemoryPoint(
                    id=id_,
                    content=content,
                    summary=summary,
                    keywords=tuple(json.loads(keywords)),
                    created_at=_utc(created_at),
                )
            )
        return points

    def get_last_train_time(self) -> datetime | None:
        """Time of the newest conversation that the model in use was trained on.

        Read from the model's lineage, so that a rollback sets it back; without a model in use, from
        `last_training.json`. None: nothing was trained on yet, or it was undated. Raises BadInput when the
        model's card or the file is damaged.
        """
        name = in_use(self.workspace)
        card = next((card for card in list_models(self.workspace) if card.name == name), None)
        if card is not None:
            return _utc(card.lineage.newest_conversation)
        return read_last_training(last_training_file(self.workspace))

    def update_last_train_time(self, time: datetime) -> None:
        """Writes `last_training.json` in MindX's format. Raises OSError."""
        moment = time if time.tzinfo else time.replace(tzinfo=UTC)
        write_json(
            last_training_file(self.workspace),
            {"last_train_time": moment.astimezone().isoformat(timespec="microseconds")},
        )


def last_training_file(workspace: Workspace) -> Path:
    return workspace.root / "last_training.json"


def read_last_training(path: Path) -> datetime | None:
    """The time in a `last_training.json`, also with MindX's nine fractional digits; None when missing or implausible.

    Raises BadInput when the file is damaged.
    """
    try:
        value = json.loads(path.read_bytes())["last_train_time"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise BadInput(
            _("The time of the last training cannot be read"), path=path, hint=f"rm {shell_word(path)}"
        ) from None
    return _utc(parse_time(value))


def memory_point(conversation: Conversation) -> MemoryPoint:
    """A conversation as a memory point: its transcript as content, its title or first question as summary."""
    first = next(
        (turn.text for turn in conversation.turns if turn.role is Role.USER and not turn.is_empty), ""
    )
    return MemoryPoint(
        id=conversation.id,
        content=transcript(conversation),
        summary=conversation.title or " ".join(first.split())[:_SUMMARY_LENGTH],
        created_at=_utc(conversation.updated_at or conversation.started_at),
        conversation=conversation,
    )


def transcript(conversation: Conversation) -> str:
    """`User: …`, `Assistant: …`, each turn on a line of its own, in the form that the text importer reads."""
    return "\n".join(f"{_LABELS[turn.role]}: {turn.text}" for turn in conversation.turns if not turn.is_empty)


def _utc(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
