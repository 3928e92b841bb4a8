"""Cursor: its `state.vscdb`, of all projects (`globalStorage`) or of one (`workspaceStorage`).

`composerData:<id>` lists the messages of a chat in their order, `bubbleId:<id>:<message>` holds each; messages that
are not listed were reverted. Older chats stand inline in the composer, the oldest in the table `ItemTable`. Shape as
several third-party readers describe it, some from real databases; the newest storage (`agentKv`) is not read. The
database holds access tokens as well: only the named keys are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.agents.agent_text import typed_text
from engine.memory.importers.fields import (
    ImportOptions,
    build_conversation,
    parse_time,
    skip_reason,
    text_or_empty,
)
from engine.memory.importers.readers.files import OnBytes, ignore_bytes
from engine.memory.importers.readers.sqlite import has_tables, is_sqlite, query_rows
from engine.memory.importers.turns import join_answers, text_turn
from engine.memory.records import Conversation, Skipped, Turn

NAME = "cursor"

_COMPOSERS = """
    SELECT substr(key, 14) AS composer, key, value FROM cursorDiskKV WHERE key LIKE 'composerData:%'
    UNION ALL
    SELECT substr(key, 10, instr(substr(key, 10), ':') - 1), key, value FROM cursorDiskKV WHERE key LIKE 'bubbleId:%'
    UNION ALL
    SELECT * FROM (SELECT '', key, NULL FROM cursorDiskKV WHERE key LIKE 'agentKv:%' LIMIT 1)
    ORDER BY composer, key DESC
"""
_OLD_CHATS = "SELECT value FROM ItemTable WHERE key = 'workbench.panel.aichat.view.aichat.chatdata'"
_TYPES = {1: Role.USER, 2: Role.ASSISTANT, "user": Role.USER, "ai": Role.ASSISTANT}


def detect(path: Path, value: Any) -> bool:
    return is_sqlite(path) and has_tables(path, ("cursorDiskKV",))


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per chat. Raises BadInput."""
    rows = query_rows(path, {"cursorDiskKV": ("key", "value")}, _COMPOSERS)
    has_newer = False
    """The newest storage is in use."""
    found = empty = 0
    for id_, group in groupby(rows, key=lambda row: row[0]):
        if not id_:
            has_newer = True
            continue
        composer: Any = None
        bubbles: dict[str, Any] = {}
        for _id, key, text in group:
            on_bytes(len(text) if isinstance(text, str | bytes) else 0)
            if key.startswith("composerData:"):
                composer = _parsed(text)
            else:
                bubbles[key.rpartition(":")[2]] = _parsed(text)
        if not isinstance(composer, dict):
            yield Skipped(reason="entry of another shape", is_conversation=True)
            continue
        for item in _composer(composer, bubbles, text_or_empty(id_)):
            found += isinstance(item, Conversation)
            if isinstance(item, Skipped) and item.reason == "empty conversation":
                empty += item.count
            else:
                yield item
    if empty:
        # Of chats in the newest storage, only empty shells are left here.
        reason = "chat in a storage that is not read" if has_newer and not found else "empty conversation"
        yield Skipped(reason=reason, count=empty, is_conversation=True)
    if has_tables(path, ("ItemTable",)):
        for (text,) in query_rows(path, {"ItemTable": ("key", "value")}, _OLD_CHATS):
            yield from _old_chats(_parsed(text))


def _parsed(text: object) -> Any:
    try:
        return json.loads(text) if isinstance(text, str | bytes) else None
    except (ValueError, RecursionError):
        return None


def _composer(
    composer: dict[str, Any], bubbles: dict[str, Any], id_: str
) -> Iterator[Conversation | Skipped]:
    headers = composer.get("fullConversationHeadersOnly")
    inline = composer.get("conversation")
    if isinstance(headers, list) and headers:
        listed = [
            text_or_empty(header.get("bubbleId")) if isinstance(header, dict) else "" for header in headers
        ]
        messages = [bubbles.pop(key, None) for key in listed]
    else:
        messages = inline if isinstance(inline, list) else []
    items: list[Turn | Skipped] = []
    if bubbles:
        items.append(Skipped(reason="message of another branch", count=len(bubbles)))
    if composer.get("subagentInfo") or composer.get("isBestOfNSubcomposer"):
        yield Skipped(reason="message of a sub-agent", count=len(messages))
        yield Skipped(reason="empty conversation", is_conversation=True)
        return
    items += [item for message in messages for item in _turns(message)]
    yield from build_conversation(
        join_answers(items),
        source=NAME,
        external_id=id_,
        title=text_or_empty(composer.get("name")),
        started_at=parse_time(composer.get("createdAt")),
        updated_at=parse_time(composer.get("lastUpdatedAt")),
    )


def _old_chats(data: object) -> Iterator[Conversation | Skipped]:
    tabs = data.get("tabs") if isinstance(data, dict) else None
    for tab in tabs if isinstance(tabs, list) else []:
        bubbles = tab.get("bubbles") if isinstance(tab, dict) else None
        if not isinstance(tab, dict) or not isinstance(bubbles, list):
            yield Skipped(reason="entry of another shape", is_conversation=True)
            continue
        yield from build_conversation(
            join_answers([item for bubble in bubbles for item in _turns(bubble)]),
            source=NAME,
            external_id=text_or_empty(tab.get("tabId")),
            title=text_or_empty(tab.get("chatTitle")),
            updated_at=parse_time(tab.get("lastSendTime")),
        )


def _turns(bubble: object) -> Iterator[Turn | Skipped]:
    kind = bubble.get("type") if isinstance(bubble, dict) else None
    role = _TYPES.get(kind) if isinstance(kind, int | str) else None
    if not isinstance(bubble, dict) or role is None:
        yield Skipped(reason="message of another shape")
        return
    skipped = []
    if isinstance(bubble.get("thinking"), dict) and bubble["thinking"].get("text"):
        skipped.append(Skipped(reason="reasoning"))
    if bubble.get("toolFormerData"):
        skipped.append(Skipped(reason="tool message"))
    images = bubble.get("images")
    if isinstance(images, list) and images:
        skipped.append(Skipped(reason=skip_reason("image"), count=len(images)))
    text = bubble.get("text") or bubble.get("rawText") or _rich_text(bubble.get("richText"))
    if role is Role.USER and isinstance(text, str) and text.strip():
        text = typed_text(text)
        if not text.strip():
            yield Skipped(reason="text added by the program")
            return
    if role is Role.ASSISTANT and not text and skipped:
        yield from skipped
        return
    yield from text_turn(
        role,
        text,
        time=parse_time(bubble.get("createdAt")),
        external_id=text_or_empty(bubble.get("bubbleId")) or text_or_empty(bubble.get("id")),
        skipped=skipped,
    )


def _rich_text(value: object) -> str:
    """The words of the editor's document (Lexical), paragraph by paragraph."""
    document = _parsed(value) if isinstance(value, str) else value
    root = document.get("root") if isinstance(document, dict) else None
    paragraphs = root.get("children") if isinstance(root, dict) else None
    lines = []
    for paragraph in paragraphs if isinstance(paragraphs, list) else []:
        words: list[str] = []
        stack = [paragraph]
        while stack:
            node = stack.pop()
            if not isinstance(node, dict):
                continue
            if isinstance(node.get("text"), str):
                words.append(node["text"])
            children = node.get("children")
            stack += reversed(children) if isinstance(children, list) else ()
        lines.append("".join(words))
    return "\n".join(lines)
