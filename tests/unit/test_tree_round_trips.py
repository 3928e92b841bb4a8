"""One branched talk, written as each program writes it in any order, gives the same conversation."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.memory.records import Conversation
from tests.unit.test_importers import read, write

START = 1_770_000_000


class Message(NamedTuple):
    """One message of a talk; `parent` is the place of the message before, -1 for the first."""

    parent: int
    is_answer: bool
    text: str


class Talk(NamedTuple):
    """A branched talk, and the place of the message that the person saw last."""

    messages: list[Message]
    last: int

    def path(self) -> list[str]:
        texts = []
        place = self.last
        while place >= 0:
            texts.append(self.messages[place].text)
            place = self.messages[place].parent
        return texts[::-1]

    def children(self, place: int) -> list[str]:
        return [f"m{n}" for n, message in enumerate(self.messages) if message.parent == place]


def iso(place: int) -> str:
    return datetime.fromtimestamp(START + place, UTC).isoformat()


def id_or(place: int, none: Any) -> Any:
    return f"m{place}" if place >= 0 else none


def open_webui(talk: Talk, order: list[int]) -> Any:
    messages = {
        f"m{n}": {
            "id": f"m{n}",
            "role": "assistant" if talk.messages[n].is_answer else "user",
            "content": talk.messages[n].text,
            "parentId": id_or(talk.messages[n].parent, None),
            "childrenIds": talk.children(n),
            "timestamp": START + n,
        }
        for n in order
    }
    return [{"id": "x", "chat": {"history": {"messages": messages, "currentId": f"m{talk.last}"}}}]


def open_webui_output(talk: Talk, order: list[int]) -> Any:
    value = open_webui(talk, order)
    for message in value[0]["chat"]["history"]["messages"].values():
        if message["role"] == "assistant":
            parts = [{"type": "output_text", "text": message["content"]}]
            message["output"] = [{"type": "message", "role": "assistant", "content": parts}]
            message["content"] = ""
            message["parentId"] = None
    return value


def claude(talk: Talk, order: list[int]) -> Any:
    messages = [
        {
            "uuid": f"m{n}",
            "sender": "assistant" if talk.messages[n].is_answer else "human",
            "text": "",
            "content": [{"type": "text", "text": talk.messages[n].text}],
            "created_at": iso(n // 2 * 2),
            "parent_message_uuid": id_or(talk.messages[n].parent, "00000000-0000-4000-8000-000000000000"),
        }
        for n in order
    ]
    return [{"uuid": "x", "chat_messages": messages, "current_leaf_message_uuid": f"m{talk.last}"}]


def chatgpt(talk: Talk, order: list[int]) -> Any:
    mapping: dict[str, Any] = {
        f"m{n}": {
            "id": f"m{n}",
            "parent": id_or(talk.messages[n].parent, "root"),
            "children": talk.children(n),
            "message": {
                "id": f"m{n}",
                "author": {"role": "assistant" if talk.messages[n].is_answer else "user"},
                "create_time": START + n,
                "content": {"content_type": "text", "parts": [talk.messages[n].text]},
                "recipient": "all",
            },
        }
        for n in order
    }
    mapping["root"] = {"id": "root", "parent": None, "children": talk.children(-1), "message": None}
    return [{"id": "x", "mapping": mapping, "current_node": f"m{talk.last}"}]


def chatgpt_slim(talk: Talk, order: list[int]) -> Any:
    value = chatgpt(talk, order)
    for node in value[0]["mapping"].values():
        del node["children"]
    return value


def chatgpt_downwards(talk: Talk, order: list[int]) -> Any:
    value = chatgpt(talk, order)
    for node in value[0]["mapping"].values():
        del node["parent"]
    return value


def deepseek(talk: Talk, order: list[int]) -> Any:
    value = chatgpt(talk, order)
    for node in value[0]["mapping"].values():
        if node["message"] is not None:
            kind = "RESPONSE" if node["message"]["author"]["role"] == "assistant" else "REQUEST"
            text = node["message"]["content"]["parts"][0]
            time = iso(int(node["id"][1:]))
            node["message"] = {"fragments": [{"type": kind, "content": text}], "inserted_at": time}
    return value


def llama_cpp(talk: Talk, order: list[int]) -> Any:
    messages = [
        {
            "id": f"m{n}",
            "convId": "x",
            "type": "text",
            "role": "assistant" if talk.messages[n].is_answer else "user",
            "content": talk.messages[n].text,
            "parent": id_or(talk.messages[n].parent, "root"),
            "children": talk.children(n),
            "timestamp": (START + n) * 1000,
        }
        for n in order
    ]
    root = {"id": "root", "type": "root", "role": "system", "content": "", "parent": None, "timestamp": 1}
    conversation = {"id": "x", "name": "T", "currNode": f"m{talk.last}"}
    return {"conv": conversation, "messages": [*messages, root]}


def webui_rows(talk: Talk, order: list[int], path: Path) -> None:
    """Open WebUI's database, with the messages in `chat_message` only."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("""
            CREATE TABLE user (id TEXT);
            CREATE TABLE auth (id TEXT);
            CREATE TABLE chat (id TEXT, title TEXT, chat JSON, created_at BIGINT, updated_at BIGINT,
                current_message_id TEXT);
            CREATE TABLE chat_message (id TEXT, chat_id TEXT, role TEXT, parent_id TEXT, content JSON,
                created_at BIGINT);
        """)
        connection.execute("INSERT INTO chat VALUES ('x', 'T', '{}', 1, 2, ?)", (f"m{talk.last}",))
        for n in order:
            message = talk.messages[n]
            role = "assistant" if message.is_answer else "user"
            row = (f"x-m{n}", role, id_or(message.parent, None), json.dumps(message.text), START + n)
            connection.execute("INSERT INTO chat_message VALUES (?, 'x', ?, ?, ?, ?)", row)
        connection.commit()


def cherry(talk: Talk, order: list[int], path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("""
            CREATE TABLE topic (id, name, active_node_id, created_at, updated_at);
            CREATE TABLE message (id, parent_id, topic_id, role, data, status, created_at);
        """)
        connection.execute("INSERT INTO topic VALUES ('x', 'T', ?, 1, 2)", (f"m{talk.last}",))
        connection.execute(
            "INSERT INTO message VALUES ('root', NULL, 'x', 'root', '{}', 'success', ?)", (START,)
        )
        for n in order:
            message = talk.messages[n]
            role = "assistant" if message.is_answer else "user"
            data = json.dumps({"parts": [{"type": "text", "text": message.text}]})
            row = (f"m{n}", id_or(message.parent, "root"), role, data, (START + n) * 1000)
            connection.execute("INSERT INTO message VALUES (?, ?, 'x', ?, ?, 'success', ?)", row)
        connection.commit()


@st.composite
def talks(draw: st.DrawFn) -> Talk:
    """Questions and answers in turn; a question may be edited and an answer made again at any place."""
    messages = [Message(-1, False, "text 0")]
    depths = [0]
    for place in range(1, draw(st.integers(2, 12))):
        parent = draw(st.integers(0, place - 1))
        depths.append(depths[parent] + 1)
        messages.append(Message(parent, depths[place] % 2 == 1, f"text {place}"))
    parents = {message.parent for message in messages}
    return Talk(messages, draw(st.sampled_from([n for n in range(len(messages)) if n not in parents])))


WRITERS: list[Callable[[Talk, list[int]], Any]] = [
    open_webui,
    open_webui_output,
    claude,
    chatgpt,
    chatgpt_slim,
    chatgpt_downwards,
    deepseek,
    llama_cpp,
]


DATABASES: list[Callable[[Talk, list[int], Path], None]] = [webui_rows, cherry]


def check(conversation: Conversation, skipped: dict[str, int], talk: Talk) -> None:
    assert [turn.text for turn in conversation.turns] == talk.path()
    assert {turn.role for turn in conversation.turns[::2]} == {"user"}
    alternatives = [text for turn in conversation.turns for text in turn.alternatives]
    assert len(conversation.turns) + len(alternatives) + sum(skipped.values()) == len(talk.messages)
    for turn, before in zip(conversation.turns[1:], conversation.turns, strict=False):
        question = next(n for n, message in enumerate(talk.messages) if message.text == before.text)
        siblings = {message.text for message in talk.messages if message.parent == question} - {turn.text}
        assert set(turn.alternatives) == (siblings if turn.role == "assistant" else set())


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(talks(), st.randoms(use_true_random=False))
def test_a_branched_talk_is_read_as_it_was_shown(
    tmp_path: Path, writer: Callable[[Talk, list[int]], Any], talk: Talk, chance: random.Random
) -> None:
    order = list(range(len(talk.messages)))
    chance.shuffle(order)
    (conversation,), skipped = read(write(tmp_path, "x.json", writer(talk, order)))
    check(conversation, skipped, talk)


@pytest.mark.parametrize("writer", DATABASES, ids=lambda writer: writer.__name__)
@settings(max_examples=15, deadline=None)
@given(talks(), st.randoms(use_true_random=False))
def test_a_branched_talk_in_a_database_is_read_as_it_was_shown(
    tmp_path_factory: pytest.TempPathFactory,
    writer: Callable[[Talk, list[int], Path], None],
    talk: Talk,
    chance: random.Random,
) -> None:
    order = list(range(len(talk.messages)))
    chance.shuffle(order)
    path = tmp_path_factory.mktemp("db") / "x.sqlite"
    writer(talk, order, path)
    (conversation,), skipped = read(path)
    check(conversation, skipped, talk)
