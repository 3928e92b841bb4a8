"""Google AI Studio: one prompt per file in the Drive folder "Google AI Studio", mostly without a suffix.

`chunkedPrompt.chunks` are the messages in their order; thoughts are chunks of their own, and several chunks of the
model in a row are one answer. Files of older versions hold a bare list of chunks. The file has no id and often no
time. Shape as several third-party readers describe it, one from a real file; `branchParent` is not verified.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.memory.importers.fields import (
    ImportOptions,
    build_conversation,
    parse_role,
    parse_time,
    unknown_role,
)
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, json_values
from engine.memory.importers.turns import text_turn
from engine.memory.records import Conversation, Skipped, Turn

NAME = "aistudio"

_MARKS = ",.;:!?)]}\u2019\u201d，。；：！？）」』】、…"
"""Marks that never begin a line."""
_ATTACHED = (
    "driveDocument",
    "driveImage",
    "driveVideo",
    "driveAudio",
    "inlineData",
    "inlineFile",
    "youtubeVideo",
)


def detect(path: Path, value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    listed = value.get("messages")
    if isinstance(listed, list):
        return any(map(_is_chunk, listed[:50]))
    return (
        isinstance(value.get("chunkedPrompt"), dict)
        or ("runSettings" in value and "systemInstruction" in value)
        or _is_chunk(value)
    )


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """The conversation of the file. Raises BadInput."""
    bare: list[Any] = []
    for _line, value in json_values(path, on_bytes):
        if _is_chunk(value) or (bare and isinstance(value, dict) and "role" in value):
            bare.append(value)
            continue
        prompt = value.get("chunkedPrompt") if isinstance(value, dict) else None
        chunks = prompt.get("chunks") if isinstance(prompt, dict) else None
        if isinstance(value, dict) and chunks is None:
            # A list of nothing but chunks comes as one conversation.
            chunks = value.get("messages")
        if not isinstance(chunks, list):
            yield Skipped(reason="entry of another shape", is_conversation=True)
            continue
        yield from build_conversation(
            [*_system(value.get("systemInstruction")), *_turns(chunks, options)],
            source=NAME,
            title=_title(path),
        )
    if bare:
        yield from build_conversation(_turns(bare, options), source=NAME, title=_title(path))


def _title(path: Path) -> str:
    """The name of the chat, which is the name of the file."""
    return path.stem if path.suffix.lower() in (".json", ".txt") else path.name


def _is_chunk(value: object) -> bool:
    return (
        isinstance(value, dict)
        and "text" in value
        and "role" in value
        and ("tokenCount" in value or "isThought" in value)
    )


def _system(instruction: object) -> list[Turn | Skipped]:
    if not isinstance(instruction, dict):
        return []
    parts = instruction.get("parts")
    texts = (
        [instruction.get("text"), *(part.get("text") for part in parts or () if isinstance(part, dict))]
        if isinstance(parts, list | None)
        else []
    )
    text = "\n".join(text for text in texts if isinstance(text, str))
    return text_turn(Role.SYSTEM, text) if text.strip() else []


def _turns(chunks: list[Any], options: ImportOptions) -> Iterator[Turn | Skipped]:
    for name, run in groupby(
        chunks, key=lambda chunk: chunk.get("role") if isinstance(chunk, dict) else None
    ):
        role = parse_role(name, options.roles)
        messages = list(run)
        if role is None:
            yield from (unknown_role(name) for _message in messages)
        elif role is Role.ASSISTANT:
            yield from _message(role, messages)
        else:
            for message in messages:
                yield from _message(role, [message])


def _joined(pieces: list[str]) -> str:
    """The pieces of one answer: a new one stands on a line of its own, but one that goes on in the middle of a line.

    That is one that begins with white space, a punctuation mark, or the rest of a word or number.
    """
    text = ""
    for piece in pieces:
        text += piece if not text or _goes_on(text[-1], piece[0]) else f"\n{piece}"
    return text


def _goes_on(last: str, first: str) -> bool:
    if last.isspace() or first.isspace() or first in _MARKS:
        return True
    if last.isdigit():
        return first.isdigit()
    return last.isalpha() and first.isalpha() and not first.isupper()


def _text(chunk: dict[str, Any]) -> object:
    """The text of a chunk; where it has none, that of its parts, without thoughts."""
    parts = chunk.get("parts")
    if chunk.get("text") or not isinstance(parts, list):
        return chunk.get("text")
    spoken = [part.get("text") for part in parts if isinstance(part, dict) and not part.get("thought")]
    return "".join(text for text in spoken if isinstance(text, str))


def _message(role: Role, chunks: list[dict[str, Any]]) -> Iterator[Turn | Skipped]:
    texts, skipped = [], []
    for chunk in chunks:
        skipped += [Skipped(reason="attachment") for name in _ATTACHED if chunk.get(name)]
        text = _text(chunk)
        if chunk.get("isThought") or chunk.get("thought"):
            skipped.append(Skipped(reason="reasoning"))
        elif isinstance(text, str) and text:
            texts.append(text)
        elif chunk.get("errorMessage"):
            skipped.append(Skipped(reason="failed answer"))
    times = [time for chunk in chunks if (time := parse_time(chunk.get("createTime"))) is not None]
    yield from text_turn(role, _joined(texts), time=max(times, default=None), skipped=skipped)
