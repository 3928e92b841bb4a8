"""Collect: every conversation of memory, as messages. All turns count, not the last pair alone."""

from __future__ import annotations

import re
from collections.abc import Iterator

from engine.memory.points import Conversation, MemoryPoint, Role, TrainingDataSource, Turn

_LABEL = re.compile(
    r"^[ \t]*(?:\[?(用户|我|user|human|问|q|助手|助理|机器人|assistant|bot|ai|gpt|答|a)\]?)[ \t]*[:：][ \t]*",
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
    """Turns of a transcript with role labels at the start of lines, in either language and colon width."""
    marks = list(_LABEL.finditer(content))
    turns: list[Turn] = []
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        text = content[mark.end() : following.start() if following else len(content)].strip()
        role = Role.ASSISTANT if mark.group(1).lower() in _ASSISTANT else Role.USER
        turns.append(Turn(role=role, text=text))
    return turns


def merged(turns: tuple[Turn, ...]) -> list[tuple[int, Turn]]:
    """Turns with text, each with its position in memory; empty ones are left out."""
    return [(position, turn) for position, turn in enumerate(turns) if turn.text.strip()]


def starts_and_ends(conversation: Conversation) -> tuple[float | None, float | None]:
    """First and last time of a conversation, in seconds since the epoch; both None when it has no date."""
    times = [
        t
        for t in (
            conversation.started_at,
            conversation.updated_at,
            *(turn.time for turn in conversation.turns),
        )
        if t is not None
    ]
    return (min(times), max(times)) if times else (None, None)
