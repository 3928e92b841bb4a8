"""ChatML transcripts: `<|im_start|>role`, the message, `<|im_end|>`; one file may hold many conversations."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.memory.importers.fields import (
    ImportOptions,
    build_conversation,
    message_turn,
    parse_role,
    unknown_role,
)
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, is_zip, text_lines
from engine.memory.importers.readers.json_stream import MAX_VALUE
from engine.memory.importers.readers.sqlite import is_sqlite
from engine.memory.records import Conversation, Skipped, Turn

NAME = "chatml"

_START, _END, _SEPARATORS = "<|im_start|>", "<|im_end|>", ("---", "<|endoftext|>")
_DETECTION_LINES = 200
"""Lines that `detect` reads."""


def detect(path: Path, value: Any) -> bool:
    if value is not None or is_zip(path) or is_sqlite(path):
        return False
    return any(
        line.lstrip().startswith(_START) for _number, line in islice(text_lines(path), _DETECTION_LINES)
    )


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """A `system` message begins a new conversation; `---` and `<|endoftext|>` end one. Raises BadInput."""
    items: list[Turn | Skipped] = []
    name: str | None = None
    message: list[str] = []
    characters = outside = 0

    def end_message() -> None:
        role = parse_role(name, options.roles)
        text = "\n".join(message).strip("\n")
        if role is None:
            items.append(unknown_role(name))
        else:
            turn, left_out = message_turn(role, text)
            items.extend((*left_out, turn) if turn else left_out)

    for number, line in text_lines(path, on_bytes):
        characters += len(line)
        if characters > MAX_VALUE:
            raise BadInput(
                _("One conversation or line is longer than {n} MB").format(n=MAX_VALUE // 2**20),
                path=path,
                line=number,
            )
        if line.lstrip().startswith(_START):
            if name is not None:
                end_message()
            name, _space, rest = line.lstrip().removeprefix(_START).partition(" ")
            name = name.removesuffix(_END).strip()
            has_turns = any(isinstance(item, Turn) and item.role is not Role.SYSTEM for item in items)
            if parse_role(name, options.roles) is Role.SYSTEM and has_turns:
                yield from build_conversation(items, source=NAME)
                items, characters = [], len(line)
            line, message = rest, []
            if not line:
                continue
        if name is not None:
            text, end, _after = line.partition(_END)
            message.append(text)
            if end:
                end_message()
                name = None
        elif line.strip() in _SEPARATORS:
            if items:
                yield from build_conversation(items, source=NAME)
            items, characters = [], 0
        elif line.strip():
            outside += 1
    if name is not None:
        end_message()
    if items:
        yield from build_conversation(items, source=NAME)
    if outside:
        yield Skipped(reason="line before the first speaker", count=outside)
