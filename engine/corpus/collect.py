"""Reads every conversation of a data source with all of its turns."""

from __future__ import annotations

import re
from collections.abc import Iterator

from engine.core.chat import Role
from engine.memory.data_source import TrainingDataSource
from engine.memory.records import Conversation, MemoryPoint, Turn

_ROLE_LABEL = re.compile(
    r"(?:^[ \t]*\[?(?P<line>用户|我|user|human|问|q|助手|助理|机器人|assistant|bot|ai|gpt|答|a)\]?[ \t]*[:：]"
    r"|(?<=\s)(?P<inline>用户|助手|user|assistant)[:：])[ \t]*",
    re.IGNORECASE | re.MULTILINE,
)
_ASSISTANT_LABELS = frozenset(("助手", "助理", "机器人", "assistant", "bot", "ai", "gpt", "答", "a"))


def collect(source: TrainingDataSource) -> Iterator[Conversation]:
    """All conversations of a data source.

    A memory point without a conversation is parsed by its role labels; without labels its summary or keywords
    become the question and its content the answer.
    """
    for point in source.get_all_memory_points():
        yield point.conversation or _from_memory_point(point)


def _from_memory_point(point: MemoryPoint) -> Conversation:
    time = point.created_at.timestamp() if point.created_at and point.created_at.year > 1 else None
    turns = _parse_labels(point.content)
    if not any(turn.role is Role.ASSISTANT for turn in turns):
        prompt = point.summary or " ".join(point.keywords)
        turns = (
            [Turn(role=Role.USER, text=prompt), Turn(role=Role.ASSISTANT, text=point.content)]
            if prompt
            else []
        )
    return Conversation(id=point.id, source="memory", started_at=time, updated_at=time, turns=tuple(turns))


def _parse_labels(content: str) -> list[Turn]:
    """Turns of a transcript with role labels in Chinese or English; long labels may stand within a line."""
    labels = list(_ROLE_LABEL.finditer(content))
    turns: list[Turn] = []
    ends = [*(label.start() for label in labels[1:]), len(content)]
    for label, end in zip(labels, ends, strict=False):
        text = content[label.end() : end].strip()
        name = (label["line"] or label["inline"]).lower()
        turns.append(Turn(role=Role.ASSISTANT if name in _ASSISTANT_LABELS else Role.USER, text=text))
    return turns
