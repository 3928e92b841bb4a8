"""GitHub Copilot CLI: the sessions `~/.copilot/session-state/<id>.jsonl` (or `<id>/events.jsonl`).

A line is one event, `{type, data, id, timestamp, parentId}`. `data.content` of a user's message is what was typed;
`transformedContent` has the program's additions. Shape as third-party readers describe it; `source` and
`parentToolCallId` (messages of the program and of sub-agents) as its public SDK names them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.agents.agent_text import typed_text
from engine.memory.importers.fields import (
    ImportOptions,
    build_conversation,
    parse_time,
    skip_attached,
    text_or_empty,
)
from engine.memory.importers.readers.files import OnBytes, ignore_bytes
from engine.memory.importers.readers.logs import log_values
from engine.memory.importers.turns import join_answers, text_turn
from engine.memory.records import Conversation, Skipped, Turn

NAME = "copilot_cli"

_PREFIXES = ("session.", "user.", "assistant.", "tool.", "system.", "subagent.", "hook.")


def detect(path: Path, value: Any) -> bool:
    kind = value.get("type") if isinstance(value, dict) else None
    return (
        isinstance(kind, str)
        and kind.startswith(_PREFIXES)
        and isinstance(value.get("data"), dict)
        and ("parentId" in value or "timestamp" in value)
    )


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """The session of the file. Raises BadInput."""
    items: list[Turn | Skipped] = []
    session = ""
    for _line, event in log_values(path, on_bytes):
        if not detect(path, event):
            items.append(Skipped(reason="entry of another shape"))
            continue
        if event["type"] == "session.start":
            session = text_or_empty(event["data"].get("sessionId")) or session
        items += _turns(event)
    yield from build_conversation(join_answers(items), source=NAME, external_id=session)


def _turns(event: dict[str, Any]) -> Iterator[Turn | Skipped]:
    kind, data = event["type"], event["data"]
    time, id_ = parse_time(event.get("timestamp")), text_or_empty(event.get("id"))
    if kind == "user.message":
        content = data.get("content")
        text = typed_text(content) if isinstance(content, str) else ""
        by_program = text_or_empty(data.get("source")) not in ("", "user")
        if by_program or (isinstance(content, str) and content.strip() and not text.strip()):
            yield Skipped(reason="text added by the program")
            return
        yield from text_turn(
            Role.USER, text, skipped=skip_attached(data.get("attachments")), time=time, external_id=id_
        )
    elif kind == "assistant.message":
        if data.get("parentToolCallId"):
            yield Skipped(reason="message of a sub-agent")
            return
        skipped = skip_attached(data.get("toolRequests"), "tool message")
        if data.get("reasoningText") or data.get("reasoningOpaque"):
            skipped.append(Skipped(reason="reasoning"))
        yield from text_turn(Role.ASSISTANT, data.get("content"), skipped=skipped, time=time, external_id=id_)
    elif kind == "system.message":
        yield Skipped(reason="text added by the program")
    elif kind == "assistant.reasoning":
        yield Skipped(reason="reasoning")
    elif kind == "tool.execution_complete":
        yield Skipped(reason="tool message")
