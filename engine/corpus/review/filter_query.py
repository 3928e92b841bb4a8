"""The filter line of the review, compiled to SQL. Light: the app imports it.

    stage:near state:pending lang:zh source:chatgpt reason:PHONE split:test len>400 pairs<3 -stage:exact "two words"
    flag: edited: state:unreviewed stage:duplicates

Terms are joined by AND; `-` negates a term. Fields take the values of `corpus.enums` or their labels on screen, in any
language of the app: `stage:low_value`, `stage:"low value"` and `stage:低价值` are equal. `reason` searches the reasons
of the filters and of the user's decision; `stage` takes PII types too, which stand in the same column of the list. Other
words are searched in the title and the text in force of the turns. Full-width signs (`stage：near len＞40`) and capitals
are normalised.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from enum import StrEnum
from functools import cache
from typing import NamedTuple

from engine.core.errors import UsageProblem
from engine.core.i18n import _, in_every_language
from engine.corpus.enums import (
    DUPLICATE_LABELS,
    DUPLICATE_STAGES,
    PII_LABELS,
    REASON_LABELS,
    REJECTION_LABELS,
    REVIEW_LABELS,
    STAGE_LABELS,
    STATE_LABELS,
    CorpusStage,
    DataSplit,
    ReviewState,
)
from engine.corpus.review.decision_log import EDITS_SQL


class ListOrder(StrEnum):
    """Sort order of the list; every order ends with the id, so that pages never overlap."""

    NEWEST = "newest"
    OLDEST = "oldest"
    LONGEST = "longest"
    SHORTEST = "shortest"
    BEST = "best"
    WORST = "worst"


ORDER_SQL: dict[ListOrder, str] = {
    ListOrder.NEWEST: "k.sort_time DESC, k.conversation_id",
    ListOrder.OLDEST: "k.sort_time IS NULL, k.sort_time, k.conversation_id",
    ListOrder.LONGEST: "c.characters DESC, k.conversation_id",
    ListOrder.SHORTEST: "c.characters, k.conversation_id",
    ListOrder.BEST: "k.quality DESC, k.conversation_id",
    ListOrder.WORST: "k.quality, k.conversation_id",
}


FLAG_SQL = (
    "(SELECT d.verdict FROM decisions d WHERE d.conversation_id = k.conversation_id AND d.undone = 0 "
    "AND d.verdict IN ('flagged', 'unflagged') ORDER BY d.seq DESC LIMIT 1)"
)
EDITED_SQL = f"k.conversation_id IN (SELECT id FROM ({EDITS_SQL}))"  # noqa: S608


_DECIDED = (
    "COALESCE((SELECT d.{column} FROM decisions d WHERE d.conversation_id = k.conversation_id AND d.undone = 0 "
    "AND d.verdict IN ('accepted', 'rejected', 'pending') ORDER BY d.seq DESC LIMIT 1), '')"
)
REVIEWED_SQL = f"{_DECIDED.format(column='verdict')} IN ('accepted', 'rejected')"
"""Whether the user accepted or rejected it."""


class FilterCondition(NamedTuple):
    """An SQL condition over `corpus k JOIN conversations c`, with its parameters."""

    sql: str
    values: tuple[object, ...]


_EQUAL = {
    "state": "k.state = ?",
    "lang": "k.language = ?",
    "split": "k.split = ?",
    "source": "c.source = ? COLLATE NOCASE",
    "cluster": "k.cluster = ?",
}
_STAGE = "(k.stage = ? OR EXISTS (SELECT 1 FROM ledger l WHERE l.conversation_id = k.conversation_id AND l.stage = ?))"
_REASON = (
    "(k.reason LIKE ? ESCAPE '\\' OR EXISTS (SELECT 1 FROM ledger l WHERE l.conversation_id = k.conversation_id "  # noqa: S608
    "AND l.reason LIKE ? ESCAPE '\\') "
    f"OR {_DECIDED.format(column='reason')} LIKE ? ESCAPE '\\')"
)
REVIEW_SQL = {
    "unreviewed": f"NOT {REVIEWED_SQL}",
    "reviewed": REVIEWED_SQL,
    "edited": EDITED_SQL,
    "flagged": f"COALESCE({FLAG_SQL} = 'flagged', 0)",
    "redacted": (
        "EXISTS (SELECT 1 FROM ledger l WHERE l.conversation_id = k.conversation_id AND l.action = 'redact')"
    ),
}
"""What `state` takes besides the states."""
_TEXT = (
    "(c.title LIKE ? ESCAPE '\\' OR EXISTS (SELECT 1 FROM turns t WHERE t.conversation_id = k.conversation_id "  # noqa: S608
    f"AND t.text LIKE ? ESCAPE '\\' AND (t.conversation_id, t.position) NOT IN (SELECT id, turn FROM ({EDITS_SQL}))) "
    f"OR k.conversation_id IN (SELECT id FROM ({EDITS_SQL}) WHERE text LIKE ? ESCAPE '\\'))"
)
"""Searches the text in force: of an edited turn the edit, not the imported text."""
_NUMBERS = {"len": "c.characters", "pairs": "k.pairs", "turns": "c.turns", "quality": "k.quality"}
_NUMBER = re.compile(r"(len|pairs|turns|quality)(>=|<=|>|<|=)(\d+(?:\.\d+)?)")
_VALUES = {
    "state": frozenset(ReviewState) | frozenset(REVIEW_SQL),
    "stage": frozenset(CorpusStage) | frozenset(PII_LABELS) | {"duplicates"},
    "split": frozenset(DataSplit),
}
"""The values of the fields that take no others."""
_LABELS: dict[str, Iterable[tuple[str, str]]] = {
    "state": (*STATE_LABELS.items(), *REVIEW_LABELS.items()),
    "stage": (
        *PII_LABELS.items(),
        *(("duplicates", label) for label in (*DUPLICATE_LABELS, "twin")),
        *STAGE_LABELS.items(),
    ),
    "reason": (*REJECTION_LABELS.items(), *REASON_LABELS.items(), *PII_LABELS.items()),
}
"""The labels of values on screen, by field."""
_FIELDS = (*_EQUAL, "stage", "reason", "id", "flag", "edited")
_FIELD_LIKE = re.compile(r"\A(?:([a-z_]+):(?!//)(.*)|(?:len|pairs|turns|quality)[<>=].*)", re.DOTALL)
_HALF_WIDTH = str.maketrans("：＞＜＝－", ":><=-")


def parse_filter(line: str) -> FilterCondition:
    """The condition of a filter line; an empty line matches everything. Never raises: it parses while one types."""
    parts: list[str] = []
    values: list[object] = []
    for word in _words(line):
        negated, term = _split_sign(word)
        sql, parameters = _term(term)
        parts.append(f"NOT {sql}" if negated else sql)
        values += parameters
    return FilterCondition(" AND ".join(parts) or "1", tuple(values))


def invalid_terms(line: str) -> list[str]:
    """Terms that look like a field but are none, or name a value that the field does not have.

    `parse_filter` searches the texts for them, which finds nothing; negated, it finds everything.
    """
    found = []
    for word in _words(line):
        term = _split_sign(word)[1]
        plain = term.translate(_HALF_WIDTH).lower()
        match = _FIELD_LIKE.fullmatch(plain)
        if match is None or _NUMBER.fullmatch(plain):
            continue
        field, value = match[1], match[2]
        if field not in _FIELDS or (field in _VALUES and _value(field, value) not in _VALUES[field]):
            found.append(term)
    return found


def check_filter(line: str) -> None:
    """Raises UsageProblem for `invalid_terms`: no decision is made by a line with mistakes."""
    if wrong := invalid_terms(line):
        raise UsageProblem(
            _(
                "{words} is not part of a filter; fields: {fields}, and len, pairs, turns, quality with <, > or ="
            ).format(words=" ".join(wrong), fields=_(", ").join(_FIELDS)),
            hint="h2q-tui corpus list --filter stage:near",
        )


def _split_sign(word: str) -> tuple[bool, str]:
    """(whether a word is negated, the word without its sign)."""
    negated = len(word) > 1 and word[0] in "-－"
    return negated, word[1:] if negated else word


def _words(line: str) -> list[str]:
    """Words; quotes join several, and an open quote is closed at the end of the line."""
    for closing in ("", '"', "'"):
        try:
            lexer = shlex.shlex(line + closing, posix=True, punctuation_chars="")
            lexer.whitespace_split, lexer.commenters, lexer.escape = True, "", ""
            return [word for word in lexer if word]
        except ValueError:
            continue
    return line.split()


def _term(term: str) -> tuple[str, list[object]]:
    plain = term.translate(_HALF_WIDTH)
    field, colon, value = plain.partition(":")
    field = field.lower()
    if colon and value:
        if field == "source":
            return _EQUAL[field], [value]
        if field in _EQUAL:
            meant = _value(field, value)
            if field == "state" and meant in REVIEW_SQL:
                return f"({REVIEW_SQL[meant]})", []
            return _EQUAL[field], [meant]
        if field == "stage":
            return _stage_term(_value(field, value))
        if field == "reason":
            return _REASON, [_like(_value(field, value))] * 3
        if field == "id":
            return "k.conversation_id LIKE ? ESCAPE '\\'", [_like(value)[1:]]
    if colon and field == "flag":
        return f"COALESCE({FLAG_SQL} = 'flagged', 0)", []
    if colon and field == "edited":
        return EDITED_SQL, []
    number = _NUMBER.fullmatch(plain.lower())
    if number:
        return f"{_NUMBERS[number[1]]} {number[2]} ?", [float(number[3])]
    return _TEXT, [_like(term)] * 3


def _stage_term(stage: str) -> tuple[str, list[object]]:
    if stage == "duplicates":
        parts = " OR ".join([_STAGE] * len(DUPLICATE_STAGES))
        return f"({parts})", [value for one in DUPLICATE_STAGES for value in (one, one)]
    if stage in PII_LABELS:
        return _REASON, [_like(stage)] * 3
    return _STAGE, [stage] * 2


def _value(field: str, word: str) -> str:
    """The value that a word or label means; of a field with few values also one that begins with it. An unknown word in lower
    case."""
    values = _values_by_word(field)
    normal = _normalise(word)
    if normal in values or field not in _VALUES:
        return values.get(normal, word.lower())
    begun = {value for text, value in values.items() if text.startswith(normal)}
    return begun.pop() if len(begun) == 1 else word.lower()


@cache
def _values_by_word(field: str) -> dict[str, str]:
    """Values by normalised label in every language, and by themselves."""
    labels = tuple(_LABELS.get(field, ()))
    by_word = {_normalise(text): str(value) for value, label in labels for text in in_every_language(label)}
    values = (*(value for value, _label in labels), *_VALUES.get(field, ()))
    return by_word | {_normalise(value): str(value) for value in values}


def _normalise(word: str) -> str:
    return re.sub(r"[\s_-]+", " ", word.casefold())


def _like(value: str) -> str:
    escaped = re.sub(r"([%_\\])", r"\\\1", value)
    return f"%{escaped}%"
