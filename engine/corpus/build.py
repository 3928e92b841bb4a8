"""Builds the corpus from memory: collect → low value → sensitive → exact → near → semantic → clusters → review states → split.

A build is a pure function of memory, settings and the person's decisions: building again changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Protocol

from engine.corpus import ledger, split
from engine.corpus.assess import Assessed, CorpusSettings
from engine.corpus.assessing import assess_all
from engine.corpus.decisions import Edit, edits, verdicts
from engine.corpus.duplicates import drop_exact, drop_near, name_clusters
from engine.corpus.filters.near import Pair
from engine.corpus.funnel import funnel
from engine.corpus.rules import apply_rules
from engine.corpus.states import Action, Stage, State
from engine.memory.points import Conversation
from engine.runs.events import Funnel


class ByMeaning(Protocol):
    """Adds rows to the items and may drop some; returns the twins by index."""

    def __call__(
        self, store: ledger.Database, items: Sequence[Assessed], decided: Mapping[str, str]
    ) -> list[Pair]: ...


class ConversationStore(ledger.Database, Protocol):
    """What a build reads: `engine.memory.store.MemoryStore` is one."""

    def conversations(self) -> Iterator[Conversation]: ...
    def count(self) -> int: ...


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
        on_progress: called with conversations done and their total.
        by_meaning: the semantic stage, `engine.corpus.semantic`; None leaves it out.
        trained: ids in the lineage of the model in use: what is no longer new for the split.

    Raises what `on_progress` raises; the corpus of the build before then stands.
    """
    now = time.time() if now is None else now
    changes = edits(store.connection)
    items = assess_all(store, settings, changes, on_progress)
    decided = verdicts(store.connection)
    drop_exact(items, decided)
    pairs = drop_near(items, decided, settings.near_threshold)
    if by_meaning:
        pairs += by_meaning(store, items, decided)
    name_clusters(items, pairs, settings.near_threshold)
    build = _build_id(items, settings)
    _write(store, items, settings, changes, build=build, now=now)
    apply_rules(store, decided, build=build, now=now)
    split.assign(store, trained)
    return funnel(store)


def _build_id(items: Sequence[Assessed], settings: CorpusSettings) -> str:
    """A hash of what went in, so that two builds of the same are the same build."""
    digest = sha256(settings_hash(settings).encode())
    for item in items:
        digest.update(f"{item.id}\x1f{item.key}\x1e".encode())
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
    items: Sequence[Assessed],
    settings: CorpusSettings,
    changes: Mapping[str, Mapping[int, Edit]],
    *,
    build: str,
    now: float,
) -> None:
    connection = store.connection

    def write(batch: Sequence[Assessed]) -> None:
        ids = [item.id for item in batch]
        decided = verdicts(connection, ids)
        connection.executemany(
            "DELETE FROM ledger WHERE conversation_id = ? AND stage != ?", [(id_, Stage.SPLIT) for id_ in ids]
        )
        for item in batch:
            ledger.insert(connection, item.rows, build=build, now=now)
        connection.executemany(
            _UPSERT, [_corpus_row(item, settings, decided.get(item.id), build) for item in batch]
        )

    size = 8
    ledger.in_short_writes(
        connection, [items[start : start + size] for start in range(0, len(items), size)], write
    )
    current = {item.id for item in items}
    gone = [id_ for (id_,) in connection.execute("SELECT conversation_id FROM corpus") if id_ not in current]

    def remove(id_: str) -> None:
        connection.execute("DELETE FROM corpus WHERE conversation_id = ?", (id_,))
        connection.execute("DELETE FROM ledger WHERE conversation_id = ? AND stage != ?", (id_, Stage.SPLIT))

    ledger.in_short_writes(connection, gone, remove)

    def stamp(_: None) -> None:
        facts = {
            "corpus_build": build,
            "corpus_settings": settings_hash(settings),
            "corpus_near_threshold": repr(settings.near_threshold),
            "corpus_built_at": repr(now),
            "corpus_edits": repr(sorted(edit.seq for change in changes.values() for edit in change.values())),
        }
        for key, value in facts.items():
            connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))

    ledger.in_short_writes(connection, [None], stamp)


_UPSERT = """
INSERT INTO corpus (conversation_id, build_id, state, stage, reason, cluster, language, quality, pairs, first_line,
                    sort_time, twin, automatic)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (conversation_id) DO UPDATE SET
    build_id = excluded.build_id, state = excluded.state, stage = excluded.stage, reason = excluded.reason,
    cluster = excluded.cluster, language = excluded.language, quality = excluded.quality, pairs = excluded.pairs,
    first_line = excluded.first_line, sort_time = excluded.sort_time, twin = excluded.twin,
    automatic = excluded.automatic
"""


def _corpus_row(
    item: Assessed, settings: CorpusSettings, verdict: str | None, build: str
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
    if not why and any(row.action == Action.REDACT for row in item.rows):
        stage, reason = Stage.SENSITIVE, next(row.reason for row in item.rows if row.action == Action.REDACT)
    elif not why and not stage:
        masked = next((row for row in item.rows if row.action == Action.MASK), None)
        stage, reason = (Stage.LOW_VALUE, masked.reason) if masked else ("", "")
    return (
        item.id,
        build,
        verdict or automatic,
        stage,
        reason,
        item.cluster,
        item.language,
        item.quality,
        item.pairs,
        item.first_line,
        item.end,
        item.dropped.twin if item.dropped else None,
        automatic,
    )
