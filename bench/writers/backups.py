"""Backups and databases of chat programs: llama.cpp, Cherry Studio, Chatbox, NextChat, Ollama, Open WebUI, llm, MindX."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from typing import Any

from bench.writers.shape import ExportFiles, ExportShape, database, json_bytes, json_lines, one_file_each
from bench.writers.talks import (
    ASSISTANT,
    SYSTEM,
    WholeTalk,
    as_tree,
    holding,
    shuffled,
    with_times,
)


def _llamacpp(talk: WholeTalk, chance: random.Random) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    nodes = as_tree(talk)
    root: dict[str, Any] = {"id": f"{talk.id}-root", "convId": talk.id, "type": "root", "role": "system"}
    root |= {"content": "", "parent": None, "children": [nodes[0].id], "timestamp": nodes[0].turn.time * 1000}
    messages = [root]
    for node in nodes:
        message = {
            "id": node.id,
            "convId": talk.id,
            "type": "system" if node.turn.role == SYSTEM else "text",
            "role": node.turn.role,
            "content": node.turn.text,
            "parent": node.parent or root["id"],
            "children": node.children,
            "timestamp": node.turn.time * 1000,
        }
        if node.turn.thought:
            message["reasoningContent"] = node.turn.thought
        messages.append(message)
    about = {"id": talk.id, "name": talk.title, "lastModified": 1_785_000_000_000, "currNode": nodes[-1].id}
    return about, shuffled(messages, chance)


def llamacpp(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """`<date>_conversations.json` of llama.cpp's web UI."""
    pairs = [_llamacpp(talk, chance) for talk in talks]
    entries = [{"conv": about, "messages": messages} for about, messages in pairs]
    return {"conversations.json": json_bytes(entries)}


def llamacpp_lines(talk: WholeTalk, chance: random.Random) -> bytes:
    """One conversation of llama.cpp's web UI since 2026: a session, then its messages."""
    about, messages = _llamacpp(talk, chance)
    first = {"harness": "llama.cpp", "type": "session", **about}
    return json_lines([first, *({"message": message, "type": "message"} for message in messages)])


