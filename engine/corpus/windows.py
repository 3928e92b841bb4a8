"""Test windows and the plan of a split, as plain values."""

from __future__ import annotations

import msgspec

LEAST_CLUSTERS = 20
"""Clusters of a window at least, and clusters that must wait before the next one opens."""
NO_WINDOW = 0
"""Id of the empty window, when nothing is left that is not trained on."""
ENOUGH_CONVERSATIONS = 60
"""Accepted conversations below which a verdict may not be possible."""


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A test window; its ids are frozen by `ids_hash` from the moment it opens."""

    id: int
    conversations: list[str]
    clusters: list[str]
    dated: bool
    """False: split by a hash of the cluster, because there are no dates that order the conversations."""
    border: float | None = None
    """The oldest time in the window, seconds since the epoch: all training is older (retired windows aside)."""
    ids_hash: str = ""
    opened_at: float = 0.0
    looks: int = 0


class SplitPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What each accepted conversation is for, and whether a verdict is possible."""

    train: list[str]
    test: list[str]
    waiting: list[str]
    border: list[str]
    train_clusters: int
    test_clusters: int
    waiting_clusters: int
    dated: bool
    window: Window | None = None
    """None while no window is open: `test` then says what it would hold."""
    missing: int = 0
    """Conversations missing to `ENOUGH_CONVERSATIONS`."""

    @property
    def verdict_possible(self) -> bool:
        """Whether the test has the clusters that a verdict needs at least."""
        return self.test_clusters >= LEAST_CLUSTERS
