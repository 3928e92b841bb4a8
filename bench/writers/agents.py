"""Session files of coding agents: Gemini CLI, Claude Code, Codex, Cursor, VS Code, Copilot CLI."""

from __future__ import annotations

import json
import random
from typing import Any

from bench.writers.shape import ExportFiles, ExportShape, database, json_bytes, json_lines, one_file_each
from bench.writers.talks import ASSISTANT, USER, SpokenTurn, WholeTalk, holding, shuffled, with_times


def _gemini_cli_message(talk: WholeTalk, place: int, turn: SpokenTurn) -> dict[str, Any]:
    message = {"id": f"{talk.id}-{place}", "timestamp": turn.iso}
    if turn.role == USER:
        return {**message, "type": "user", "content": [{"text": turn.text}]}
    thoughts = (
        [{"subject": "Plan", "description": turn.thought, "timestamp": turn.iso}] if turn.thought else []
    )
    return {**message, "type": "gemini", "content": turn.text, "thoughts": thoughts, "toolCalls": []}


def _gemini_cli_session(talk: WholeTalk) -> dict[str, Any]:
    times = {"startTime": talk.iso, "lastUpdated": talk.turns[-1].iso}
    return {"sessionId": talk.id, "projectHash": "ab", **times, "summary": talk.title, "kind": "main"}


def gemini_cli(talk: WholeTalk, chance: random.Random) -> bytes:
    """A session as JSON, as older versions wrote it."""
    messages = [_gemini_cli_message(talk, place, turn) for place, turn in enumerate(talk.turns)]
    return json_bytes({**_gemini_cli_session(talk), "messages": messages})


def gemini_cli_lines(talk: WholeTalk, chance: random.Random) -> bytes:
    """A session as JSON lines: an answer is written again while it grows."""
    lines = [_gemini_cli_session(talk)]
    for place, turn in enumerate(talk.turns):
        message = _gemini_cli_message(talk, place, turn)
        if turn.role == ASSISTANT and chance.random() < 0.5:
            lines.append({**message, "content": turn.text[:3]})
        lines += [message, {"$set": {"lastUpdated": turn.iso}}]
        if place == 0 and chance.random() < 0.5:
            lines += [{**message, "id": "taken-back"}, {"$rewindTo": "taken-back"}]
    return json_lines(lines)


def claude_code(talk: WholeTalk, chance: random.Random) -> bytes:
    """A session: the blocks of an answer stand on lines of their own, tool calls and their results between them."""
    lines: list[dict[str, Any]] = [{"type": "summary", "summary": talk.title, "leafUuid": "x"}]
    parent: str | None = None

    def add(kind: str, content: Any, turn: SpokenTurn, **others: Any) -> None:
        nonlocal parent
        id_ = f"{talk.id}-{len(lines)}"
        message = {"role": kind, "content": content, **others}
        line = {"type": kind, "uuid": id_, "parentUuid": parent, "sessionId": talk.id, "timestamp": turn.iso}
        lines.append({**line, "isSidechain": False, "cwd": "/p", "version": "2.1.1", "message": message})
        parent = id_

    for place, turn in enumerate(talk.turns):
        if turn.role == USER:
            add("user", turn.text if chance.random() < 0.5 else [{"type": "text", "text": turn.text}], turn)
            continue
        id_ = f"msg_{place}"
        if turn.thought:
            add("assistant", [{"type": "thinking", "thinking": turn.thought, "signature": ""}], turn, id=id_)
        if chance.random() < 0.5:
            call = {"type": "tool_use", "id": f"t{place}", "name": "Bash", "input": {}}
            add("assistant", [call], turn, id=id_)
            add("user", [{"type": "tool_result", "tool_use_id": f"t{place}", "content": "ok"}], turn)
        add("assistant", [{"type": "text", "text": turn.text}], turn, id=id_)
    lines.append({"type": "system", "subtype": "turn_duration", "uuid": "s", "parentUuid": parent})
    return json_lines(lines)


