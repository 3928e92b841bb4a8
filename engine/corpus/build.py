"""Builds the corpus from memory: filters, exact, near and semantic duplicates, clusters, rules, split.

A build is a pure function of memory, settings and the user's decisions: building again changes nothing. Filter results
are cached (`filters.cache`), and only corpus rows that change are written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b, sha256
from typing import Protocol

import msgspec

from engine.corpus import ledger, split
from engine.corpus.dedup.drop import drop_exact, drop_near, find_candidates, name_clusters, near_duplicates
from engine.corpus.dedup.near import SimilarPair
from engine.corpus.enums import CorpusStage, LedgerAction, ReviewState
from engine.corpus.filters.cache import (
    ConversationStore,
    CorpusSettings,
    EditsByConversation,
    FilteredCorpus,
    code_version,
    filter_changed,
    load_results,
    prune,
)
from engine.corpus.filters.run import CorpusEntry, FilterResult
from engine.corpus.review.decision_log import decided_states, edits_in_force, states_of_shorter_forms
from engine.corpus.review.rules import apply_rules, flag_changed_since_review
from engine.corpus.stats import corpus_funnel
from engine.memory.transactions import ChunkedWriter, deferred_fsync
from engine.runs.events import Funnel

_PAGE = 500
"""Conversations whose filter results are read together."""
_WRITE_BATCH = 20
"""Conversations written between two checks of the clock."""


class SemanticStage(Protocol):
    """Adds ledger rows to the entries and may drop some; returns semantic duplicates by index."""

    def __call__(
        self, store: ledger.Database, entries: Sequence[CorpusEntry], decided: Mapping[str, str]
    ) -> list[SimilarPair]: ...


def build_corpus(
    store: ConversationStore,
    settings: CorpusSettings,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    now: float | None = None,
    trained: frozenset[str] = frozenset(),
    semantic_stage: SemanticStage | None = None,
) -> Funnel:
    """Filters all conversations of `store` and writes ledger and corpus rows; decisions are kept.

    Args:
        on_progress: called with the number of filtered conversations and the total.
        trained: ids in the lineage of the model in use, which the split treats as trained on.
        semantic_stage: `engine.corpus.dedup.semantic.semantic_stage` with its settings; None skips it.

    Raises what `on_progress` raises; the previous corpus then remains.
    """
    now = time.time() if now is None else now
    with deferred_fsync(store.connection):
        edits = edits_in_force(store.connection)
        corpus = filter_changed(store, settings, edits, on_progress)
        entries = corpus.entries
        decided = decided_states(store.connection)
        flag_changed_since_review(
            entries, states_of_shorter_forms(store.connection), decided, review=settings.review
        )
        drop_exact(entries, decided)
        candidates = find_candidates(corpus, settings.near_threshold)
        pairs = near_duplicates(store.connection, entries, candidates, settings.near_threshold)
        drop_near(entries, decided, pairs)
        if semantic_stage:
            pairs += semantic_stage(store, entries, decided)
        name_clusters(store.connection, corpus, candidates, pairs, settings.near_threshold)
        build = _build_id(entries, settings)
        _write(store, corpus, settings, decided, build=build, now=now)
    _write_meta(store, settings, edits, build=build, now=now)
    # Frees the memory before the split.
    del corpus, entries, candidates, pairs
    apply_rules(store, decided, build=build, now=now)
    split.assign(store, trained)
    return corpus_funnel(store)


def _build_id(entries: Sequence[CorpusEntry], settings: CorpusSettings) -> str:
    """A hash of the inputs: builds of the same inputs have the same id."""
    digest = sha256(_settings_hash(settings).encode())
    for entry in entries:
        digest.update(entry.id.encode() + entry.content_key)
    return digest.hexdigest()[:16]


def _settings_hash(settings: CorpusSettings) -> str:
    """sha256 of the settings that a corpus depends on."""
    values = (
        settings.review,
        f"{settings.near_threshold:.6f}",
        settings.embedder,
        settings.sensitive,
        *(f"{type_}={handling}" for type_, handling in sorted(settings.sensitive_types.items())),
        settings.low_value,
        *sorted(settings.low_value_phrases),
    )
    return sha256("\x1f".join(values).encode()).hexdigest()


def _write(
    store: ConversationStore,
    corpus: FilteredCorpus,
    settings: CorpusSettings,
    decided: Mapping[str, str],
    *,
    build: str,
    now: float,
) -> None:
    """Writes corpus and ledger rows whose fingerprint changed, and deletes those of removed conversations."""
    connection = store.connection
    writer = ChunkedWriter(connection)
    written = dict(connection.execute("SELECT conversation_id, made_of FROM corpus"))
    changed = [
        (entry, fingerprint)
        for entry, fingerprint in zip(corpus.entries, _fingerprints(corpus, settings, decided), strict=True)
        if written.get(entry.id) != fingerprint
    ]
    for start in range(0, len(changed), _PAGE):
        page = changed[start : start + _PAGE]
        results = load_results(connection, [entry.id for entry, _fingerprint in page])
        present = [(entry, fingerprint) for entry, fingerprint in page if entry.id in results]
        with writer.transaction():
            for first in range(0, len(present), _WRITE_BATCH):
                batch = present[first : first + _WRITE_BATCH]
                # The user may have decided since the build began.
                states = decided_states(connection, [entry.id for entry, _fingerprint in batch])
                connection.executemany(
                    "DELETE FROM ledger WHERE conversation_id = ? AND stage != ?",
                    [(entry.id, CorpusStage.SPLIT) for entry, _fingerprint in batch if entry.id in written],
                )
                rows = (row for entry, _ in batch for row in (*results[entry.id].rows, *entry.rows))
                ledger.insert(connection, rows, build=build, now=now)
                connection.executemany(
                    _UPSERT,
                    [
                        (
                            *_corpus_row(entry, results[entry.id], settings, states.get(entry.id), build),
                            fingerprint,
                        )
                        for entry, fingerprint in batch
                    ],
                )
                writer.commit_if_due()
    current = {entry.id for entry in corpus.entries}
    removed = [id_ for id_ in written if id_ not in current]
    with writer.transaction():
        for id_ in removed:
            connection.execute("DELETE FROM corpus WHERE conversation_id = ?", (id_,))
            connection.execute(
                "DELETE FROM ledger WHERE conversation_id = ? AND stage != ?", (id_, CorpusStage.SPLIT)
            )
            writer.commit_if_due()
    prune(writer, current)


def _fingerprints(
    corpus: FilteredCorpus, settings: CorpusSettings, decided: Mapping[str, str]
) -> list[bytes]:
    """A digest of all inputs of the rows of each entry."""
    encoder = msgspec.msgpack.Encoder()
    return [
        blake2b(
            encoder.encode(
                (
                    key,
                    settings.review,
                    decided.get(entry.id),
                    entry.dropped,
                    entry.held,
                    entry.rows,
                    entry.cluster,
                )
            ),
            digest_size=12,
        ).digest()
        for entry, key in zip(corpus.entries, corpus.keys, strict=True)
    ]


def _write_meta(
    store: ConversationStore,
    settings: CorpusSettings,
    edits: EditsByConversation,
    *,
    build: str,
    now: float,
) -> None:
    values = {
        "corpus_build": build,
        "corpus_code": code_version(),
        "corpus_settings": _settings_hash(settings),
        "corpus_near_threshold": repr(settings.near_threshold),
        "corpus_built_at": repr(now),
        "corpus_edits": repr(sorted({edit.seq for of_turns in edits.values() for edit in of_turns.values()})),
    }
    with ChunkedWriter(store.connection).transaction():
        for key, value in values.items():
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
    entry: CorpusEntry, result: FilterResult, settings: CorpusSettings, decided: str | None, build: str
) -> tuple[object, ...]:
    """The values of _UPSERT, without `made_of`."""
    cause = entry.dropped or entry.held
    if entry.dropped:
        automatic = ReviewState.DROPPED
    elif entry.held or settings.review == "manual":
        automatic = ReviewState.PENDING
    else:
        automatic = ReviewState.ACCEPTED
    stage, reason = (cause.stage, cause.reason) if cause else ("", "")
    if automatic is ReviewState.PENDING and not cause:
        stage, reason = CorpusStage.REVIEW, "review"
    redacted = next((row for row in result.rows if row.action == LedgerAction.REDACT), None)
    masked = next((row for row in result.rows if row.action == LedgerAction.MASK), None)
    if not cause and redacted:
        stage, reason = CorpusStage.SENSITIVE, redacted.reason
    elif not cause and not stage and masked:
        stage, reason = CorpusStage.LOW_VALUE, masked.reason
    return (
        entry.id,
        build,
        decided or automatic,
        stage,
        reason,
        entry.cluster,
        entry.language,
        result.quality,
        result.pairs,
        result.title,
        entry.end_time,
        entry.dropped.duplicate_of if entry.dropped else None,
        automatic,
    )
