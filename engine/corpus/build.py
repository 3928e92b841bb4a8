"""Builds the corpus from memory: collect → low value → sensitive → exact → near → semantic → clusters → review states → split.

A build is a pure function of memory, settings and the person's decisions: building again changes nothing. What
the filters said of a conversation is kept, so that a build looks only at what changed (`assessments`), and only
rows that say something else than before are written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b, sha256
from typing import Protocol

import msgspec

from engine.corpus import ledger, split
from engine.corpus.dedup.drop import drop_exact, drop_near, name_clusters, near_twins
from engine.corpus.dedup.near import Pair
from engine.corpus.enums import Action, Stage, State
from engine.corpus.filters.cache import (
    Assessments,
    Changes,
    ConversationStore,
    code_version,
    facts_of,
    prune,
    refresh,
)
from engine.corpus.filters.result import Item
from engine.corpus.filters.run import CorpusSettings, Facts
from engine.corpus.funnel import funnel
from engine.corpus.review.decision_log import edits, of_shorter_forms, verdicts
from engine.corpus.review.grown import hold_grown
from engine.corpus.review.rules import apply_rules
from engine.memory.transactions import ChunkedWriter, deferred_fsync
from engine.runs.events import Funnel

_PAGE = 500
"""Conversations whose facts are read at once."""
_AT_ONCE = 20
"""Conversations written between two looks at the clock."""


class ByMeaning(Protocol):
    """Adds rows to the items and may drop some; returns the twins by index."""

    def __call__(
        self, store: ledger.Database, items: Sequence[Item], decided: Mapping[str, str]
    ) -> list[Pair]: ...


def build_corpus(
    store: ConversationStore,
    settings: CorpusSettings,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    now: float | None = None,
    trained: frozenset[str] = frozenset(),
    by_meaning: ByMeaning | None = None,
) -> Funnel:
    """Filters all conversations of `store` and writes ledger and corpus rows; keeps every decision.

    Args:
        on_progress: called with conversations known and their total.
        by_meaning: the semantic stage, `engine.corpus.dedup.semantic`; None leaves it out.
        trained: ids in the lineage of the model in use: what is no longer new for the split.

    Raises what `on_progress` raises; the corpus of the build before then stands.
    """
    now = time.time() if now is None else now
    with deferred_fsync(store.connection):
        changes = edits(store.connection)
        known = refresh(store, settings, changes, on_progress)
        items = known.items
        decided = verdicts(store.connection)
        hold_grown(items, of_shorter_forms(store.connection), decided, review=settings.review)
        drop_exact(items, decided)
        pairs = near_twins(store.connection, known, settings.near_threshold)
        drop_near(items, decided, pairs)
        if by_meaning:
            pairs += by_meaning(store, items, decided)
        name_clusters(store.connection, known, pairs, settings.near_threshold)
        build = _build_id(items, settings)
        _write(store, known, settings, decided, build=build, now=now)
    _stamp(store, settings, changes, build=build, now=now)
    del known, items, pairs
    apply_rules(store, decided, build=build, now=now)
    split.assign(store, trained)
    return funnel(store)


def _build_id(items: Sequence[Item], settings: CorpusSettings) -> str:
    """A hash of what went in, so that two builds of the same are the same build."""
    digest = sha256(settings_hash(settings).encode())
    for item in items:
        digest.update(item.id.encode() + item.key)
    return digest.hexdigest()[:16]


def settings_hash(settings: CorpusSettings) -> str:
    """sha256 of the settings that shape a corpus."""
    facts = (
        settings.review,
        f"{settings.near_threshold:.6f}",
        settings.embedder,
        settings.sensitive,
        *(f"{type_}={handling}" for type_, handling in sorted(settings.sensitive_types.items())),
        settings.low_value,
        *sorted(settings.low_value_phrases),
    )
    return sha256("\x1f".join(facts).encode()).hexdigest()


def _write(
    store: ConversationStore,
    known: Assessments,
    settings: CorpusSettings,
    decided: Mapping[str, str],
    *,
    build: str,
    now: float,
) -> None:
    """Writes the rows of conversations of which something else is said than by the rows that stand there."""
    connection = store.connection
    writer = ChunkedWriter(connection)
    stands = dict(connection.execute("SELECT conversation_id, made_of FROM corpus"))
    changed = [
        (item, made_of)
        for item, made_of in zip(known.items, _made_of(known, settings, decided), strict=True)
        if stands.get(item.id) != made_of
    ]
    for start in range(0, len(changed), _PAGE):
        page = changed[start : start + _PAGE]
        facts = facts_of(connection, [item.id for item, _made in page])
        there = [one for one in page if one[0].id in facts]
        with writer.transaction():
            for place in range(0, len(there), _AT_ONCE):
                batch = there[place : place + _AT_ONCE]
                # A verdict given since the build began holds.
                verdict = verdicts(connection, [item.id for item, _made in batch])
                connection.executemany(
                    "DELETE FROM ledger WHERE conversation_id = ? AND stage != ?",
                    [(item.id, Stage.SPLIT) for item, _made in batch if item.id in stands],
                )
                rows = (row for item, _made in batch for row in (*facts[item.id].rows, *item.rows))
                ledger.insert(connection, rows, build=build, now=now)
                connection.executemany(
                    _UPSERT,
                    [
                        (*_corpus_row(item, facts[item.id], settings, verdict.get(item.id), build), made)
                        for item, made in batch
                    ],
                )
                writer.commit_if_due()
    current = {item.id for item in known.items}
    gone = [id_ for id_ in stands if id_ not in current]
    with writer.transaction():
        for id_ in gone:
            connection.execute("DELETE FROM corpus WHERE conversation_id = ?", (id_,))
            connection.execute(
                "DELETE FROM ledger WHERE conversation_id = ? AND stage != ?", (id_, Stage.SPLIT)
            )
            writer.commit_if_due()
    prune(writer, current)


def _made_of(known: Assessments, settings: CorpusSettings, decided: Mapping[str, str]) -> list[bytes]:
    """For each item a digest of all that its rows are made of."""
    encoder = msgspec.msgpack.Encoder()
    return [
        blake2b(
            encoder.encode(
                (
                    key,
                    settings.review,
                    decided.get(item.id),
                    item.dropped,
                    item.held,
                    item.rows,
                    item.cluster,
                )
            ),
            digest_size=12,
        ).digest()
        for item, key in zip(known.items, known.keys, strict=True)
    ]


def _stamp(
    store: ConversationStore, settings: CorpusSettings, changes: Changes, *, build: str, now: float
) -> None:
    facts = {
        "corpus_build": build,
        "corpus_code": code_version(),
        "corpus_settings": settings_hash(settings),
        "corpus_near_threshold": repr(settings.near_threshold),
        "corpus_built_at": repr(now),
        "corpus_edits": repr(sorted({edit.seq for change in changes.values() for edit in change.values()})),
    }
    with ChunkedWriter(store.connection).transaction():
        for key, value in facts.items():
            store.connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))


_UPSERT = """
INSERT INTO corpus (conversation_id, build_id, state, stage, reason, cluster, language, quality, pairs, first_line,
                    sort_time, twin, automatic, made_of)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (conversation_id) DO UPDATE SET
    build_id = excluded.build_id, state = excluded.state, stage = excluded.stage, reason = excluded.reason,
    cluster = excluded.cluster, language = excluded.language, quality = excluded.quality, pairs = excluded.pairs,
    first_line = excluded.first_line, sort_time = excluded.sort_time, twin = excluded.twin,
    automatic = excluded.automatic, made_of = excluded.made_of
"""


def _corpus_row(
    item: Item, facts: Facts, settings: CorpusSettings, verdict: str | None, build: str
) -> tuple[object, ...]:
    why = item.dropped or item.held
    if item.dropped:
        automatic = State.DROPPED
    elif item.held or settings.review == "manual":
        automatic = State.PENDING
    else:
        automatic = State.ACCEPTED
    stage, reason = (why.stage, why.reason) if why else ("", "")
    if automatic is State.PENDING and not why:
        stage, reason = Stage.REVIEW, "review"
    if not why and any(row.action == Action.REDACT for row in facts.rows):
        stage, reason = Stage.SENSITIVE, next(row.reason for row in facts.rows if row.action == Action.REDACT)
    elif not why and not stage:
        masked = next((row for row in facts.rows if row.action == Action.MASK), None)
        stage, reason = (Stage.LOW_VALUE, masked.reason) if masked else ("", "")
    return (
        item.id,
        build,
        verdict or automatic,
        stage,
        reason,
        item.cluster,
        item.language,
        facts.quality,
        facts.pairs,
        facts.first_line,
        item.end,
        item.dropped.twin if item.dropped else None,
        automatic,
    )
