"""Text and Markdown transcripts of which lines name who speaks: `User: …`, `## Assistant`, `**You**`, `ChatGPT said:`.

`transcript_scheme` says which labels a transcript uses; all other text belongs to the message above it. Headings,
which stand right above the first label of a conversation, are titles.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from engine.core.chat import Role
from engine.core.errors import BadInput
from engine.core.filenames import shell_word
from engine.core.i18n import _
from engine.memory.importers.fields import ImportOptions, RoleMap, build_conversation
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, is_zip, text_lines
from engine.memory.importers.readers.json_stream import MAX_VALUE
from engine.memory.importers.readers.sqlite import is_sqlite
from engine.memory.importers.transcripts.transcript_labels import Label, parse_label
from engine.memory.importers.transcripts.transcript_scheme import (
    Fence,
    Line,
    Scheme,
    find_scheme,
    heading,
    is_named_fence,
    is_separator,
    with_neighbours,
)
from engine.memory.importers.transcripts.transcript_turns import Row, transcript_turns
from engine.memory.records import Conversation, Skipped

NAME = "text"

_ASSISTANT_NAME = re.compile(
    r"客服|店|医生|老师|顾问|律师|专家|agent|support|staff|doctor|teacher|expert|bot|助", re.IGNORECASE
)
"""Names that are likely the assistant, for the suggested `--map`; the user decides."""
_DETECTION_LINES = 20_000
"""Lines that `detect` reads."""
_SCHEME_LINES = 200_000
_MAX_RESCANS = 20
"""How often a fence that is never closed is read as text."""


def detect(path: Path, value: Any) -> bool:
    """Requires two speakers, one of which may answer the other: a single one may be a heading."""
    return value is None and is_transcript(path, {})


def is_transcript(path: Path, roles: RoleMap) -> bool:
    """Whether the file is a text in which two speakers answer each other; `roles` are names besides the known ones."""
    return (
        not is_zip(path)
        and not is_sqlite(path)
        and find_scheme(_lines(path, _DETECTION_LINES), roles) is not None
    )


def read(
    path: Path, options: ImportOptions, on_bytes: OnBytes = ignore_bytes
) -> Iterator[Conversation | Skipped]:
    """One conversation for each part of the transcript (see `transcript_scheme`).

    Raises BadInput, also when the file has no speakers.
    """
    roles = options.roles
    scheme = find_scheme(_lines(path, _SCHEME_LINES), roles) or find_scheme(
        _lines(path, _SCHEME_LINES), roles, both=False
    )
    if scheme is None:
        raise no_speakers(path)
    before_first = 0
    for title, rows in _parts(path, scheme, roles, on_bytes):
        first = next((place for place, row in enumerate(rows) if row.label), len(rows))
        before_first += sum(1 for row in rows[:first] if row.text.strip() and not is_separator(row.text))
        if first < len(rows):
            yield from build_conversation(
                transcript_turns(rows[first:], scheme, roles), source=NAME, title=title
            )
    if before_first:
        yield Skipped(reason="line before the first speaker", count=before_first)


def _lines(path: Path, limit: int) -> Iterator[Line]:
    return with_neighbours(islice(text_lines(path), limit))


def _parts(path: Path, scheme: Scheme, roles: RoleMap, on_bytes: OnBytes) -> Iterator[tuple[str, list[Row]]]:
    """The lines of each conversation and its title; those before the first label belong to the first one."""
    source: Iterator[Line] = with_neighbours(text_lines(path, on_bytes))
    code = _Code(scheme, roles)
    rows: list[Row] = []
    title, characters, has_labels = "", 0, False
    while True:
        for line in source:
            if code.began_in_error(line):
                # The answer with this fence was cut: what follows it is no code.
                source, rows = code.read_again(rows, chain((line,), source)), rows[: code.began_at]
                break
            is_code, label = code.covers(line, len(rows))
            words = heading(line.text)
            following = None
            if not is_code and label is None and (words or is_separator(line.text)):
                following = scheme.label(line.after, roles)
            if has_labels and following and following.role is not Role.TOOL:
                ends = scheme.separates if not words else following.role is not Role.ASSISTANT
                if ends:
                    yield title, rows
                    rows, title, characters, has_labels = [], words, 0, False
                    continue
            elif words and label is None and not is_code and not has_labels and (following or not rows):
                title = words
                continue
            has_labels |= label is not None
            rows.append(Row(text=line.text, label=label, is_code=is_code, line=line))
            characters += len(line.text)
            if characters > MAX_VALUE:
                raise BadInput(
                    _("One conversation or line is longer than {n} MB").format(n=MAX_VALUE // 2**20),
                    path=path,
                    line=line.number,
                )
        else:
            if not code.is_open:
                break
            source, rows = code.read_again(rows, ()), rows[: code.began_at]
    yield title, rows


class _Code:
    """Which lines stand in fenced code. A fence that is never closed is text: an answer was cut there."""

    def __init__(self, scheme: Scheme, roles: RoleMap) -> None:
        self.scheme, self.roles = scheme, roles
        self.began_at = 0
        """The row with the fence that is open."""
        self._fence = Fence()
        self._holds_label = False
        self._as_text: set[int] = set()

    @property
    def is_open(self) -> bool:
        """Whether a fence is open that may be text."""
        return bool(self._fence.open) and len(self._as_text) < _MAX_RESCANS

    def covers(self, line: Line, row: int) -> tuple[bool, Label | None]:
        """Whether a line is code, and its label when it is none; `row` is where it will stand."""
        label = self.scheme.label(line.text, self.roles)
        if self.scheme.fenced or line.number in self._as_text:
            return False, label
        was_open = bool(self._fence.open)
        is_code = self._fence.covers(line.text)
        if not is_code and label is not None:
            self._fence.covers(label.rest)
        if self._fence.open and not was_open:
            self.began_at, self._holds_label = row, False
        self._holds_label |= is_code and label is not None and line.follows_blank
        return is_code, None if is_code else label

    def began_in_error(self, line: Line) -> bool:
        """Whether the line begins a fence although one is open, and speakers stood in that one."""
        if not self._holds_label or not self.is_open:
            return False
        label = self.scheme.label(line.text, self.roles)
        begins = label.rest if label else line.text.strip()
        return is_named_fence(begins) and begins.startswith(self._fence.open)

    def read_again(self, rows: list[Row], rest: Iterable[Line]) -> Iterator[Line]:
        """The lines from the open fence on, to be read as text, and the rest."""
        again = [row.line for row in rows[self.began_at :]]
        self._as_text.add(again[0].number)
        self._fence, self._holds_label = Fence(), False
        return chain(again, rest)


def no_speakers(path: Path) -> BadInput:
    """The error for a text without known speakers; suggests a `--map` when two names look like speakers."""
    sample = [line for _number, line in islice(text_lines(path), _DETECTION_LINES) if line.strip()]
    labels = [label for line in sample if (label := parse_label(line, {}, names_only=False))]
    counted = Counter((label.form, label.name) for label in labels if 0 < len(label.name) <= 16)
    names = [name for (_form, name), _count in counted.most_common(2)]
    one_form = len({form for (form, _name), _count in counted.most_common(2)}) == 1
    repeated = [name for (_form, name), count in counted.most_common(2) if count > 1]
    # In a short transcript one of the two may speak once: then nearly every line has a name.
    if one_form and (
        len(repeated) == 2
        or (repeated and len(names) == len(counted) == 2 and counted.total() > 0.6 * len(sample))
    ):
        if _ASSISTANT_NAME.search(names[0]):
            names.reverse()
        mapping = f"{names[0]}=user,{names[1]}=assistant"
        hint = f"h2q-tui memory import {shell_word(path)} --format text --map {shell_word(mapping)}"
        return BadInput(
            _("The roles of {a} and {b} are unknown").format(a=names[0], b=names[1]), path=path, hint=hint
        )
    return BadInput(_("No speakers found: no line begins with a name such as User: or 用户："), path=path)
