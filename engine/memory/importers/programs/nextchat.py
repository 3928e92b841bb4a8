"""NextChat (ChatGPT-Next-Web) 2.9 to 2.16: the backup of "Export" in its settings.

`chat-next-web-store` holds `sessions` with `messages`. Message dates depend on the browser's locale and are
ignored; `lastUpdate` dates the session. A mask's example messages are not part of the conversation.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_members
from engine.memory.records import Conversation, Skipped, Turn

NAME = "nextchat"

_STORE = "chat-next-web-store"


def detect(path: Path, value: Any) -> bool:
    return isinstance(value, dict) and _STORE in value


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per session; unused sessions are skipped. Raises BadInput."""
    sessions = f"{_STORE}.sessions"
    for key, session in json_members(path, on_bytes, expand=(_STORE, sessions)):
        if key != sessions:
            continue
        if not isinstance(session, dict) or not isinstance(session.get("messages"), list):
            yield Skipped(reason="entry of another shape", is_conversation=True)
            continue
        yield from build_conversation(
            _turns(session, options.roles),
            source=NAME,
            external_id=text_or_empty(session.get("id")),
            title=text_or_empty(session.get("topic")),
            updated_at=parse_time(session.get("lastUpdate")),
        )


def _turns(session: dict[str, Any], role_map: RoleMap) -> Iterator[Turn | Skipped]:
    mask = session.get("mask")
    context = mask.get("context") if isinstance(mask, dict) else None
    for message in context if isinstance(context, list) else []:
        if isinstance(message, dict) and message.get("role") == "system":
            yield from _turn(message, role_map)
        else:
            yield Skipped(reason="hidden message")
    for message in session["messages"]:
        yield from _turn(message, role_map)


def _turn(message: object, role_map: RoleMap) -> Iterator[Turn | Skipped]:
    if not isinstance(message, dict):
        yield Skipped(reason="message of another shape")
        return
    role = parse_role(message.get("role"), role_map)
    if role is None:
        yield unknown_role(message.get("role"))
        return
    text, skipped = parse_content(message.get("content"))
    skipped += skip_attached(message.get("tools"), "tool message")
    if message.get("isError") and role is Role.ASSISTANT:
        yield from (*skipped, Skipped(reason="failed answer"))
        return
    turn, left_out = message_turn(role, text, skipped, external_id=text_or_empty(message.get("id")))
    yield from left_out
    if turn is not None:
        yield turn
