"""Branched talks and the exports that programs would write of them: the ground truth for importers of trees.

The messages of a talk stand in the file in any order. Each writer follows the shape that its program writes today.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

_START = 1_770_000_000


class TalkMessage(NamedTuple):
    """One message of a talk; `parent` is the place of the message before, -1 for the first."""

    parent: int
    is_answer: bool
    text: str


class BranchedTalk(NamedTuple):
    """A branched talk, and the place of the message that the person saw last."""

    messages: list[TalkMessage]
    last: int

    def shown(self) -> list[str]:
        """The texts from the first message to the last that was seen."""
        texts = []
        place = self.last
        while place >= 0:
            texts.append(self.messages[place].text)
            place = self.messages[place].parent
        return texts[::-1]

    def children(self, place: int) -> list[str]:
        """The ids of the messages directly after one."""
        return [f"m{n}" for n, message in enumerate(self.messages) if message.parent == place]


def _iso(place: int) -> str:
    return datetime.fromtimestamp(_START + place, UTC).isoformat()


def _id_or(place: int, none: Any) -> Any:
    return f"m{place}" if place >= 0 else none


def open_webui(talk: BranchedTalk, order: list[int]) -> Any:
    """Open WebUI: the JSON of "Export chats"."""
    messages = {
        f"m{n}": {
            "id": f"m{n}",
            "role": "assistant" if talk.messages[n].is_answer else "user",
            "content": talk.messages[n].text,
            "parentId": _id_or(talk.messages[n].parent, None),
            "childrenIds": talk.children(n),
            "timestamp": _START + n,
        }
        for n in order
    }
    return [{"id": "x", "chat": {"history": {"messages": messages, "currentId": f"m{talk.last}"}}}]


def open_webui_output(talk: BranchedTalk, order: list[int]) -> Any:
    """Open WebUI 0.11: answers in `output`, without their upward links."""
    value = open_webui(talk, order)
    for message in value[0]["chat"]["history"]["messages"].values():
        if message["role"] == "assistant":
            parts = [{"type": "output_text", "text": message["content"]}]
            message["output"] = [{"type": "message", "role": "assistant", "content": parts}]
            message["content"] = ""
            message["parentId"] = None
    return value


def claude(talk: BranchedTalk, order: list[int]) -> Any:
    """claude.ai: two messages share one time."""
    messages = [
        {
            "uuid": f"m{n}",
            "sender": "assistant" if talk.messages[n].is_answer else "human",
            "text": "",
            "content": [{"type": "text", "text": talk.messages[n].text}],
            "created_at": _iso(n // 2 * 2),
            "parent_message_uuid": _id_or(talk.messages[n].parent, "00000000-0000-4000-8000-000000000000"),
        }
        for n in order
    ]
    return [{"uuid": "x", "chat_messages": messages, "current_leaf_message_uuid": f"m{talk.last}"}]


def chatgpt(talk: BranchedTalk, order: list[int]) -> Any:
    """ChatGPT: below a node without a message."""
    mapping: dict[str, Any] = {
        f"m{n}": {
            "id": f"m{n}",
            "parent": _id_or(talk.messages[n].parent, "root"),
            "children": talk.children(n),
            "message": {
                "id": f"m{n}",
                "author": {"role": "assistant" if talk.messages[n].is_answer else "user"},
                "create_time": _START + n,
                "content": {"content_type": "text", "parts": [talk.messages[n].text]},
                "recipient": "all",
            },
        }
        for n in order
    }
    mapping["root"] = {"id": "root", "parent": None, "children": talk.children(-1), "message": None}
    return [{"id": "x", "mapping": mapping, "current_node": f"m{talk.last}"}]


def chatgpt_slim(talk: BranchedTalk, order: list[int]) -> Any:
    """ChatGPT without `children`, as some tools shorten it."""
    value = chatgpt(talk, order)
    for node in value[0]["mapping"].values():
        del node["children"]
    return value


def chatgpt_downwards(talk: BranchedTalk, order: list[int]) -> Any:
    """ChatGPT without `parent`."""
    value = chatgpt(talk, order)
    for node in value[0]["mapping"].values():
        del node["parent"]
    return value


def deepseek(talk: BranchedTalk, order: list[int]) -> Any:
    """chat.deepseek.com: fragments instead of roles."""
    value = chatgpt(talk, order)
    for node in value[0]["mapping"].values():
        if node["message"] is not None:
            kind = "RESPONSE" if node["message"]["author"]["role"] == "assistant" else "REQUEST"
            text = node["message"]["content"]["parts"][0]
            time = _iso(int(node["id"][1:]))
            node["message"] = {"fragments": [{"type": kind, "content": text}], "inserted_at": time}
    return value


def llama_cpp(talk: BranchedTalk, order: list[int]) -> Any:
    """llama.cpp's web UI."""
    messages = [
        {
            "id": f"m{n}",
            "convId": "x",
            "type": "text",
            "role": "assistant" if talk.messages[n].is_answer else "user",
            "content": talk.messages[n].text,
            "parent": _id_or(talk.messages[n].parent, "root"),
            "children": talk.children(n),
            "timestamp": (_START + n) * 1000,
        }
        for n in order
    ]
    root = {"id": "root", "type": "root", "role": "system", "content": "", "parent": None, "timestamp": 1}
    conversation = {"id": "x", "name": "T", "currNode": f"m{talk.last}"}
    return {"conv": conversation, "messages": [*messages, root]}