def cherry(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """Cherry Studio's backup of the versions 4 and 5: messages and their blocks apart, names as JSON in JSON."""
    topics, names, blocks = [], [], []
    for talk in talks:
        messages = []
        nodes = as_tree(talk)
        shown = {node.parent for node in nodes} | {nodes[-1].id}
        for node in nodes:
            parts = [("thinking", node.turn.thought)] if node.turn.thought else []
            ids = []
            for number, (kind, text) in enumerate([*parts, ("main_text", node.turn.text)]):
                ids.append(f"{node.id}-{number}")
                block = {"id": ids[-1], "messageId": node.id, "type": kind, "content": text}
                blocks.append(block)
            message: dict[str, Any] = {
                "id": node.id,
                "role": node.turn.role,
                "topicId": talk.id,
                "createdAt": node.turn.iso,
                "blocks": ids,
            }
            if node.turn.role == ASSISTANT:
                message["askId"] = node.parent
                message["foldSelected"] = node.id in shown
            messages.append(message)
        topics.append({"id": talk.id, "messages": messages})
        names.append({"id": talk.id, "name": talk.title})
    state = json.dumps({"assistants": json.dumps({"assistants": [{"topics": names}]})})
    value = {
        "time": 1,
        "version": 5,
        "localStorage": {"persist:cherry-studio": state},
        "indexedDB": {"topics": shuffled(topics, chance), "message_blocks": shuffled(blocks, chance)},
    }
    return {"data.json": json_bytes(value)}


_CHERRY_TABLES = """
    CREATE TABLE topic (id TEXT, name TEXT, active_node_id TEXT, created_at INT, updated_at INT, deleted_at INT);
    CREATE TABLE message (id TEXT, parent_id TEXT, topic_id TEXT, role TEXT, data TEXT, status TEXT, created_at INT);
"""


def cherry_database(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """Cherry Studio's backup of version 7: a tree of messages in SQLite."""
    rows: list[tuple[str, tuple[Any, ...]]] = []
    for talk in talks:
        nodes = as_tree(talk)
        rows.append(("topic", (talk.id, talk.title, nodes[-1].id, talk.start * 1000, None, None)))
        for node in nodes:
            parts = [{"type": "reasoning", "text": node.turn.thought}] if node.turn.thought else []
            data = json.dumps({"parts": [*parts, {"type": "text", "text": node.turn.text}]})
            values = (node.id, node.parent or None, talk.id, node.turn.role, data, "success")
            rows.append(("message", (*values, node.turn.time * 1000)))
    return {"Data/cherrystudio.sqlite": database(_CHERRY_TABLES, shuffled(rows, chance))}


def chatbox(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """Chatbox's backup: one key per session; answers made again stand in a fork behind the question."""
    value: dict[str, Any] = {"chat-sessions-list": [{"id": talk.id, "name": talk.title} for talk in talks]}
    for talk in talks:
        messages: list[dict[str, Any]] = []
        forks: dict[str, Any] = {}
        for node in as_tree(talk):
            parts = [{"type": "reasoning", "text": node.turn.thought}] if node.turn.thought else []
            message = {
                "id": node.id,
                "role": node.turn.role,
                "contentParts": [*parts, {"type": "text", "text": node.turn.text}],
                "timestamp": node.turn.time * 1000,
            }
            if messages and messages[-1]["id"] != node.parent:
                # Another version of the answer that was put there before.
                earlier = messages.pop()
                fork = forks.setdefault(node.parent, {"position": 0, "lists": []})
                fork["lists"].append({"id": f"list-{earlier['id']}", "messages": [earlier]})
            messages.append(message)
        for fork in forks.values():
            fork["lists"].append({"id": "current", "messages": []})
        session = {"id": talk.id, "name": talk.title, "type": "chat", "messages": messages}
        value[f"session:{talk.id}"] = {**session, "messageForksHash": forks, "threads": []}
    return {"chatbox-exported-data.json": json_bytes(value)}


def nextchat(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """NextChat's backup; the dates of messages are in the spelling of the browser."""
    sessions = []
    for talk in talks:
        mask = {"context": [{"role": "system", "content": talk.system}] if talk.system else []}
        messages = [
            {
                "id": f"{talk.id}-{place}",
                "role": turn.role,
                "content": turn.text,
                "date": "8/1/2026, 10:00:00 AM",
            }
            for place, turn in enumerate(talk.spoken)
        ]
        session = {"id": talk.id, "topic": talk.title, "mask": mask, "messages": messages}
        sessions.append({**session, "lastUpdate": 1_785_000_000_000})
    stores = {"access-control": {}, "chat-next-web-store": {"sessions": sessions, "currentSessionIndex": 0}}
    return {"Backup.json": json_bytes(stores)}


_OLLAMA_TABLES = """
    CREATE TABLE settings (id INTEGER, schema_version INTEGER);
    CREATE TABLE chats (id TEXT, title TEXT, created_at TIMESTAMP, browser_state TEXT);
    CREATE TABLE messages (id INTEGER PRIMARY KEY AUTOINCREMENT, chat_id TEXT, role TEXT, content TEXT,
        thinking TEXT, created_at TIMESTAMP, tool_result TEXT);
    CREATE TABLE tool_calls (message_id INTEGER, type TEXT);
    CREATE TABLE attachments (message_id INTEGER, filename TEXT, data BLOB);
"""


def ollama(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """The database of Ollama's app; talks go on by turns, so that their messages are mixed."""
    rows: list[tuple[str, tuple[Any, ...]]] = [
        ("chats", (talk.id, talk.title, _local(talk.start), None)) for talk in talks
    ]
    queues = [[(talk, turn) for turn in talk.turns] for talk in talks]
    while queues := [queue for queue in queues if queue]:
        talk, turn = chance.choice(queues).pop(0)
        values = (None, talk.id, turn.role, turn.text, turn.thought, _local(turn.time), None)
        rows.append(("messages", values))
    return {"db.sqlite": database(_OLLAMA_TABLES, rows)}


def _local(time: int) -> str:
    return (
        datetime.fromtimestamp(time, UTC)
        .strftime("%Y-%m-%d %H:%M:%S.123456789+00:00")
        .replace(".123456789", ".000000000")
    )


_LLM_TABLES = """
    CREATE TABLE _llm_migrations (name TEXT);
    CREATE TABLE conversations (id TEXT, name TEXT, model TEXT);
    CREATE TABLE responses (id TEXT, model TEXT, prompt TEXT, system TEXT, response TEXT, conversation_id TEXT,
        datetime_utc TEXT);
"""


def llm(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """`logs.db` of llm: a row is a question with its answer, and the system prompt of each."""
    rows: list[tuple[str, tuple[Any, ...]]] = [
        ("conversations", (talk.id, talk.title, "gpt")) for talk in talks
    ]
    for talk in talks:
        for number, (asked, answer) in enumerate(talk.exchanges):
            values = ("gpt", asked.text, talk.system or None, answer.text, talk.id, asked.iso)
            rows.append(("responses", (f"{talk.id}-{number}", *values)))
    return {"logs.db": database(_LLM_TABLES, shuffled(rows, chance))}


def mindx(talk: WholeTalk, chance: random.Random) -> bytes:
    """A session file of MindX."""
    messages = [{"role": turn.role, "content": turn.text, "time": turn.iso} for turn in talk.turns]
    return json_bytes({"id": f"session_{talk.id}", "created_at": talk.iso, "messages": messages})


def _as_exchange(talk: WholeTalk) -> WholeTalk:
    """The system prompt has the time of the first question."""
    held = with_times(holding(others=False, thoughts=False), answer="question")(talk)
    if not held.system:
        return held
    return held._replace(turns=(held.turns[0]._replace(time=held.turns[1].time), *held.turns[1:]))


SHAPES = (
    ExportShape(name="llama.cpp", format="llamacpp", write=llamacpp),
    ExportShape(
        name="llama.cpp, lines",
        format="llamacpp",
        write=one_file_each(lambda talk: f"2026_conv_{talk.id}.jsonl", llamacpp_lines),
    ),
    ExportShape(name="Cherry Studio 5", format="cherry", write=cherry),
    ExportShape(name="Cherry Studio 7", format="cherry", write=cherry_database),
    ExportShape(name="Chatbox", format="chatbox", write=chatbox),
    ExportShape(
        name="NextChat",
        format="nextchat",
        write=nextchat,
        holds=holding(times=0, others=False, thoughts=False),
    ),
    ExportShape(name="Ollama", format="ollama", write=ollama, holds=holding(others=False)),
    ExportShape(name="llm", format="llm", write=llm, holds=_as_exchange),
    ExportShape(
        name="MindX",
        format="mindx",
        write=one_file_each(lambda talk: f"session_{talk.id}.json", mindx),
        holds=holding(others=False, thoughts=False, titles=False),
    ),
)
