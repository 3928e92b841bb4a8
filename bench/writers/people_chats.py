"""Chats between two people, whose programs know no title but the name of the contact."""

from __future__ import annotations

import random
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from bench.writers.people_files import ME, SAYS_WHO_I_AM, WRITERS, Writer
from bench.writers.shape import ExportFiles, ExportShape
from bench.writers.talks import ASSISTANT, WholeTalk, holding

_FORMATS = {
    "telegram": "telegram",
    "pywxdump": "wechat",
    "memotrace": "wechat",
    "weflow": "chatlab",
    "echotrace": "chatlab",
    "chatlab": "chatlab",
    "qq": "qq",
    "qq text": "chat_text",
    "imessage": "imessage",
    "whatsapp": "whatsapp",
}
_SPOKEN = holding(system=False, others=False, thoughts=False)
_PLACEHOLDER = "null"
"""What WhatsApp writes for a message that it cannot export."""


def _with_contact(talk: WholeTalk) -> WholeTalk:
    """The talk, named after the person it is with."""
    return _SPOKEN(talk)._replace(title=f"Bo {talk.id.rpartition('-')[2]}")


def _on_whatsapp(talk: WholeTalk) -> WholeTalk:
    """The talk on a day that no reader can take for a month, without the placeholder."""
    held = _with_contact(talk)
    days = (20 - datetime.fromtimestamp(held.start, UTC).day) * 86_400
    turns = (
        turn._replace(time=turn.time + days, text="nil" if turn.text == _PLACEHOLDER else turn.text)
        for turn in held.turns
    )
    return held._replace(turns=tuple(turns))


def _chats(writer: Writer, talks: list[WholeTalk], chance: random.Random) -> ExportFiles:
    files: ExportFiles = {}
    for talk in talks:
        messages = [(turn.role == ASSISTANT, turn.text, turn.time) for turn in talk.turns]
        with tempfile.TemporaryDirectory() as folder:
            writer(Path(folder), messages, talk.title)
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file():
                    files[f"{talk.id}/{path.relative_to(folder)}"] = path.read_bytes()
    return files


def _shape(name: str, writer: Writer) -> ExportShape:
    known = max((key for key in _FORMATS if name.startswith(key)), key=len)
    return ExportShape(
        name=f"chat, {name}",
        format=_FORMATS[known],
        write=lambda talks, chance: _chats(writer, talks, chance),
        holds=_on_whatsapp if known == "whatsapp" else _with_contact,
        beside=frozenset(("manifest.json",)),
        me="" if name in SAYS_WHO_I_AM else ME,
        names_itself=name == "pywxdump",
    )


SHAPES = tuple(_shape(name, writer) for name, writer in WRITERS.items())
