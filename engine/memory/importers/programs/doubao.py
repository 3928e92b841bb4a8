"""Doubao: the pages of messages of its site, as userscripts save them; Doubao has no export.

`downlink_body.pull_singe_chain_downlink_body.messages` (sic) runs backwards; the content of a message is JSON in a
string, either `{"text"}` or a list of blocks. Several pages of one conversation are put together. Shape as several
third-party readers describe it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.fields import (
    ImportOptions,
    build_conversation,
    parse_role,
    parse_time,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.importers.turns import text_turn
from engine.memory.records import Conversation, Skipped, Turn

NAME = "doubao"

_ROLES = {"1": Role.USER, "2": Role.ASSISTANT}
_CHAINS = ("pull_singe_chain_downlink_body", "pull_single_chain_downlink_body")


def detect(path: Path, value: Any) -> bool:
    return _page(value) is not None


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """The conversations of the pages. Raises BadInput."""
    conversations: dict[str, dict[str, Any]] = {}
    for _line, value in json_values(path, on_bytes):
        page = _page(value)
        if page is None:
            yield Skipped(reason="entry of another shape", is_conversation=True)
            continue
        for position, message in enumerate(page["messages"]):
            if not isinstance(message, dict):
                yield Skipped(reason="message of another shape")
                continue
            id_ = text_or_empty(message.get("conversation_id")) or text_or_empty(page.get("conversation_id"))
            messages = conversations.setdefault(id_, {})
            key = text_or_empty(message.get("message_id")) or f"#{len(messages)}.{position}"
            messages.setdefault(key, message)
    for id_, messages in conversations.items():
        # Pages run backwards: of equal times, the later one in the file is the earlier one.
        ordered = list(messages.values())[::-1]
        ordered.sort(key=_order)
        yield from build_conversation(
            (item for message in ordered for item in _turns(message, options)), source=NAME, external_id=id_
        )


def _page(value: object) -> dict[str, Any] | None:
    body = value.get("downlink_body") if isinstance(value, dict) else None
    if body is None and isinstance(value, dict) and isinstance(value.get("data"), dict):
        body = value["data"].get("downlink_body")
    for name in _CHAINS:
        page = body.get(name) if isinstance(body, dict) else None
        if isinstance(page, dict) and isinstance(page.get("messages"), list):
            return page
    return None


def _order(message: dict[str, Any]) -> tuple[float, float]:
    index = text_or_empty(message.get("index_in_conv"))
    return (parse_time(message.get("create_time")) or 0, float(index) if index.isdecimal() else 0)


def _turns(message: dict[str, Any], options: ImportOptions) -> list[Turn | Skipped]:
    kind = text_or_empty(message.get("user_type"))
    role = _ROLES.get(kind) or parse_role(kind, options.roles)
    if role is None:
        return [unknown_role(kind or None)]
    if message.get("status"):
        return [Skipped(reason="deleted message")]
    text, skipped = _content(message.get("content") or message.get("content_block"))
    text = text or text_or_empty(message.get("tts_content"))
    return text_turn(
        role,
        text,
        time=parse_time(message.get("create_time")),
        external_id=text_or_empty(message.get("message_id")),
        skipped=skipped,
    )


def _content(content: object) -> tuple[str, list[Skipped]]:
    if isinstance(content, str):
        try:
            parsed = json.loads(content)
        except (ValueError, RecursionError):
            return content, []
        content = parsed if isinstance(parsed, dict | list) else content
    if isinstance(content, str):
        return content, []
    if isinstance(content, dict):
        return (
            (content["text"], [])
            if isinstance(content.get("text"), str)
            else ("", [Skipped(reason="attachment")])
        )
    texts, skipped = [], []
    for block in content if isinstance(content, list) else []:
        inner = block.get("content") if isinstance(block, dict) else None
        text_block = inner.get("text_block") if isinstance(inner, dict) else None
        if isinstance(text_block, dict) and isinstance(text_block.get("text"), str):
            texts.append(text_block["text"])
        elif isinstance(inner, dict) and any("think" in name for name in inner):
            skipped.append(Skipped(reason="reasoning"))
        else:
            is_image = isinstance(inner, dict) and "creation_block" in inner
            skipped.append(Skipped(reason="image" if is_image else "tool message"))
    return "\n".join(texts), skipped
