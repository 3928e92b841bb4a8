"""What a filter line may go on with: fields, and their values with counts, in the words of the screen."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from engine.core.i18n import _
from engine.corpus.enums import REJECTION_LABELS, REVIEW_LABELS
from engine.corpus.review.filter_counts import FilterCounts
from tui.host.corpus_text import reason_text, stage_name, state_name

FIELDS = ("state", "stage", "reason", "lang", "source", "split", "flag", "edited")
NUMBERS = ("len>", "turns>", "pairs>", "quality>")
"""Fields of numbers, as one begins to type them."""
_NOT_OFFERED = frozenset(("lang", "split"))
"""Fields whose short codes would be offered for the beginning of any word."""
_HALF_WIDTH = str.maketrans("：－", ":-")


class Completion(NamedTuple):
    """One way to go on."""

    line: str
    """The whole line with it."""
    shown: str
    """Its word, as it is offered."""
    conversations: int | None = None
    """Conversations that it would leave; None for the beginning of a field."""
    field: str = ""
    """The field that has been typed already."""


def split_line(line: str) -> tuple[str, str]:
    """The complete terms of a filter line with the blank after them, and the term that is being typed."""
    quote, start = "", 0
    for place, character in enumerate(line):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character.isspace():
            start = place + 1
    return line[:start], line[start:]


def completions(line: str, counts: FilterCounts) -> list[Completion]:
    """The ways to go on at the end of `line`; `counts` are those under its complete terms. The most frequent first."""
    before, term = split_line(line)
    plain = term.translate(_HALF_WIDTH)
    sign = "-" if plain.startswith("-") else ""
    typed = plain[len(sign) :]
    field, colon, begun = typed.partition(":")
    field = field.lower()
    if colon:
        return [
            Completion(f"{before}{sign}{field}:{_quoted(word)} ", word, count, field)
            for word, count in _matching(field, begun.strip("\"'"), counts)
        ]
    fields = [f"{name}:" for name in FIELDS if counts.get(name) or name not in counts] + list(NUMBERS)
    found = [Completion(before + sign + name, name) for name in fields if name.startswith(typed.lower())]
    if typed and typed != plain.upper():
        found += [
            Completion(f"{before}{sign}{name}:{_quoted(word)} ", f"{name}:{_quoted(word)}", count)
            for name in FIELDS
            if name not in _NOT_OFFERED
            for word, count in _matching(name, typed, counts)
            if word
        ]
    return found


def _matching(field: str, begun: str, counts: FilterCounts) -> Iterable[tuple[str, int]]:
    """The words for the values of a field that begin so, or have a word that does, each with its count."""
    wanted = _normalise(begun)
    for value, count in counts.get(field, {}).items():
        word = value_word(field, value)
        texts = (_normalise(word), _normalise(value))
        if any(text.startswith(wanted) or f" {wanted}" in text for text in texts):
            yield word, count


def value_word(field: str, value: str) -> str:
    """The word of the screen for a value; the filter line takes it too."""
    if field == "state":
        return _(REVIEW_LABELS[value]) if value in REVIEW_LABELS else state_name(value)
    if field == "stage":
        return _("duplicates") if value == "duplicates" else stage_name(value)
    if field == "reason":
        text = reason_text(value)
        return _(REJECTION_LABELS[value]) if text == value and value in REJECTION_LABELS else text
    return value


def _quoted(word: str) -> str:
    """A word as it stands in a filter line."""
    if not re.search(r"[\s\"']", word):
        return word
    return f"'{word}'" if '"' in word else f'"{word}"'


def _normalise(word: str) -> str:
    return re.sub(r"[\s_-]+", " ", word.casefold()).strip()
