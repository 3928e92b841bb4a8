"""Files of chat programs: LibreChat, Jan, LobeChat, AnythingLLM, SillyTavern, text-generation-webui, LM Studio."""

from __future__ import annotations

import html
import random
from datetime import UTC, datetime
from typing import Any

from bench.writers.shape import ExportFiles, ExportShape, json_bytes, json_lines, one_file_each
from bench.writers.talks import (
    ASSISTANT,
    USER,
    SpokenTurn,
    WholeTalk,
    as_tree,
    holding,
    shuffled,
    with_times,
)

_NO_PARENT = "00000000-0000-0000-0000-000000000000"


def librechat(talk: WholeTalk, chance: random.Random) -> bytes:
    """An export of one conversation, as a list or as a tree."""
    messages: dict[str, dict[str, Any]] = {}
    nodes = as_tree(talk)
    for node in nodes:
        is_answer = node.turn.role == ASSISTANT
        message = {
            "messageId": node.id,
            "conversationId": talk.id,
            "parentMessageId": node.parent or _NO_PARENT,
            "isCreatedByUser": not is_answer,
            "sender": "GPT-4o" if is_answer else "User",
            "text": node.turn.text,
            "createdAt": node.turn.iso,
        }
        if is_answer and (node.turn.thought or chance.random() < 0.5):
            thought = [{"type": "think", "think": node.turn.thought}] if node.turn.thought else []
            message["content"] = [*thought, {"type": "text", "text": node.turn.text}]
            message["text"] = ""
        messages[node.id] = message
    about = {
        "conversationId": talk.id,
        "endpoint": "openAI",
        "title": talk.title,
        "exportAt": "10:00:00 GMT+0000",
    }
    if chance.random() < 0.5:
        return json_bytes({**about, "branches": True, "messages": shuffled(list(messages.values()), chance)})
    for node in nodes:
        messages[node.id]["children"] = [messages[child] for child in node.children]
    return json_bytes({**about, "recursive": True, "messagesTree": [messages[nodes[0].id]]})


