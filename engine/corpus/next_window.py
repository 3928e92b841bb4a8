"""The next test window: how many clusters it would take, and how many new conversations have to come first."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass

from engine.corpus.clusters import (
    MIN_CLUSTERS,
    after_retiring,
    current_window,
    hash_position,
    read_clusters,
    window_size,
    with_longer_forms,
)
from engine.corpus.ledger import Database

MOST_CLUSTERS = 10_000_000
"""New clusters beyond which nothing is said to decide."""


@dataclass(frozen=True)
class WindowOutlook:
    """What a window would be chosen from if the open one retired."""

    fresh: int
    """Clusters that were never trained on nor tested on."""
    total: int
    """All clusters."""
    window: int = 0
    """Clusters of the open window."""
    waiting: int = 0
    """Those of `fresh` that wait for the next window."""
    waiting_share: float = 1.0
    """Share of new clusters that wait: of dated ones all, of undated ones those below the edge of the open window."""
    conversations_per_cluster: float = 1.0

    def conversations_until(self, groups: int) -> int | None:
        """New conversations until a window that opens then has `groups` clusters; None where they are too many."""
        steps = range(1, MOST_CLUSTERS)
        found = bisect_left(steps, True, key=lambda new: self.next_size(new) >= groups)
        return None if found == len(steps) else math.ceil(steps[found] * self.conversations_per_cluster)

    def next_size(self, new: int) -> int:
        """Clusters of the window that opens after `new` further clusters; 0 while the open one stays."""
        size = window_size(self.fresh + new, self.total + new)
        enough_wait = self.waiting + int(self.waiting_share * new + 1e-9) >= MIN_CLUSTERS
        return size if enough_wait or self.window < MIN_CLUSTERS <= size else 0


def assumed_outlook(groups: int, conversations: int) -> WindowOutlook:
    """The outlook where only a window is known: the rest of its corpus has retired nothing and is dated."""
    total = next(total for total in range(2 * groups, 8 * groups + 40) if window_size(total, total) >= groups)
    return WindowOutlook(
        fresh=total - groups,
        total=total,
        window=groups,
        conversations_per_cluster=conversations / groups if groups else 1.0,
    )


def read_outlook(store: Database, trained: frozenset[str]) -> WindowOutlook:
    """The outlook of the corpus; `trained` are the ids in the lineage of the model in use."""
    clusters = read_clusters(store.connection, with_longer_forms(store.connection, trained))
    window = current_window(store)
    fresh = after_retiring(clusters, window)
    waiting, share = 0, 1.0
    if window is not None and window.dated and window.border is not None:
        waiting = sum(cluster.start is not None and cluster.start >= window.border for cluster in fresh)
    elif window is not None and not window.dated:
        share = max((hash_position(name) for name in window.clusters), default=0.0)
        waiting = sum(cluster.hash_position <= share for cluster in fresh)
    accepted = sum(len(cluster.accepted) for cluster in clusters)
    return WindowOutlook(
        fresh=len(fresh),
        total=len(clusters),
        window=len(window.clusters) if window is not None else 0,
        waiting=waiting,
        waiting_share=share,
        conversations_per_cluster=accepted / len(clusters) if clusters else 1.0,
    )
