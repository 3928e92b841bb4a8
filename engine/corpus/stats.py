"""What `corpus stats` says: the funnel, and what the next training would have."""

from __future__ import annotations

import msgspec

from engine.corpus.enums import State
from engine.corpus.funnel import funnel
from engine.corpus.ledger import Database
from engine.corpus.split import ENOUGH_CONVERSATIONS, LEAST_CLUSTERS, current_window


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
    masked: dict[str, int]
    """The same by reason."""
    languages: dict[str, int]
    """Accepted conversations by language."""
    quality: list[float]
    """Lower quartile, median and upper quartile of the accepted conversations, 0 to 1; empty without any."""
    embedder: str
    """What grouped by meaning at the last build: an embedder's name, "n-grams", or "" for nothing."""
    grouped: int
    """Accepted conversations that are alike another, which leads their group."""
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
    masked = dict(
        connection.execute(
            "SELECT l.reason, COUNT(*) FROM ledger l JOIN corpus k ON k.conversation_id = l.conversation_id "
            "WHERE l.action = 'mask' AND k.state = ? GROUP BY l.reason ORDER BY 2 DESC",
            (State.ACCEPTED,),
        ).fetchall()
    )
    grouped = connection.execute(
        "SELECT COUNT(*) FROM ledger l JOIN corpus k ON k.conversation_id = l.conversation_id "
        "WHERE l.action = 'group' AND k.state = ?",
        (State.ACCEPTED,),
    ).fetchone()[0]
    used = connection.execute("SELECT value FROM meta WHERE key = 'corpus_semantic'").fetchone()
    marks = [
        row[0]
        for row in connection.execute(
            "SELECT quality FROM corpus WHERE state = ? ORDER BY quality", (State.ACCEPTED,)
        )
    ]
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
        masked_turns=sum(masked.values()),
        masked=masked,
        quality=[marks[len(marks) * part // 4] for part in (1, 2, 3)] if marks else [],
        embedder=used[0] if used else "",
        grouped=grouped,
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
