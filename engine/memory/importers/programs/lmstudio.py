"""LM Studio since 0.3: one `<time>.conversation.json` per chat (`~/.lmstudio/conversations`).

A message has `versions`, of which `currentlySelected` is shown: a `singleStep` with `content` parts, or a
`multiStep` whose `contentBlock` steps carry them; steps of the style `thinking` are skipped.
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
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.records import Conversation, Skipped, Turn

NAME = "lmstudio"


def detect(path: Path, value: Any) -> bool:
    messages = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(messages, list):
        return False
    if not messages:
        return path.name.endswith(".conversation.json")
    return any(isinstance(message, dict) and "versions" in message for message in messages)


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """The chat in the file. Other versions of an answer become its alternatives. Raises BadInput."""
    for _line, chat in json_values(path, on_bytes):
        if not isinstance(chat, dict) or not isinstance(chat.get("messages"), list):
            yield Skipped(reason="entry of another shape", is_conversation=True)
            continue
        times = [parse_time(chat.get(f"{who}LastMessagedAt")) for who in ("user", "assistant")]
        yield from build_conversation(
            _turns(chat, options.roles),
            source=NAME,
            external_id=text_or_empty(chat.get("createdAt")),
            title=text_or_empty(chat.get("name")),
            started_at=parse_time(chat.get("createdAt")),
            updated_at=max((time for time in times if time is not None), default=None),
        )


def _turns(chat: dict[str, Any], role_map: RoleMap) -> Iterator[Turn | Skipped]:
    system = chat.get("systemPrompt")
    if isinstance(system, str) and system.strip():
        yield Turn(role=Role.SYSTEM, text=system)
    for message in chat["messages"]:
        versions = message.get("versions") if isinstance(message, dict) else None
        if not isinstance(versions, list) or not versions:
            yield Skipped(reason="message of another shape")
            continue
        selected = message.get("currentlySelected")
        shown = selected if isinstance(selected, int) and 0 <= selected < len(versions) else len(versions) - 1
        turn, skipped = _version(versions[shown], role_map)
        yield from skipped
        others = [_version(other, role_map)[0] for n, other in enumerate(versions) if n != shown]
        texts: tuple[str, ...] = ()
        if turn is not None and turn.role is Role.ASSISTANT:
            distinct = dict.fromkeys(other.text for other in others if other is not None)
            texts = tuple(text for text in distinct if text != turn.text)
        if len(texts) < len(others):
            yield Skipped(reason="message of another branch", count=len(others) - len(texts))
        if turn is not None:
            yield replace(turn, alternatives=texts)


def _version(version: object, role_map: RoleMap) -> tuple[Turn | None, list[Skipped]]:
    if not isinstance(version, dict):
        return None, [Skipped(reason="message of another shape")]
    role = parse_role(version.get("role"), role_map)
    if role is None:
        return None, [unknown_role(version.get("role"))]
    if role is Role.TOOL:
        return None, [Skipped(reason="tool message")]
    texts = []
    skipped = []
    for content in _contents(version):
        if isinstance(content, Skipped):
            skipped.append(content)
            continue
        text, skipped_parts = parse_content(content)
        skipped += skipped_parts
        texts.append(text)
    return message_turn(role, "\n".join(text for text in texts if text), skipped)


def _contents(version: dict[str, Any]) -> Iterator[Any]:
    steps = version.get("steps")
    if not isinstance(steps, list):
        yield version.get("content")
        return
    for step in steps:
        # `status` and `debugInfoBlock` steps hold no message text.
        if not isinstance(step, dict) or step.get("type") != "contentBlock":
            continue
        style = step.get("style")
        if isinstance(style, dict) and style.get("type") == "thinking":
            yield Skipped(reason="reasoning")
        elif step.get("roleOverride") == "tool":
            yield Skipped(reason="tool message")
        else:
            yield step.get("content")
