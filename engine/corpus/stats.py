"""The corpus in figures: the funnel of the filters, the effect of a setting, pairs, and the next training set. Light: the app imports it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import msgspec

from engine.corpus.clusters import MIN_CLUSTERS, RECOMMENDED_CONVERSATIONS, current_window
from engine.corpus.enums import CorpusStage, DataSplit, LedgerAction, ReviewState
from engine.corpus.ledger import Database
from engine.runs.events import Funnel


class SettingEffect(msgspec.Struct, frozen=True, kw_only=True):
    """The effect on the stage that the setting concerns, in conversations."""

    threshold: float | None = None
    """The threshold for near duplicates; None for another setting."""
    now: int
    """Dropped now."""
    then: int
    """Dropped with the setting."""
    leave: int
    """Dropped only with the setting."""
    back: int
    """Dropped only now."""
    leaving: list[str]
    """Titles of some of them."""
    returning: list[str]
    turns_now: int = 0
    """Turns that are masked or redacted now."""
    turns_then: int = 0


def corpus_funnel(store: Database) -> Funnel:
    """How many conversations were collected, dropped at each stage, and are in each state.

    `collected` is the sum of `dropped`, `pending`, `accepted` and `rejected`.
    """
    states: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    for state, stage, split, count in store.connection.execute(
        "SELECT state, stage, split, COUNT(*) FROM corpus GROUP BY state, stage, split"
    ):
        states[state] += count
        if state == ReviewState.DROPPED:
            dropped[stage] += count
        splits[split] += count if state == ReviewState.ACCEPTED else 0
    redacted = store.connection.execute(
        "SELECT COUNT(DISTINCT l.conversation_id) FROM ledger l JOIN corpus c ON c.conversation_id = l.conversation_id "
        "WHERE l.action = ? AND c.state IN (?, ?)",
        (LedgerAction.REDACT, ReviewState.ACCEPTED, ReviewState.PENDING),
    ).fetchone()[0]
    return Funnel(
        collected=sum(states.values()),
        dropped={stage.value: dropped[stage] for stage in CorpusStage if dropped[stage]},
        redacted=redacted,
        duplicates=dropped[CorpusStage.EXACT] + dropped[CorpusStage.NEAR] + dropped[CorpusStage.SEMANTIC],
        pending=states[ReviewState.PENDING],
        accepted=states[ReviewState.ACCEPTED],
        rejected=states[ReviewState.REJECTED],
        train=splits[DataSplit.TRAIN],
        test=splits[DataSplit.TEST],
        waiting=splits[DataSplit.WAITING],
        border=splits[DataSplit.BORDER],
        unassigned=splits[DataSplit.NONE],
    )


@dataclass(frozen=True)
class PairCounts:
    """Numbers of pairs (a question with its answer): one for each turn of the assistant."""

    collected: int
    accepted: int
    """In accepted conversations, with an answer that is trained on."""
    test: int
    """Of the accepted ones, those in the test set."""


def pair_counts(store: Database) -> PairCounts:
    """Counts the pairs of the corpus."""
    collected = store.connection.execute(
        "SELECT COUNT(*) FROM turns t JOIN corpus k ON k.conversation_id = t.conversation_id WHERE t.role = 'assistant'"
    ).fetchone()[0]
    accepted, test = store.connection.execute(
        "SELECT COALESCE(SUM(pairs), 0), COALESCE(SUM(CASE WHEN split = ? THEN pairs END), 0) FROM corpus WHERE state = ?",
        (DataSplit.TEST, ReviewState.ACCEPTED),
    ).fetchone()
    return PairCounts(collected=collected, accepted=accepted, test=test)


class WindowStats(msgspec.Struct, frozen=True, kw_only=True):
    """The open test window in figures."""

    id: int
    conversations: int
    clusters: int
    dated: bool
    looks: int
    opened_at: float


class CorpusStats(msgspec.Struct, frozen=True, kw_only=True):
    """In conversations, except `pairs`. `collected` = dropped + pending + accepted + rejected;
    `accepted` = train + test + waiting + border + unassigned."""

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
    """For the next test set."""
    border: int
    """Near duplicates across the border of training and test: in neither."""
    unassigned: int
    """Accepted since the last build; the next one assigns them."""
    pairs: dict[str, int]
    """Answers with content of the accepted, by split."""
    masked_turns: int
    """Turns that stay as context, with the loss masked."""
    masked: dict[str, int]
    """The same by reason."""
    languages: dict[str, int]
    """Accepted conversations by language."""
    quality: list[float]
    """Quartiles of the accepted conversations, 0 to 1; empty without any."""
    embedder: str
    """What grouped the last build: an embedder's name, "n-grams", or "" for nothing."""
    grouped: int
    """Accepted conversations that are similar to another one, which leads their group."""
    window: WindowStats | None
    missing: int
    """Conversations missing to the number at which a verdict is likely."""
    verdict_possible: bool


def corpus_stats(store: Database) -> CorpusStats:
    """Statistics of the corpus as built; reads only."""
    figures = corpus_funnel(store)
    connection = store.connection
    splits = connection.execute(
        "SELECT split, SUM(pairs), COUNT(DISTINCT cluster) FROM corpus WHERE state = ? GROUP BY split",
        (ReviewState.ACCEPTED,),
    ).fetchall()
    masked = dict(
        connection.execute(
            "SELECT l.reason, COUNT(*) FROM ledger l JOIN corpus k ON k.conversation_id = l.conversation_id "
            "WHERE l.action = 'mask' AND k.state = ? GROUP BY l.reason ORDER BY 2 DESC",
            (ReviewState.ACCEPTED,),
        ).fetchall()
    )
    grouped = connection.execute(
        "SELECT COUNT(*) FROM ledger l JOIN corpus k ON k.conversation_id = l.conversation_id "
        "WHERE l.action = 'group' AND k.state = ?",
        (ReviewState.ACCEPTED,),
    ).fetchone()[0]
    embedder = connection.execute("SELECT value FROM meta WHERE key = 'corpus_semantic'").fetchone()
    scores = [
        row[0]
        for row in connection.execute(
            "SELECT quality FROM corpus WHERE state = ? ORDER BY quality", (ReviewState.ACCEPTED,)
        )
    ]
    languages = connection.execute(
        "SELECT language, COUNT(*) FROM corpus WHERE state = ? GROUP BY language ORDER BY 2 DESC",
        (ReviewState.ACCEPTED,),
    ).fetchall()
    window = current_window(store)
    test_clusters = next((clusters for split, _pairs, clusters in splits if split == "test"), 0)
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
        waiting=figures.waiting,
        border=figures.border,
        unassigned=figures.unassigned,
        pairs={split or "none": pairs for split, pairs, _clusters in splits},
        masked_turns=sum(masked.values()),
        masked=masked,
        quality=[scores[len(scores) * quarter // 4] for quarter in (1, 2, 3)] if scores else [],
        embedder=embedder[0] if embedder else "",
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
        missing=max(0, RECOMMENDED_CONVERSATIONS - figures.accepted),
        verdict_possible=test_clusters >= MIN_CLUSTERS,
    )
