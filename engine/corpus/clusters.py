"""The clusters and test windows that a split chooses from. Light: the app imports it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import msgspec

from engine.corpus.enums import LedgerAction, ReviewState
from engine.corpus.ledger import Database

MIN_CLUSTERS = 20
"""Clusters that a window needs, and that must wait before the next one opens."""
WINDOW_SHARE = 0.15
"""Share of the clusters not yet trained on that a window takes, if that is more than MIN_CLUSTERS."""
NO_WINDOW = 0
"""Id of the empty window, for when everything is trained on already."""
RECOMMENDED_CONVERSATIONS = 60
"""Accepted conversations below which a verdict may not be possible."""


class HoldoutWindow(msgspec.Struct, frozen=True, kw_only=True):
    """A test window; its ids are frozen by `ids_hash` when it opens."""

    id: int
    conversations: list[str]
    clusters: list[str]
    dated: bool
    """False: split by a hash of the cluster, because too few conversations have dates."""
    border: float | None = None
    """The oldest time in the window, seconds since the epoch: training is older, retired windows aside."""
    ids_hash: str = ""
    opened_at: float = 0.0
    looks: int = 0
    """Candidates judged on it so far."""


class SplitPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The use of each accepted conversation, and whether a verdict is possible."""

    train: list[str]
    test: list[str]
    waiting: list[str]
    border: list[str]
    train_clusters: int
    test_clusters: int
    waiting_clusters: int
    dated: bool
    window: HoldoutWindow | None = None
    """None while no window is open: `test` then is what it would hold."""
    missing: int = 0
    """Conversations missing to `RECOMMENDED_CONVERSATIONS`."""

    @property
    def verdict_possible(self) -> bool:
        """Whether the test set has the clusters that a verdict needs."""
        return self.test_clusters >= MIN_CLUSTERS


@dataclass(frozen=True, slots=True)
class ClusterMember:
    """One conversation. Times in seconds since the epoch, None without a date."""

    id: str
    start: float | None
    end: float | None
    accepted: bool


@dataclass(slots=True)
class Cluster:
    """Conversations that must be on the same side of a split."""

    name: str
    members: list[ClusterMember] = field(default_factory=list)
    accepted: list[ClusterMember] = field(default_factory=list)
    start: float | None = None
    """The oldest time of an accepted member; None when one of them has no date."""
    trained: bool = False
    """A member is in the lineage of the model in use."""
    retired: bool = False
    """A member was in a test window that has retired."""

    def add(self, member: ClusterMember) -> None:
        """Adds a member and updates `start`."""
        self.members.append(member)
        if not member.accepted:
            return
        known = [time for time in (self.start, member.start) if time is not None]
        # A member without a date leaves the cluster without a start.
        self.start = min(known) if len(known) == 1 + bool(self.accepted) else None
        self.accepted.append(member)

    @property
    def hash_position(self) -> float:
        """Position by hash of the name, from 0 to 1."""
        return hash_position(self.name)


def window_size(fresh: int, total: int) -> int:
    """Clusters of a new window: of `fresh`, not yet trained on, among all `total`, at most half of which are held out."""
    return min(max(MIN_CLUSTERS, round(WINDOW_SHARE * fresh)), fresh, total // 2)


def hash_position(name: str) -> float:
    """A cluster's position between 0 and 1 by hash, which splits undated conversations."""
    return int.from_bytes(sha256(name.encode()).digest()[:6], "big") / 2**48


def read_clusters(connection: sqlite3.Connection, trained: frozenset[str]) -> list[Cluster]:
    """All clusters with at least one accepted conversation, by name."""
    clusters: dict[str, Cluster] = {}
    accepted = ReviewState.ACCEPTED.value
    for id_, name, state, start, end in connection.execute(
        "SELECT k.conversation_id, k.cluster, k.state, "
        "MIN(COALESCE(c.started_at, k.sort_time, c.updated_at), COALESCE(k.sort_time, c.started_at, c.updated_at)), "
        "COALESCE(k.sort_time, c.updated_at, c.started_at) "
        "FROM corpus k JOIN conversations c ON c.id = k.conversation_id ORDER BY k.cluster, k.conversation_id"
    ):
        cluster = clusters.get(name)
        if cluster is None:
            cluster = clusters[name] = Cluster(name)
        cluster.add(ClusterMember(id_, start, end, state == accepted))
        cluster.trained = cluster.trained or id_ in trained
    retired = {
        id_
        for (id_,) in connection.execute(
            "SELECT w.conversation_id FROM window_members w JOIN test_windows t ON t.id = w.window_id "
            "WHERE t.retired_at IS NOT NULL"
        )
    }
    retired |= {
        id_
        for (id_,) in connection.execute(
            "SELECT conversation_id FROM ledger WHERE action = ?", (LedgerAction.RETIRE,)
        )
    }
    for cluster in clusters.values() if retired else ():
        cluster.retired = any(member.id in retired for member in cluster.members)
    return [cluster for cluster in clusters.values() if cluster.accepted]


def with_longer_forms(connection: sqlite3.Connection, trained: frozenset[str]) -> frozenset[str]:
    """`trained` with the longer forms of conversations that grew since: their beginning was trained on."""
    if not trained:
        return trained
    rows = connection.execute(
        "WITH RECURSIVE known(id) AS (SELECT value FROM json_each(?) "
        "UNION SELECT c.superseded_by FROM conversations c JOIN known k ON k.id = c.id WHERE c.superseded_by IS NOT NULL) "
        "SELECT id FROM known",
        (msgspec.json.encode(sorted(trained)).decode(),),
    )
    return frozenset(id_ for (id_,) in rows)


def after_retiring(clusters: Sequence[Cluster], window: HoldoutWindow | None) -> list[Cluster]:
    """The clusters from which a window would be chosen once `window` retired: neither trained on nor tested on."""
    members = set(window.conversations) if window is not None else set()
    return [
        cluster
        for cluster in clusters
        if not cluster.trained
        and not cluster.retired
        and not any(member.id in members for member in cluster.members)
    ]


def current_window(store: Database) -> HoldoutWindow | None:
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
    return HoldoutWindow(
        id=row[0],
        conversations=[id_ for id_, _cluster, _time in members],
        clusters=sorted({cluster for _id, cluster, _time in members}),
        dated=dated,
        border=min(times) if dated and times else None,
        ids_hash=row[3],
        opened_at=row[1],
        looks=row[2],
    )
