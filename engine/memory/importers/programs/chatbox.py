"""Chatbox since 0.10: the JSON of its "Export" with conversations, and `session.json` of its backups.

The export is one object: a member `session:<id>` per session since 1.9, a list `chat-sessions` before. A backup zip
(format 2, 2026) holds `sessions/<id>/session.json`, one session each. Texts are in
`contentParts`, before 1.10 in `content`. Earlier threads of a session become conversations of their own;
the answers in `messageForksHash` become alternatives.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from engine.core.chat import Role
from engine.memory.importers.fields import (
    ImportOptions,
    RoleMap,
    build_conversation,
    message_turn,
    parse_content,
    parse_role,
    parse_time,
    skip_attached,
    strip_reasoning,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_members
from engine.memory.records import Conversation, Skipped, Turn

NAME = "chatbox"

_KEYS = ("chat-sessions-list", "chat-sessions", "__exported_items")


_SESSION_KEYS = frozenset(("id", "name", "messages", "threads", "threadName", "messageForksHash"))
_PROGRAM_PARTS = {"info": "notice of the program", "app": "tool message"}
"""Parts of a message that are the program's words."""


def detect(path: Path, value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    return _is_session(value) or any(
        key in _KEYS or (isinstance(key, str) and key.startswith("session:")) for key in value
    )


def _is_session(value: dict[str, Any]) -> bool:
    messages = value.get("messages")
    return isinstance(messages, list) and (
        "messageForksHash" in value
        or any(isinstance(message, dict) and "contentParts" in message for message in messages)
    )


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per session and per earlier thread. Raises BadInput."""
    session: dict[str, Any] = {}
    for key, value in json_members(path, on_bytes, expand=("chat-sessions",)):
        if key.startswith("session:") or key == "chat-sessions":
            yield from _session(value, options.roles)
        elif key in _SESSION_KEYS:
            session[key] = value
    if "messages" in session:
        yield from _session(session, options.roles)


def _session(session: object, role_map: RoleMap) -> Iterator[Conversation | Skipped]:
    if not isinstance(session, dict) or not isinstance(session.get("messages"), list):
        yield Skipped(reason="entry of another shape", is_conversation=True)
        return
    id_ = text_or_empty(session.get("id"))
    name = text_or_empty(session.get("name"))
    forks = session.get("messageForksHash")
    threads = session.get("threads")
    for thread in [*(threads if isinstance(threads, list) else []), session]:
        if not isinstance(thread, dict) or not isinstance(thread.get("messages"), list):
            yield Skipped(reason="entry of another shape", is_conversation=True)
            continue
        title = (
            text_or_empty(thread.get("threadName"))
            if thread is session
            else text_or_empty(thread.get("name"))
        )
        yield from build_conversation(
            _turns(thread["messages"], forks if isinstance(forks, dict) else {}, role_map),
            source=NAME,
            external_id=id_ if thread is session else f"{id_}/{text_or_empty(thread.get('id'))}",
            title=title or name,
            started_at=parse_time(thread.get("createdAt")),
        )


def _turns(messages: list[Any], forks: dict[str, Any], role_map: RoleMap) -> Iterator[Turn | Skipped]:
    previous = ""
    for message in messages:
        turn, skipped = _turn(message, role_map)
        yield from skipped
        alternatives, others = _fork(forks.get(previous), role_map)
        previous = text_or_empty(message.get("id")) if isinstance(message, dict) else ""
        distinct: tuple[str, ...] = ()
        if turn is not None and turn.role is Role.ASSISTANT:
            distinct = tuple(text for text in dict.fromkeys(alternatives) if text != turn.text)
        if others := others + len(alternatives) - len(distinct):
            yield Skipped(reason="message of another branch", count=others)
        if turn is not None:
            yield replace(turn, alternatives=distinct)
    alternatives, others = _fork(forks.get(previous), role_map) if previous else ([], 0)
    if others + len(alternatives):
        yield Skipped(reason="message of another branch", count=others + len(alternatives))


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
    if isinstance(parts, list):
        kinds = [text_or_empty(part.get("type")) if isinstance(part, dict) else "" for part in parts]
        text, skipped = parse_content(
            [part for part, kind in zip(parts, kinds, strict=True) if kind not in _PROGRAM_PARTS]
        )
        skipped += [Skipped(reason=_PROGRAM_PARTS[kind]) for kind in kinds if kind in _PROGRAM_PARTS]
    else:
        text, skipped = parse_content(message.get("content"))
    if message.get("reasoningContent"):
        skipped.append(Skipped(reason="reasoning"))
    for name in ("files", "links", "pictures"):
        skipped += skip_attached(message.get(name), "image" if name == "pictures" else "attachment")
    if message.get("errorCode") or message.get("error"):
        return None, [*skipped, *strip_reasoning(text, role)[1], Skipped(reason="failed answer")]
    return message_turn(
        role,
        text,
        skipped,
        time=parse_time(message.get("timestamp")),
        external_id=text_or_empty(message.get("id")),
    )


def _fork(fork: object, role_map: RoleMap) -> tuple[list[str], int]:
    """The answers that begin the other branches of a fork, and the number of their other messages."""
    lists = fork.get("lists") if isinstance(fork, dict) else None
    texts = []
    others = 0
    for branch in lists if isinstance(lists, list) else []:
        messages = branch.get("messages") if isinstance(branch, dict) else None
        if not isinstance(messages, list) or not messages:
            continue
        turn, _skipped = _turn(messages[0], role_map)
        is_answer = turn is not None and turn.role is Role.ASSISTANT
        texts += [turn.text] if turn is not None and is_answer else []
        others += len(messages) - is_answer
    return texts, others
