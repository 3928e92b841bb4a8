"""Test windows: the newest clusters are held out of training, frozen before it, and retire when enough newer ones wait.

The unit is the cluster of near duplicates, so that nothing similar to a test conversation is trained on. Which
conversations are trained on comes from the lineage of the model in use, never from dates.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.corpus import ledger
from engine.corpus.clusters import (
    MIN_CLUSTERS,
    NO_WINDOW,
    RECOMMENDED_CONVERSATIONS,
    Cluster,
    HoldoutWindow,
    SplitPlan,
    after_retiring,
    current_window,
    hash_position,
    read_clusters,
    window_size,
    with_longer_forms,
)
from engine.corpus.enums import CorpusStage, DataSplit, LedgerAction
from engine.corpus.ledger import Database, LedgerRow
from engine.memory.deletion import hash_test_window
from engine.memory.transactions import write_in_chunks


def open_window(store: Database, now: float, *, trained: frozenset[str] = frozenset()) -> HoldoutWindow:
    """The window to validate on: the open one, the next when enough clusters wait, or the first.

    Writes the split of every accepted conversation. `trained` are the ids in the lineage of the model in use.
    Raises BadInput when the ids of the open window differ from the frozen ones.
    """
    plan = plan_split(store, trained)
    if plan.window is not None:
        _check_ids_hash(plan.window)
        if plan.waiting_clusters >= MIN_CLUSTERS or _too_small(store, plan, trained):
            _retire(store, plan.window, now)
            plan = plan_split(store, trained)
    if plan.window is None and plan.test:
        _freeze(store, plan, now)
    assign(store, trained)
    return current_window(store) or HoldoutWindow(
        id=NO_WINDOW, conversations=[], clusters=[], dated=plan.dated
    )


def _too_small(store: Database, plan: SplitPlan, trained: frozenset[str]) -> bool:
    """Whether the open window allows no verdict, while a new one would."""
    if plan.test_clusters >= MIN_CLUSTERS:
        return False
    clusters = read_clusters(store.connection, with_longer_forms(store.connection, trained))
    fresh = after_retiring(clusters, plan.window)
    return len(_choose(fresh, len(clusters))[0]) >= MIN_CLUSTERS


def count_look(store: Database, window_id: int) -> int:
    """Counts one more candidate judged on the window; returns its number, from 1."""
    if window_id == NO_WINDOW:
        return 1
    row = store.connection.execute(
        "UPDATE test_windows SET looks = looks + 1 WHERE id = ? RETURNING looks", (window_id,)
    ).fetchone()
    if row is None:
        raise BadInput(_("there is no test window {id}").format(id=window_id), hint="h2q-tui corpus build")
    return int(row[0])


def assign(store: Database, trained: frozenset[str] = frozenset()) -> SplitPlan:
    """Writes the split of every conversation per `plan_split`; opens no window."""
    plan = plan_split(store, trained)
    wanted: dict[str, str] = {}
    for part, ids in (
        (DataSplit.TRAIN, plan.train),
        (DataSplit.TEST, plan.test),
        (DataSplit.WAITING, plan.waiting),
        (DataSplit.BORDER, plan.border),
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
    trained = with_longer_forms(store.connection, trained)
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
        edge = max((cluster.hash_position for cluster in chosen), default=-1.0)
    else:
        members, dated, border = set(window.conversations), window.dated, window.border
        test = {
            cluster.name for cluster in clusters if any(member.id in members for member in cluster.members)
        }
        edge = max((hash_position(name) for name in window.clusters), default=-1.0)
    parts: dict[DataSplit, list[str]] = {part: [] for part in DataSplit}
    waiting = 0
    for cluster in clusters:
        waits = False
        for member in cluster.accepted:
            if member.id in members:
                # A conversation imported later may join it to a cluster that was trained on.
                part = DataSplit.BORDER if cluster.trained and member.id not in trained else DataSplit.TEST
            elif cluster.name in test:
                part = DataSplit.BORDER
            elif cluster.trained or cluster.retired:
                # Trained conversations stay in training; only newer members of their cluster do not.
                newer = dated and border is not None and (member.end or 0.0) >= border
                trained_on = member.id in trained or cluster.retired
                part = DataSplit.TRAIN if trained_on or not newer else DataSplit.BORDER
            elif dated:
                part = _by_time(cluster, member.end, border)
            else:
                part = DataSplit.WAITING if cluster.hash_position <= edge else DataSplit.TRAIN
            waits = waits or part is DataSplit.WAITING
            parts[part].append(member.id)
        waiting += waits
    total = sum(len(ids) for ids in parts.values())
    in_train, in_test = set(parts[DataSplit.TRAIN]), set(parts[DataSplit.TEST])
    return SplitPlan(
        train=sorted(in_train),
        test=sorted(parts[DataSplit.TEST]),
        waiting=sorted(parts[DataSplit.WAITING]),
        border=sorted(parts[DataSplit.BORDER]),
        train_clusters=sum(any(member.id in in_train for member in cluster.accepted) for cluster in clusters),
        test_clusters=sum(any(member.id in in_test for member in cluster.accepted) for cluster in clusters),
        waiting_clusters=waiting,
        dated=dated,
        window=window,
        missing=max(0, RECOMMENDED_CONVERSATIONS - total),
    )


def _by_time(cluster: Cluster, end: float | None, border: float | None) -> DataSplit:
    """The split of a member by date; an undated one among dated ones is trained on."""
    if border is None or end is None or end < border:
        return DataSplit.TRAIN
    return DataSplit.WAITING if cluster.start is not None and cluster.start >= border else DataSplit.BORDER


def _choose(fresh: list[Cluster], total: int) -> tuple[list[Cluster], bool]:
    """(clusters of a new window among the `fresh`, not yet trained ones; whether they were chosen by time).

    `window_size` of them. They are the newest ones if most have
    dates and enough others are entirely older, to train on; else a hash of the cluster chooses.
    """
    size = window_size(len(fresh), total)
    dated = [cluster for cluster in fresh if cluster.start is not None]
    if size and 2 * len(dated) >= len(fresh) and len(dated) >= size:
        newest = sorted(dated, key=lambda cluster: (-(cluster.start or 0.0), cluster.name))[:size]
        border = min(cluster.start or 0.0 for cluster in newest)
        older = sum(cluster.start is None or cluster.start < border for cluster in fresh)
        if 2 * older >= len(fresh) - size:
            return newest, True
    return sorted(fresh, key=lambda cluster: (cluster.hash_position, cluster.name))[:size], False


def _freeze(store: Database, plan: SplitPlan, now: float) -> None:
    """Writes the ids of a window with their hash, before any training."""
    names = dict(store.connection.execute("SELECT conversation_id, cluster FROM corpus"))
    connection = store.connection
    connection.execute("BEGIN IMMEDIATE")
    try:
        window_id = connection.execute(
            "INSERT INTO test_windows (opened_at, ids_hash) VALUES (?, ?) RETURNING id",
            (now, hash_test_window(plan.test, dated=plan.dated)),
        ).fetchone()[0]
        connection.executemany(
            "INSERT INTO window_members (window_id, conversation_id, cluster) VALUES (?, ?, ?)",
            [(window_id, id_, names[id_]) for id_ in plan.test],
        )
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _check_ids_hash(window: HoldoutWindow) -> None:
    if hash_test_window(window.conversations, dated=window.dated) != window.ids_hash:
        raise BadInput(
            _("the conversations of test window {id} differ from the frozen ones").format(id=window.id),
            hint="h2q-tui backup list",
        )


def _retire(store: Database, window: HoldoutWindow, now: float) -> None:
    """Moves the conversations of a window to training, with a ledger row for each."""
    rows = [
        LedgerRow(conversation=id_, stage=CorpusStage.SPLIT, action=LedgerAction.RETIRE, reason="retired")
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
