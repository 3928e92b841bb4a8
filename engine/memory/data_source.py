"""The memory store as the `TrainingDataSource` that a collector reads, and `last_training.json`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from engine.core.chat import Role
from engine.core.errors import BadInput
from engine.core.files import write_json
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.memory.importers.roles import time_of
from engine.memory.records import Conversation, MemoryPoint
from engine.memory.store import MemoryStore
from engine.models.registry import in_use, list_models

_LABELS = {Role.USER: "User", Role.ASSISTANT: "Assistant", Role.SYSTEM: "System", Role.TOOL: "Tool"}
_SUMMARY = 80


class MemoryAdapter:
    """A workspace as MindX's training sees a memory. Opens the store for each question and closes it."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def get_all_memory_points(self) -> list[MemoryPoint]:
        """Every current conversation as one point, then the points that were imported as such."""
        with MemoryStore(self.workspace.memory_db, readonly=True) as store:
            points = [point_of(conversation) for conversation in store.conversations()]
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
                    created_at=_moment(created_at),
                )
            )
        return points

    def get_last_train_time(self) -> datetime | None:
        """Time of the newest conversation that the model in use was trained on.

        Derived from that model's lineage, so that a rollback sets it back; without one, what
        `last_training.json` says. None: nothing was trained on yet, or it carried no dates.
        Raises BadInput when a file that is asked is broken.
        """
        name = in_use(self.workspace)
        card = next((card for card in list_models(self.workspace) if card.name == name), None)
        if card is not None:
            return _moment(card.lineage.newest_conversation)
        return read_last_training(last_training_file(self.workspace))

    def update_last_train_time(self, time: datetime) -> None:
        """Writes `last_training.json` as MindX reads it. Raises OSError."""
        moment = time if time.tzinfo else time.replace(tzinfo=UTC)
        write_json(
            last_training_file(self.workspace),
            {"last_train_time": moment.astimezone().isoformat(timespec="microseconds")},
        )


def last_training_file(workspace: Workspace) -> Path:
    return workspace.root / "last_training.json"


def read_last_training(path: Path) -> datetime | None:
    """The time in a `last_training.json`, MindX's with nine digits too; None when there is none of our era.

    Raises BadInput when the file is broken.
    """
    try:
        value = json.loads(path.read_bytes())["last_train_time"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise BadInput(
            _("The time of the last training cannot be read"), path=path, hint=f"rm {path}"
        ) from None
    return _moment(time_of(value))


def point_of(conversation: Conversation) -> MemoryPoint:
    """A conversation rendered with its speakers, `User: …` and `Assistant: …` on lines of their own."""
    first = next((turn.text for turn in conversation.turns if turn.role is Role.USER), "")
    return MemoryPoint(
        id=conversation.id,
        content=render(conversation),
        summary=conversation.title or " ".join(first.split())[:_SUMMARY],
        created_at=_moment(conversation.updated_at or conversation.started_at),
        conversation=conversation,
    )


def render(conversation: Conversation, roles: Iterable[Role] = tuple(Role)) -> str:
    """The turns of `roles` as a transcript that the text importer reads."""
    wanted = set(roles)
    return "\n".join(
        f"{_LABELS[turn.role]}: {turn.text}" for turn in conversation.turns if turn.role in wanted
    )


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
