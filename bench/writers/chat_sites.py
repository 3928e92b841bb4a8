"""Exports of chat sites with several answers to a question: ChatGPT, Claude, DeepSeek, Grok, Qwen, Open WebUI, Le Chat."""

from __future__ import annotations

import random
from typing import Any

from bench.writers.shape import ExportFiles, ExportShape, json_bytes
from bench.writers.talks import ASSISTANT, USER, WholeTalk, as_tree, holding, shuffled

_NO_PARENT = "00000000-0000-4000-8000-000000000000"


def chatgpt(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """`conversations.json`: nodes below an empty root; thoughts are messages between question and answer."""
    entries = []
    for talk in talks:
        mapping: dict[str, Any] = {"root": {"id": "root", "message": None, "parent": None, "children": []}}
        tree = as_tree(talk)
        for node in shuffled(tree, chance):
            above = node.parent or "root"
            if node.turn.thought:
                thought = f"{node.id}-thought"
                mapping[thought] = {
                    "id": thought,
                    "parent": above,
                    "children": [node.id],
                    "message": {
                        "id": thought,
                        "author": {"role": "assistant"},
                        "create_time": node.turn.time - 0.5,
                        "content": {"content_type": "thoughts", "thoughts": [{"content": node.turn.thought}]},
                        "recipient": "all",
                    },
                }
                above = thought
            mapping[node.id] = {
                "id": node.id,
                "parent": above,
                "children": [],
                "message": {
                    "id": node.id,
                    "author": {"role": node.turn.role, "metadata": {}},
                    "create_time": node.turn.time + 0.0,
                    "content": {"content_type": "text", "parts": [node.turn.text]},
                    "status": "finished_successfully",
                    "weight": 1.0,
                    "metadata": {},
                    "recipient": "all",
                    "channel": None,
                },
            }
        for key, value in mapping.items():
            if value["parent"] and key not in mapping[value["parent"]]["children"]:
                mapping[value["parent"]]["children"].append(key)
        entries.append(
            {
                "title": talk.title,
                "create_time": talk.start + 0.0,
                "update_time": talk.turns[-1].time + 0.0,
                "mapping": mapping,
                "current_node": tree[-1].id,
                "conversation_id": talk.id,
                "id": talk.id,
            }
        )
    return {"conversations.json": json_bytes(shuffled(entries, chance))}


def claude(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """`conversations.json` of claude.ai: typed content beside the text, links by `parent_message_uuid`."""
    entries = []
    for talk in talks:
        tree = as_tree(talk)
        messages = []
        for node in shuffled(tree, chance):
            thought = [{"type": "thinking", "thinking": node.turn.thought}] if node.turn.thought else []
            messages.append(
                {
                    "uuid": node.id,
                    "text": node.turn.text,
                    "content": [*thought, {"type": "text", "text": node.turn.text, "citations": []}],
                    "sender": "human" if node.turn.role == USER else "assistant",
                    "created_at": node.turn.iso,
                    "updated_at": node.turn.iso,
                    "attachments": [],
                    "files": [],
                    "parent_message_uuid": node.parent or _NO_PARENT,
                }
            )
        entries.append(
            {
                "uuid": talk.id,
                "name": talk.title,
                "created_at": talk.iso,
                "updated_at": talk.turns[-1].iso,
                "account": {"uuid": "a"},
                "chat_messages": messages,
                "current_leaf_message_uuid": tree[-1].id,
            }
        )
    return {"conversations.json": json_bytes(shuffled(entries, chance)), "users.json": b"[]"}


def deepseek(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """`conversations.json` of chat.deepseek.com: fragments whose type is the role."""
    entries = []
    for talk in talks:
        mapping: dict[str, Any] = {}
        tree = as_tree(talk)
        for node in shuffled(tree, chance):
            kind = "REQUEST" if node.turn.role == USER else "RESPONSE"
            thought = [{"type": "THINK", "content": node.turn.thought}] if node.turn.thought else []
            mapping[node.id] = {
                "id": node.id,
                "parent": node.parent or "root",
                "children": node.children,
                "message": {
                    "files": [],
                    "model": "deepseek-chat",
                    "inserted_at": node.turn.iso,
                    "fragments": [*thought, {"type": kind, "content": node.turn.text}],
                },
            }
        root = {"id": "root", "parent": None, "children": [tree[0].id], "message": None}
        entries.append(
            {
                "id": talk.id,
                "title": talk.title,
                "inserted_at": talk.iso,
                "updated_at": talk.turns[-1].iso,
                "mapping": {"root": root, **mapping},
            }
        )
    return {"conversations.json": json_bytes(shuffled(entries, chance))}


def grok(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """`prod-grok-backend.json`: each response wrapped once more, times as MongoDB writes them."""
    entries = []
    for talk in talks:
        responses = [
            {
                "response": {
                    "_id": node.id,
                    "conversation_id": talk.id,
                    "sender": "human" if node.turn.role == USER else chance.choice(("ASSISTANT", "grok-4")),
                    "message": node.turn.text,
                    "create_time": {"$date": {"$numberLong": str(node.turn.time * 1000)}},
                    **({"parent_response_id": node.parent} if node.parent else {}),
                    **({"thinking_trace": node.turn.thought} if node.turn.thought else {}),
                },
                "share_link": None,
            }
            for node in shuffled(as_tree(talk), chance)
        ]
        about = {
            "id": talk.id,
            "title": talk.title,
            "create_time": talk.iso.replace("+00:00", "Z"),
            "modify_time": talk.turns[-1].iso,
            "leaf_response_id": None,
        }
        entries.append({"conversation": about, "responses": responses})
    value = {"conversations": shuffled(entries, chance), "projects": [], "tasks": [], "media_posts": []}
    return {"ttl/30d/export_data/u/prod-grok-backend.json": json_bytes(value)}


def qwen(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """`chat-export-<ms>.json` of chat.qwen.ai: the answer in `content_list`, one item per phase."""
    entries = []
    for talk in talks:
        messages = {}
        tree = as_tree(talk)
        for node in shuffled(tree, chance):
            is_answer = node.turn.role == ASSISTANT
            phases = [{"phase": "think", "content": node.turn.thought}] if node.turn.thought else []
            messages[node.id] = {
                "id": node.id,
                "role": node.turn.role,
                "content": "" if is_answer else node.turn.text,
                "timestamp": node.turn.time,
                "parentId": node.parent or None,
                "childrenIds": node.children,
            }
            if is_answer:
                messages[node.id]["content_list"] = [*phases, {"phase": "answer", "content": node.turn.text}]
        chat = {"models": ["qwen3-max"], "history": {"messages": messages, "currentId": tree[-1].id}}
        entries.append(
            {
                "id": talk.id,
                "title": talk.title,
                "created_at": talk.start,
                "updated_at": talk.turns[-1].time,
                "chat": chat,
            }
        )
    return {"chat-export-1.json": json_bytes({"success": True, "data": shuffled(entries, chance)})}


def tongyi(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """The message list of tongyi.com's page, one file per talk."""
    files = {}
    for talk in talks:
        listed = [
            {
                "senderType": "USER" if turn.role == USER else "BOT",
                "createTime": turn.time * 1000,
                "contents": [{"contentType": "text", "content": turn.text}],
            }
            for turn in talk.turns
        ]
        files[f"{talk.id}.json"] = json_bytes({"data": shuffled(listed, chance)})
    return files


def openwebui(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """Open WebUI's "Export chats": an answer in `content`, or since 0.10 in `output`."""
    entries = []
    for talk in talks:
        messages: dict[str, Any] = {}
        tree = as_tree(talk)
        in_output = chance.random() < 0.5
        for node in shuffled(tree, chance):
            message = {
                "id": node.id,
                "role": node.turn.role,
                "content": node.turn.text,
                "timestamp": node.turn.time,
                "parentId": node.parent or None,
                "childrenIds": node.children,
            }
            if node.turn.role == ASSISTANT and in_output:
                parts = [{"type": "output_text", "text": node.turn.text}]
                thought = [{"type": "reasoning", "content": [{"text": node.turn.thought}]}]
                message["output"] = [
                    *(thought if node.turn.thought else []),
                    {"type": "message", "role": "assistant", "content": parts},
                ]
                message["content"] = ""
            elif node.turn.thought:
                quoted = "\n".join(f"> {line}" for line in node.turn.thought.split("\n"))
                message["content"] = (
                    '<details type="reasoning" done="true" duration="3">\n<summary>Thought for 3 seconds</summary>\n'
                    f"{quoted}\n</details>\n{node.turn.text}"
                )
            messages[node.id] = message
        chat = {"title": talk.title, "history": {"messages": messages, "currentId": tree[-1].id}}
        entries.append(
            {
                "id": talk.id,
                "title": talk.title,
                "chat": chat,
                "created_at": talk.start,
                "updated_at": talk.turns[-1].time,
            }
        )
    return {"chat-export-1.json": json_bytes(shuffled(entries, chance))}


def lechat(talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    """Le Chat's zip: one list of messages per chat, in no order, without links or title."""
    files = {}
    for talk in talks:
        rows = []
        for node in as_tree(talk):
            in_chunks = node.turn.role == ASSISTANT and chance.random() < 0.5
            rows.append(
                {
                    "id": node.id,
                    "version": 0,
                    "chatId": talk.id,
                    "role": node.turn.role,
                    "content": "" if in_chunks else node.turn.text,
                    "contentChunks": [{"type": "text", "text": node.turn.text}] if in_chunks else None,
                    "createdAt": node.turn.iso,
                    "reaction": "neutral",
                    "files": [],
                    "canvas": [],
                    "quotes": [],
                }
            )
        files[f"chat-{talk.id}.json"] = json_bytes(shuffled(rows, chance))
    return files


_NO_SYSTEM = holding(system=False)
SHAPES = (
    ExportShape(name="ChatGPT", format="chatgpt", write=chatgpt),
    ExportShape(
        name="Claude",
        format="claude",
        write=claude,
        holds=_NO_SYSTEM,
        beside=frozenset(("users.json",)),
    ),
    ExportShape(name="DeepSeek", format="deepseek", write=deepseek, holds=_NO_SYSTEM),
    ExportShape(name="Grok", format="grok", write=grok, holds=_NO_SYSTEM),
    ExportShape(name="Qwen", format="qwen", write=qwen),
    ExportShape(
        name="Tongyi page",
        format="qwen",
        write=tongyi,
        holds=holding(system=False, others=False, thoughts=False, titles=False),
    ),
    ExportShape(name="Open WebUI", format="openwebui", write=openwebui),
    ExportShape(
        name="Le Chat",
        format="lechat",
        write=lechat,
        holds=holding(system=False, thoughts=False, titles=False),
    ),
)
