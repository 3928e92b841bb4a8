"""ChatML transcripts: `<|im_start|>role`, what was said, `<|im_end|>`; one file may hold many conversations."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.memory.importers.fields import RoleMap, build_conversation, parse_role, unknown_role
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, is_zip, text_lines
from engine.memory.importers.readers.json_stream import MAX_VALUE
from engine.memory.importers.readers.sqlite import is_sqlite
from engine.memory.records import Conversation, Skipped, Turn

NAME = "chatml"

_START, _END, _BREAK = "<|im_start|>", "<|im_end|>", ("---", "<|endoftext|>")
_LOOK = 200
"""Lines that are looked at to recognise a transcript."""


def detect(path: Path, value: Any) -> bool:
    if value is not None or is_zip(path) or is_sqlite(path):
        return False
    return any(line.lstrip().startswith(_START) for _number, line in islice(text_lines(path), _LOOK))


def read(path: Path, role_map: RoleMap, on_bytes: OnBytes = ignore_bytes) -> Iterator[Conversation | Skipped]:
    """A conversation ends before a `system` message, at `---` and at `<|endoftext|>`. Raises BadInput."""
    made: list[Turn | Skipped] = []
    name: str | None = None
    said: list[str] = []
    characters = between = 0

    def close() -> None:
        role = parse_role(name, role_map)
        text = "\n".join(said).strip("\n")
        if role is None:
            made.append(unknown_role(name))
        else:
            made.append(Turn(role=role, text=text) if text.strip() else Skipped(reason="empty message"))

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
                close()
            name, _space, rest = line.lstrip().removeprefix(_START).partition(" ")
            name = name.removesuffix(_END).strip()
            spoken = any(isinstance(item, Turn) and item.role is not Role.SYSTEM for item in made)
            if parse_role(name, role_map) is Role.SYSTEM and spoken:
                yield from build_conversation(made, source=NAME)
                made, characters = [], len(line)
            line, said = rest, []
            if not line:
                continue
        if name is not None:
            text, end, _after = line.partition(_END)
            said.append(text)
            if end:
                close()
                name = None
        elif line.strip() in _BREAK:
            if made:
                yield from build_conversation(made, source=NAME)
            made, characters = [], 0
        elif line.strip():
            between += 1
    if name is not None:
        close()
    if made:
        yield from build_conversation(made, source=NAME)
    if between:
        yield Skipped(reason="line before the first speaker", count=between)
