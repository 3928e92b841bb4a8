"""MindX 1.x: sessions (`data/sessions/session_*.json`) and memory points (the Badger folder `data/vectors`).

Consecutive messages of one role are joined: MindX splits long messages. A point whose content is a dialogue
(`user: …`, `assistant: …`, `bot: …`, `用户：…`, `Q: …`) becomes a conversation, and so does one whose summary is a
question, with the content as the answer. Any other point is a model's summary: it is imported as a summary point,
searchable but not trained on. Embeddings are imported too.
"""

from __future__ import annotations

import json
import re
import sys
from array import array
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.fields import (
    ImportOptions,
    RoleMap,
    build_conversation,
    parse_content,
    parse_role,
    parse_time,
    text_or_empty,
    unknown_role,
)
from engine.memory.importers.readers.badger import is_badger, newest_values
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.memory_points import point_hash
from engine.memory.records import (
    Conversation,
    Embedding,
    ImportItem,
    Skipped,
    SummaryPoint,
    Turn,
    content_hash,
    replace_surrogates,
)

NAME = "mindx"

_SPEAKER = re.compile(
    r"^[ \t]*\[?(?:(?P<user>用户|我|问|user|human|q)|助手|助理|机器人|答|assistant|bot|ai|gpt|a)\]?[ \t]*(?:[:：]|(?<=\]))[ \t]?",
    re.MULTILINE | re.IGNORECASE,
)
_INLINE = re.compile(r"(?:(?<=\s)|\A)(?:(?P<user>用户|User)|助手|Assistant)[:：][ \t]?")
"""Speakers within a line, as in MindX's own training; only where no line begins with them."""
_QUESTION = re.compile(r"[?？]\s*\Z")
_MAX_DIMENSIONS = 8192


def detect(path: Path, value: Any) -> bool:
    if path.name == "MANIFEST":
        return is_badger(path)
    return (
        isinstance(value, dict)
        and isinstance(value.get("messages"), list)
        and text_or_empty(value.get("id")).startswith("session_")
    )


def read(path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes) -> Iterator[ImportItem]:
    """The conversation of a session file, or everything in the Badger folder of a MANIFEST.

    Raises BadInput.
    """
    if path.name == "MANIFEST":
        for key, value in newest_values(path.parent):
            on_bytes(len(value))
            yield from point_items(key.decode("utf-8", "replace"), value)
        return
    for _line, session in json_values(path, on_bytes):
        if not isinstance(session, dict) or not isinstance(session.get("messages"), list):
            yield Skipped(reason="entry of another shape", is_conversation=True)
            continue
        yield from build_conversation(
            _join_messages(_turns(session["messages"], options.roles)),
            source=NAME,
            external_id=text_or_empty(session.get("id")),
            started_at=parse_time(session.get("created_at")),
            updated_at=parse_time(session.get("ended_at")),
        )


def _turns(messages: list[Any], role_map: RoleMap) -> Iterator[Turn | Skipped]:
    for message in messages:
        name = message.get("role") if isinstance(message, dict) else None
        role = parse_role(name, role_map)
        if role is None:
            yield unknown_role(name)
            continue
        text, skipped = parse_content(message.get("content"))
        yield from skipped
        if text:
            yield Turn(role=role, text=text, time=parse_time(message.get("time")))
        elif not skipped:
            yield Skipped(reason="empty message")


def _join_messages(items: Iterator[Turn | Skipped]) -> Iterator[Turn | Skipped]:
    turns = []
    for item in items:
        if isinstance(item, Turn):
            turns.append(item)
        else:
            yield item
    for role, group in groupby(turns, key=lambda turn: turn.role):
        parts = list(group)
        yield Turn(role=role, text="".join(part.text for part in parts), time=parts[0].time)


def point_items(key: str, value: bytes) -> Iterator[ImportItem]:
    """The items of one key of the Badger folder; keys that are no memory points are skipped."""
    if not key.startswith("memory_"):
        yield Skipped(
            reason="index of a skill" if key.startswith(("skill_vector:", "capability:")) else "another key"
        )
        return
    try:
        entry = json.loads(value)
        point = entry["metadata"]["memory_point"]
        content, summary, keywords = point["content"], point.get("summary", ""), point.get("keywords")
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        yield Skipped(reason="entry of another shape", is_conversation=True)
        return
    if not isinstance(content, str) or not content.strip():
        yield Skipped(reason="empty memory point", is_conversation=True)
        return
    # A merged point has lost its time; its key holds the time of storage.
    created_at = parse_time(point.get("created_at"))
    nanoseconds = key.removeprefix("memory_")
    if created_at is None and nanoseconds.isdecimal() and len(nanoseconds) < 20:
        created_at = parse_time(int(nanoseconds) / 1e9)
    vector = _vector(entry.get("vector")) or _vector(point.get("vector"))
    turns = _dialogue(content, summary)
    if turns:
        conversation = Conversation.of(
            turns, source=NAME, external_id=key, started_at=created_at, updated_at=created_at
        )
        yield conversation
        point_id, hash_ = "", content_hash(conversation.turns)
    else:
        words = [word for word in keywords if isinstance(word, str)] if isinstance(keywords, list) else []
        summary_point = SummaryPoint(
            id=key,
            source=NAME,
            content=replace_surrogates(content),
            summary=replace_surrogates(summary) if isinstance(summary, str) else "",
            keywords=tuple(map(replace_surrogates, words)),
            created_at=created_at,
        )
        yield summary_point
        point_id, hash_ = key, point_hash(summary_point.content)
    if vector:
        yield Embedding(
            content_hash=hash_, point=point_id, embedder=f"{NAME}-{len(vector) // 4}", vector=vector
        )


def _dialogue(content: str, summary: object) -> list[Turn]:
    """The turns of a content that begins with a speaker and has both speakers; else a question in the summary with
    the content as its answer; else none."""
    for speaker in (_SPEAKER, _INLINE):
        marks = list(speaker.finditer(content))
        turns = _split_turns(marks, content)
        if {turn.role for turn in turns} == {Role.USER, Role.ASSISTANT}:
            return turns
    if isinstance(summary, str) and _QUESTION.search(summary) and not _QUESTION.search(content):
        return [
            Turn(role=Role.USER, text=summary.strip()),
            Turn(role=Role.ASSISTANT, text=content.strip("\n")),
        ]
    return []


def _split_turns(marks: list[re.Match[str]], content: str) -> list[Turn]:
    if not marks or content[: marks[0].start()].strip():
        return []
    ends = [*(mark.start() for mark in marks[1:]), len(content)]
    turns = [
        Turn(
            role=Role.USER if mark["user"] else Role.ASSISTANT,
            text=content[mark.end() : end].strip("\n").rstrip(" "),
        )
        for mark, end in zip(marks, ends, strict=True)
    ]
    return [turn for turn in turns if turn.text.strip()]


def _vector(value: object) -> bytes:
    """A list of numbers as little-endian float32; empty when it is no vector."""
    if not isinstance(value, list) or not 0 < len(value) <= _MAX_DIMENSIONS:
        return b""
    try:
        numbers = array("f", value)
    except (TypeError, OverflowError):
        return b""
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()
