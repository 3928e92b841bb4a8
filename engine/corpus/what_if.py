"""The effect of other settings before they are saved, by the build's own stages. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.core.settings import Settings
from engine.corpus.dedup.drop import drop_exact, drop_near, find_candidates, near_duplicates
from engine.corpus.enums import CorpusStage, LedgerAction, ReviewState
from engine.corpus.filters.cache import ConversationStore, filter_settings, filter_tasks, load
from engine.corpus.filters.pool import filter_all, worker_count
from engine.corpus.filters.run import CorpusEntry, FilterResult
from engine.corpus.ledger import Database
from engine.corpus.review.decision_log import decided_states, edits_in_force
from engine.corpus.stats import SettingEffect

EXAMPLES = 8
"""Titles that are shown."""


class _BuiltRow(NamedTuple):
    automatic: str
    stage: str
    title: str


def near_threshold_effect(store: Database, threshold: float) -> SettingEffect:
    """Compares near duplicates at `threshold` with those of the last build.

    Raises BadInput when an earlier version built the corpus.
    """
    connection = store.connection
    built = _built_rows(store)
    corpus = load(connection, dict.fromkeys(built, b""))
    if len(corpus.entries) < len(built):
        raise BadInput(_("the corpus was built by an earlier version"), hint="h2q-tui corpus build")
    decided = decided_states(connection)
    drop_exact(corpus.entries, decided)
    candidates = find_candidates(corpus, threshold)
    drop_near(corpus.entries, decided, near_duplicates(connection, corpus.entries, candidates, threshold))
    now = _dropped_at(built, CorpusStage.NEAR)
    then = {
        entry.id
        for entry in corpus.entries
        if entry.dropped is not None and entry.dropped.stage == CorpusStage.NEAR
    }
    return _effect(built, now, then, leave=then - now, back=now - then, threshold=threshold)


def filter_setting_effect(store: ConversationStore, stage: CorpusStage, settings: Settings) -> SettingEffect:
    """Compares `stage` (low value or PII) under `settings` with the last build.

    Also counts the turns that the stage masks or redacts.
    """
    connection = store.connection
    built = _built_rows(store)
    action = LedgerAction.MASK if stage == CorpusStage.LOW_VALUE else LedgerAction.REDACT
    turns_now = connection.execute(
        "SELECT COUNT(*) FROM ledger WHERE stage = ? AND action = ?", (stage, action)
    ).fetchone()[0]
    now = _dropped_at(built, stage)
    then: set[str] = set()
    turns_then = 0
    tasks = filter_tasks(store, list(built), edits_in_force(connection))
    for batch in filter_all(tasks, filter_settings(settings), workers=worker_count(len(built))):
        for filtered in batch:
            result = msgspec.msgpack.decode(filtered.result, type=FilterResult)
            turns_then += sum(row.stage == stage and row.action == action for row in result.rows)
            dropped = msgspec.msgpack.decode(filtered.entry, type=CorpusEntry).dropped
            if dropped is not None and dropped.stage == stage:
                then.add(filtered.id)
    decided = decided_states(connection).keys()
    return _effect(
        built,
        now,
        then,
        leave=then - now - decided,
        back=now - then - decided,
        turns_now=turns_now,
        turns_then=turns_then,
    )


def _built_rows(store: Database) -> dict[str, _BuiltRow]:
    """The rows of the last build by conversation."""
    return {
        id_: _BuiltRow(automatic, stage, title)
        for id_, automatic, stage, title in store.connection.execute(
            "SELECT conversation_id, automatic, stage, first_line FROM corpus ORDER BY conversation_id"
        )
    }


def _dropped_at(built: dict[str, _BuiltRow], stage: CorpusStage) -> set[str]:
    return {id_ for id_, row in built.items() if row.automatic == ReviewState.DROPPED and row.stage == stage}


def _effect(
    built: dict[str, _BuiltRow],
    now: set[str],
    then: set[str],
    *,
    leave: set[str],
    back: set[str],
    threshold: float | None = None,
    turns_now: int = 0,
    turns_then: int = 0,
) -> SettingEffect:
    def titles(ids: Iterable[str]) -> list[str]:
        return [built[id_].title for id_ in sorted(ids)[:EXAMPLES]]

    return SettingEffect(
        threshold=threshold,
        now=len(now),
        then=len(then),
        leave=len(leave),
        back=len(back),
        leaving=titles(leave),
        returning=titles(back),
        turns_now=turns_now,
        turns_then=turns_then,
    )
