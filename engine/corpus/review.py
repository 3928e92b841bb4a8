"""The person's review of the corpus: a list in pages, what stands behind each conversation, verdicts with undo.

Light (sqlite3 and msgspec): the app imports it. A `ReviewStore` may be used from several threads; each call is
one or more transactions of a few milliseconds.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec.structs import replace

from engine.corpus import ledger
from engine.corpus.decisions import (
    VERDICT,
    Edit,
    Mark,
    about_this_text,
    edits,
    rules,
    unread_turns,
    verdicts,
)
from engine.corpus.funnel import funnel
from engine.corpus.query import EDITED, FLAG, ORDERS, Order, parse
from engine.corpus.redaction import redact
from engine.corpus.review_items import (
    Decision,
    ReviewDetail,
    ReviewItem,
    ReviewTurn,
    Why,
    make_decision,
    make_item,
)
from engine.corpus.states import Action, Split, State
from engine.errors import BadInput
from engine.i18n import _
from engine.memory.points import well_formed
from engine.memory.schema import MIGRATIONS, migrate, schema_version
from engine.runs.events import Funnel

__all__ = ["Decision", "Order", "ReviewDetail", "ReviewItem", "ReviewStore", "ReviewTurn", "Why", "funnel"]

VERDICTS = (State.ACCEPTED, State.REJECTED, State.PENDING)


_ITEM = (
    "SELECT k.conversation_id, k.state, k.automatic, k.stage, k.reason, k.first_line, k.language, c.source, k.pairs, "  # noqa: S608
    "c.turns, c.characters, k.quality, k.sort_time, k.twin, k.split, k.cluster, "
    f"COALESCE({FLAG} = 'flagged', 0), {EDITED} "
    "FROM corpus k JOIN conversations c ON c.id = k.conversation_id "
)


class ReviewStore:
    """Reads and decides over `memory.db`. Without a file, or before the first build, everything is empty."""

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        self.path = path
        self.readonly = readonly
        self._lock = threading.RLock()
        self._opened: sqlite3.Connection | None = None

    @property
    def connection(self) -> sqlite3.Connection:
        """Opened on first use, so that a store made before the first import sees it."""
        with self._lock:
            if self._opened is None:
                if not self.path.exists():
                    empty = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
                    migrate(empty)
                    return empty
                self._opened = _open(self.path, self.readonly)
            return self._opened

    def close(self) -> None:
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def __enter__(self) -> ReviewStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def page(
        self, filter: str = "", offset: int = 0, limit: int = 100, order: Order = Order.NEWEST
    ) -> list[ReviewItem]:
        """Lines `offset` to `offset + limit` of the list under `filter` (`query`)."""
        where = parse(filter)
        with self._lock:
            rows = self.connection.execute(
                f"{_ITEM} WHERE {where.sql} ORDER BY {ORDERS[order]} LIMIT ? OFFSET ?",
                (*where.values, limit, offset),
            ).fetchall()
        return [make_item(row) for row in rows]

    def count(self, filter: str = "") -> int:
        """How many conversations stand under `filter`."""
        where = parse(filter)
        joined = "" if where.sql == "1" else "JOIN conversations c ON c.id = k.conversation_id"
        with self._lock:
            row = self.connection.execute(
                f"SELECT COUNT(*) FROM corpus k {joined} WHERE {where.sql}",  # noqa: S608
                where.values,
            ).fetchone()
        return int(row[0])

    def ids(self, filter: str = "", order: Order = Order.NEWEST) -> list[str]:
        """All ids under `filter`, in order: 100,000 of them take some 10 MB."""
        where = parse(filter)
        with self._lock:
            rows = self.connection.execute(
                "SELECT k.conversation_id FROM corpus k JOIN conversations c ON c.id = k.conversation_id "  # noqa: S608
                f"WHERE {where.sql} ORDER BY {ORDERS[order]}",
                where.values,
            ).fetchall()
        return [row[0] for row in rows]

    def funnel(self) -> Funnel:
        """The corpus in figures."""
        with self._lock:
            return funnel(self)

    def test_clusters(self) -> int:
        """Near-duplicate groups among the accepted that are kept back: the unit of a verdict."""
        with self._lock:
            row = self.connection.execute(
                "SELECT COUNT(DISTINCT cluster) FROM corpus WHERE state = ? AND split = ?",
                (State.ACCEPTED, Split.TEST),
            ).fetchone()
        return int(row[0])

    def find(self, prefix: str) -> str:
        """The id that begins with `prefix`. Raises BadInput when none or several do."""
        with self._lock:
            rows = self.connection.execute(
                "SELECT conversation_id FROM corpus WHERE substr(conversation_id, 1, ?) = ? ORDER BY 1 LIMIT 4",
                (len(prefix), prefix),
            ).fetchall()
        if len(rows) == 1 or (rows and rows[0][0] == prefix):
            return str(rows[0][0])
        if not rows or not prefix:
            raise BadInput(
                _("The corpus has no conversation {id}").format(id=prefix), mend="h2q-tui corpus list"
            )
        raise BadInput(
            _("Several conversations begin with {id}: {ids}").format(
                id=prefix, ids=", ".join(row[0] for row in rows)
            ),
            mend="h2q-tui corpus list",
        )

    def item(self, id: str) -> ReviewItem:
        """One line of the list. Raises BadInput when the corpus has no such conversation."""
        with self._lock:
            row = self.connection.execute(f"{_ITEM} WHERE k.conversation_id = ?", (id,)).fetchone()
        if row is None:
            raise BadInput(_("The corpus has no conversation {id}").format(id=id), mend="h2q-tui corpus list")
        return make_item(row)

    def detail(self, id: str) -> ReviewDetail:
        """Turns, reasons, spans and verdicts of one conversation. Raises BadInput."""
        with self._lock:
            item = self.item(id)
            rows = list(ledger.rows_of(self.connection, [id]))
            turns = self.connection.execute(
                "SELECT position, role, text, time FROM turns WHERE conversation_id = ? ORDER BY position",
                (id,),
            ).fetchall()
            title = self.connection.execute("SELECT title FROM conversations WHERE id = ?", (id,)).fetchone()[
                0
            ]
            decisions = self.connection.execute(
                f"{_DECISION} WHERE conversation_id = ? AND undone = 0 ORDER BY seq DESC LIMIT 50", (id,)
            ).fetchall()
            kin = self.connection.execute(
                "SELECT conversation_id FROM corpus WHERE cluster = ? AND conversation_id != ? ORDER BY 1 LIMIT 20",
                (item.cluster, id),
            ).fetchall()
            changes = edits(self.connection, [id]).get(id, {})
            unread = unread_turns(self.connection, id)
        rows = [row for row in rows if about_this_text(row, changes)]
        spans = {row.turn: row.evidence.spans for row in rows if row.action == Action.REDACT}
        masked = {row.turn: row.reason for row in rows if row.action == Action.MASK}
        return ReviewDetail(
            item=item,
            title=title,
            turns=[
                _in_force(
                    ReviewTurn(
                        position=position,
                        role=role,
                        text=text,
                        redacted=text,
                        spans=spans.get(position, []),
                        masked=masked.get(position, ""),
                        time=when,
                        unread=position in unread,
                    ),
                    changes.get(position),
                )
                for position, role, text, when in turns
            ],
            why=[
                Why(
                    stage=row.stage,
                    action=row.action,
                    reason=row.reason,
                    turn=row.turn,
                    spans=row.evidence.spans,
                    similarity=row.evidence.similarity,
                    score=row.evidence.score,
                    twin=row.twin,
                )
                for row in rows
            ],
            decisions=[make_decision(row) for row in decisions],
            kin=[row[0] for row in kin],
        )

    def decide(self, id: str, verdict: str, reason: str = "", *, now: float | None = None) -> Decision:
        """Records one verdict ("accepted", "rejected", "pending"); it holds over what the filters say.

        Accepting a dropped conversation restores it. Durable when this returns. Raises BadInput for an id
        that is not there or another verdict, `sqlite3.OperationalError` when the database cannot be written.
        """
        _check_verdict(verdict)
        return self._decide([self.item(id).id], verdict, reason, batch=0, now=now)[0]

    def decide_all(self, filter: str, verdict: str, reason: str = "", *, now: float | None = None) -> int:
        """One verdict for everything under `filter`, undone in one step; returns how many."""
        return len(self.decide_many(self.ids(filter), verdict, reason, now=now))

    def decide_many(
        self, ids: Sequence[str], verdict: str, reason: str = "", *, now: float | None = None
    ) -> list[Decision]:
        """One verdict for several conversations, undone in one step."""
        _check_verdict(verdict)
        with self._lock:
            last = self.connection.execute("SELECT COALESCE(MAX(seq), 0) FROM decisions").fetchone()[0]
            return self._decide(ids, verdict, reason, batch=last + 1, now=now)

    def edit(self, id: str, turn: int, text: str, *, now: float | None = None) -> list[Decision]:
        """Lets `text` stand for a turn (by position, from 0) in review, dataset and validation; the turn in
        memory stays as it came. [] when that is its text already. Raises BadInput like `decide`, for a turn that
        is not there, and for an empty text.
        """
        with self._lock:
            found = next((one for one in self.detail(id).turns if one.position == turn), None)
            if found is None:
                raise BadInput(
                    _("{id} has no turn {n}").format(id=id[:12], n=turn + 1),
                    mend=f"h2q-tui corpus show {id[:12]}",
                )
            text = well_formed(text)
            if not text.strip():
                raise BadInput(
                    _("a turn cannot be edited to nothing"), mend=f"h2q-tui corpus reject {id[:12]}"
                )
            if text == found.text:
                return []
            return self._decide([id], Mark.EDITED, "", batch=0, now=now, turn=turn, text=text)

    def flag(self, ids: Sequence[str], on: bool = True, *, now: float | None = None) -> list[Decision]:
        """Marks conversations for later, or takes the mark off; nothing else changes."""
        verdict = Mark.FLAGGED if on else Mark.UNFLAGGED
        with self._lock:
            wanted = [id_ for id_ in ids if self.item(id_).flagged != on]
            last = self.connection.execute("SELECT COALESCE(MAX(seq), 0) FROM decisions").fetchone()[0]
            return self._decide(wanted, verdict, "", batch=last + 1, now=now)

    def rules(self) -> list[str]:
        """Filter lines whose conversations every build leaves out."""
        with self._lock:
            return rules(self.connection)

    def set_rule(self, line: str, on: bool = True, *, now: float | None = None) -> list[Decision]:
        """Leaves everything under a filter line out, now and in every build to come; what the person accepted
        stays. One undo takes back the rule and what it rejected. Without `on` a rule ends: the next build lets
        in what it left out. [] when the rules are so already. Raises BadInput for an empty line.
        """
        line = line.strip()
        if not line:
            raise BadInput(_("a rule needs a filter"), mend="h2q-tui corpus rule --help")
        with self._lock:
            if (line in self.rules()) == on:
                return []
            last = self.connection.execute("SELECT COALESCE(MAX(seq), 0) FROM decisions").fetchone()[0]
            when = time.time() if now is None else now
            row = self.connection.execute(
                f"INSERT INTO decisions (conversation_id, verdict, previous, time, batch, text) "  # noqa: S608
                f"VALUES ('', ?, '', ?, ?, ?) RETURNING {_COLUMNS}",
                (Mark.RULE if on else Mark.NO_RULE, when, last + 1, line),
            ).fetchone()
            made = [make_decision(row)]
            if on:
                accepted = {
                    id_ for id_, verdict in verdicts(self.connection).items() if verdict == "accepted"
                }
                ids = [
                    id_ for id_ in self.ids(f"{line} -state:rejected -state:dropped") if id_ not in accepted
                ]
                made += self._decide(ids, State.REJECTED, "rule", batch=last + 1, now=now)
        return made

    def undo(self) -> list[Decision]:
        """Takes the last decision (or all of its batch) back; returns them, [] when nothing is left to undo."""
        with self._lock:
            newest = self.connection.execute(
                f"{_DECISION} WHERE undone = 0 ORDER BY seq DESC LIMIT 1"
            ).fetchone()
            return self._turn(newest, undone=1)

    def redo(self) -> list[Decision]:
        """Gives back what was undone last, unless a new verdict came since; [] when there is nothing."""
        with self._lock:
            oldest = self.connection.execute(
                f"{_DECISION} WHERE undone = 1 AND seq > (SELECT COALESCE(MAX(seq), 0) FROM decisions WHERE undone = 0) "  # noqa: S608
                "ORDER BY seq LIMIT 1"
            ).fetchone()
            return self._turn(oldest, undone=0)

    def undoable(self) -> int:
        """Verdicts in force."""
        with self._lock:
            return int(
                self.connection.execute("SELECT COUNT(*) FROM decisions WHERE undone = 0").fetchone()[0]
            )

    def _decide(
        self,
        ids: Sequence[str],
        verdict: str,
        reason: str,
        *,
        batch: int,
        now: float | None,
        turn: int = -1,
        text: str = "",
    ) -> list[Decision]:
        made: list[Decision] = []
        when = time.time() if now is None else now

        def write(id_: str) -> None:
            row = self.connection.execute(
                "INSERT INTO decisions (conversation_id, verdict, previous, reason, time, batch, turn, text) "  # noqa: S608
                "SELECT conversation_id, ?, state, ?, ?, ?, ?, ? FROM corpus WHERE conversation_id = ? "
                f"RETURNING {_COLUMNS}",
                (verdict, reason, when, batch, turn, text, id_),
            ).fetchone()
            if row is None:
                return
            if verdict in VERDICTS:
                self.connection.execute(
                    "UPDATE corpus SET state = ? WHERE conversation_id = ?", (verdict, id_)
                )
            made.append(make_decision(row))

        with self._lock:
            ledger.in_short_writes(self.connection, ids, write)
        return made

    def _turn(self, row: tuple[object, ...] | None, *, undone: int) -> list[Decision]:
        """Marks a verdict and its batch as undone or not, newest first when undoing."""
        if row is None:
            return []
        first = make_decision(row)
        rows: Iterable[tuple[object, ...]] = [row]
        if first.batch:
            rows = self.connection.execute(
                f"{_DECISION} WHERE batch = ? AND undone != ? ORDER BY seq {'DESC' if undone else 'ASC'}",
                (first.batch, undone),
            ).fetchall()
        decisions = [make_decision(row) for row in rows]

        def write(decision: Decision) -> None:
            self.connection.execute("UPDATE decisions SET undone = ? WHERE seq = ?", (undone, decision.seq))
            self.connection.execute(
                "UPDATE corpus SET state = COALESCE((SELECT verdict FROM decisions WHERE conversation_id = ? "  # noqa: S608
                f"AND undone = 0 AND {VERDICT} ORDER BY seq DESC LIMIT 1), automatic) WHERE conversation_id = ?",
                (decision.id, decision.id),
            )

        ledger.in_short_writes(self.connection, decisions, write)
        return decisions


_COLUMNS = "seq, conversation_id, verdict, previous, reason, time, batch, turn, text"
_DECISION = f"SELECT {_COLUMNS} FROM decisions"  # noqa: S608


def _check_verdict(verdict: str) -> None:
    if verdict not in VERDICTS:
        raise BadInput(
            _("{verdict} is no verdict: accepted, rejected or pending").format(verdict=verdict),
            mend="h2q-tui corpus --help",
        )


def _in_force(turn: ReviewTurn, change: Edit | None) -> ReviewTurn:
    """A turn of memory as the person wants it, redacted."""
    if change is not None:
        turn = replace(turn, text=change.text, original=turn.text)
    return replace(turn, redacted=redact(turn.text, turn.spans))


def _open(path: Path, readonly: bool) -> sqlite3.Connection:
    mode = "ro" if readonly else "rw"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        timeout=10,
        check_same_thread=False,
    )
    if not readonly:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        migrate(connection)
    elif schema_version(connection) != len(MIGRATIONS):
        connection.close()
        _open(path, readonly=False).close()
        return _open(path, readonly=True)
    return connection
