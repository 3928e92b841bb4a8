"""Grok: the `prod-grok-backend.json` of the export of accounts.x.ai.

Each conversation is `{conversation, responses}`, each response wrapped once more. Responses form a tree by
`parent_response_id`; whoever is not `human` is the model, by whatever name. Shape as two third-party mappings
describe it, both from real exports of 2026; `leaf_response_id` was empty in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.fields import (
    ImportOptions,
    build_conversation,
    parse_role,
    parse_time,
    skip_attached,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.message_tree import MessageNode, NodesById, current_branch
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.importers.turns import text_turn, tree_node
from engine.memory.records import Conversation, Skipped

NAME = "grok"

_CARD, _CARD_END = "<grok:render", "</grok:render>"


def detect(path: Path, value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    if _is_conversation(value):
        return True
    listed = value.get("conversations")
    if isinstance(listed, list) and any(map(_is_conversation, listed[:50])):
        return True
    return "conversations" in value and "media_posts" in value and "projects" in value


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per entry, along its current branch. Raises BadInput."""
    for _line, value in json_values(path, on_bytes):
        listed = value.get("conversations") if isinstance(value, dict) else None
        for entry in listed if isinstance(listed, list) else [value]:
            yield from _conversation(entry, options)


def _is_conversation(value: object) -> bool:
    responses = value.get("responses") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(responses, list):
        return False
    return isinstance(value.get("conversation"), dict) or any(
        isinstance(response, dict) and "sender" in response for response in responses[:50]
    )


def _conversation(entry: Any, options: ImportOptions) -> Iterator[Conversation | Skipped]:
    if not _is_conversation(entry):
        yield Skipped(reason="entry of another shape", is_conversation=True)
        return
    about = entry["conversation"] if isinstance(entry.get("conversation"), dict) else entry
    if about.get("temporary"):
        yield Skipped(reason="temporary conversation", is_conversation=True)
        return
    nodes = NodesById()
    for wrapped in entry["responses"]:
        response = wrapped.get("response", wrapped) if isinstance(wrapped, dict) else None
        id_ = text_or_empty(response.get("_id")) if isinstance(response, dict) else ""
        nodes.add(id_, _node(response, options))
    yield from build_conversation(
        current_branch(nodes.nodes, nodes.key_of(about.get("leaf_response_id"))),
        source=NAME,
        external_id=text_or_empty(about.get("id")) or text_or_empty(about.get("conversation_id")),
        title=text_or_empty(about.get("title")),
        started_at=parse_time(about.get("create_time")),
        updated_at=parse_time(about.get("modify_time")),
    )


def _node(response: object, options: ImportOptions) -> MessageNode:
    if not isinstance(response, dict):
        return MessageNode(parent=None, skipped=(Skipped(reason="message of another shape"),))
    parent = text_or_empty(response.get("parent_response_id")) or None
    time = parse_time(_plain_time(response.get("create_time")))
    sender = response.get("sender")
    if not isinstance(sender, str):
        return MessageNode(parent=parent, skipped=(unknown_role(sender),), time=time or 0.0)
    role = parse_role(sender, options.roles) or Role.ASSISTANT
    text = response.get("message")
    skipped = skip_attached(response.get("file_attachments")) + skip_attached(
        response.get("generated_image_urls"), "image"
    )
    skipped += skip_attached(response.get("steps"), "tool message")
    if response.get("thinking_trace") or response.get("agent_thinking_traces"):
        skipped.append(Skipped(reason="reasoning"))
    if isinstance(text, str) and _CARD in text and role is Role.ASSISTANT:
        text, marks = _without_cards(text)
        skipped += [Skipped(reason="citation", count=marks)] if marks else []
    reason = "failed answer" if response.get("error") else "empty message"
    id_ = text_or_empty(response.get("_id"))
    items = text_turn(role, text, time=time, external_id=id_, skipped=skipped, reason=reason)
    return tree_node(items, role, parent, time=time)


def _without_cards(text: str) -> tuple[str, int]:
    """The text without the places of citations and cards, and their number."""
    kept: list[str] = []
    place = 0
    while (start := text.find(_CARD, place)) >= 0 and (opened := text.find(">", start)) >= 0:
        end = opened + 1
        if text[opened - 1] != "/":
            closed = text.find(_CARD_END, end)
            if closed < 0:
                break
            end = closed + len(_CARD_END)
        kept.append(text[place:start])
        place = end
    return "".join((*kept, text[place:])), len(kept)


def _plain_time(value: object) -> object:
    """The value inside MongoDB's wrappers, `{"$date": {"$numberLong": "…"}}`."""
    for _depth in range(2):
        if isinstance(value, dict):
            value = value.get("$date", value.get("$numberLong"))
    return value
