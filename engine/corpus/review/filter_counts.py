"""How often the values of each field of a filter line occur, for its completion. Light: the app imports it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

from engine.corpus.enums import DUPLICATE_STAGES, PII_LABELS, REASON_LABELS, REJECTION_LABELS
from engine.corpus.review.filter_query import REVIEW_SQL, parse_filter

FilterCounts = Mapping[str, Mapping[str, int]]
"""Conversations by field and value; values that no conversation has are left out."""

_COLUMNS = {"state": "k.state", "lang": "k.language", "source": "c.source", "split": "k.split"}
_STAGES = "SELECT conversation_id, stage FROM ledger UNION SELECT conversation_id, stage FROM corpus WHERE stage != ''"
_REASONS = (
    "SELECT conversation_id, reason FROM ledger UNION SELECT conversation_id, reason FROM corpus "
    "UNION SELECT conversation_id, reason FROM decisions WHERE undone = 0 "
    "AND verdict IN ('accepted', 'rejected', 'pending') AND seq IN (SELECT MAX(seq) FROM decisions WHERE undone = 0 "
    "AND verdict IN ('accepted', 'rejected', 'pending') GROUP BY conversation_id)"
)


def count_values(connection: sqlite3.Connection, line: str) -> FilterCounts:
    """The conversations under the filter line `line` that `field:value` would leave, for each value that occurs."""
    where = parse_filter(line)
    matches = f"FROM corpus k JOIN conversations c ON c.id = k.conversation_id WHERE {where.sql}"

    def number(condition: str) -> int:
        row = connection.execute(f"SELECT COUNT(*) {matches} AND ({condition})", where.values).fetchone()
        return int(row[0])

    def by(pairs: str) -> dict[str, set[str]]:
        """The conversations with each value, from a query of (conversation_id, value)."""
        found: dict[str, set[str]] = {}
        for id_, value in connection.execute(
            f"SELECT p.* FROM ({pairs}) p WHERE p.conversation_id IN (SELECT k.conversation_id {matches})",  # noqa: S608
            where.values,
        ):
            found.setdefault(value, set()).add(id_)
        return found

    counts: dict[str, dict[str, int]] = {}
    for field, column in _COLUMNS.items():
        rows = connection.execute(
            f"SELECT {column}, COUNT(*) {matches} GROUP BY 1 ORDER BY 2 DESC", where.values
        )
        counts[field] = {value: count for value, count in rows if value}
    review = {word: number(condition) for word, condition in REVIEW_SQL.items()}
    counts["state"] |= {word: count for word, count in review.items() if count}
    counts["flag"], counts["edited"] = {"": review["flagged"]}, {"": review["edited"]}
    stages = by(_STAGES)
    duplicates = set().union(*(stages.get(stage, set()) for stage in DUPLICATE_STAGES))
    counts["stage"] = _sizes(stages | ({"duplicates": duplicates} if duplicates else {}))
    reasons = by(_REASONS)
    known = {*REASON_LABELS, *PII_LABELS, *REJECTION_LABELS}
    own = {reason for reason in reasons if reason and not set(reason.split(", ")) <= known}
    # As the filter finds them: a reason that contains the word.
    counts["reason"] = _sizes({code: _containing(reasons, code) for code in known | own})
    return counts


def _containing(reasons: Mapping[str, set[str]], word: str) -> set[str]:
    return set().union(*(ids for reason, ids in reasons.items() if word.lower() in reason.lower()))


def _sizes(found: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """Their number, most first."""
    sizes = {value: len(set(ids)) for value, ids in found.items()}
    return {
        value: sizes[value] for value in sorted(sizes, key=lambda v: (-sizes[v], v)) if value and sizes[value]
    }
