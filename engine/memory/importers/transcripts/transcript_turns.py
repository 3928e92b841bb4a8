"""The turns of one conversation of a transcript, from its lines: which labels among them begin a message."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from engine.core.chat import Role
from engine.memory.importers.fields import RoleMap, message_turn, parse_time
from engine.memory.importers.transcripts.transcript_labels import PLAIN, Label, may_answer, parse_label
from engine.memory.importers.transcripts.transcript_scheme import (
    Line,
    Scheme,
    is_bare_fence,
    is_separator,
    time_line,
)
from engine.memory.records import Skipped, Turn

_KEY = re.compile(r"\A\s{0,40}[a-z_][a-z0-9_.-]{0,40}:(?:\s.*)?")
_FOOTER = re.compile(
    r"\W{0,6}(?:powered|exported|generated|created|saved|converted) (?:by|with|from|on|using|via)\b.{0,200}|\W{0,6}(?:导出自|由.{1,40}(?:导出|生成)|导出时间).{0,200}",
    re.IGNORECASE,
)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a conversation."""

    text: str
    label: Label | None
    """Its label, when it may be one of the transcript."""
    is_code: bool
    line: Line


class _Message(msgspec.Struct):
    label: Label
    rows: list[Row]
    """The rows below the label."""


def transcript_turns(rows: list[Row], scheme: Scheme, role_map: RoleMap) -> Iterator[Turn | Skipped]:
    """The turns of one conversation, of which the first row is a label, and what is skipped of them."""
    messages = _complete(_messages(rows, scheme), scheme, role_map)
    for place, message in enumerate(messages):
        role = message.label.role
        if role is None or role is Role.TOOL:
            yield Skipped(reason="tool message")
            continue
        text, time = _text(message, scheme, is_last=place == len(messages) - 1)
        turn, left_out = message_turn(role, text, time=time)
        yield from left_out
        if turn is not None:
            yield turn


def _messages(rows: list[Row], scheme: Scheme) -> list[_Message]:
    labels = [row.label if row.label and not _is_key(row, scheme) else None for row in rows]
    next_role: Role | None = None
    following: list[Role | None] = [None] * len(rows)
    for place in range(len(rows) - 1, -1, -1):
        following[place] = next_role
        if (label := labels[place]) and rows[place].line.follows_blank:
            next_role = label.role
    messages: list[_Message] = []
    for row, label, next_one in zip(rows, labels, following, strict=True):
        if label is not None and (not messages or _begins(row, label, messages[-1].label, next_one, scheme)):
            messages.append(_Message(label, []))
        elif messages:
            messages[-1].rows.append(row)
    return messages


def _begins(row: Row, label: Label, current: Label, next_role: Role | None, scheme: Scheme) -> bool:
    """Whether a label after the first one begins a message."""
    if label.role is Role.SYSTEM and not label.is_decorated:
        # `system:` in the middle is text: transcripts of words and colons give instructions at the beginning.
        return False
    if scheme.spaced and not row.line.follows_blank and not is_separator(row.line.before):
        return label.role not in (current.role, next_role)
    return True


def _is_key(row: Row, scheme: Scheme) -> bool:
    """Whether a line `user: root` is a key among the keys of a configuration."""
    label = row.label
    if label is None or label.form != PLAIN or not label.name.islower() or not label.name.isascii():
        return False
    if row.line.follows_blank or row.line.precedes_blank:
        return False
    own = tuple(f"{speaker.name}:" for speaker in (scheme.user, scheme.assistant) if speaker)
    return all(
        _KEY.fullmatch(line) and not line.lstrip().startswith(own)
        for line in (row.line.before, row.line.after)
    )


def _complete(messages: list[_Message], scheme: Scheme, role_map: RoleMap) -> list[_Message]:
    """Parts a message from one of another name: between two of one speaker, the first known name of the other side."""
    complete: list[_Message] = []
    for place, message in enumerate(messages):
        complete.append(message)
        role = message.label.role
        next_role = messages[place + 1].label.role if place + 1 < len(messages) else Role.USER
        if role not in (Role.USER, Role.ASSISTANT) or role is not next_role:
            continue
        for number, row in enumerate(message.rows):
            other = None if row.is_code else parse_label(row.text, role_map)
            if other is None or other.role in (role, Role.SYSTEM, Role.TOOL):
                continue
            pair = (message.label, other) if role is Role.USER else (other, message.label)
            if may_answer(*pair) and (row.line.follows_blank or not scheme.spaced):
                complete.append(_Message(other, message.rows[number + 1 :]))
                del message.rows[number:]
                break
    return complete


def _text(message: _Message, scheme: Scheme, *, is_last: bool) -> tuple[str, float | None]:
    lines = [message.label.rest, *(row.text for row in message.rows)]
    time = parse_time(message.label.when, day_first=scheme.day_first)
    while len(lines) > 1 and (
        not lines[-1].strip() or is_separator(lines[-1]) or (is_last and _footer(lines))
    ):
        lines.pop()
    first = next((place for place, line in enumerate(lines) if line.strip()), 0)
    if first + 1 < len(lines) and (when := time_line(lines[first])):
        time = parse_time(when, day_first=scheme.day_first) or time
        lines = lines[first + 1 :]
    if scheme.fenced:
        while lines and not lines[0].strip():
            del lines[0]
        if len(lines) > 1 and is_bare_fence(lines[0]) and is_bare_fence(lines[-1]):
            lines = lines[1:-1]
    return "\n".join(lines).strip("\n").rstrip(), time


def _footer(lines: list[str]) -> bool:
    """Whether the last line, below a rule, says which program wrote the file."""
    above = next((line for line in reversed(lines[:-1]) if line.strip()), "")
    return is_separator(above) and bool(_FOOTER.fullmatch(lines[-1]))
