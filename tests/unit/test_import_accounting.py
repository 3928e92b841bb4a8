"""Nothing is lost without a word: messages of a file = taken + alternatives + left out, for any messages in any tree."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.import_accounting import account, assert_adds_up

Message = tuple[str, str, int | None]
"""Role, text and the place of the parent; None for the first message or one without a parent."""
Builder = Callable[[list[Message]], Any]
Row = dict[str, Any]

CLAUDE = {"user": "human"}
ROLES = ["user", "assistant", "narrator", "system"]


def listed(messages: list[Message], role: str, text: str, **names: str) -> list[Row]:
    return [{role: names.get(name, name), text: words} for name, words, _parent in messages]


def parents(messages: list[Message]) -> list[str | None]:
    return [None if parent is None else str(parent) for _role, _text, parent in messages]


def children(messages: list[Message], at: int) -> list[str]:
    return [str(n) for n, (_role, _text, parent) in enumerate(messages) if parent == at]


def chatgpt(messages: list[Message]) -> Any:
    mapping = {
        str(n): {
            "id": str(n),
            "parent": parent,
            "children": children(messages, n),
            "message": {
                "id": str(n),
                "author": {"role": role},
                "content": {"content_type": "text", "parts": [text]},
            },
        }
        for n, ((role, text, _place), parent) in enumerate(zip(messages, parents(messages), strict=True))
    }
    return [{"mapping": mapping, "current_node": str(len(messages) - 1)}]


def claude(messages: list[Message]) -> Any:
    rows = [
        {"uuid": str(n), "sender": CLAUDE.get(role, role), "text": text, "parent_message_uuid": parent or ""}
        for n, ((role, text, _place), parent) in enumerate(zip(messages, parents(messages), strict=True))
    ]
    return [{"uuid": "c", "name": "", "chat_messages": rows}]


def openwebui(messages: list[Message]) -> Any:
    nodes = {
        str(n): {
            "id": str(n),
            "role": role,
            "content": text,
            "parentId": parent,
            "childrenIds": children(messages, n),
        }
        for n, ((role, text, _place), parent) in enumerate(zip(messages, parents(messages), strict=True))
    }
    return [{"id": "w", "chat": {"history": {"messages": nodes, "currentId": str(len(messages) - 1)}}}]


def lmstudio(messages: list[Message]) -> Any:
    def version(role: str, text: str) -> Row:
        return {"type": "singleStep", "role": role, "content": [{"type": "text", "text": text}]}

    rows = [{"versions": [version(role, text)], "currentlySelected": 0} for role, text, _parent in messages]
    return {"name": "", "createdAt": 1752000000000, "messages": rows}


def openai_tree(messages: list[Message]) -> Any:
    rows = [
        {"id": str(n), "parentId": parent, "role": role, "content": text}
        for n, ((role, text, _place), parent) in enumerate(zip(messages, parents(messages), strict=True))
    ]
    return [{"messages": rows}]


TREES: dict[str, Builder] = {
    "openai": openai_tree,
    "chatgpt": chatgpt,
    "claude": claude,
    "openwebui": openwebui,
}
LISTS: dict[str, Builder] = {
    "openai": lambda messages: [{"messages": listed(messages, "role", "content")}],
    "bare messages": lambda messages: listed(messages, "role", "content"),
    "sharegpt": lambda messages: [{"conversations": listed(messages, "from", "value")}],
    "nextchat": lambda messages: {
        "chat-next-web-store": {"sessions": [{"id": "s", "messages": listed(messages, "role", "content")}]}
    },
    "chatbox": lambda messages: {
        "session:1": {"id": "1", "name": "", "messages": listed(messages, "role", "content")}
    },
    "lmstudio": lmstudio,
}

texts = st.sampled_from(["", " ", "\n", "hello", "你好", "a longer text"])
unlinked = st.lists(st.tuples(st.sampled_from(ROLES), texts, st.none()), min_size=1, max_size=7)


@st.composite
def trees(draw: st.DrawFn) -> list[Message]:
    count = draw(st.integers(1, 9))
    messages: list[Message] = []
    for n in range(count):
        parent = None if n == 0 else draw(st.integers(0, n - 1))
        # Distinct texts: two equal answers to a question are one alternative.
        text = draw(st.sampled_from(["", " ", f"text {n}"]))
        messages.append((draw(st.sampled_from(ROLES)), text, parent))
    return messages


def written(folder: Path, value: Any) -> Path:
    path = folder / "x.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


@pytest.mark.parametrize("format_", LISTS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=unlinked)
def test_a_list_of_messages_adds_up(tmp_path: Path, format_: str, messages: list[Message]) -> None:
    counts = account(written(tmp_path, LISTS[format_](messages)))
    expected = len(messages)
    if counts.conversations == 0:
        # The turns of a conversation without a user or an assistant go with it.
        assert counts.entries_left_out and counts.accounted({}) <= expected
    else:
        assert counts.accounted({}) == expected, counts


@pytest.mark.parametrize("format_", TREES)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=trees())
def test_a_tree_of_messages_adds_up(tmp_path: Path, format_: str, messages: list[Message]) -> None:
    counts = account(written(tmp_path, TREES[format_](messages)))
    # The empty system message of ChatGPT's root is no message of anyone.
    expected = len(messages)
    if format_ == "chatgpt":
        expected -= sum(role == "system" and not text for role, text, _parent in messages)
    if counts.conversations == 0:
        assert counts.entries_left_out and counts.accounted({}) <= expected
    else:
        assert counts.accounted({}) == expected, counts


def test_parts_of_taken_messages_are_told_apart(tmp_path: Path) -> None:
    content = [{"type": "text", "text": "q"}, {"type": "image_url", "image_url": {}}]
    rows = [{"role": "user", "content": content}, {"role": "assistant", "content": "<think>x</think>a"}]
    counts = assert_adds_up(written(tmp_path, [{"messages": rows}]), 2, {"image": 1, "reasoning": 1})
    assert (counts.taken, counts.left_out) == (2, {"image": 1, "reasoning": 1})