def codex(talk: WholeTalk, chance: random.Random) -> bytes:
    """A rollout: each message as an event and as an item for the model, with what the program adds."""
    lines: list[dict[str, Any]] = []

    def add(kind: str, payload: dict[str, Any], turn: SpokenTurn) -> None:
        lines.append({"timestamp": turn.iso.replace("+00:00", ".000Z"), "type": kind, "payload": payload})

    def item(role: str, kind: str, text: str) -> dict[str, Any]:
        return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}

    first = talk.turns[0]
    add("session_meta", {"id": talk.id, "cwd": "/p", "originator": "codex_cli_rs", "source": "cli"}, first)
    block = "<environment_context>\n<cwd>/p</cwd>\n</environment_context>"
    add("response_item", item("user", "input_text", block), first)
    for turn in talk.turns:
        if turn.role == USER:
            add("response_item", item("user", "input_text", turn.text), turn)
            add("event_msg", {"type": "user_message", "message": turn.text, "kind": "plain"}, turn)
            add("turn_context", {"cwd": "/p", "model": "gpt-5"}, turn)
            continue
        if turn.thought:
            add("event_msg", {"type": "agent_reasoning", "text": turn.thought}, turn)
            add("response_item", {"type": "reasoning", "summary": [{"text": turn.thought}]}, turn)
        add("event_msg", {"type": "agent_message", "message": turn.text}, turn)
        add("response_item", item("assistant", "output_text", turn.text), turn)
        add("event_msg", {"type": "token_count", "info": None}, turn)
    return json_lines(lines)


