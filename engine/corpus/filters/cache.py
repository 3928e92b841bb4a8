"""Filter results kept in memory.db, so that a build filters only what changed.

A row is valid as long as its `key` is: text, times, the user's edits, the filter settings and the filters' code.
It is deleted with its conversation.
"""

from __future__ import annotations

import sqlite3
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b, sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np

from engine.corpus.dedup.near import MIN_LENGTH, PERMUTATIONS, Sketches, sketch_texts
from engine.corpus.filters.folding import fold
from engine.corpus.filters.pool import filter_all, worker_count
from engine.corpus.filters.run import CorpusEntry, FilteredConversation, FilterResult, FilterTask
from engine.corpus.filters.turn import FilterSettings
from engine.corpus.ledger import Database
from engine.corpus.review.decision_log import TurnEdit
from engine.memory.records import Conversation
from engine.memory.transactions import ChunkedWriter

OPENING_MIN_LENGTH = 20
"""Letters and digits from which opening questions are compared for near duplicates; in shorter ones a single word
makes the question."""
_SAVE_BATCH = 100
"""Conversations filtered between two writes."""
_SAVE_S = 0.5
"""Seconds after which fewer are written."""
_READ_BATCH = 500
_ENTRY = msgspec.msgpack.Decoder(CorpusEntry)
_RESULT = msgspec.msgpack.Decoder(FilterResult)

EditsByConversation = Mapping[str, Mapping[int, TurnEdit]]
"""The user's edits by conversation and turn."""


class ConversationStore(Database, Protocol):
    """What a build reads; `engine.memory.store.MemoryStore` implements it."""

    def by_ids(self, ids: Sequence[str]) -> Iterator[Conversation]: ...


class CorpusSettings(Protocol):
    """The part of `engine.core.config.Settings` that the corpus depends on."""

    @property
    def sensitive(self) -> str: ...
    @property
    def sensitive_types(self) -> Mapping[Any, str]: ...
    @property
    def low_value(self) -> str: ...
    @property
    def low_value_from(self) -> float: ...
    @property
    def low_value_phrases(self) -> tuple[str, ...]: ...
    @property
    def review(self) -> str: ...
    @property
    def near_threshold(self) -> float: ...
    @property
    def embedder(self) -> str: ...


class FilteredCorpus(NamedTuple):
    """Every current conversation: dated ones from old to new, then the undated by id."""

    entries: list[CorpusEntry]
    keys: list[bytes]
    """Cache key of each entry."""
    text_sketches: Sketches
    """Sketches of the letters of the texts, shape (entries, PERMUTATIONS); undefined for short texts."""
    opening_sketches: Sketches
    """Sketches of the letters of the opening questions, likewise."""
    sketch_counts: np.typing.NDArray[np.uint8]
    """0: no sketch, 1: of the text, 2: of text and opening question."""


@lru_cache(maxsize=1)
def code_version() -> str:
    """Hash of the code that decides filter results; results of another version are recomputed."""
    digest = sha256(f"{sys.version_info[:2]}{unicodedata.unidata_version}{version('rensa')}".encode())
    engine = Path(__file__).parents[2]
    modules = [
        engine / "corpus" / "build.py",
        engine / "corpus" / "features.py",
        engine / "memory" / "records.py",
    ]
    for package in ("filters", "dedup"):
        modules += sorted((engine / "corpus" / package).glob("*.py"))
    for path in modules:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def filter_settings(settings: CorpusSettings) -> FilterSettings:
    """The part of the settings that decides filter results."""
    return FilterSettings(
        sensitive=settings.sensitive,
        sensitive_types={str(type_): handling for type_, handling in settings.sensitive_types.items()},
        low_value=settings.low_value,
        low_value_from=settings.low_value_from,
        phrases=frozenset(map(fold, settings.low_value_phrases)),
    )


def filter_changed(
    store: ConversationStore,
    settings: CorpusSettings,
    edits: EditsByConversation,
    on_progress: Callable[[int, int], None] | None = None,
) -> FilteredCorpus:
    """Filters conversations that are new or changed; returns the results of all.

    `on_progress` is called with the number of filtered conversations and the total. What it raises is raised here;
    results up to then are kept.
    """
    filters = filter_settings(settings)
    keys, stale = _cache_keys(store.connection, filters, edits)
    done = len(keys) - len(stale)
    if on_progress and (done or not keys):
        on_progress(done, len(keys))
    writer = ChunkedWriter(store.connection)

    def check() -> None:
        if on_progress:
            on_progress(done, len(keys))

    waiting: list[FilteredConversation] = []
    saved_at = time.monotonic()
    tasks = filter_tasks(store, stale, edits)
    try:
        for batch in filter_all(tasks, filters, workers=worker_count(len(stale)), check=check):
            waiting += batch
            if len(waiting) >= _SAVE_BATCH or time.monotonic() - saved_at > _SAVE_S:
                done += _save(writer, waiting, keys)
                saved_at = time.monotonic()
                check()
    finally:
        done += _save(writer, waiting, keys)
    if stale:
        check()
    return load(store.connection, keys)


