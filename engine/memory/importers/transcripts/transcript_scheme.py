"""Which labels a transcript uses, decided from its own lines before it is read.

The rules, in their order:

1. A label has a form (see `transcript_labels`). A transcript uses one form: that of the first speakers, one of which may
   answer the other, outside fenced code. A form of headings, bold names or brackets goes before words with a colon
   that occur no more often, for those may be what a program says about the file.
2. It uses the names of its first speaker and of the one that looks most like its partner, written the same way: `User:` and `Assistant:` are no labels beside `user:`,
   nor is `A:` beside `用户：`. Decorated forms may name several models.
3. `---` ends a conversation where a speaker follows, unless such lines stand between the messages: before half of the
   answers or, in a decorated form, before each question.
4. Where most labels follow an empty line, one that does not is a label only if the turns alternate with it.
5. Where each message stands in a fence of its own, the fences are no part of the messages.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec

from engine.core.chat import Role
from engine.memory.importers.fields import RoleMap
from engine.memory.importers.times import day_order
from engine.memory.importers.transcripts.transcript_labels import (
    ALONE,
    SAID,
    Label,
    likeness,
    may_answer,
    parse_label,
)

_SEPARATOR = re.compile(
    r"\A\s*+(?:-{3,}|={3,}|\*{3,}|_{3,}|—{3,}|\f|(?:[-*_] ){2,20}[-*_]|([-=*])\1{2,20}[^-=*\n]{1,60}\1{3,20})\s*"
)
_FENCE = re.compile(r"\s{0,12}(`{3,}|~{3,})\s*([^`\n]*)")
_HEADING = re.compile(r"\s{0,3}(#{1,6})[ \t]+(\S.*)")
_TIME_LINE = re.compile(
    r"\W{0,4}(?=[^\n]{0,20}\d{1,2}:\d{2})(?=[^\n]{0,16}\d)[\d年月日/.,:\s T\u202f+Z-]{8,40}(?:[AaPp]\.?\s?[Mm]\.?|上午|下午)?[\d:\s]{0,12}\W{0,4}"
)
_MAX_LABELS = 20_000
_MAX_NAMES = 50


class Line(msgspec.Struct, frozen=True):
    """A line of a transcript among its neighbours."""

    number: int
    text: str
    before: str
    """The last line above that is not empty; "" at the beginning of the file."""
    after: str
    """The next line below that is not empty; "" at the end."""
    follows_blank: bool
    """Whether it stands below an empty line, or first."""
    precedes_blank: bool


def with_neighbours(lines: Iterable[tuple[int, str]]) -> Iterator[Line]:
    """The numbered lines of a file with their neighbours."""
    held: list[tuple[int, str]] = []
    before, follows_blank = "", True
    for number, text in lines:
        if text.strip() and held:
            yield from _released(held, before, follows_blank, text)
            if held[0][1].strip():
                before = held[0][1]
            follows_blank = not held[-1][1].strip()
            held = []
        held.append((number, text))
    if held:
        yield from _released(held, before, follows_blank, "")


def _released(held: list[tuple[int, str]], before: str, follows_blank: bool, after: str) -> Iterator[Line]:
    """The lines that wait until `after` was read: one with text, but at the beginning of a file, and the blanks below."""
    first = held[0][1]
    for place, (number, text) in enumerate(held):
        if place == 0:
            yield Line(number, text, before, after, follows_blank, len(held) > 1)
        else:
            yield Line(number, text, first if first.strip() else before, after, place > 1, True)


def is_separator(line: str) -> bool:
    """Whether a line is a rule across the page, such as `---`."""
    return bool(_SEPARATOR.fullmatch(line))


def heading(line: str) -> str:
    """The text of a heading line; "" for any other line."""
    match = _HEADING.fullmatch(line)
    return match[2].strip() if match else ""


def time_line(line: str) -> str:
    """The time that a whole line says; "" for any other line."""
    return line.strip(" \t*_()[]>") if len(line) <= 60 and _TIME_LINE.fullmatch(line) else ""


class Fence:
    """Whether lines stand in fenced code, read one after another."""

    def __init__(self) -> None:
        self.open = ""

    def covers(self, line: str) -> bool:
        """Whether the line is inside a fence, or is one."""
        match = _FENCE.fullmatch(line)
        if self.open:
            if match and match[1].startswith(self.open) and not match[2].strip():
                self.open = ""
            return True
        if match:
            self.open = match[1]
        return match is not None


def is_bare_fence(line: str) -> bool:
    """Whether a line is a fence without the name of a language."""
    match = _FENCE.fullmatch(line)
    return match is not None and not match[2].strip()


def is_named_fence(line: str) -> bool:
    """Whether a line is a fence with the name of a language, which can only open one."""
    match = _FENCE.fullmatch(line)
    return match is not None and bool(match[2].strip())


class Scheme(msgspec.Struct, frozen=True, kw_only=True):
    """The labels of one transcript."""

    user: Label | None
    """The first label of the user; None where only answers are labelled."""
    assistant: Label | None
    several_models: bool
    separates: bool
    """Whether `---` before a question begins a conversation."""
    spaced: bool
    """Whether labels stand below empty lines."""
    fenced: bool
    """Whether each message stands in a fence of its own."""
    day_first: bool | None
    """How the file writes dates such as `3/7/2026`, where one of its dates decides that."""

    def label(self, line: str, role_map: RoleMap) -> Label | None:
        """The label of a line, when it is one of this transcript."""
        found = parse_label(line, role_map)
        first = self.user or self.assistant
        if found is None or first is None or found.family != first.family:
            return None
        if found.role in (Role.SYSTEM, Role.TOOL):
            return found if found.is_decorated or found.name.islower() == first.name.islower() else None
        own = self.user if found.role is Role.USER else self.assistant
        if own is None or found.form != own.form:
            return None
        if found.group == "mapped" or found.name == own.name:
            return found
        is_model = found.role is Role.ASSISTANT and found.group in ("person", SAID)
        return found if self.several_models and is_model else None


class _Found(msgspec.Struct, frozen=True):
    """A line that may be a label."""

    label: Label
    line: Line


def find_scheme(lines: Iterable[Line], role_map: RoleMap, *, both: bool = True) -> Scheme | None:
    """The labels that a transcript uses; None when no one answers another, or with `both=False`, when no one speaks."""
    forms: dict[str, list[_Found]] = {}
    fence, count = Fence(), 0
    for line in lines:
        is_code = fence.covers(line.text)
        # A message that stands in a fence of its own may break that fence by one of its own.
        if is_code and not (is_bare_fence(line.before) and is_bare_fence(line.after)):
            continue
        if (label := parse_label(line.text, role_map)) is not None:
            forms.setdefault(label.family, []).append(_Found(label, line))
            if not is_code:
                fence.covers(label.rest)
            count += 1
            if count >= _MAX_LABELS:
                break
    found = [(pair, labels) for labels in forms.values() if (pair := _pair(labels, mapped=bool(role_map)))]
    if not found:
        if both or not forms:
            return None
        labels = next(iter(forms.values()))
        speaker = next(
            (item.label for item in labels if item.label.role in (Role.USER, Role.ASSISTANT)), None
        )
        if speaker is None:
            return None
        is_user = speaker.role is Role.USER
        return _scheme(speaker if is_user else None, None if is_user else speaker, labels, role_map)
    # The forms stand in the order of their first labels.
    pair, labels = found[0]
    for other, others in found[1:]:
        if not labels[0].label.is_decorated and others[0].label.is_decorated and len(others) >= len(labels):
            pair, labels = other, others
    return _scheme(*pair, labels, role_map)


def _pair(labels: list[_Found], *, mapped: bool) -> tuple[Label, Label] | None:
    """The first label of a form that another one answers, with the likeliest of those; `mapped` names go first."""
    speakers: dict[tuple[Role | None, str, str], Label] = {}
    counts: Counter[str] = Counter()
    for item in labels:
        label = item.label
        if label.role in (Role.USER, Role.ASSISTANT):
            speakers.setdefault((label.role, label.name, label.form), label)
            counts[label.name] += 1
    # A word of other texts is a name where it is repeated; one alone on its line also below an empty line.
    parted = {(item.label.role, item.label.name) for item in labels if item.line.follows_blank}
    named = (
        label
        for label in speakers.values()
        if counts[label.name] > 1
        or not (label.is_weak or (label.form == ALONE and (label.role, label.name) not in parted))
    )
    ordered = list(islice(named, _MAX_NAMES))
    # Of two levels of headings, the higher one may be a title.
    for wanted, one_form in ((True, False), (False, True), (False, False))[not mapped :]:
        for label in ordered:
            partners = [
                other
                for other in ordered
                if other.role is not label.role
                and may_answer(*((label, other) if label.role is Role.USER else (other, label)))
                and (not wanted or "mapped" in (label.group, other.group))
                and (not one_form or label.form == other.form)
            ]
            if partners:
                partner = min(partners, key=lambda other: (other.group != "mapped", likeness(label, other)))
                return (label, partner) if label.role is Role.USER else (partner, label)
    return None


def _scheme(user: Label | None, assistant: Label | None, labels: list[_Found], role_map: RoleMap) -> Scheme:
    plain = Scheme(
        user=user,
        assistant=assistant,
        several_models=labels[0].label.is_decorated,
        separates=True,
        spaced=False,
        fenced=False,
        day_first=None,
    )
    own = [item for item in labels if plain.label(item.line.text, role_map)]
    later = own[1:]
    spaced = sum(item.line.follows_blank for item in later)
    return msgspec.structs.replace(
        plain,
        separates=_separates(own),
        day_first=day_order(text for item in own for text in (item.label.when, time_line(item.line.after))),
        spaced=spaced * 2 > len(later),
        fenced=len(own) > 1
        and all(is_bare_fence(item.line.after) for item in own)
        and all(is_bare_fence(item.line.before) or heading(item.line.before) for item in later),
    )


def _separates(own: list[_Found]) -> bool:
    """Whether rules across the page stand between conversations, by the labels that follow them."""
    ruled = [is_separator(item.line.before) for item in own]
    answers = [
        rule for rule, item in zip(ruled[1:], own[1:], strict=True) if item.label.role is Role.ASSISTANT
    ]
    if any(answers) and sum(answers) * 2 >= len(answers):
        return False
    questions = [rule for rule, item in zip(ruled[1:], own[1:], strict=True) if item.label.role is Role.USER]
    begins_otherwise = any(
        rule for rule, item in zip(ruled[1:], own[1:], strict=True) if item.label.role is Role.SYSTEM
    )
    return not (own[0].label.is_decorated and questions and all(questions)) or begins_otherwise