def cursor(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """`state.vscdb` of Cursor: the order of a chat stands in its headers, not in the keys."""
    rows: list[tuple[str, tuple[Any, ...]]] = [("ItemTable", ("workbench.state", "{}"))]
    for talk in talks:
        headers = []
        for place, turn in enumerate(talk.turns):
            id_ = f"b{chance.getrandbits(64):016x}"
            kind = 1 if turn.role == USER else 2
            headers.append({"bubbleId": id_, "type": kind})
            if turn.thought:
                thought_id = f"t{place}"
                headers.insert(-1, {"bubbleId": thought_id, "type": 2})
                thought = {"type": 2, "bubbleId": thought_id, "text": "", "thinking": {"text": turn.thought}}
                rows.append(("cursorDiskKV", (f"bubbleId:{talk.id}:{thought_id}", json.dumps(thought))))
            bubble = {"_v": 3, "type": kind, "bubbleId": id_, "text": turn.text, "createdAt": turn.iso}
            rows.append(("cursorDiskKV", (f"bubbleId:{talk.id}:{id_}", json.dumps(bubble))))
        composer = {"_v": 10, "composerId": talk.id, "name": talk.title, "createdAt": talk.start * 1000}
        composer["fullConversationHeadersOnly"] = headers
        rows.append(("cursorDiskKV", (f"composerData:{talk.id}", json.dumps(composer).encode())))
    schema = """
        CREATE TABLE ItemTable (key TEXT UNIQUE ON CONFLICT REPLACE, value BLOB);
        CREATE TABLE cursorDiskKV (key TEXT UNIQUE ON CONFLICT REPLACE, value BLOB);
    """
    return {"globalStorage/state.vscdb": database(schema, shuffled(rows, chance))}


def _vscode_session(talk: WholeTalk, requests: list[dict[str, Any]]) -> dict[str, Any]:
    about = {"version": 3, "sessionId": talk.id, "customTitle": talk.title, "creationDate": talk.start * 1000}
    return {**about, "responderUsername": "GitHub Copilot", "requests": requests}


def _vscode_request(talk: WholeTalk, number: int, asked: SpokenTurn, answer: SpokenTurn) -> dict[str, Any]:
    half = len(answer.text) // 2
    thought = [{"kind": "thinking", "value": answer.thought}] if answer.thought else []
    parts = [{"value": answer.text[:half]}, {"kind": "undoStop", "id": "u"}, {"value": answer.text[half:]}]
    return {
        "requestId": f"{talk.id}-{number}",
        "timestamp": asked.time * 1000,
        "message": {"text": asked.text, "parts": []},
        "response": [*thought, *parts],
        "result": {"details": "GPT"},
    }


def vscode(talk: WholeTalk, chance: random.Random) -> bytes:
    """A chat session of VS Code as JSON."""
    requests = [_vscode_request(talk, n, *exchange) for n, exchange in enumerate(talk.exchanges)]
    return json_bytes(_vscode_session(talk, requests))


def vscode_log(talk: WholeTalk, chance: random.Random) -> bytes:
    """A chat session of VS Code as the log of its changes."""
    lines: list[dict[str, Any]] = [{"kind": 0, "v": _vscode_session(talk, [])}]
    for number, exchange in enumerate(talk.exchanges):
        request = _vscode_request(talk, number, *exchange)
        parts = request.pop("response")
        lines.append({"kind": 2, "k": ["requests"], "v": [{**request, "response": []}]})
        lines += [{"kind": 2, "k": ["requests", number, "response"], "v": [part]} for part in parts]
        lines.append({"kind": 1, "k": ["requests", number, "result"], "v": {"details": "GPT"}})
    return json_lines(lines)


def copilot_cli(talk: WholeTalk, chance: random.Random) -> bytes:
    """The events of a session of Copilot CLI."""
    start = {"sessionId": talk.id, "version": 1}
    lines: list[dict[str, Any]] = [
        {"type": "session.start", "data": start, "id": "e", "timestamp": talk.iso, "parentId": None}
    ]
    for turn in talk.turns:
        added = f"<current_datetime>{turn.iso}</current_datetime>\n\n{turn.text}"
        data: dict[str, Any] = {"content": turn.text, "transformedContent": added, "attachments": []}
        if turn.role == ASSISTANT:
            data = {"content": turn.text, "toolRequests": []}
            data |= {"reasoningText": turn.thought} if turn.thought else {}
        event = {"type": f"{turn.role}.message", "data": data, "id": f"{talk.id}-{len(lines)}"}
        lines.append({**event, "timestamp": turn.iso, "parentId": lines[-1]["id"]})
    return json_lines(lines)


_SESSION = holding(system=False, others=False)
_REQUESTS = with_times(_SESSION, answer="question")
SHAPES = (
    ExportShape(
        name="Gemini CLI, JSON",
        format="gemini_cli",
        write=one_file_each(lambda talk: f"tmp/ab/chats/session-{talk.id}.json", gemini_cli),
        holds=_SESSION,
    ),
    ExportShape(
        name="Gemini CLI",
        format="gemini_cli",
        write=one_file_each(lambda talk: f"tmp/ab/chats/session-{talk.id}.jsonl", gemini_cli_lines),
        holds=_SESSION,
        noise=frozenset(("message of another branch",)),
    ),
    ExportShape(
        name="Claude Code",
        format="claude_code",
        write=one_file_each(lambda talk: f"projects/-p/{talk.id}.jsonl", claude_code),
        holds=_SESSION,
        noise=frozenset(("record without a message", "tool message")),
    ),
    ExportShape(
        name="Codex",
        format="codex",
        write=one_file_each(lambda talk: f"sessions/2026/08/01/rollout-{talk.id}.jsonl", codex),
        holds=holding(system=False, others=False, titles=False),
        noise=frozenset(("text added by the program",)),
    ),
    ExportShape(name="Cursor", format="cursor", write=cursor, holds=_SESSION),
    ExportShape(
        name="VS Code, JSON",
        format="vscode",
        write=one_file_each(lambda talk: f"chatSessions/{talk.id}.json", vscode),
        holds=_REQUESTS,
    ),
    ExportShape(
        name="VS Code",
        format="vscode",
        write=one_file_each(lambda talk: f"chatSessions/{talk.id}.jsonl", vscode_log),
        holds=_REQUESTS,
    ),
    ExportShape(
        name="Copilot CLI",
        format="copilot_cli",
        write=one_file_each(lambda talk: f"session-state/{talk.id}/events.jsonl", copilot_cli),
        holds=holding(system=False, others=False, titles=False),
    ),
)
