"""The corpus in figures: how many came in, left at each stage, and stand where. Light: the app imports it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from engine.corpus.enums import Action, Split, Stage, State
from engine.corpus.ledger import Database
from engine.runs.events import Funnel


def funnel(store: Database) -> Funnel:
    """How many conversations came in, left at each stage, and stand where. `collected` is the sum of
    `dropped`, `pending`, `accepted` and `rejected`; `train` and `test` are among the accepted."""
    states: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    for state, stage, part, count in store.connection.execute(
        "SELECT state, stage, split, COUNT(*) FROM corpus GROUP BY state, stage, split"
    ):
        states[state] += count
        if state == State.DROPPED:
            dropped[stage] += count
        splits[part] += count if state == State.ACCEPTED else 0
    redacted = store.connection.execute(
        "SELECT COUNT(DISTINCT l.conversation_id) FROM ledger l JOIN corpus c ON c.conversation_id = l.conversation_id "
        "WHERE l.action = ? AND c.state IN (?, ?)",
        (Action.REDACT, State.ACCEPTED, State.PENDING),
    ).fetchone()[0]
    return Funnel(
        collected=sum(states.values()),
        dropped={stage.value: dropped[stage] for stage in Stage if dropped[stage]},
        redacted=redacted,
        duplicates=dropped[Stage.EXACT] + dropped[Stage.NEAR] + dropped[Stage.SEMANTIC],
        pending=states[State.PENDING],
        accepted=states[State.ACCEPTED],
        rejected=states[State.REJECTED],
        train=splits[Split.TRAIN],
        test=splits[Split.TEST],
    )


@dataclass(frozen=True)
class PairCounts:
    """Pairs (a question with its answer): one for each turn of the assistant."""

    collected: int
    accepted: int
    """Of accepted conversations, with an answer that is trained."""
    test: int
    """Of the accepted ones, those kept back to judge."""


def pair_counts(store: Database) -> PairCounts:
    """How many pairs came in, are accepted, and are kept back."""
    collected = store.connection.execute(
        "SELECT COUNT(*) FROM turns t JOIN corpus k ON k.conversation_id = t.conversation_id WHERE t.role = 'assistant'"
    ).fetchone()[0]
    accepted, test = store.connection.execute(
        "SELECT COALESCE(SUM(pairs), 0), COALESCE(SUM(CASE WHEN split = ? THEN pairs END), 0) FROM corpus WHERE state = ?",
        (Split.TEST, State.ACCEPTED),
    ).fetchone()
    return PairCounts(collected=collected, accepted=accepted, test=test)
