"""Test windows: the newest clusters are kept out of training, frozen before it, and retire when newer ones wait.

The unit is the cluster of near duplicates, so that nothing like a test conversation is trained on. What is
"trained" comes from the lineage of the model in use, never from dates (DESIGN 6).
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.corpus import ledger
from engine.corpus.candidates import Cluster, read_clusters, with_superseded
from engine.corpus.contamination import Overlap, assert_no_overlap, refuse_trained
from engine.corpus.enums import Action, Split, Stage
from engine.corpus.ledger import Database, LedgerRow
from engine.corpus.windows import ENOUGH_CONVERSATIONS, LEAST_CLUSTERS, NO_WINDOW, SplitPlan, Window
from engine.memory.deletion import hash_test_window
from engine.memory.transactions import write_in_chunks

__all__ = [
    "ENOUGH_CONVERSATIONS",
    "LEAST_CLUSTERS",
    "Overlap",
    "SplitPlan",
    "Window",
    "assert_no_overlap",
    "assign",
    "count_look",
    "current_window",
    "open_window",
    "plan_split",
    "refuse_trained",
]

SHARE = 0.15
"""Share of what is not yet trained on that makes a window, when that is more."""


def current_window(store: Database) -> Window | None:
    """The open window, None before the first."""
    row = store.connection.execute(
        "SELECT id, opened_at, looks, ids_hash FROM test_windows WHERE retired_at IS NULL ORDER BY id DESC LIMIT 1"
    ).fetchone()
    if row is None:
        return None
    members = store.connection.execute(
        "SELECT w.conversation_id, w.cluster, COALESCE(c.started_at, c.updated_at) FROM window_members w "
        "LEFT JOIN conversations c ON c.id = w.conversation_id WHERE w.window_id = ? ORDER BY w.conversation_id",
        (row[0],),
    ).fetchall()
    dated = row[3].startswith("time:")
    times = [time for _id, _cluster, time in members if time is not None]
    return Window(
        id=row[0],
        conversations=[id_ for id_, _cluster, _time in members],
        clusters=sorted({cluster for _id, cluster, _time in members}),
        dated=dated,
        border=min(times) if dated and times else None,
        ids_hash=row[3],
        opened_at=row[1],
        looks=row[2],
    )


def open_window(store: Database, now: float, *, trained: frozenset[str] = frozenset()) -> Window:
    """The window to judge on: the open one, the next when enough clusters wait, or the first.

    Writes the split of every accepted conversation. `trained` are the ids in the lineage of the model in use.
    Raises BadInput when the ids of the open window are not those that were frozen.
    """
    plan = plan_split(store, trained)
    if plan.window is not None:
        _check_frozen(plan.window)
        if plan.waiting_clusters >= LEAST_CLUSTERS or _too_small(store, plan, trained):
            _retire(store, plan.window, now)
            plan = plan_split(store, trained)
    if plan.window is None and plan.test:
        _freeze(store, plan, now)
    assign(store, trained)
    return current_window(store) or Window(id=NO_WINDOW, conversations=[], clusters=[], dated=plan.dated)


def _too_small(store: Database, plan: SplitPlan, trained: frozenset[str]) -> bool:
    """Whether the open window can give no verdict while there is enough for one that can."""
    if plan.test_clusters >= LEAST_CLUSTERS:
        return False
    members = set(plan.window.conversations) if plan.window else set()
    clusters = read_clusters(store.connection, with_superseded(store.connection, trained))
    fresh = [
        cluster
        for cluster in clusters
        if not cluster.trained
        and not cluster.retired
        and not any(member.id in members for member in cluster.members)
    ]
    return len(_choose(fresh, len(clusters))[0]) >= LEAST_CLUSTERS


def count_look(store: Database, window_id: int) -> int:
    """Counts one more candidate judged on the window; returns which one it is, from 1."""
    if window_id == NO_WINDOW:
        return 1
    row = store.connection.execute(
        "UPDATE test_windows SET looks = looks + 1 WHERE id = ? RETURNING looks", (window_id,)
    ).fetchone()
    if row is None:
        raise BadInput(_("there is no test window {id}").format(id=window_id), hint="h2q-tui corpus build")
    return int(row[0])


def assign(store: Database, trained: frozenset[str] = frozenset()) -> SplitPlan:
    """Writes the split of every conversation as `plan_split` has it; opens no window."""
    plan = plan_split(store, trained)
    wanted: dict[str, str] = {}
    for part, ids in (
        (Split.TRAIN, plan.train),
        (Split.TEST, plan.test),
        (Split.WAITING, plan.waiting),
        (Split.BORDER, plan.border),
    ):
        wanted.update(dict.fromkeys(ids, part.value))
    changes = [
        (wanted.get(id_, ""), id_)
        for id_, part in store.connection.execute("SELECT conversation_id, split FROM corpus")
        if part != wanted.get(id_, "")
    ]

    def write(batch: Sequence[tuple[str, str]]) -> None:
        store.connection.executemany("UPDATE corpus SET split = ? WHERE conversation_id = ?", batch)

    write_in_chunks(store.connection, [changes[i : i + 100] for i in range(0, len(changes), 100)], write)
    return plan


def plan_split(store: Database, trained: frozenset[str] = frozenset()) -> SplitPlan:
    """The split as it would be written now; reads only."""
    trained = with_superseded(store.connection, trained)
    clusters = read_clusters(store.connection, trained)
    window = current_window(store)
    if window is None:
        fresh = [cluster for cluster in clusters if not cluster.trained and not cluster.retired]
        chosen, dated = _choose(fresh, len(clusters))
        test = {cluster.name for cluster in chosen}
        members = {member.id for cluster in chosen for member in cluster.accepted}
        border = min(
            (member.start for cluster in chosen for member in cluster.accepted if member.start is not None),
            default=None,
        )
        edge = max((cluster.place for cluster in chosen), default=-1.0)
    else:
        members, dated, border = set(window.conversations), window.dated, window.border
        test = {
            cluster.name for cluster in clusters if any(member.id in members for member in cluster.members)
        }
        edge = max((Cluster.place_of(name) for name in window.clusters), default=-1.0)
    parts: dict[Split, list[str]] = {part: [] for part in Split}
    waiting = 0
    for cluster in clusters:
        waits = False
        for member in cluster.accepted:
            if member.id in members:
                # A conversation imported since may tie it to one that was trained on.
                part = Split.BORDER if cluster.trained and member.id not in trained else Split.TEST
            elif cluster.name in test:
                part = Split.BORDER
            elif cluster.trained or cluster.retired:
                # What was trained stays training; only its kin newer than the border are kept from it.
                newer = dated and border is not None and (member.end or 0.0) >= border
                old = member.id in trained or cluster.retired
                part = Split.TRAIN if old or not newer else Split.BORDER
            elif dated:
                part = _by_time(cluster, member.end, border)
            else:
                part = Split.WAITING if cluster.place <= edge else Split.TRAIN
            waits = waits or part is Split.WAITING
            parts[part].append(member.id)
        waiting += waits
    total = sum(len(ids) for ids in parts.values())
    in_train, in_test = set(parts[Split.TRAIN]), set(parts[Split.TEST])
    return SplitPlan(
        train=sorted(in_train),
        test=sorted(parts[Split.TEST]),
        waiting=sorted(parts[Split.WAITING]),
        border=sorted(parts[Split.BORDER]),
        train_clusters=sum(any(member.id in in_train for member in cluster.accepted) for cluster in clusters),
        test_clusters=sum(any(member.id in in_test for member in cluster.accepted) for cluster in clusters),
        waiting_clusters=waiting,
        dated=dated,
        window=window,
        missing=max(0, ENOUGH_CONVERSATIONS - total),
    )


def _by_time(cluster: Cluster, end: float | None, border: float | None) -> Split:
    """An undated conversation among dated ones cannot be newer than anything: it is trained on."""
    if border is None or end is None or end < border:
        return Split.TRAIN
    return Split.WAITING if cluster.start is not None and cluster.start >= border else Split.BORDER


def _choose(fresh: list[Cluster], total: int) -> tuple[list[Cluster], bool]:
    """The clusters of a new window out of those not yet trained on, and whether time chose them.

    `max(20, 15 %)` of them, but never more than half of all `total` clusters. Time chooses when most carry dates and enough of them
    are wholly older than the border to train on; else a hash of the cluster.
    """
    size = min(max(LEAST_CLUSTERS, round(SHARE * len(fresh))), len(fresh), total // 2)
    dated = [cluster for cluster in fresh if cluster.start is not None]
    if size and 2 * len(dated) >= len(fresh) and len(dated) >= size:
        newest = sorted(dated, key=lambda cluster: (-(cluster.start or 0.0), cluster.name))[:size]
        border = min(cluster.start or 0.0 for cluster in newest)
        older = sum(cluster.start is None or cluster.start < border for cluster in fresh)
        if 2 * older >= len(fresh) - size:
            return newest, True
    return sorted(fresh, key=lambda cluster: (cluster.place, cluster.name))[:size], False


def _freeze(store: Database, plan: SplitPlan, now: float) -> None:
    """Writes a window's ids with their hash, before any training."""
    names = dict(store.connection.execute("SELECT conversation_id, cluster FROM corpus"))
    row = store.connection
    row.execute("BEGIN IMMEDIATE")
    try:
        window_id = row.execute(
            "INSERT INTO test_windows (opened_at, ids_hash) VALUES (?, ?) RETURNING id",
            (now, hash_test_window(plan.test, dated=plan.dated)),
        ).fetchone()[0]
        row.executemany(
            "INSERT INTO window_members (window_id, conversation_id, cluster) VALUES (?, ?, ?)",
            [(window_id, id_, names[id_]) for id_ in plan.test],
        )
        row.execute("COMMIT")
    except BaseException:
        row.execute("ROLLBACK")
        raise


def _check_frozen(window: Window) -> None:
    if hash_test_window(window.conversations, dated=window.dated) != window.ids_hash:
        raise BadInput(
            _("the conversations of test window {id} are not those that were frozen").format(id=window.id),
            hint="h2q-tui backup list",
        )


def _retire(store: Database, window: Window, now: float) -> int:
    """Sends a window's conversations into training, with a ledger row for each."""
    rows = [
        LedgerRow(conversation=id_, stage=Stage.SPLIT, action=Action.RETIRE, reason="retired")
        for id_ in window.conversations
        if store.connection.execute("SELECT 1 FROM conversations WHERE id = ?", (id_,)).fetchone()
    ]
    store.connection.execute("BEGIN IMMEDIATE")
    try:
        store.connection.execute("UPDATE test_windows SET retired_at = ? WHERE id = ?", (now, window.id))
        ledger.insert(store.connection, rows, build=f"window-{window.id}", now=now)
        store.connection.execute("COMMIT")
    except BaseException:
        store.connection.execute("ROLLBACK")
        raise
    return len(rows)
