"""Ids that several messages of a conversation have: no message is lost, none is answered by another's answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_importers import read, role_texts, write

Message = tuple[str, str | None, str, str]
"""Id, id of the parent, role, text."""

TALK = [("user", "One?"), ("assistant", "1."), ("user", "Two?"), ("assistant", "2.")]
_ROOT = "00000000-0000-0000-0000-000000000000"


def grok(messages: Sequence[Message]) -> Any:
    responses = [
        {
            "_id": id_,
            "parent_response_id": parent,
            "sender": "human" if role == "user" else role,
            "message": text,
        }
        for id_, parent, role, text in messages
    ]
    return {
        "conversations": [{"conversation": {"id": "c"}, "responses": [{"response": r} for r in responses]}]
    }


def librechat(messages: Sequence[Message]) -> Any:
    listed = [
        {
            "messageId": id_,
            "parentMessageId": parent or _ROOT,
            "isCreatedByUser": role == "user",
            "text": text,
        }
        for id_, parent, role, text in messages
    ]
    return {"conversationId": "c", "exportAt": "10:00", "messages": listed}


def llamacpp(messages: Sequence[Message]) -> Any:
    listed: list[dict[str, object]] = [
        {
            "id": id_,
            "convId": "c",
            "type": "text",
            "role": role,
            "content": text,
            "parent": parent,
            "children": [],
        }
        for id_, parent, role, text in messages
    ]
    return {"conv": {"id": "c", "name": "n", "currNode": messages[-1][0]}, "messages": listed}


def openai(messages: Sequence[Message]) -> Any:
    listed: list[dict[str, object]] = [
        {"id": id_, "role": role, "content": text, "parent_id": parent}
        for id_, parent, role, text in messages
    ]
    return {"messages": listed}


def claude(messages: Sequence[Message]) -> Any:
    listed = [
        {
            "uuid": id_,
            "parent_message_uuid": parent,
            "sender": "human" if role == "user" else role,
            "text": text,
        }
        for id_, parent, role, text in messages
    ]
    return [{"uuid": "c", "name": "n", "chat_messages": listed}]


def lobechat(messages: Sequence[Message]) -> Any:
    listed: list[dict[str, object]] = [
        {
            "id": id_,
            "role": role,
            "content": text,
            "session_id": "s",
            "topic_id": "t",
            "created_at": 1.7e12 + n,
        }
        | ({"parent_id": parent} if parent else {})
        for n, (id_, parent, role, text) in enumerate(messages)
    ]
    other = {"id": "z", "role": "user", "content": "Another topic?", "topic_id": "u", "created_at": 1.7e12}
    return {"data": {"sessions": [], "topics": [], "messages": [*listed, other]}, "mode": "pglite"}


def deepseek(messages: Sequence[Message]) -> Any:
    listed = [
        {
            "message_id": id_,
            "parent_id": parent,
            "role": role.upper(),
            "inserted_at": 1.7e9 + n,
            "fragments": [{"type": "REQUEST" if role == "user" else "RESPONSE", "content": text}],
        }
        for n, (id_, parent, role, text) in enumerate(messages)
    ]
    return {"data": {"biz_data": {"chat_session": {"id": "s"}, "chat_messages": listed}}}


@pytest.mark.parametrize("ids", ["abcd", "aaaa", "abbc", "abca", "abcc"])
@pytest.mark.parametrize(
    "shape",
    [grok, librechat, llamacpp, openai, claude, lobechat, deepseek],
    ids=lambda shape: str(shape.__name__),
)
def test_every_message_of_a_repeated_id_is_read(
    tmp_path: Path, shape: Callable[[Sequence[Message]], Any], ids: str
) -> None:
    messages = [
        (id_, parent, role, text)
        for id_, parent, (role, text) in zip(ids, (None, *ids[:-1]), TALK, strict=True)
    ]
    conversations, _skipped = read(write(tmp_path, "x.json", shape(messages)))
    assert role_texts(conversations[0]) == TALK
