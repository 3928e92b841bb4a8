"""The chat.deepseek.com export (since 2025): `conversations.json` or its zip.

A tree like ChatGPT's; a message has no role but `fragments` of the types REQUEST, RESPONSE, THINK and tool
types. Older messages have `role` and `content` instead. There is no current node: the newest branch is read.

Page scripts save what the page itself loads: `data.biz_data` with `chat_session` and `chat_messages`, a list whose
messages name their parents (shape as two third-party readers describe it).
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
    parse_role,
    parse_time,
    skip_attached,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.message_tree import MessageNode, NodesById, child_ids, current_branch
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.importers.turns import without_citations
from engine.memory.records import Conversation, Skipped

NAME = "deepseek"

_FRAGMENT_ROLES = {"REQUEST": Role.USER, "RESPONSE": Role.ASSISTANT}
_SKIPPED_FRAGMENTS = {
    "THINK": "reasoning",
    "SEARCH": "tool message",
    "READ_LINK": "tool message",
    "TIP": "hidden message",
    "FILE": "attachment",
}


def detect(path: Path, value: Any) -> bool:
    if _page(value) is not None:
        return True
    if not isinstance(value, dict) or not isinstance(value.get("mapping"), dict):
        return False
    nodes = [node for node in value["mapping"].values() if isinstance(node, dict)]
    messages = [node["message"] for node in nodes if isinstance(node.get("message"), dict)]
    return any("fragments" in message for message in messages) or "inserted_at" in value


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per entry, along the branch of the newest message. Raises BadInput."""
    for _line, entry in json_values(path, on_bytes):
        if (page := _page(entry)) is not None:
            yield from _page_conversation(*page, options.roles)
            continue
        if not isinstance(entry, dict) or not isinstance(entry.get("mapping"), dict):
            yield Skipped(reason="entry of another shape", is_conversation=True)
            continue
        nodes = {key: _node(key, node, options.roles) for key, node in entry["mapping"].items()}
        yield from build_conversation(
            current_branch(nodes, entry.get("current_node")),
            source=NAME,
            external_id=text_or_empty(entry.get("id")),
            title=text_or_empty(entry.get("title")),
            started_at=parse_time(entry.get("inserted_at")),
            updated_at=parse_time(entry.get("updated_at")),
        )


def _page(value: Any) -> tuple[dict[str, Any], list[Any]] | None:
    """The session and the messages that a page loads; None for anything else."""
    for key in ("data", "biz_data"):
        value = value.get(key, value) if isinstance(value, dict) else None
    messages = value.get("chat_messages") if isinstance(value, dict) else None
    session = value.get("chat_session") if isinstance(value, dict) else None
    is_page = isinstance(messages, list) and (isinstance(session, dict) or _have_fragments(messages))
    return (session if isinstance(session, dict) else {}, messages or []) if is_page else None


def _have_fragments(messages: list[Any]) -> bool:
    return any(isinstance(message, dict) and "fragments" in message for message in messages)


def _page_conversation(
    session: dict[str, Any], messages: list[Any], role_map: RoleMap
) -> Iterator[Conversation | Skipped]:
    nodes = NodesById()
    for place, message in enumerate(messages):
        fields = message if isinstance(message, dict) else {}
        key = text_or_empty(fields.get("message_id"))
        link = {"parent": fields["parent_id"]} if "parent_id" in fields else {}
        node = _node(key or f"#{place}", {"message": message, **link} if fields else None, role_map)
        nodes.add(key, node)
    yield from build_conversation(
        current_branch(nodes.nodes, nodes.key_of(text_or_empty(session.get("current_message_id")))),
        source=NAME,
        external_id=text_or_empty(session.get("id")),
        title=text_or_empty(session.get("title")),
        started_at=parse_time(session.get("inserted_at")),
        updated_at=parse_time(session.get("updated_at")),
    )


def _node(key: str, value: object, role_map: RoleMap) -> MessageNode:
    if not isinstance(value, dict):
        return MessageNode(parent=None, skipped=(Skipped(reason="message of another shape"),))
    node = MessageNode(
        parent=text_or_empty(value["parent"]) if "parent" in value else None,
        children=child_ids(value.get("children")),
    )
    message = value.get("message")
    if not isinstance(message, dict):
        return node
    time = parse_time(message.get("inserted_at"))
    node = replace(node, time=time or 0.0)
    role, text, skipped = _content(message, role_map)
    skipped += skip_attached(message.get("files"))
    if role is None:
        return replace(node, skipped=tuple(skipped) or (Skipped(reason="empty message"),))
    turn, left_out = message_turn(role, text, skipped, time=time, external_id=key)
    return replace(node, role=role, turn=turn, skipped=tuple(left_out))


def _content(message: dict[str, Any], role_map: RoleMap) -> tuple[Role | None, str, list[Skipped]]:
    role, text, skipped = (
        _fragments(message["fragments"], role_map)
        if isinstance(message.get("fragments"), list)
        else _plain(message, role_map)
    )
    if role is Role.ASSISTANT:
        # The page shows them as links (DeepSeek-V3 issue 1626).
        text, marks = without_citations(text)
        skipped += marks
    return role, text, skipped


def _plain(message: dict[str, Any], role_map: RoleMap) -> tuple[Role | None, str, list[Skipped]]:
    """The older shape: a role and one text."""
    role = parse_role(message.get("role"), role_map)
    if role is None:
        return None, "", [unknown_role(message.get("role"))]
    content = message.get("content")
    skipped = (
        [Skipped(reason="reasoning")]
        if message.get("reasoning_content") or message.get("thinking_content")
        else []
    )
    return role, content if isinstance(content, str) else "", skipped


def _fragments(fragments: list[Any], role_map: RoleMap) -> tuple[Role | None, str, list[Skipped]]:
    role = None
    texts = []
    skipped = []
    for fragment in fragments:
        kind = fragment.get("type") if isinstance(fragment, dict) else None
        content = fragment.get("content") if isinstance(fragment, dict) else None
        fragment_role = (
            (_FRAGMENT_ROLES.get(kind) or role_map.get(kind.lower())) if isinstance(kind, str) else None
        )
        if fragment_role is not None and isinstance(content, str):
            role = role or fragment_role
            texts.append(content)
        elif isinstance(kind, str) and (kind in _SKIPPED_FRAGMENTS or kind.startswith("TOOL")):
            skipped.append(Skipped(reason=_SKIPPED_FRAGMENTS.get(kind, "tool message")))
        else:
            skipped.append(unknown_role(kind))
    if role is None and any(isinstance(one, dict) and one.get("type") == "FILE" for one in fragments):
        role = Role.USER
    return role, "\n".join(text for text in texts if text), skipped
