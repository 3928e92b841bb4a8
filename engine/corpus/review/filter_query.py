"""The filter line of the review: fields and free text, as SQL. Light: the app imports it.

    stage:near state:pending lang:zh source:chatgpt reason:PHONE split:test len>400 pairs<3 -stage:exact "two words"
    flag: edited:

Terms are joined by and; `-` before one negates it. What is no known field is searched in the title and in
the turns, edited ones as the person wrote them. Wide signs (`stage：near len＞40`) and capitals count as narrow and small.
"""

from __future__ import annotations

import re
import shlex
from enum import StrEnum
from typing import NamedTuple

from engine.core.errors import UsageProblem
from engine.core.i18n import _
from engine.corpus.enums import Split, Stage, State
from engine.corpus.review.decision_log import EDITS_SQL


class Order(StrEnum):
    """How the list is sorted; every order ends in the id, so that pages never overlap."""

    NEWEST = "newest"
    OLDEST = "oldest"
    LONGEST = "longest"
    SHORTEST = "shortest"
    BEST = "best"
    WORST = "worst"


ORDERS: dict[Order, str] = {
    Order.NEWEST: "k.sort_time DESC, k.conversation_id",
    Order.OLDEST: "k.sort_time IS NULL, k.sort_time, k.conversation_id",
    Order.LONGEST: "c.characters DESC, k.conversation_id",
    Order.SHORTEST: "c.characters, k.conversation_id",
    Order.BEST: "k.quality DESC, k.conversation_id",
    Order.WORST: "k.quality, k.conversation_id",
}


FLAG = (
    "(SELECT d.verdict FROM decisions d WHERE d.conversation_id = k.conversation_id AND d.undone = 0 "
    "AND d.verdict IN ('flagged', 'unflagged') ORDER BY d.seq DESC LIMIT 1)"
)
EDITED = f"k.conversation_id IN (SELECT id FROM ({EDITS_SQL}))"  # noqa: S608


class Where(NamedTuple):
    """A condition over `corpus k JOIN conversations c`, with its values."""

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
    "(k.reason LIKE ? ESCAPE '\\' OR EXISTS (SELECT 1 FROM ledger l WHERE l.conversation_id = k.conversation_id "
    "AND l.reason LIKE ? ESCAPE '\\'))"
)
_TEXT = (
    "(c.title LIKE ? ESCAPE '\\' OR EXISTS (SELECT 1 FROM turns t WHERE t.conversation_id = k.conversation_id "  # noqa: S608
    f"AND t.text LIKE ? ESCAPE '\\' AND (t.conversation_id, t.position) NOT IN (SELECT id, turn FROM ({EDITS_SQL}))) "
    f"OR k.conversation_id IN (SELECT id FROM ({EDITS_SQL}) WHERE text LIKE ? ESCAPE '\\'))"
)
"""The words in force: of a turn that the person wrote anew, not those that came."""
_NUMBERS = {"len": "c.characters", "pairs": "k.pairs", "turns": "c.turns", "quality": "k.quality"}
_NUMBER = re.compile(r"(len|pairs|turns|quality)(>=|<=|>|<|=)(\d+(?:\.\d+)?)")
_VALUES = {"state": frozenset(State), "stage": frozenset(Stage), "split": frozenset(Split)}
"""Of the fields that have only these."""
_FIELDS = (*_EQUAL, "stage", "reason", "id", "flag", "edited")
_LIKE_A_FIELD = re.compile(r"([a-z_]+):(?!//)(.*)|(?:len|pairs|turns|quality)[<>=].*", re.DOTALL)
_NARROW = str.maketrans("：＞＜＝－", ":><=-")


def parse(line: str) -> Where:
    """The condition of a filter line; an empty line is true for all. Never raises: a person is still typing it."""
    parts: list[str] = []
    values: list[object] = []
    for word in _words(line):
        negated, bare = _signed(word)
        sql, given = _term(bare)
        parts.append(f"NOT {sql}" if negated else sql)
        values += given
    return Where(" AND ".join(parts) or "1", tuple(values))


def mistakes(line: str) -> list[str]:
    """Words of a filter line that look like a field and are none, or name a value that it never has.

    `parse` searches for them in the texts, which finds nothing; negated, that is everything.
    """
    found = []
    for word in _words(line):
        bare = _signed(word)[1]
        plain = bare.translate(_NARROW).lower()
        looks = _LIKE_A_FIELD.fullmatch(plain)
        if looks is None or _NUMBER.fullmatch(plain):
            continue
        field, value = looks[1], looks[2]
        if field not in _FIELDS or (field in _VALUES and value not in _VALUES[field]):
            found.append(bare)
    return found


def refuse_mistakes(line: str) -> None:
    """Raises UsageProblem where `mistakes` finds any: nothing is decided by a line that says something else."""
    if wrong := mistakes(line):
        raise UsageProblem(
            _(
                "{words} is no part of a filter; its fields are {fields}, and len, pairs, turns, quality with <, > or ="
            ).format(words=" ".join(wrong), fields=", ".join(_FIELDS)),
            hint="h2q-tui corpus list --filter stage:near",
        )


def _signed(word: str) -> tuple[bool, str]:
    """Whether a word is negated, and the rest of it."""
    negated = len(word) > 1 and word[0] in "-－"
    return negated, word[1:] if negated else word


def _words(line: str) -> list[str]:
    """Words; quotes hold several together, an open quote is closed by the end of the line."""
    for closing in ("", '"', "'"):
        try:
            lexer = shlex.shlex(line + closing, posix=True, punctuation_chars="")
            lexer.whitespace_split, lexer.commenters, lexer.escape = True, "", ""
            return [word for word in lexer if word]
        except ValueError:
            continue
    return line.split()


def _term(word: str) -> tuple[str, list[object]]:
    plain = word.translate(_NARROW)
    field, colon, value = plain.partition(":")
    field = field.lower()
    if colon and value:
        if field == "source":
            return _EQUAL[field], [value]
        if field in _EQUAL:
            return _EQUAL[field], [value.lower()]
        if field == "stage":
            return _STAGE, [value.lower()] * 2
        if field == "reason":
            return _REASON, [_like(value)] * 2
        if field == "id":
            return "k.conversation_id LIKE ? ESCAPE '\\'", [_like(value)[1:]]
    if colon and field == "flag":
        return f"COALESCE({FLAG} = 'flagged', 0)", []
    if colon and field == "edited":
        return EDITED, []
    number = _NUMBER.fullmatch(plain.lower())
    if number:
        return f"{_NUMBERS[number[1]]} {number[2]} ?", [float(number[3])]
    return _TEXT, [_like(word)] * 3


def _like(value: str) -> str:
    escaped = re.sub(r"([%_\\])", r"\\\1", value)
    return f"%{escaped}%"
