"""The person's review of the corpus: a list in pages, what stands behind each conversation, verdicts with undo.

Light (sqlite3 and msgspec): the app imports it. A `ReviewStore` may be used from several threads; each call is
one or more transactions of a few milliseconds. The parts: `query` (the filter line), `detail` (one conversation),
`deciding` (what is written), `history` (undo and redo), `opening` (the file).
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
from engine.corpus.enums import Action, Split, Stage, State
from engine.corpus.funnel import funnel
from engine.corpus.ledger import Evidence
from engine.corpus.review import deciding, history
from engine.corpus.review.database import Unusable, connect, in_words
from engine.corpus.review.decision_log import rules, verdicts
from engine.corpus.review.detail import detail
from engine.corpus.review.filter_query import EDITED, FLAG, ORDERS, Order, parse, refuse_mistakes
from engine.corpus.review.types import (
    Decision,
    ReviewDetail,
    ReviewItem,
    ReviewTurn,
    Why,
    make_item,
)
from engine.corpus.title import as_edited
from engine.memory.records import Conversation
from engine.memory.schema import migrate
from engine.runs.events import Funnel

__all__ = ["Decision", "Order", "ReviewDetail", "ReviewItem", "ReviewStore", "ReviewTurn", "Why", "funnel"]

_ITEM = (
    "SELECT k.conversation_id, k.state, k.automatic, k.stage, k.reason, k.first_line, k.language, c.source, k.pairs, "  # noqa: S608
    "c.turns, c.characters, k.quality, k.sort_time, k.twin, k.split, k.cluster, "
    f"COALESCE({FLAG} = 'flagged', 0), {EDITED} "
    "FROM corpus k JOIN conversations c ON c.id = k.conversation_id "
)


class ReviewStore:
    """Reads and decides over `memory.db`. Without a file, or before the first build, everything is empty.

    Every call raises `opening.Unusable` for a file that is damaged, no memory, or a newer program's, and
    `sqlite3.OperationalError` for what passes by itself: a lock, a full disk.
    """

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        self.path = path
        self.readonly = readonly
        self._lock = threading.RLock()
        self._opened: sqlite3.Connection | None = None
        self._empty: sqlite3.Connection | None = None

    @property
    def connection(self) -> sqlite3.Connection:
        """Opened on first use, so that a store made before the first import sees it."""
        with self._lock:
            if self._opened is None:
                if not self.path.exists():
                    return self._nothing()
                self._opened = connect(self.path, readonly=self.readonly)
            return self._opened

    def _nothing(self) -> sqlite3.Connection:
        """What a memory that is not there holds."""
        if self._empty is None:
            self._empty = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            migrate(self._empty)
        return self._empty

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The connection for one call. After a failure the next one opens the file anew: a backup may have taken
        its place."""
        with self._lock:
            try:
                with in_words(self.path):
                    yield self.connection
            except (Unusable, sqlite3.Error):
                self.close()
                raise

    def close(self) -> None:
        with self._lock:
            for connection in (self._opened, self._empty):
                if connection is not None:
                    connection.close()
            self._opened = self._empty = None

    def interrupt(self) -> None:
        """Ends a query that runs in another thread; it raises `sqlite3.OperationalError` there."""
        opened = self._opened
        if opened is not None:
            opened.interrupt()

    def __enter__(self) -> ReviewStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Reading

    def page(
        self, filter: str = "", offset: int = 0, limit: int = 100, order: Order = Order.NEWEST
    ) -> list[ReviewItem]:
        """Lines `offset` to `offset + limit` of the list under `filter` (`query`)."""
        where = parse(filter)
        with self._open() as connection:
            rows = connection.execute(
                f"{_ITEM} WHERE {where.sql} ORDER BY {ORDERS[order]} LIMIT ? OFFSET ?",
                (*where.values, limit, offset),
            ).fetchall()
            return as_edited(connection, [make_item(row) for row in rows])

    def count(self, filter: str = "") -> int:
        """How many conversations stand under `filter`."""
        where = parse(filter)
        joined = "" if where.sql == "1" else "JOIN conversations c ON c.id = k.conversation_id"
        with self._open() as connection:
            row = connection.execute(
                f"SELECT COUNT(*) FROM corpus k {joined} WHERE {where.sql}",  # noqa: S608
                where.values,
            ).fetchone()
        return int(row[0])

    def ids(self, filter: str = "", order: Order = Order.NEWEST) -> list[str]:
        """All ids under `filter`, in order: 100,000 of them take some 10 MB."""
        where = parse(filter)
        with self._open() as connection:
            rows = connection.execute(
                "SELECT k.conversation_id FROM corpus k JOIN conversations c ON c.id = k.conversation_id "  # noqa: S608
                f"WHERE {where.sql} ORDER BY {ORDERS[order]}",
                where.values,
            ).fetchall()
        return [row[0] for row in rows]

    def funnel(self) -> Funnel:
        """The corpus in figures."""
        with self._open():
            return funnel(self)

    def test_clusters(self) -> int:
        """Near-duplicate groups among the accepted that are kept back: the unit of a verdict."""
        with self._open() as connection:
            row = connection.execute(
                "SELECT COUNT(DISTINCT cluster) FROM corpus WHERE state = ? AND split = ?",
                (State.ACCEPTED, Split.TEST),
            ).fetchone()
        return int(row[0])

    def private_types(self) -> dict[str, int]:
        """Types of private data that the last build replaced, with how often, the most frequent first."""
        found: Counter[str] = Counter()
        with self._open() as connection:
            for (evidence,) in connection.execute(
                "SELECT evidence FROM ledger WHERE stage = ? AND action = ?", (Stage.SENSITIVE, Action.REDACT)
            ):
                found.update(
                    type_ for type_, _start, _end in msgspec.json.decode(evidence, type=Evidence).spans
                )
        return dict(found.most_common())

    def find(self, prefix: str) -> str:
        """The id that begins with `prefix`. Raises BadInput when none or several do."""
        with self._open() as connection:
            rows = connection.execute(
                "SELECT conversation_id FROM corpus WHERE substr(conversation_id, 1, ?) = ? ORDER BY 1 LIMIT 4",
                (len(prefix), prefix),
            ).fetchall()
        if len(rows) == 1 or (rows and rows[0][0] == prefix):
            return str(rows[0][0])
        if not rows or not prefix:
            raise _missing(prefix)
        raise BadInput(
            _("Several conversations begin with {id}: {ids}").format(
                id=prefix, ids=", ".join(row[0] for row in rows)
            ),
            hint="h2q-tui corpus list",
        )

    def item(self, id: str) -> ReviewItem:
        """One line of the list. Raises BadInput when the corpus has no such conversation."""
        found = self.items([id])
        if not found:
            raise _missing(id)
        return found[0]

    def items(self, ids: Sequence[str]) -> list[ReviewItem]:
        """Lines of the list, in the order of `ids`; those that the corpus does not have are left out."""
        with self._open() as connection:
            rows = connection.execute(
                f"{_ITEM} WHERE k.conversation_id IN (SELECT value FROM json_each(?))",  # noqa: S608
                (msgspec.json.encode(list(ids)).decode(),),
            ).fetchall()
            found = {item.id: item for item in as_edited(connection, [make_item(row) for row in rows])}
        return [found[id_] for id_ in ids if id_ in found]

    def detail(self, id: str) -> ReviewDetail:
        """Turns, reasons, spans and verdicts of one conversation. Raises BadInput."""
        with self._open() as connection:
            return detail(connection, self.item(id))

    def as_trained(self, conversation: Conversation) -> Conversation:
        """A conversation of memory with the person's edits and without private data; as it is when the corpus
        does not have it."""
        with self._open() as connection:
            item = next(iter(self.items([conversation.id])), None)
            shown = detail(connection, item).turns if item is not None else []
        texts = {turn.position: turn.redacted for turn in shown}
        return replace(
            conversation,
            turns=tuple(
                replace(turn, text=texts.get(place, turn.text))
                for place, turn in enumerate(conversation.turns)
            ),
        )

    def rules(self) -> list[str]:
        """Filter lines whose conversations every build leaves out."""
        with self._open() as connection:
            return rules(connection)

    # Deciding

    def decide(self, id: str, verdict: str, reason: str = "", *, now: float | None = None) -> Decision:
        """Records one verdict ("accepted", "rejected", "pending"); it holds over what the filters say.

        Accepting a dropped conversation restores it. Durable when this returns. Raises BadInput for an id
        that is not there or another verdict.
        """
        with self._open() as connection:
            made = deciding.decide(connection, [id], verdict, reason, now=now)
        if not made:
            raise _missing(id)
        return made[0]

    def decide_all(self, filter: str, verdict: str, reason: str = "", *, now: float | None = None) -> int:
        """One verdict for everything under `filter`, undone in one step; returns how many."""
        return len(self.decide_many(self.ids(filter), verdict, reason, now=now))

    def decide_many(
        self, ids: Sequence[str], verdict: str, reason: str = "", *, now: float | None = None
    ) -> list[Decision]:
        """One verdict for several conversations, undone in one step."""
        with self._open() as connection:
            return deciding.decide(connection, ids, verdict, reason, together=True, now=now)

    def edit(self, id: str, turn: int, text: str, *, now: float | None = None) -> list[Decision]:
        """Lets `text` stand for a turn (by position, from 0) in review, dataset and validation; the turn in
        memory stays as it came. [] when that is its text already. Raises BadInput like `decide`, for a turn that
        is not there, and for an empty text.
        """
        with self._open() as connection:
            found = next((one for one in self.detail(id).turns if one.position == turn), None)
            if found is None:
                raise BadInput(
                    _("{id} has no turn {n}").format(id=id[:12], n=turn + 1),
                    hint=f"h2q-tui corpus show {id[:12]}",
                )
            return [] if text == found.text else deciding.edit(connection, id, turn, text, now=now)

    def flag(self, ids: Sequence[str], on: bool = True, *, now: float | None = None) -> list[Decision]:
        """Marks conversations for later, or takes the mark off; nothing else changes."""
        with self._open() as connection:
            wanted = [item.id for item in self.items(ids) if item.flagged != on]
            return deciding.flag(connection, wanted, on, now=now)

    def set_rule(self, line: str, on: bool = True, *, now: float | None = None) -> list[Decision]:
        """Leaves everything under a filter line out, now and in every build to come; what the person accepted
        stays. One undo takes back the rule and what it rejected. Without `on` a rule ends: the next build lets
        in what it left out. [] when the rules are so already. Raises BadInput for an empty line, UsageProblem
        for one with mistakes.
        """
        line = line.strip()
        if on:
            refuse_mistakes(line)
        with self._open() as connection:
            if line and (line in self.rules()) == on:
                return []
            under = self.ids(f"{line} -state:rejected -state:dropped") if on and line else []
            given = verdicts(connection)
            rejected = [id_ for id_ in under if given.get(id_) != State.ACCEPTED]
            return deciding.set_rule(connection, line, on, rejected, now=now)

    def undo(self) -> list[Decision]:
        """Takes the last decision (or all of its batch) back; returns them, [] when nothing is left to undo."""
        with self._open() as connection:
            return history.undo(connection)

    def redo(self) -> list[Decision]:
        """Gives back what was undone last, unless a new verdict came since; [] when there is nothing."""
        with self._open() as connection:
            return history.redo(connection)

    def undoable(self) -> int:
        """Verdicts in force."""
        with self._open() as connection:
            return history.in_force(connection)


def _missing(id_: str) -> BadInput:
    return BadInput(_("The corpus has no conversation {id}").format(id=id_), hint="h2q-tui corpus list")
