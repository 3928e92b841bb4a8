"""Text and Markdown transcripts of which lines name who speaks: `User: …`, `## Assistant`, `**You**`, `ChatGPT said:`.

`transcript_scheme` says which labels a transcript uses; all other text belongs to the message above it. Headings,
which stand right above the first label of a conversation, are titles.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from engine.core.errors import BadInput
from engine.core.filenames import shell_word
from engine.core.i18n import _
from engine.memory.importers.fields import ImportOptions, RoleMap, build_conversation
from engine.memory.importers.readers.files import OnBytes, ignore_bytes, is_zip, text_lines
from engine.memory.importers.readers.json_stream import MAX_VALUE
from engine.memory.importers.readers.sqlite import is_sqlite
from engine.memory.importers.transcript_labels import parse_label
from engine.memory.importers.transcript_scheme import (
    Fence,
    Line,
    Scheme,
    find_scheme,
    heading,
    is_separator,
    with_neighbours,
)
from engine.memory.importers.transcript_turns import Row, transcript_turns
from engine.memory.records import Conversation, Skipped

NAME = "text"

_ASSISTANT_NAME = re.compile(
    r"客服|店|医生|老师|顾问|律师|专家|agent|support|staff|doctor|teacher|expert|bot|助", re.IGNORECASE
)
"""Names that are likely the assistant, for the suggested `--map`; the user decides."""
_DETECTION_LINES = 1000
"""Lines that `detect` reads."""
_SCHEME_LINES = 200_000
_MAX_RESCANS = 20
"""How often a fence that is never closed is read as text."""


def detect(path: Path, value: Any) -> bool:
    """Requires two speakers of whom one may answer the other: a single one may be a heading."""
    return (
        value is None
        and not is_zip(path)
        and not is_sqlite(path)
        and find_scheme(_lines(path, _DETECTION_LINES), {}) is not None
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
    rows: list[Row] = []
    title, characters, rescans = "", 0, 0
    has_labels = False
    fence, fence_line = Fence(), -1
    as_text: set[int] = set()
    """Numbers of lines with a fence that is never closed."""
    while True:
        for line in source:
            was_open = bool(fence.open)
            is_code = line.number not in as_text and fence.covers(line.text) and not scheme.fenced
            if is_code and not was_open:
                fence_line = len(rows)
            label = None if is_code else scheme.label(line.text, roles)
            next_label = scheme.label(line.after, roles) if not is_code else None
            if label is None and next_label and next_label.role in ("user", "system", "assistant"):
                ends = has_labels and next_label.role != "assistant"
                if is_separator(line.text) and scheme.separates and has_labels:
                    yield title, rows
                    rows, title, characters, has_labels = [], "", 0, False
                    continue
                if (words := heading(line.text)) and (ends or not has_labels):
                    if has_labels:
                        yield title, rows
                        rows, characters, has_labels = [], 0, False
                    title = words
                    continue
            elif label is None and not has_labels and not rows and (words := heading(line.text)):
                title = words
                continue
            if label is not None:
                has_labels = True
                if not scheme.fenced and line.number not in as_text and fence.covers(label.rest):
                    fence_line = len(rows)
            rows.append(
                Row(
                    line.text,
                    label,
                    is_code,
                    line.follows_blank,
                    line.before if not line.follows_blank else "",
                    line.after if not line.precedes_blank else "",
                    line,
                )
            )
            characters += len(line.text)
            if characters > MAX_VALUE:
                raise BadInput(
                    _("One conversation or line is longer than {n} MB").format(n=MAX_VALUE // 2**20),
                    path=path,
                    line=line.number,
                )
        if not fence.open or scheme.fenced or rescans >= _MAX_RESCANS:
            break
        # The answer with this fence was cut: what follows it is no code.
        rescans += 1
        again = [row.line for row in rows[fence_line:]]
        as_text.add(again[0].number)
        del rows[fence_line:]
        fence = Fence()
        source = chain(again)
    yield title, rows


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
