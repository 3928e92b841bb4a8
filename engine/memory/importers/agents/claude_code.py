"""Claude Code: the session files `~/.claude/projects/<project>/<session>.jsonl`.

Lines with `uuid` and `parentUuid` form a tree; the last line that no sub-agent wrote ends the current branch. One
message of the model is written in several lines, and results of tools, reminders, commands and summaries stand in
the user's name: only what a person typed and what the model said is read. Words typed while the model works stand in
an attachment (`queued_command`). Shape as third-party notes describe it,
checked by them on 52,057 lines of versions 2.0 and 2.1; there is no official schema.

Sessions are copied whole when they are resumed or forked, under a new id. They are therefore known by their content:
a longer copy replaces the shorter one, and forks that part stay two conversations.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from engine.core.chat import Role
from engine.memory.importers.agents.agent_text import asks_the_model, typed_text
from engine.memory.importers.fields import (
    ImportOptions,
    build_conversation,
    omitted_question,
    parse_time,
    skip_reason,
    text_or_empty,
)
from engine.memory.importers.message_tree import MessageNode, current_branch
from engine.memory.importers.readers.files import OnBytes, ignore_bytes
from engine.memory.importers.readers.logs import log_values
from engine.memory.importers.turns import join_answers, text_turn, without_unanswered
from engine.memory.records import Conversation, Skipped, Turn

NAME = "claude_code"

_ROLES = {"user": Role.USER, "assistant": Role.ASSISTANT}
_WRITTEN_BY_PROGRAM = ("isMeta", "isCompactSummary", "isVisibleInTranscriptOnly", "planContent")
"""Marks of lines in the user's name that nobody typed; the last one is of a plan that the model wrote."""


class SessionLines(msgspec.Struct, kw_only=True):
    """What the lines of a session give."""

    parents: dict[str, str] = {}
    """The parent of each line, of whatever type."""
    nodes: dict[str, MessageNode] = {}
    """The lines that hold a turn."""
    skipped: list[Skipped] = []
    last: list[str] = []
    """Lines of the main talk, in the order of the file."""
    title: str = ""


def detect(path: Path, value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("type"), str) or "messages" in value:
        return False
    return (
        ("sessionId" in value and "projectHash" not in value)
        or ("leafUuid" in value and value["type"] == "summary")
        or (value["type"] == "file-history-snapshot" and "messageId" in value)
    )


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """The session of the file, along its current branch. Raises BadInput."""
    session = SessionLines()
    for _line, record in log_values(path, on_bytes):
        _add(session, record)
    yield from session.skipped
    current = next((turn for id_ in reversed(session.last) if (turn := _turn_above(session, id_))), None)
    nodes = {
        id_: msgspec.structs.replace(node, parent=_turn_above(session, session.parents[id_]))
        for id_, node in session.nodes.items()
    }
    yield from build_conversation(
        without_unanswered(join_answers(current_branch(nodes, current))), source=NAME, title=session.title
    )


def _add(session: SessionLines, record: object) -> None:
    kind = record.get("type") if isinstance(record, dict) else None
    if not isinstance(record, dict) or not isinstance(kind, str):
        session.skipped.append(Skipped(reason="entry of another shape"))
        return
    title = (
        record.get("customTitle")
        or record.get("aiTitle")
        or (record.get("summary") if kind == "summary" else "")
    )
    session.title = text_or_empty(title) or session.title
    id_ = text_or_empty(record.get("uuid")) or f"#{len(session.parents)}"
    if id_ in session.parents:
        session.skipped.append(Skipped(reason="repeated message"))
        return
    if record.get("isSidechain"):
        if kind in _ROLES:
            session.skipped.append(Skipped(reason="message of a sub-agent"))
        return
    if "uuid" in record:
        session.parents[id_] = _parent(session, record)
        session.last.append(id_)
    record = _queued(record)
    kind = record["type"]
    if kind not in _ROLES:
        session.skipped.append(Skipped(reason="record without a message"))
        return
    time = parse_time(record.get("timestamp"))
    items = list(_turns(record, _ROLES[kind], time, id_))
    turn = next((item for item in items if isinstance(item, Turn)), None)
    left_out = tuple(item for item in items if isinstance(item, Skipped))
    if turn is None:
        session.skipped += left_out
        return
    session.parents.setdefault(id_, session.last[-1] if session.last else "")
    session.nodes[id_] = MessageNode(turn=turn, skipped=left_out, time=time or 0)


def _queued(record: dict[str, Any]) -> dict[str, Any]:
    """What a person typed while the model was at work, which stands in an attachment, as a message of theirs."""
    attachment = record.get("attachment")
    if record["type"] != "attachment" or not isinstance(attachment, dict):
        return record
    if attachment.get("type") != "queued_command" or attachment.get("commandMode", "prompt") != "prompt":
        return record
    return {**record, "type": "user", "message": {"content": attachment.get("prompt")}}


def _parent(session: SessionLines, record: dict[str, Any]) -> str:
    parent = text_or_empty(record.get("parentUuid"))
    previous = session.last[-1] if session.last else ""
    if record.get("subtype") == "compact_boundary" and not parent:
        # The summary replaces what came before it for the model, not for the person.
        parent = text_or_empty(record.get("logicalParentUuid")) or previous
    return parent if not parent or parent in session.parents else previous


def _turn_above(session: SessionLines, id_: str) -> str:
    """The nearest line with a turn, from `id_` towards the root; empty for none."""
    seen: set[str] = set()
    while id_ and id_ not in session.nodes and id_ not in seen:
        seen.add(id_)
        id_ = session.parents.get(id_, "")
    return id_ if id_ in session.nodes else ""


def _turns(record: dict[str, Any], role: Role, time: float | None, id_: str) -> Iterator[Turn | Skipped]:
    message = record.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, str | list):
        yield Skipped(reason="message of another shape")
        return
    origin = record.get("origin")
    by_program = isinstance(origin, dict) and origin.get("kind", "human") != "human"
    if by_program or any(record.get(name) for name in _WRITTEN_BY_PROGRAM):
        yield Skipped(reason="text added by the program")
        if by_program:
            yield omitted_question(time, id_)
        return
    if record.get("isApiErrorMessage") or (
        isinstance(message, dict) and message.get("model") == "<synthetic>"
    ):
        yield Skipped(reason="failed answer")
        return
    texts, skipped = _blocks(content)
    if role is Role.USER:
        if "toolUseResult" in record or any(item.reason == "tool message" for item in skipped):
            yield Skipped(reason="tool message")
            return
        typed = [text for text in map(typed_text, texts) if text.strip()]
        if texts and not typed:
            yield Skipped(reason="text added by the program")
            if asks_the_model(texts[0]):
                yield omitted_question(time, id_)
            return
        yield from text_turn(role, "\n".join(typed), time=time, external_id=id_, skipped=skipped)
    elif texts or not skipped:
        yield from text_turn(role, "\n".join(texts), time=time, external_id=id_, skipped=skipped)
    else:
        yield from skipped


def _blocks(content: str | list[Any]) -> tuple[list[str], list[Skipped]]:
    texts, skipped = [], []
    for block in content if isinstance(content, list) else [content]:
        kind = block.get("type") if isinstance(block, dict) else None
        text = block.get("text") if isinstance(block, dict) else block
        if isinstance(text, str) and kind in (None, "text"):
            texts.append(text)
        else:
            skipped.append(Skipped(reason=skip_reason(kind)))
    return texts, skipped
