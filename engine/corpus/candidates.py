"""The clusters that a split chooses from, read from the corpus in one pass."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from hashlib import sha256

import msgspec

from engine.corpus.enums import Action, State


@dataclass(frozen=True, slots=True)
class Member:
    """One conversation. Times in seconds since the epoch, None without a date."""

    id: str
    start: float | None
    end: float | None
    accepted: bool


@dataclass(slots=True)
class Cluster:
    """Conversations that may not be torn apart."""

    name: str
    members: list[Member] = field(default_factory=list)
    accepted: list[Member] = field(default_factory=list)
    start: float | None = None
    """The oldest time of an accepted member; None when one of them has no date."""
    trained: bool = False
    """A member is in the lineage of the model in use."""
    retired: bool = False
    """A member was in a test window that has retired."""

    def add(self, member: Member) -> None:
        self.members.append(member)
        if not member.accepted:
            return
        known = [time for time in (self.start, member.start) if time is not None]
        # Once there is a member without a date, there is no oldest time any more.
        self.start = min(known) if len(known) == 1 + bool(self.accepted) else None
        self.accepted.append(member)

    @property
    def place(self) -> float:
        return self.place_of(self.name)

    @staticmethod
    def place_of(name: str) -> float:
        """Where a hash puts the cluster between 0 and 1: what splits undated conversations."""
        return int.from_bytes(sha256(name.encode()).digest()[:6], "big") / 2**48


def read_clusters(connection: sqlite3.Connection, trained: frozenset[str]) -> list[Cluster]:
    """All clusters with at least one accepted conversation, by name."""
    clusters: dict[str, Cluster] = {}
    accepted = State.ACCEPTED.value
    for id_, name, state, start, end in connection.execute(
        "SELECT k.conversation_id, k.cluster, k.state, "
        "MIN(COALESCE(c.started_at, k.sort_time, c.updated_at), COALESCE(k.sort_time, c.started_at, c.updated_at)), "
        "COALESCE(k.sort_time, c.updated_at, c.started_at) "
        "FROM corpus k JOIN conversations c ON c.id = k.conversation_id ORDER BY k.cluster, k.conversation_id"
    ):
        cluster = clusters.get(name)
        if cluster is None:
            cluster = clusters[name] = Cluster(name)
        cluster.add(Member(id_, start, end, state == accepted))
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
            "SELECT conversation_id FROM ledger WHERE action = ?", (Action.RETIRE,)
        )
    }
    for cluster in clusters.values() if retired else ():
        cluster.retired = any(member.id in retired for member in cluster.members)
    return [cluster for cluster in clusters.values() if cluster.accepted]


def with_superseded(connection: sqlite3.Connection, trained: frozenset[str]) -> frozenset[str]:
    """`trained`, and the longer forms of those conversations that grew since: their beginning was trained on."""
    if not trained:
        return trained
    rows = connection.execute(
        "WITH RECURSIVE known(id) AS (SELECT value FROM json_each(?) "
        "UNION SELECT c.superseded_by FROM conversations c JOIN known k ON k.id = c.id WHERE c.superseded_by IS NOT NULL) "
        "SELECT id FROM known",
        (msgspec.json.encode(sorted(trained)).decode(),),
    )
    return frozenset(id_ for (id_,) in rows)
