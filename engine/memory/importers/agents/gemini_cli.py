"""Gemini CLI: the sessions below `~/.gemini/tmp/<project>/chats`, as JSON (old) or JSON lines.

The first line names the session; a later line is a message, `$set` (new values of the session, `messages` replaces
those so far) or `$rewindTo` (drops a message and all after it). A message may come again with more text: the last
one counts. Shape as written by the source of gemini-cli (`chatRecordingService.ts`); `type: "model"` as a report
of another reader shows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.fields import ImportOptions, build_conversation, parse_time, text_or_empty
from engine.memory.importers.readers.files import OnBytes, ignore_bytes
from engine.memory.importers.readers.logs import log_values
from engine.memory.importers.turns import join_answers, text_turn
from engine.memory.records import Conversation, Skipped, Turn

NAME = "gemini_cli"

_ROLES = {"user": Role.USER, "gemini": Role.ASSISTANT, "model": Role.ASSISTANT}
_NOTICES = frozenset(("info", "error", "warning"))
_INJECTED = ("<session_context>", "This is the Gemini CLI. We are setting up the context")
"""Beginnings of first messages that the program writes in the user's name."""
_FILES_BEGIN, _FILES_END = "--- Content from referenced files ---", "--- End of content ---"


def detect(path: Path, value: Any) -> bool:
    return isinstance(value, dict) and "sessionId" in value and "projectHash" in value


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """The session of the file; the messages of the program and of its tools are counted. Raises BadInput."""
    session: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    rewound = 0
    for _line, record in log_values(path, on_bytes):
        if not isinstance(record, dict):
            yield Skipped(reason="message of another shape")
        elif "$rewindTo" in record:
            rewound += _rewind(messages, record["$rewindTo"])
        elif isinstance(record.get("$set"), dict):
            changes = record["$set"]
            if isinstance(changes.get("messages"), list):
                messages = _by_id(changes["messages"])
            session.update(changes)
        elif "sessionId" in record and "type" not in record:
            session.update(record)
            if isinstance(record.get("messages"), list):
                messages = _by_id(record["messages"])
        else:
            messages.update(_by_id([record], len(messages)))
    if rewound:
        yield Skipped(reason="message of another branch", count=rewound)
    if session.get("kind") == "subagent":
        yield Skipped(reason="message of a sub-agent", count=len(messages))
        yield Skipped(reason="empty conversation", is_conversation=True)
        return
    yield from build_conversation(
        join_answers(item for message in messages.values() for item in _turns(message)),
        source=NAME,
        external_id=text_or_empty(session.get("sessionId")),
        title=text_or_empty(session.get("summary")).partition("\n")[0],
        started_at=parse_time(session.get("startTime")),
        updated_at=parse_time(session.get("lastUpdated")),
    )


def _by_id(records: list[Any], first: int = 0) -> dict[str, Any]:
    """Messages by id, in the order of their first appearance."""
    messages: dict[str, Any] = {}
    for position, record in enumerate(records, first):
        id_ = text_or_empty(record.get("id")) if isinstance(record, dict) else ""
        messages[id_ or f"#{position}"] = record
    return messages


def _rewind(messages: dict[str, Any], id_: object) -> int:
    """Removes the message `id_` and those after it, all when it is unknown; how many of them were spoken."""
    keys = list(messages)
    removed = [
        messages.pop(key)
        for key in keys[keys.index(id_) if isinstance(id_, str) and id_ in messages else 0 :]
    ]
    return sum(isinstance(message, dict) and str(message.get("type")) in _ROLES for message in removed)


def _turns(message: object) -> Iterator[Turn | Skipped]:
    kind = message.get("type") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(kind, str):
        yield Skipped(reason="message of another shape")
        return
    if kind not in _ROLES:
        yield Skipped(reason="notice of the program" if kind in _NOTICES else f"unknown role: {kind[:40]}")
        return
    # What was shown: the other content has files and rules added to it.
    text, skipped = _text(message.get("displayContent") or message.get("content"))
    if kind == "user":
        text = _without_files(text)
    if text.lstrip().startswith(_INJECTED):
        yield Skipped(reason="text added by the program")
        return
    calls, thoughts = message.get("toolCalls"), message.get("thoughts")
    skipped += [Skipped(reason="tool message", count=len(calls))] if isinstance(calls, list) and calls else []
    skipped += [Skipped(reason="reasoning")] if thoughts else []
    if not text.strip() and skipped and all(item.reason == "tool message" for item in skipped):
        # The result of a tool is written in the user's name.
        yield from skipped
        return
    yield from text_turn(
        _ROLES[kind],
        text,
        time=parse_time(message.get("timestamp")),
        external_id=text_or_empty(message.get("id")),
        skipped=skipped,
    )


def _without_files(text: str) -> str:
    """What was typed, without the files that an `@` in it named."""
    before, header, rest = text.partition(_FILES_BEGIN)
    return before.rstrip("\n") + rest.partition(_FILES_END)[2] if header else text


def _text(content: object) -> tuple[str, list[Skipped]]:
    """The text of Gemini's parts, which are a string, one part or a list of them."""
    texts, skipped = [], []
    for part in content if isinstance(content, list) else [content]:
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(part, dict) and part.get("thought"):
            skipped.append(Skipped(reason="reasoning"))
        elif isinstance(text, str):
            texts.append(text)
        elif isinstance(part, dict):
            is_tool = "functionCall" in part or "functionResponse" in part
            skipped.append(Skipped(reason="tool message" if is_tool else "attachment"))
    return "".join(texts) if len(texts) < 2 else "\n".join(texts), skipped
