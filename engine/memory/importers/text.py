"""Plain text transcripts: lines that begin with a speaker's name and a colon, `---` between conversations."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.memory.importers.fields import ImportOptions, RoleMap
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, is_zip, text_lines
from engine.memory.importers.readers.json_stream import MAX_VALUE
from engine.memory.importers.readers.sqlite import is_sqlite
from engine.memory.records import Conversation, Skipped, Turn

NAME = "text"

_LABELS: dict[str, Role] = {
    **dict.fromkeys(
        (
            "用户",
            "我",
            "问",
            "提问",
            "问题",
            "user",
            "human",
            "q",
            "question",
            "you",
            "me",
            "you said",
            "你说",
        ),
        Role.USER,
    ),
    **dict.fromkeys(
        (
            "助手",
            "助理",
            "机器人",
            "答",
            "回答",
            "assistant",
            "ai",
            "bot",
            "a",
            "answer",
            "chatgpt",
            "gpt",
            "model",
            "claude",
            "deepseek",
            "gemini",
            "copilot",
            "kimi",
            "qwen",
            "豆包",
            "通义千问",
            "文心一言",
            "chatgpt said",
            "chatgpt 说",
        ),
        Role.ASSISTANT,
    ),
    **dict.fromkeys(("系统", "system"), Role.SYSTEM),
}
_LINE = re.compile(
    r"\s{0,3}(?:\#{1,6}\s*|\*\*)?(?P<label>[^\s:：*#][^:：*\n]{0,30}?)\s*(?:\*\*)?\s*[:：](?:\*\*)?[ \t]*(?P<rest>.*)",
    re.DOTALL,
)
_SEPARATOR = re.compile(r"\A\s*+(?:-{3,}|={3,}|\*{3,}|\f)\s*")
_FENCE = re.compile(r"\s{0,3}(?:```|~~~)")
_ASSISTANT_NAME = re.compile(
    r"客服|店|医生|老师|顾问|律师|专家|agent|support|staff|doctor|teacher|expert", re.IGNORECASE
)
"""Names that are likely the assistant, for the suggested `--map`; the user decides."""
_DETECTION_LINES = 200
"""Lines that `detect` reads."""


def detect(path: Path, value: Any) -> bool:
    """Requires two different speakers: a single one may be a heading."""
    return value is None and not is_zip(path) and not is_sqlite(path) and len(set(_speakers(path, {}))) >= 2


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation per part between lines of `---`. Labels inside fenced code are text.

    Raises BadInput, also when the file has no speakers.
    """
    labels = {**_LABELS, **options.roles}
    turns: list[tuple[Role, list[str]]] = []
    fenced = False
    before_first = characters = conversations = 0
    for number, line in text_lines(path, on_bytes):
        if not fenced and _SEPARATOR.fullmatch(line):
            if turns:
                conversations += 1
                yield _conversation(turns)
            turns, characters = [], 0
            continue
        label = None if fenced else _label(line, labels)
        if _FENCE.match(line):
            fenced = not fenced
        if label is not None:
            role, rest = label
            turns.append((role, [rest]))
            fenced = bool(_FENCE.match(rest))
        elif turns:
            turns[-1][1].append(line)
        elif line.strip():
            before_first += 1
        characters += len(line)
        if characters > MAX_VALUE:
            raise BadInput(
                _("One conversation or line is longer than {n} MB").format(n=MAX_VALUE // 2**20),
                path=path,
                line=number,
            )
    if turns:
        conversations += 1
        yield _conversation(turns)
    if before_first:
        yield Skipped(reason="line before the first speaker", count=before_first)
    if not conversations:
        raise no_speakers(path)


def no_speakers(path: Path) -> BadInput:
    """The error for a text without known speakers; suggests a `--map` when two names look like speakers."""
    sample = [line for _number, line in islice(text_lines(path), _DETECTION_LINES) if line.strip()]
    counted = Counter(
        match["label"].strip()
        for line in sample
        if (match := _LINE.fullmatch(line)) and len(match["label"]) <= 12
    )
    names = [name for name, _count in counted.most_common(2)]
    repeated = [name for name in names if counted[name] > 1]
    # In a short transcript one of the two may speak once: then nearly every line has a name.
    if len(repeated) == 2 or (
        repeated and len(names) == len(counted) == 2 and counted.total() > 0.6 * len(sample)
    ):
        import shlex

        if _ASSISTANT_NAME.search(names[0]):
            names.reverse()
        mapping = f"{names[0]}=user,{names[1]}=assistant"
        hint = f"h2q-tui memory import {shlex.quote(str(path))} --format text --map {shlex.quote(mapping)}"
        return BadInput(
            _("The roles of {a} and {b} are unknown").format(a=names[0], b=names[1]), path=path, hint=hint
        )
    return BadInput(_("No speakers found: no line begins with a name such as User: or 用户："), path=path)


def _speakers(path: Path, role_map: RoleMap) -> Iterator[Role]:
    labels = {**_LABELS, **role_map}
    for _number, line in islice(text_lines(path), _DETECTION_LINES):
        label = _label(line, labels)
        if label is not None:
            yield label[0]


def _label(line: str, labels: RoleMap) -> tuple[Role, str] | None:
    match = _LINE.fullmatch(line)
    role = labels.get(match["label"].strip().lower()) if match else None
    return (role, match["rest"]) if match and role else None


def _conversation(turns: list[tuple[Role, list[str]]]) -> Conversation:
    return Conversation.of(
        (Turn(role=role, text="\n".join(parts).strip("\n").rstrip()) for role, parts in turns), source=NAME
    )
