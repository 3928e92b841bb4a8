"""What `corpus stats` says: the funnel, and what the next training would have."""

from __future__ import annotations

import msgspec

from engine.corpus.funnel import funnel
from engine.corpus.ledger import Database
from engine.corpus.split import ENOUGH_CONVERSATIONS, LEAST_CLUSTERS, current_window
from engine.corpus.states import State


class WindowStats(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    conversations: int
    clusters: int
    dated: bool
    looks: int
    opened_at: float


class CorpusStats(msgspec.Struct, frozen=True, kw_only=True):
    """All in conversations but `pairs`. `collected` = dropped + pending + accepted + rejected."""

    collected: int
    dropped: dict[str, int]
    redacted: int
    duplicates: int
    pending: int
    accepted: int
    rejected: int
    train: int
    test: int
    waiting: int
    pairs: dict[str, int]
    """Answers with content of the accepted, by split."""
    masked_turns: int
    """Turns that stay as context without loss."""
    languages: dict[str, int]
    """Accepted conversations by language."""
    window: WindowStats | None
    missing: int
    """Conversations missing to the number from which a verdict is likely."""
    verdict_possible: bool


def stats(store: Database) -> CorpusStats:
    """Reads the corpus as built; touches nothing."""
    figures = funnel(store)
    connection = store.connection
    parts = connection.execute(
        "SELECT split, COUNT(*), SUM(pairs), COUNT(DISTINCT cluster) FROM corpus WHERE state = ? GROUP BY split",
        (State.ACCEPTED,),
    ).fetchall()
    masked = connection.execute(
        "SELECT COUNT(*) FROM ledger l JOIN corpus k ON k.conversation_id = l.conversation_id "
        "WHERE l.action = 'mask' AND k.state = ?",
        (State.ACCEPTED,),
    ).fetchone()[0]
    languages = connection.execute(
        "SELECT language, COUNT(*) FROM corpus WHERE state = ? GROUP BY language ORDER BY 2 DESC",
        (State.ACCEPTED,),
    ).fetchall()
    window = current_window(store)
    test_clusters = next((clusters for split, _n, _pairs, clusters in parts if split == "test"), 0)
    return CorpusStats(
        collected=figures.collected,
        dropped=figures.dropped,
        redacted=figures.redacted,
        duplicates=figures.duplicates,
        pending=figures.pending,
        accepted=figures.accepted,
        rejected=figures.rejected,
        train=figures.train,
        test=figures.test,
        waiting=next((count for split, count, _pairs, _clusters in parts if split == "waiting"), 0),
        pairs={split or "none": pairs for split, _count, pairs, _clusters in parts},
        masked_turns=masked,
        languages=dict(languages),
        window=None
        if window is None
        else WindowStats(
            id=window.id,
            conversations=len(window.conversations),
            clusters=len(window.clusters),
            dated=window.dated,
            looks=window.looks,
            opened_at=window.opened_at,
        ),
        missing=max(0, ENOUGH_CONVERSATIONS - figures.accepted),
        verdict_possible=test_clusters >= LEAST_CLUSTERS,
    )
