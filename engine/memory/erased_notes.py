"""Removes what quotes erased conversations from notes about others: decisions, rules and the paths of imports.

A note quotes them when it has a word that stands in an erased text and in nothing that remains: common words say
nothing about what was erased. Chinese, Japanese and Korean texts have no spaces; there, two signs count as a word.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from engine.memory.search import fold

_WORD = re.compile(r"[^\W_]+")
_CJK = re.compile(r"([\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]+)")
_SHORTEST = 3
"""Letters of a word that counts."""
_SHORTEST_INSIDE = 6
"""Letters of an erased word that counts inside a longer word of a note."""
_FIELD = re.compile(
    r"-?\b(?:(?:state|stage|split|lang|flag|edited|source|cluster):(?:\"[^\"]*\"|\S*)|(?:len|pairs|turns|quality)[<>=]\S*)"
)
"""A term of a rule that holds no text of a user."""
_RULES = ("rule", "no_rule")

_DECISIONS_IN_FORCE = (
    "undone = 0 AND seq IN (SELECT MAX(seq) FROM decisions WHERE undone = 0 AND verdict = 'edited' "
    "GROUP BY conversation_id, turn)"
)
EDITS_IN_FORCE = f"verdict = 'edited' AND {_DECISIONS_IN_FORCE}"
"""Condition of the decisions whose text stands in place of an imported turn."""


class _Note(NamedTuple):
    seq: int
    reason: str
    text: str
    """The text of a rule, or of an edit that is not in force."""
    is_rule: bool


def erase_notes(connection: sqlite3.Connection, erased: Sequence[str], match: str = "") -> tuple[int, int]:
    """Blanks and ends the rules and edits, and blanks the reasons and paths of imports, that quote erased texts.

    Called in a transaction, after the conversations are deleted. With `match`, a folded text, also what contains it.
    An edit that is in force is the text of a conversation that remains, and stays.

    Returns the numbers of rules in force that ended, and of blanked texts.
    """
    notes = _notes(connection)
    imports = connection.execute(
        "SELECT id, path, skipped FROM imports WHERE path != '' AND completed_at IS NOT NULL"
    ).fetchall()
    texts = {
        *(note.reason for note in notes),
        *map(_searched, notes),
        *(path for _id, path, _skipped in imports),
    }
    telling = _telling_words(connection, {text: fold(text) for text in texts}, erased)

    def quotes(text: str) -> bool:
        return _quotes(fold(text), telling, match)

    before = len(_rules_in_force(connection))
    blanked = 0
    for note in notes:
        if quotes(_searched(note)) or (match and match in fold(note.text)):
            connection.execute("UPDATE decisions SET text = '', undone = 2 WHERE seq = ?", (note.seq,))
            blanked += 1
        if quotes(note.reason):
            connection.execute("UPDATE decisions SET reason = '' WHERE seq = ?", (note.seq,))
            blanked += 1
    for id_, path, skipped in imports:
        if quotes(path):
            connection.execute("UPDATE imports SET path = '' WHERE id = ?", (id_,))
            blanked += 1
        if quotes(skipped):
            connection.execute("UPDATE imports SET skipped = '{}' WHERE id = ?", (id_,))
    return before - len(_rules_in_force(connection)), blanked


def quoting_paths(
    connection: sqlite3.Connection, erased: Sequence[str], ids: Iterable[str], match: str
) -> set[str]:
    """Paths of imports that `erase_notes` would blank after the conversations `ids` are deleted."""
    paths = {path: fold(path) for (path,) in connection.execute("SELECT path FROM imports WHERE path != ''")}
    telling = _telling_words(connection, paths, erased, without=ids)
    return {path for path, folded in paths.items() if _quotes(folded, telling, match)}


def _quotes(folded: str, telling: set[str], match: str) -> bool:
    if match and match in folded:
        return True
    return not telling.isdisjoint(_words(folded)) or any(
        len(word) >= _SHORTEST_INSIDE and word in folded for word in telling
    )


def _searched(note: _Note) -> str:
    return _FIELD.sub(" ", note.text) if note.is_rule else note.text


def _notes(connection: sqlite3.Connection) -> list[_Note]:
    rows = connection.execute(
        f"SELECT seq, reason, CASE WHEN {EDITS_IN_FORCE} THEN '' ELSE text END, verdict FROM decisions "  # noqa: S608
        "WHERE reason != '' OR text != ''"
    )
    return [_Note(seq, reason, text, verdict in _RULES) for seq, reason, text, verdict in rows]


def _rules_in_force(connection: sqlite3.Connection) -> list[str]:
    found: dict[str, None] = {}
    for verdict, line in connection.execute(
        "SELECT verdict, text FROM decisions WHERE undone = 0 AND verdict IN ('rule', 'no_rule') ORDER BY seq"
    ):
        if verdict == "rule":
            found[line] = None
        else:
            found.pop(line, None)
    return list(found)


def _telling_words(
    connection: sqlite3.Connection,
    notes: dict[str, str],
    erased: Sequence[str],
    *,
    without: Iterable[str] = (),
) -> set[str]:
    """Folded words that stand in the folded notes and in erased texts, and in no text that remains."""
    folded = [fold(text) for text in erased]
    all_erased, all_notes = "\n".join(folded), "\n".join(notes.values())
    found = {word for word in _words(all_notes) if word in all_erased}
    found |= {word for word in _words(all_erased) if len(word) >= _SHORTEST_INSIDE and word in all_notes}
    if not found:
        return found
    # Whole words first: of what is left after them little is searched for inside longer ones.
    for text in _remaining(connection, without):
        found.difference_update(_words(fold(text)))
        if not found:
            return found
    for text in _remaining(connection, without):
        inside = fold(text)
        found = {word for word in found if word not in inside}
    return found


def _words(text: str) -> Iterator[str]:
    for word in _WORD.findall(text):
        for part in _CJK.split(word):
            if _CJK.match(part):
                yield from (part[at : at + 2] for at in range(len(part) - 1))
            elif len(part) >= _SHORTEST:
                yield part


def _remaining(connection: sqlite3.Connection, without: Iterable[str]) -> Iterator[str]:
    """Every text of the conversations and memory points but `without`."""
    gone = json.dumps(list(without))
    for query in (
        "SELECT text, alternatives FROM turns WHERE conversation_id NOT IN (SELECT value FROM json_each(?))",
        "SELECT title, '[]' FROM conversations WHERE id NOT IN (SELECT value FROM json_each(?))",
        f"SELECT text, '[]' FROM decisions WHERE {EDITS_IN_FORCE} "  # noqa: S608
        "AND conversation_id NOT IN (SELECT value FROM json_each(?))",
        "SELECT content || ' ' || summary, keywords FROM memory_points WHERE id NOT IN (SELECT value FROM json_each(?))",
    ):
        for text, more in connection.execute(query, (gone,)):
            if isinstance(text, str):
                yield text
            if more != "[]":
                with suppress(ValueError, TypeError, RecursionError):
                    yield from (part for part in json.loads(more) if isinstance(part, str))
