"""Collect: every conversation of memory, as messages. All turns count, not the last pair alone."""

from __future__ import annotations

import re
from collections.abc import Iterator

from engine.core.chat import Role
from engine.memory.data_source import TrainingDataSource
from engine.memory.records import Conversation, MemoryPoint, Turn

_LABEL = re.compile(
    r"(?:^[ \t]*\[?(?P<line>用户|我|user|human|问|q|助手|助理|机器人|assistant|bot|ai|gpt|答|a)\]?[ \t]*[:：]"
    r"|(?<=\s)(?P<inline>用户|助手|user|assistant)[:：])[ \t]*",
    re.IGNORECASE | re.MULTILINE,
)
_ASSISTANT = frozenset(("助手", "助理", "机器人", "assistant", "bot", "ai", "gpt", "答", "a"))


def collect(source: TrainingDataSource) -> Iterator[Conversation]:
    """All conversations of a data source. A memory point that carries none is read by its role labels; one
    without labels becomes the question of its summary or keywords, answered by its content."""
    for point in source.get_all_memory_points():
        yield point.conversation or _from_point(point)


def _from_point(point: MemoryPoint) -> Conversation:
    when = point.created_at.timestamp() if point.created_at and point.created_at.year > 1 else None
    turns = _by_labels(point.content)
    if not any(turn.role is Role.ASSISTANT for turn in turns):
        prompt = point.summary or " ".join(point.keywords)
        turns = (
            [Turn(role=Role.USER, text=prompt), Turn(role=Role.ASSISTANT, text=point.content)]
            if prompt
            else []
        )
    return Conversation(id=point.id, source="memory", started_at=when, updated_at=when, turns=tuple(turns))


def _by_labels(content: str) -> list[Turn]:
    """Turns of a transcript with role labels, in either language and colon width; the long ones within a line too."""
    marks = list(_LABEL.finditer(content))
    turns: list[Turn] = []
    ends = [*(mark.start() for mark in marks[1:]), len(content)]
    for mark, end in zip(marks, ends, strict=False):
        text = content[mark.end() : end].strip()
        label = (mark["line"] or mark["inline"]).lower()
        role = Role.ASSISTANT if label in _ASSISTANT else Role.USER
        turns.append(Turn(role=role, text=text))
    return turns
