"""The user's review of the corpus: a list in pages, the details of a conversation, decisions with undo.

Light (sqlite3 and msgspec): the app imports it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec.structs import replace

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.corpus.enums import CorpusStage, DataSplit, LedgerAction, ReviewState
from engine.corpus.ledger import Evidence
from engine.corpus.review import decision_log
from engine.corpus.review.database import UnusableDatabase, connect, translate_damage
from engine.corpus.review.detail import read_detail, with_current_titles
from engine.corpus.review.filter_counts import FilterCounts, count_values
from engine.corpus.review.filter_query import (
    EDITED_SQL,
    FLAG_SQL,
    ORDER_SQL,
    REVIEWED_SQL,
    ListOrder,
    check_filter,
    parse_filter,
)
from engine.corpus.review.types import ReviewDecision, ReviewDetail, ReviewItem, make_item
from engine.corpus.stats import corpus_funnel
from engine.memory.records import Conversation
from engine.memory.schema import migrate
from engine.runs.events import Funnel

_ITEM = (
    "SELECT k.conversation_id, k.state, k.automatic, k.stage, k.reason, k.first_line, k.language, c.source, k.pairs, "  # noqa: S608
    "c.turns, c.characters, k.quality, k.sort_time, k.twin, k.split, k.cluster, "
    f"COALESCE({FLAG_SQL} = 'flagged', 0), {EDITED_SQL}, {REVIEWED_SQL} "
    "FROM corpus k JOIN conversations c ON c.id = k.conversation_id "
)


class ReviewStore:
    """Reads `memory.db` and writes decisions. Without a file, or before the first build, everything is empty.

    Safe for several threads; each call is one or more transactions of a few milliseconds. Every call raises
    `database.UnusableDatabase` for a file that is damaged, not a memory, or of a newer version, and
    `sqlite3.OperationalError` for temporary failures (a lock, a full disk).
    """

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        self.path = path
        self.readonly = readonly
        self._lock = threading.RLock()
        self._opened: sqlite3.Connection | None = None
        self._empty: sqlite3.Connection | None = None

    @property
    def connection(self) -> sqlite3.Connection:
        """Opened on first use, so that a store created before the first import sees it."""
        with self._lock:
            if self._opened is None:
                if not self.path.exists():
                    return self._empty_database()
                self._opened = connect(self.path, readonly=self.readonly)
            return self._opened

    def _empty_database(self) -> sqlite3.Connection:
        """Stands in for a missing file."""
        if self._empty is None:
            self._empty = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            migrate(self._empty)
        return self._empty

    @contextmanager
    def _locked(self) -> Iterator[sqlite3.Connection]:
        """The connection for one call. After a failure the next call reopens the file: a backup may have replaced
        it."""
        with self._lock:
            try:
                with translate_damage(self.path):
                    yield self.connection
            except (UnusableDatabase, sqlite3.Error):
                self.close()
                raise

    def close(self) -> None:
        """Closes the connection; the next call reopens it."""
        with self._lock:
            for connection in (self._opened, self._empty):
                if connection is not None:
                    connection.close()
            self._opened = self._empty = None

    def interrupt(self) -> None:
        """Aborts a query that runs in another thread; it raises `sqlite3.OperationalError` there."""
        opened = self._opened
        if opened is not None:
            opened.interrupt()

    def __enter__(self) -> ReviewStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Reading

    def page(
        self, filter: str = "", offset: int = 0, limit: int = 100, order: ListOrder = ListOrder.NEWEST
    ) -> list[ReviewItem]:
        """Lines `offset` to `offset + limit` of the list under a filter line."""
        where = parse_filter(filter)
        with self._locked() as connection:
            rows = connection.execute(
                f"{_ITEM} WHERE {where.sql} ORDER BY {ORDER_SQL[order]} LIMIT ? OFFSET ?",
                (*where.values, limit, offset),
            ).fetchall()
            return with_current_titles(connection, [make_item(row) for row in rows])

    def count(self, filter: str = "") -> int:
        """The number of conversations under a filter line."""
        where = parse_filter(filter)
        joined = "" if where.sql == "1" else "JOIN conversations c ON c.id = k.conversation_id"
        with self._locked() as connection:
            row = connection.execute(
                f"SELECT COUNT(*) FROM corpus k {joined} WHERE {where.sql}",  # noqa: S608
                where.values,
            ).fetchone()
        return int(row[0])

    def ids(self, filter: str = "", order: ListOrder = ListOrder.NEWEST) -> list[str]:
        """All ids under a filter line, in order: 100,000 of them take some 10 MB."""
        where = parse_filter(filter)
        with self._locked() as connection:
            rows = connection.execute(
                "SELECT k.conversation_id FROM corpus k JOIN conversations c ON c.id = k.conversation_id "  # noqa: S608
                f"WHERE {where.sql} ORDER BY {ORDER_SQL[order]}",
                where.values,
            ).fetchall()
        return [row[0] for row in rows]

    def reviewed(self) -> set[str]:
        """The conversations of the corpus that the user accepted or rejected."""
        with self._locked() as connection:
            rows = connection.execute(
                "SELECT k.conversation_id FROM corpus k WHERE k.conversation_id IN "  # noqa: S608
                f"(SELECT conversation_id FROM decisions WHERE undone = 0) AND {REVIEWED_SQL}"
            )
            return {id_ for (id_,) in rows}

    def filter_counts(self, line: str = "") -> FilterCounts:
        """How many conversations under a filter line have each value of each field."""
        with self._locked() as connection:
            return count_values(connection, line)

    def version(self) -> tuple[int, int]:
        """Differs from an earlier answer when another connection has written since, or the file was opened again."""
        with self._locked() as connection:
            return id(connection), int(connection.execute("PRAGMA data_version").fetchone()[0])

    def funnel(self) -> Funnel:
        """The corpus in figures."""
        with self._locked():
            return corpus_funnel(self)

    def test_clusters(self) -> int:
        """The number of clusters in the test set: the unit of a verdict."""
        with self._locked() as connection:
            row = connection.execute(
                "SELECT COUNT(DISTINCT cluster) FROM corpus WHERE state = ? AND split = ?",
                (ReviewState.ACCEPTED, DataSplit.TEST),
            ).fetchone()
        return int(row[0])

    def pii_counts(self) -> dict[str, int]:
        """How often the last build redacted each PII type, the most frequent first."""
        found: Counter[str] = Counter()
        with self._locked() as connection:
            for (evidence,) in connection.execute(
                "SELECT evidence FROM ledger WHERE stage = ? AND action = ?",
                (CorpusStage.SENSITIVE, LedgerAction.REDACT),
            ):
                found.update(
                    type_ for type_, _start, _end in msgspec.json.decode(evidence, type=Evidence).spans
                )
        return dict(found.most_common())

    def find(self, prefix: str) -> str:
        """The id that begins with `prefix`. Raises BadInput when none or several do."""
        with self._locked() as connection:
            rows = connection.execute(
                "SELECT conversation_id FROM corpus WHERE substr(conversation_id, 1, ?) = ? ORDER BY 1 LIMIT 4",
                (len(prefix), prefix),
            ).fetchall()
        if len(rows) == 1 or (rows and rows[0][0] == prefix):
            return str(rows[0][0])
        if not rows or not prefix:
            raise _no_such_conversation(prefix)
        raise BadInput(
            _("several conversations begin with {id}: {ids}").format(
                id=prefix, ids=_(", ").join(row[0] for row in rows)
            ),
            hint="h2q-tui corpus list",
        )

    def item(self, id: str) -> ReviewItem:
        """One line of the list. Raises BadInput when the corpus has no such conversation."""
        found = self.items([id])
        if not found:
            raise _no_such_conversation(id)
        return found[0]

    def items(self, ids: Sequence[str]) -> list[ReviewItem]:
        """Lines of the list, in the order of `ids`; unknown ids are skipped."""
        with self._locked() as connection:
            rows = connection.execute(
                f"{_ITEM} WHERE k.conversation_id IN (SELECT value FROM json_each(?))",  # noqa: S608
                (msgspec.json.encode(list(ids)).decode(),),
            ).fetchall()
            found = {
                item.id: item for item in with_current_titles(connection, [make_item(row) for row in rows])
            }
        return [found[id_] for id_ in ids if id_ in found]

    def detail(self, id: str) -> ReviewDetail:
        """Turns, filter results and decisions of one conversation. Raises BadInput."""
        with self._locked() as connection:
            return read_detail(connection, self.item(id))

    def as_trained(self, conversation: Conversation) -> Conversation:
        """A conversation of memory with edits applied and PII redacted; unchanged when it is not in the corpus."""
        with self._locked() as connection:
            item = next(iter(self.items([conversation.id])), None)
            turns = read_detail(connection, item).turns if item is not None else []
        texts = {turn.position: turn.redacted for turn in turns}
        return replace(
            conversation,
            turns=tuple(
                replace(turn, text=texts.get(position, turn.text))
                for position, turn in enumerate(conversation.turns)
            ),
        )

    def rules(self) -> list[str]:
        """Filter lines whose matches every build drops."""
        with self._locked() as connection:
            return decision_log.active_rules(connection)

    # Deciding

    def decide(self, id: str, state: str, reason: str = "", *, now: float | None = None) -> ReviewDecision:
        """Sets the state ("accepted", "rejected", "pending"); it overrides the filters.

        Accepting a dropped conversation restores it. Durable on return. Raises BadInput for an unknown id or another
        state.
        """
        with self._locked() as connection:
            decisions = decision_log.decide(connection, [id], state, reason, now=now)
        if not decisions:
            raise _no_such_conversation(id)
        return decisions[0]

    def decide_all(self, filter: str, state: str, reason: str = "", *, now: float | None = None) -> int:
        """Sets the state of all matches of a filter line as one undo step; returns how many."""
        return len(self.decide_many(self.ids(filter), state, reason, now=now))

    def decide_many(
        self, ids: Sequence[str], state: str, reason: str = "", *, now: float | None = None
    ) -> list[ReviewDecision]:
        """Sets the state of several conversations as one undo step."""
        with self._locked() as connection:
            return decision_log.decide(connection, ids, state, reason, together=True, now=now)

    def edit(self, id: str, turn: int, text: str, *, now: float | None = None) -> list[ReviewDecision]:
        """Replaces the text of a turn (by position, from 0) in review, dataset and validation; memory keeps the
        imported text. [] when the text is unchanged. Raises BadInput for an unknown id or turn and an empty text.
        """
        with self._locked() as connection:
            found = next((one for one in self.detail(id).turns if one.position == turn), None)
            if found is None:
                raise BadInput(
                    _("{id} has no turn {n}").format(id=id[:12], n=turn + 1),
                    hint=f"h2q-tui corpus show {id[:12]}",
                )
            return [] if text == found.text else decision_log.edit(connection, id, turn, text, now=now)

    def flag(self, ids: Sequence[str], on: bool = True, *, now: float | None = None) -> list[ReviewDecision]:
        """Flags conversations for later, or removes the flags; nothing else changes."""
        with self._locked() as connection:
            changing = [item.id for item in self.items(ids) if item.flagged != on]
            return decision_log.flag(connection, changing, on, now=now)

    def set_rule(self, line: str, on: bool = True, *, now: float | None = None) -> list[ReviewDecision]:
        """Rejects the matches of a filter line, now and in every build; what the user accepted stays.

        Rule and rejections are one undo step. Without `on` a rule ends: the next build restores what it dropped.
        [] when nothing changes. Raises BadInput for an empty line, UsageProblem for one with mistakes.
        """
        line = line.strip()
        if on:
            check_filter(line)
        with self._locked() as connection:
            if line and (line in self.rules()) == on:
                return []
            matches = self.ids(f"{line} -state:rejected -state:dropped") if on and line else []
            decided = decision_log.decided_states(connection)
            rejected = [id_ for id_ in matches if decided.get(id_) != ReviewState.ACCEPTED]
            return decision_log.set_rule(connection, line, on, rejected, now=now)

    def undo(self) -> list[ReviewDecision]:
        """Undoes the last decision with its batch; returns them, [] when there is nothing to undo."""
        with self._locked() as connection:
            return decision_log.undo(connection)

    def redo(self) -> list[ReviewDecision]:
        """Restores what was undone last, unless a new decision came since; [] when there is nothing."""
        with self._locked() as connection:
            return decision_log.redo(connection)

    def undoable(self) -> int:
        """The number of decisions that can be undone."""
        with self._locked() as connection:
            return decision_log.count_in_force(connection)


def _no_such_conversation(id_: str) -> BadInput:
    return BadInput(_("the corpus has no conversation {id}").format(id=id_), hint="h2q-tui corpus list")
