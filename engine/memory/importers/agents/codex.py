"""Codex CLI: the rollouts `~/.codex/sessions/<year>/<month>/<day>/rollout-<time>-<id>.jsonl`.

A line is `{timestamp, type, payload}`. Each message stands in the file twice or more: as an event, and as the item
that was sent to the model, among which are also rules, environment blocks and summaries in the user's name. The
user's words are taken from the events; from the items only in files without such events. The first `session_meta`
is the file's own: a fork copies the lines of its parent. Shape as third-party notes describe it, with the markers
of codex-rs' `protocol.rs`; `item_completed` (the newest form) as tests of other readers write it; the bare
items of the oldest are not verified.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from engine.core.chat import Role
from engine.memory.importers.agents.agent_text import typed_text
from engine.memory.importers.fields import ImportOptions, build_conversation, parse_time
from engine.memory.importers.readers.files import OnBytes, ignore_bytes
from engine.memory.importers.readers.logs import log_values
from engine.memory.importers.turns import join_answers, text_turn
from engine.memory.records import Conversation, Skipped, Turn

NAME = "codex"

_TYPES = frozenset(("session_meta", "response_item", "event_msg", "turn_context", "compacted", "world_state"))
_ROLES = {
    **{"user": Role.USER, "user_message": Role.USER, "UserMessage": Role.USER},
    **{"assistant": Role.ASSISTANT, "agent_message": Role.ASSISTANT, "AgentMessage": Role.ASSISTANT},
}


class RolloutMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One writing of a message, or the undoing of the last turns."""

    role: Role
    text: str = ""
    time: float | None = None
    is_event: bool = False
    images: int = 0
    undone: int = 0
    """Questions that were taken back, with all that followed them."""


def detect(path: Path, value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    if isinstance(value.get("payload"), dict):
        return str(value.get("type")) in _TYPES
    return "instructions" in value and "timestamp" in value and "id" in value and "messages" not in value


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """The session of the file. Raises BadInput."""
    messages: list[RolloutMessage] = []
    meta: dict[str, Any] | None = None
    for _line, record in log_values(path, on_bytes):
        if not isinstance(record, dict):
            yield Skipped(reason="entry of another shape")
            continue
        payload = record.get("payload")
        kind = record.get("type")
        if kind == "session_meta" and isinstance(payload, dict):
            meta = payload if meta is None else meta
            continue
        for item in _items(record):
            if isinstance(item, Skipped):
                yield item
            else:
                messages.append(item)
    if _is_sub_agent(meta or {}):
        yield Skipped(reason="message of a sub-agent", count=len(list(_once(messages))))
        yield Skipped(reason="empty conversation", is_conversation=True)
        return
    yield from build_conversation(join_answers(_turns(messages)), source=NAME)


def _is_sub_agent(meta: dict[str, Any]) -> bool:
    source = meta.get("source")
    return (isinstance(source, dict) and "subagent" in source) or meta.get("thread_source") == "subagent"


def _items(record: dict[str, Any]) -> Iterator[RolloutMessage | Skipped]:
    payload = record.get("payload")
    time = parse_time(record.get("timestamp"))
    if not isinstance(payload, dict):
        # The oldest files hold the items alone.
        yield from _response_item(record, time) if "type" in record else ()
    elif record.get("type") == "response_item":
        yield from _response_item(payload, time)
    elif record.get("type") == "compacted":
        yield Skipped(reason="text added by the program")
    elif record.get("type") == "event_msg":
        yield from _event(payload, time)


def _response_item(item: dict[str, Any], time: float | None) -> Iterator[RolloutMessage | Skipped]:
    kind = item.get("type")
    if kind == "message":
        role = _ROLES.get(str(item.get("role")))
        if role is None:
            yield Skipped(reason="text added by the program")
            return
        content = item.get("content")
        parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
        texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
        if role is Role.USER:
            texts = [typed for text in texts if (typed := typed_text(text)).strip()]
        images = sum("image" in str(part.get("type")) for part in parts)
        yield RolloutMessage(role=role, text=_trimmed("\n".join(texts)), time=time, images=images)
    elif kind == "reasoning":
        yield Skipped(reason="reasoning")
    elif isinstance(kind, str) and ("call" in kind or "output" in kind):
        yield Skipped(reason="tool message")


def _event(payload: dict[str, Any], time: float | None) -> Iterator[RolloutMessage | Skipped]:
    kind = payload.get("type")
    item = payload.get("item")
    if kind == "thread_rolled_back" and isinstance(payload.get("num_turns"), int):
        yield RolloutMessage(role=Role.SYSTEM, undone=payload["num_turns"])
    elif kind == "item_completed" and isinstance(item, dict) and str(item.get("type")) in _ROLES:
        content = item.get("content")
        parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
        text = "\n".join(part["text"] for part in parts if isinstance(part.get("text"), str))
        yield _spoken(
            str(item["type"]),
            text or item.get("text"),
            time,
            sum("image" in str(p.get("type")).lower() for p in parts),
        )
    elif kind in ("user_message", "agent_message"):
        if payload.get("kind") in ("user_instructions", "environment_context"):
            yield Skipped(reason="text added by the program")
            return
        images = [payload.get("images"), payload.get("local_images")]
        yield _spoken(kind, payload.get("message"), time, sum(len(i) for i in images if isinstance(i, list)))


def _spoken(kind: str, content: object, time: float | None, images: int) -> RolloutMessage:
    role = _ROLES[kind]
    text = content if isinstance(content, str) else ""
    text = typed_text(text) if role is Role.USER else text
    return RolloutMessage(role=role, text=_trimmed(text), time=time, is_event=True, images=images)


def _trimmed(text: str) -> str:
    """The text without what differs between two writings of it; the indent of its first line stays."""
    return text.rstrip().lstrip("\n")


def _once(messages: list[RolloutMessage]) -> Iterator[RolloutMessage | Skipped]:
    """Each message once: the writings of one message have the same text and follow one another."""
    has_events = any(message.is_event and message.role is Role.USER for message in messages)
    typed = {message.text for message in messages if message.is_event and message.role is Role.USER}
    asked = ""
    answers: set[str] = set()
    for message in messages:
        if message.role is Role.USER:
            if has_events and not message.is_event:
                if message.text not in typed:
                    yield Skipped(reason="text added by the program")
                continue
            if not message.text and not message.images:
                yield Skipped(reason="text added by the program")
                continue
            if message.text == asked and not answers and not message.images:
                continue
            asked, answers = message.text, set()
        elif message.role is Role.ASSISTANT:
            if message.text in answers:
                continue
            answers.add(message.text)
        yield message


def _turns(messages: list[RolloutMessage]) -> list[Turn | Skipped]:
    items: list[Turn | Skipped] = []
    for message in _once(messages):
        if isinstance(message, Skipped):
            items.append(message)
        elif message.undone:
            items = _taken_back(items, message.undone)
        else:
            images = [Skipped(reason="image", count=message.images)] if message.images else []
            items += text_turn(message.role, message.text, time=message.time, skipped=images)
    return items


def _taken_back(items: list[Turn | Skipped], turns: int) -> list[Turn | Skipped]:
    """The items without the last `turns` questions and what followed them, which are counted."""
    questions = [n for n, item in enumerate(items) if isinstance(item, Turn) and item.role is Role.USER]
    if not questions or turns < 1:
        return items
    start = questions[max(0, len(questions) - turns)]
    gone = sum(isinstance(item, Turn) for item in items[start:])
    kept = [item for item in items[start:] if isinstance(item, Skipped)]
    return [*items[:start], *kept, Skipped(reason="message of another branch", count=gone)]
