"""Chatbox: the JSON of "Export" with conversations, of Chatbox 0.10 to 1.2x.

One object with everything: a member `session:<id>` for each session since 1.9, `chat-sessions` as a list
before. Texts are in `contentParts`, in `content` before 1.10. Earlier threads of a session are conversations
of their own; the answers in `messageForksHash` are alternatives.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.fields import (
    RoleMap,
    build_conversation,
    parse_content,
    parse_role,
    parse_time,
    strip_reasoning,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_members
from engine.memory.records import Conversation, Skipped, Turn

NAME = "chatbox"

_MARKS = ("chat-sessions-list", "chat-sessions", "__exported_items")


def detect(path: Path, value: Any) -> bool:
    return isinstance(value, dict) and any(
        key in _MARKS or (isinstance(key, str) and key.startswith("session:")) for key in value
    )


def read(path: Path, role_map: RoleMap, on_bytes: OnBytes = ignore_bytes) -> Iterator[Conversation | Skipped]:
    """One conversation for each session and each earlier thread. Raises BadInput."""
    for key, value in json_members(path, on_bytes, expand=("chat-sessions",)):
        if key.startswith("session:") or key == "chat-sessions":
            yield from _session(value, role_map)


def _session(session: object, role_map: RoleMap) -> Iterator[Conversation | Skipped]:
    if not isinstance(session, dict) or not isinstance(session.get("messages"), list):
        yield Skipped(reason="entry of another shape", whole=True)
        return
    id_ = text_or_empty(session.get("id"))
    name = text_or_empty(session.get("name"))
    forks = session.get("messageForksHash")
    threads = session.get("threads")
    for thread in [*(threads if isinstance(threads, list) else []), session]:
        if not isinstance(thread, dict) or not isinstance(thread.get("messages"), list):
            yield Skipped(reason="entry of another shape", whole=True)
            continue
        own = text_or_empty(thread.get("id"))
        title = (
            text_or_empty(thread.get("threadName"))
            if thread is session
            else text_or_empty(thread.get("name"))
        )
        yield from build_conversation(
            _turns(thread["messages"], forks if isinstance(forks, dict) else {}, role_map),
            source=NAME,
            external_id=id_ if thread is session else f"{id_}/{own}",
            title=title or name,
            started_at=parse_time(thread.get("createdAt")),
        )


def _turns(messages: list[Any], forks: dict[str, Any], role_map: RoleMap) -> Iterator[Turn | Skipped]:
    before = ""
    for message in messages:
        turn, skipped = _turn(message, role_map)
        yield from skipped
        alternatives, elsewhere = _beside(forks.get(before), role_map)
        if elsewhere:
            yield Skipped(reason="message of another branch", count=elsewhere)
        before = text_or_empty(message.get("id")) if isinstance(message, dict) else ""
        if turn is None:
            continue
        if turn.role is not Role.ASSISTANT:
            if alternatives:
                yield Skipped(reason="message of another branch", count=len(alternatives))
            yield turn
            continue
        others = tuple(text for text in dict.fromkeys(alternatives) if text != turn.text)
        yield Turn(
            role=turn.role, text=turn.text, time=turn.time, external_id=turn.external_id, alternatives=others
        )


def _turn(message: object, role_map: RoleMap) -> tuple[Turn | None, list[Skipped]]:
    if not isinstance(message, dict):
        return None, [Skipped(reason="message of another shape")]
    role = parse_role(message.get("role"), role_map)
    if role is None:
        return None, [unknown_role(message.get("role"))]
    if message.get("isSummary"):
        return None, [Skipped(reason="hidden message")]
    if role is Role.TOOL:
        return None, [Skipped(reason="tool message")]
    parts = message.get("contentParts")
    text, skipped = parse_content(parts if isinstance(parts, list) else message.get("content"))
    if message.get("reasoningContent"):
        skipped.append(Skipped(reason="reasoning"))
    for name in ("files", "links", "pictures"):
        attached = message.get(name)
        if isinstance(attached, list) and attached:
            skipped.append(
                Skipped(reason="image" if name == "pictures" else "attachment", count=len(attached))
            )
    text, thought = strip_reasoning(text, role)
    skipped += thought
    if message.get("errorCode") or message.get("error") or not text.strip():
        failed = message.get("errorCode") or message.get("error")
        return None, [*skipped, Skipped(reason="failed answer")] if failed else skipped or [
            Skipped(reason="empty message")
        ]
    id_ = text_or_empty(message.get("id"))
    return Turn(role=role, text=text, time=parse_time(message.get("timestamp")), external_id=id_), skipped


def _beside(fork: object, role_map: RoleMap) -> tuple[list[str], int]:
    """The answers that stand first on the other branches, and how many branches begin otherwise."""
    lists = fork.get("lists") if isinstance(fork, dict) else None
    texts = []
    elsewhere = 0
    for other in lists if isinstance(lists, list) else []:
        messages = other.get("messages") if isinstance(other, dict) else None
        if not isinstance(messages, list) or not messages:
            continue
        turn, _skipped = _turn(messages[0], role_map)
        if turn is not None and turn.role is Role.ASSISTANT:
            texts.append(turn.text)
        else:
            elsewhere += 1
    return texts, elsewhere