def filter_tasks(
    store: ConversationStore, ids: Sequence[str], edits: EditsByConversation
) -> Iterator[FilterTask]:
    """The conversations with their edits, read in pages."""
    for start in range(0, len(ids), _READ_BATCH):
        for conversation in store.by_ids(ids[start : start + _READ_BATCH]):
            yield FilterTask(conversation, dict(edits.get(conversation.id, {})))


def _cache_keys(
    connection: sqlite3.Connection, filters: FilterSettings, edits: EditsByConversation
) -> tuple[dict[str, bytes], list[str]]:
    """The cache key of each current conversation in order, and the conversations without a valid row."""
    common = blake2b(msgspec.msgpack.encode((code_version(), filters), order="deterministic")).digest()
    keys: dict[str, bytes] = {}
    stale: list[str] = []
    for id_, content, started, updated, key in connection.execute(
        "SELECT c.id, c.content_hash, c.started_at, c.updated_at, a.key FROM current_conversations c "
        "LEFT JOIN assessments a ON a.conversation_id = c.id ORDER BY c.started_at IS NULL, c.started_at, c.id"
    ):
        edited = sorted((turn, edit.seq) for turn, edit in edits[id_].items()) if id_ in edits else ""
        identity = f"{content}\x1f{started}\x1f{updated}\x1f{edited}".encode()
        keys[id_] = blake2b(identity, digest_size=12, key=common).digest()
        if keys[id_] != key:
            stale.append(id_)
    return keys, stale


def _save(writer: ChunkedWriter, waiting: list[FilteredConversation], keys: Mapping[str, bytes]) -> int:
    """Writes the results that wait, empties the list and returns how many there were."""
    results = waiting.copy()
    waiting.clear()
    rows = [
        (result.id, keys[result.id], result.entry, result.result, sketch)
        for result, sketch in zip(results, _sketches(results), strict=True)
    ]
    with writer.transaction():
        for start in range(0, len(rows), 20):
            # Another process may have deleted a conversation in the meantime.
            writer.connection.executemany(
                "INSERT INTO assessments (conversation_id, key, item, facts, sketches) "
                "SELECT ?1, ?2, ?3, ?4, ?5 WHERE EXISTS (SELECT 1 FROM conversations WHERE id = ?1) "
                "ON CONFLICT (conversation_id) DO UPDATE SET key = excluded.key, item = excluded.item, "
                "facts = excluded.facts, sketches = excluded.sketches",
                rows[start : start + 20],
            )
            writer.commit_if_due()
    return len(results)


def _sketches(results: Sequence[FilteredConversation]) -> list[bytes]:
    """The sketch of each text, followed by that of the opening question where it is long enough."""
    texts = [result.text for result in results if len(result.text) >= MIN_LENGTH]
    openings = [result.opening for result in results if len(result.opening) >= OPENING_MIN_LENGTH]
    sketches = iter(sketch_texts(texts + openings))
    of_texts = [next(sketches).tobytes() if len(result.text) >= MIN_LENGTH else b"" for result in results]
    return [
        sketch + (next(sketches).tobytes() if len(result.opening) >= OPENING_MIN_LENGTH else b"")
        for result, sketch in zip(results, of_texts, strict=True)
    ]


def load(connection: sqlite3.Connection, keys: Mapping[str, bytes]) -> FilteredCorpus:
    """The cached entries of the conversations in `keys`, in that order; those that are not cached are missing."""
    position = {id_: index for index, id_ in enumerate(keys)}
    found: list[CorpusEntry | None] = [None] * len(position)
    sketches = np.zeros((len(position), 2, PERMUTATIONS), dtype=np.uint8)
    counts = np.zeros(len(position), dtype=np.uint8)
    for id_, entry, sketch in connection.execute("SELECT conversation_id, item, sketches FROM assessments"):
        index = position.get(id_)
        if index is None:
            continue
        found[index] = _ENTRY.decode(entry)
        counts[index] = count = len(sketch) // PERMUTATIONS
        sketches[index, :count] = np.frombuffer(sketch, dtype=np.uint8).reshape(count, PERMUTATIONS)
    cached = [index for index, entry in enumerate(found) if entry is not None]
    if len(cached) < len(found):
        sketches, counts = sketches[cached], counts[cached]
    entries = [entry for entry in found if entry is not None]
    return FilteredCorpus(
        entries, [keys[entry.id] for entry in entries], sketches[:, 0], sketches[:, 1], counts
    )


def load_results(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, FilterResult]:
    """The cached results of some conversations."""
    rows = connection.execute(
        "SELECT conversation_id, facts FROM assessments WHERE conversation_id IN (SELECT value FROM json_each(?))",
        (msgspec.json.encode(list(ids)).decode(),),
    )
    return {id_: _RESULT.decode(result) for id_, result in rows}


def prune(writer: ChunkedWriter, current: Iterable[str]) -> None:
    """Deletes the rows of conversations that are no longer current because longer forms replaced them."""
    known = set(current)
    outdated = [
        (id_,)
        for (id_,) in writer.connection.execute("SELECT conversation_id FROM assessments")
        if id_ not in known
    ]
    with writer.transaction():
        for row in outdated:
            writer.connection.execute("DELETE FROM assessments WHERE conversation_id = ?", row)
            writer.commit_if_due()