def jan(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """The folder of each thread: `thread.json` and `messages.jsonl`."""
    files = {}
    for talk in talks:
        lines = []
        for place, turn in enumerate(talk.spoken):
            parts = [("reasoning", turn.thought)] if turn.thought else []
            content = [
                {"type": kind, "text": {"value": text, "annotations": []}}
                for kind, text in [*parts, ("text", turn.text)]
            ]
            lines.append(
                {
                    "id": f"{talk.id}-{place}",
                    "object": "thread.message",
                    "thread_id": talk.id,
                    "role": turn.role,
                    "content": content,
                    "status": "ready",
                    "created_at": turn.time * 1000,
                }
            )
        about = {
            "id": talk.id,
            "object": "thread",
            "title": talk.title,
            "assistants": [{"instructions": talk.system, "model": {"id": "llama3"}}],
            "created": talk.spoken[0].time,
        }
        files[f"threads/{talk.id}/thread.json"] = json_bytes(about)
        files[f"threads/{talk.id}/messages.jsonl"] = json_lines(lines)
    return files


def lobechat(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """The JSON of its export; the talks of one system prompt are topics of one session."""
    messages, topics, sessions = [], [], []
    for talk in talks:
        session = f"session-{talk.id}"
        config = {"systemRole": talk.system}
        sessions.append({"id": session, "type": "agent", "meta": {"title": "Chef"}, "config": config})
        topics.append(
            {"id": talk.id, "sessionId": session, "title": talk.title, "createdAt": talk.start * 1000}
        )
        for node in as_tree(talk, system=False):
            message = {
                "id": node.id,
                "role": node.turn.role,
                "content": node.turn.text,
                "sessionId": session,
                "topicId": talk.id,
                "createdAt": node.turn.time * 1000,
                "updatedAt": node.turn.time * 1000,
            }
            if node.turn.role == ASSISTANT:
                message["parentId"] = node.parent
            if node.turn.thought:
                message["reasoning"] = {"content": node.turn.thought}
            messages.append(message)
    state = {
        "sessions": sessions,
        "topics": shuffled(topics, chance),
        "messages": shuffled(messages, chance),
    }
    return {"LobeChat-sessions-v7.json": json_bytes({"exportType": "all", "version": 7, "state": state})}


def anythingllm(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """The workspace chats as JSON: one row per question, without threads."""
    rows: list[dict[str, Any]] = []
    for talk in talks:
        for asked, answer in talk.exchanges:
            rows.append(
                {
                    "id": len(rows) + 1,
                    "prompt": asked.text,
                    "response": answer.text,
                    "sent_at": asked.iso.replace("+00:00", ".000Z"),
                    "attachments": [],
                    "workspace": "Kitchen",
                    "username": "ann",
                    "rating": "--",
                }
            )
    return {"chats.json": json_bytes(shuffled(rows, chance))}


def sillytavern(talk: WholeTalk, chance: random.Random) -> bytes:
    """A chat file: a header, then a message per line with its swipes."""
    lines: list[dict[str, Any]] = [
        {
            "user_name": "Ann",
            "character_name": "Chef",
            "create_date": "2026-08-01@10h00m00s",
            "chat_metadata": {},
        }
    ]
    for turn in talk.spoken:
        line: dict[str, Any] = {
            "name": "Ann" if turn.role == USER else "Chef",
            "is_user": turn.role == USER,
            "is_system": False,
            "send_date": _send_date(turn, chance),
            "mes": turn.text,
            "extra": {"reasoning": turn.thought} if turn.thought else {},
        }
        if turn.others:
            line["swipes"] = [*turn.others, turn.text]
            line["swipe_id"] = len(turn.others)
        lines.append(line)
    return json_lines(lines)


def _send_date(turn: SpokenTurn, chance: random.Random) -> str | int:
    moment = datetime.fromtimestamp(turn.time, UTC)
    clock = f"{moment:%Y-%m-%d} @{moment.hour}h {moment.minute}m {moment.second}s 0ms"
    return chance.choice((turn.iso, turn.time * 1000, clock))


def textgen(talk: WholeTalk, chance: random.Random) -> bytes:
    """A log: pairs as they were sent and as they were shown, with the versions of each answer in `metadata`."""
    # Older versions escape what they store, too.
    stored = html.escape if chance.random() < 0.5 else str
    greeting = talk.turns[0].text
    pairs, visible = [["<|BEGIN-VISIBLE-CHAT|>", greeting]], [["", greeting]]
    metadata: dict[str, Any] = {}
    said = talk._replace(turns=talk.turns[1:])
    for number, (asked, answer) in enumerate(said.exchanges, 1):
        pairs.append([stored(asked.text), stored(answer.text)])
        visible.append([html.escape(asked.text), html.escape(answer.text)])
        versions = [
            {"content": stored(text), "visible_content": html.escape(text)}
            for text in (*answer.others, answer.text)
        ]
        metadata[f"user_{number}"] = {"timestamp": _log_time(asked)}
        metadata[f"assistant_{number}"] = {
            "timestamp": _log_time(answer),
            "versions": versions,
            "current_version_index": len(versions) - 1,
        }
    return json_bytes({"internal": pairs, "visible": visible, "metadata": metadata})


def _log_time(turn: SpokenTurn) -> str:
    return f"{datetime.fromtimestamp(turn.time, UTC):%b %d, %Y %H:%M}"


def _greeted(talk: WholeTalk) -> WholeTalk:
    """The talk below the greeting of a character, without its question."""
    held = holding(system=False, thoughts=False, titles=False, times=60)(talk)
    return held._replace(turns=(SpokenTurn(ASSISTANT, "How can I help?", 0), *held.turns))


def lmstudio(talk: WholeTalk, chance: random.Random) -> bytes:
    """A chat file: each message with its versions, an answer in steps."""
    messages = []
    for turn in talk.spoken:
        versions: list[dict[str, Any]] = []
        for text in (*turn.others, turn.text):
            part = [{"type": "text", "text": text}]
            if turn.role == USER:
                versions.append({"type": "singleStep", "role": "user", "content": part})
                continue
            steps: list[dict[str, Any]] = []
            if turn.thought and text == turn.text:
                thought = [{"type": "text", "text": turn.thought}]
                steps.append({"type": "contentBlock", "style": {"type": "thinking"}, "content": thought})
            steps += [{"type": "contentBlock", "content": part}, {"type": "debugInfoBlock", "debugInfo": "x"}]
            versions.append({"type": "multiStep", "role": "assistant", "steps": steps})
        messages.append({"versions": versions, "currentlySelected": len(versions) - 1})
    about = {
        "name": talk.title,
        "createdAt": 1_700_000_000_000 + sum(map(ord, talk.id)),
        "systemPrompt": talk.system,
    }
    return json_bytes({**about, "messages": messages})


_UNDATED = holding(times=0)
SHAPES = (
    ExportShape(
        name="LibreChat",
        format="librechat",
        write=one_file_each(lambda talk: f"{talk.id}.json", librechat),
        holds=holding(system=False),
    ),
    ExportShape(
        name="Jan",
        format="jan",
        write=jan,
        holds=with_times(holding(others=False), system=False),
        beside=frozenset(("thread.json",)),
    ),
    ExportShape(
        name="LobeChat", format="lobechat", write=lobechat, holds=with_times(holding(), system=False)
    ),
    ExportShape(
        name="AnythingLLM",
        format="anythingllm",
        write=anythingllm,
        holds=with_times(holding(system=False, others=False, thoughts=False), answer="question"),
        names_itself=True,
    ),
    ExportShape(
        name="SillyTavern",
        format="sillytavern",
        write=one_file_each(lambda talk: f"chats/Chef/{talk.id}.jsonl", sillytavern),
        holds=holding(system=False),
        names_itself=True,
    ),
    ExportShape(
        name="text-generation-webui",
        format="textgen",
        write=one_file_each(lambda talk: f"logs/chat/Chef/{talk.id}.json", textgen),
        holds=_greeted,
    ),
    ExportShape(
        name="LM Studio",
        format="lmstudio",
        write=one_file_each(lambda talk: f"{talk.id}.conversation.json", lmstudio),
        holds=_UNDATED,
    ),
)