def open_webui_rows(talk: BranchedTalk, order: list[int], path: Path) -> None:
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
            row = (f"x-m{n}", role, _id_or(message.parent, None), json.dumps(message.text), _START + n)
            connection.execute("INSERT INTO chat_message VALUES (?, 'x', ?, ?, ?, ?)", row)
        connection.commit()


def cherry(talk: BranchedTalk, order: list[int], path: Path) -> None:
    """Cherry Studio 2: the database of its backup."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("""
            CREATE TABLE topic (id, name, active_node_id, created_at, updated_at);
            CREATE TABLE message (id, parent_id, topic_id, role, data, status, created_at);
        """)
        connection.execute("INSERT INTO topic VALUES ('x', 'T', ?, 1, 2)", (f"m{talk.last}",))
        connection.execute(
            "INSERT INTO message VALUES ('root', NULL, 'x', 'root', '{}', 'success', ?)", (_START,)
        )
        for n in order:
            message = talk.messages[n]
            role = "assistant" if message.is_answer else "user"
            data = json.dumps({"parts": [{"type": "text", "text": message.text}]})
            row = (f"m{n}", _id_or(message.parent, "root"), role, data, (_START + n) * 1000)
            connection.execute("INSERT INTO message VALUES (?, ?, 'x', ?, ?, 'success', ?)", row)
        connection.commit()


def random_talk(chance: random.Random) -> BranchedTalk:
    """Questions and answers in turn; a question may be edited and an answer made again at any place."""
    messages = [TalkMessage(-1, False, "text 0")]
    depths = [0]
    for place in range(1, chance.randint(2, 20)):
        parent = chance.randrange(place)
        depths.append(depths[parent] + 1)
        messages.append(TalkMessage(parent, depths[place] % 2 == 1, f"text {place}"))
    parents = {message.parent for message in messages}
    return BranchedTalk(messages, chance.choice([n for n in range(len(messages)) if n not in parents]))


JSON_EXPORTS: dict[str, Callable[[BranchedTalk, list[int]], Any]] = {
    "openwebui": open_webui,
    "openwebui, output without links": open_webui_output,
    "claude": claude,
    "chatgpt": chatgpt,
    "chatgpt, parents only": chatgpt_slim,
    "chatgpt, children only": chatgpt_downwards,
    "deepseek": deepseek,
    "llamacpp": llama_cpp,
}
"""Writers of the JSON value of an export, of a talk in an order of its messages."""
DATABASES: dict[str, Callable[[BranchedTalk, list[int], Path], None]] = {
    "openwebui, database": open_webui_rows,
    "cherry": cherry,
}
"""Writers of an SQLite file."""


def write_talk(shape: str, talk: BranchedTalk, order: list[int], path: Path) -> None:
    """Writes one talk in a shape of `JSON_EXPORTS` or `DATABASES`."""
    if shape in DATABASES:
        DATABASES[shape](talk, order, path)
    else:
        path.write_text(json.dumps(JSON_EXPORTS[shape](talk, order)), encoding="utf-8")
