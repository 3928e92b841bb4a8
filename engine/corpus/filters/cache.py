"""What the filters said of each conversation, kept in memory.db so that a build looks only at what changed.

A row holds as long as its `key` does: the words, the times, the person's edits, the settings of the filters
and their code. It goes with its conversation.
"""

from __future__ import annotations

import sqlite3
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b, sha256
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
import numpy as np

from engine.corpus.dedup.near import PERMUTATIONS, SHORTEST, Sketches, sketches
from engine.corpus.filters.pool import assess_each, filters_of, helpers_for
from engine.corpus.filters.result import Item
from engine.corpus.filters.run import CorpusSettings, Facts
from engine.corpus.filters.worker import Answer, Filters, Work
from engine.corpus.ledger import Database
from engine.corpus.review.decision_log import Edit
from engine.memory.records import Conversation
from engine.memory.transactions import ChunkedWriter

OPENING_NEAR = 20
"""Folded characters from which openings are compared nearly too: in shorter ones a word makes the question."""
_SAVED = 100
"""Conversations assessed between two writes."""
_READ = 500
_ITEM = msgspec.msgpack.Decoder(Item)
_FACTS = msgspec.msgpack.Decoder(Facts)

Changes = Mapping[str, Mapping[int, Edit]]
"""The person's edits by conversation and turn."""


class ConversationStore(Database, Protocol):
    """What a build reads: `engine.memory.store.MemoryStore` is one."""

    def by_ids(self, ids: Sequence[str]) -> Iterator[Conversation]: ...


class Assessments(NamedTuple):
    """Every current conversation, dated ones from old to new, then the undated by id."""

    items: list[Item]
    keys: list[bytes]
    """What each was made of."""
    words: Sketches
    """Of the folded words, shape (items, PERMUTATIONS); nothing in the rows of short texts."""
    openings: Sketches
    """Of the folded first questions, likewise."""
    sketched: np.typing.NDArray[np.uint8]
    """0: no sketch, 1: of the words, 2: of words and opening."""


@lru_cache(maxsize=1)
def code_version() -> str:
    """A hash of the code that filters: what was assessed by another is assessed again."""
    digest = sha256(f"{sys.version_info[:2]}{unicodedata.unidata_version}{version('rensa')}".encode())
    corpus = Path(__file__).parents[1]
    own = (corpus / f"{name}.py" for name in ("build", "collect", "language", "quality", "title"))
    for path in (*own, *sorted((corpus / "filters").glob("*.py")), *sorted((corpus / "dedup").glob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def refresh(
    store: ConversationStore,
    settings: CorpusSettings,
    changes: Changes,
    on_progress: Callable[[int, int], None] | None = None,
) -> Assessments:
    """Assesses what is new or changed, and returns what is known of all.

    `on_progress` is called with conversations known and their total. Raises what it raises; what was assessed
    until then is kept.
    """
    filters = filters_of(settings)
    wanted, stale = _keys(store.connection, filters, changes)
    done = len(wanted) - len(stale)
    if on_progress and (done or not wanted):
        on_progress(done, len(wanted))
    works = (
        Work(talk, dict(changes.get(talk.id, {})))
        for start in range(0, len(stale), _READ)
        for talk in store.by_ids(stale[start : start + _READ])
    )
    writer = ChunkedWriter(store.connection)
    answers = (
        answer for batch in assess_each(works, filters, helpers=helpers_for(len(stale))) for answer in batch
    )
    while batch := list(islice(answers, _SAVED)):
        _save(writer, batch, wanted)
        done += len(batch)
        if on_progress:
            on_progress(done, len(wanted))
    return load(store.connection, wanted)


def _keys(
    connection: sqlite3.Connection, filters: Filters, changes: Changes
) -> tuple[dict[str, bytes], list[str]]:
    """The key of each current conversation in order, and those whose row has another or is not there."""
    common = blake2b(msgspec.msgpack.encode((code_version(), filters), order="deterministic")).digest()
    keys: dict[str, bytes] = {}
    stale: list[str] = []
    for id_, content, started, updated, key in connection.execute(
        "SELECT c.id, c.content_hash, c.started_at, c.updated_at, a.key FROM current_conversations c "
        "LEFT JOIN assessments a ON a.conversation_id = c.id ORDER BY c.started_at IS NULL, c.started_at, c.id"
    ):
        change = sorted((turn, edit.seq) for turn, edit in changes[id_].items()) if id_ in changes else ""
        made_of = f"{content}\x1f{started}\x1f{updated}\x1f{change}".encode()
        keys[id_] = blake2b(made_of, digest_size=12, key=common).digest()
        if keys[id_] != key:
            stale.append(id_)
    return keys, stale


def _save(writer: ChunkedWriter, answers: Sequence[Answer], keys: Mapping[str, bytes]) -> None:
    sketched = _sketch(answers)
    rows = [
        (answer.id, keys[answer.id], answer.item, answer.facts, sketch)
        for answer, sketch in zip(answers, sketched, strict=True)
    ]
    with writer.transaction():
        for start in range(0, len(rows), 20):
            # Another process may have had a conversation forgotten in the meantime.
            writer.connection.executemany(
                "INSERT INTO assessments (conversation_id, key, item, facts, sketches) "
                "SELECT ?1, ?2, ?3, ?4, ?5 WHERE EXISTS (SELECT 1 FROM conversations WHERE id = ?1) "
                "ON CONFLICT (conversation_id) DO UPDATE SET key = excluded.key, item = excluded.item, "
                "facts = excluded.facts, sketches = excluded.sketches",
                rows[start : start + 20],
            )
            writer.commit_if_due()


def _sketch(answers: Sequence[Answer]) -> list[bytes]:
    """The sketch of the words, followed by that of the opening where it is long enough."""
    long = [answer.folded for answer in answers if len(answer.folded) >= SHORTEST]
    asked = [answer.opening for answer in answers if len(answer.opening) >= OPENING_NEAR]
    found = iter(sketches(long + asked))
    words = [next(found).tobytes() if len(answer.folded) >= SHORTEST else b"" for answer in answers]
    return [
        sketch + (next(found).tobytes() if len(answer.opening) >= OPENING_NEAR else b"")
        for answer, sketch in zip(answers, words, strict=True)
    ]


def load(connection: sqlite3.Connection, keys: Mapping[str, bytes]) -> Assessments:
    """What is kept of the conversations in `keys`, in that order; those that are not kept are left out."""
    place = {id_: index for index, id_ in enumerate(keys)}
    found: list[Item | None] = [None] * len(place)
    both = np.zeros((len(place), 2, PERMUTATIONS), dtype=np.uint8)
    sketched = np.zeros(len(place), dtype=np.uint8)
    for id_, item, sketch in connection.execute("SELECT conversation_id, item, sketches FROM assessments"):
        index = place.get(id_)
        if index is None:
            continue
        found[index] = _ITEM.decode(item)
        sketched[index] = count = len(sketch) // PERMUTATIONS
        both[index, :count] = np.frombuffer(sketch, dtype=np.uint8).reshape(count, PERMUTATIONS)
    kept = [index for index, item in enumerate(found) if item is not None]
    if len(kept) < len(found):
        both, sketched = both[kept], sketched[kept]
    items = [item for item in found if item is not None]
    return Assessments(items, [keys[item.id] for item in items], both[:, 0], both[:, 1], sketched)


def facts_of(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, Facts]:
    """The facts of some conversations."""
    rows = connection.execute(
        "SELECT conversation_id, facts FROM assessments WHERE conversation_id IN (SELECT value FROM json_each(?))",
        (msgspec.json.encode(list(ids)).decode(),),
    )
    return {id_: _FACTS.decode(facts) for id_, facts in rows}


def prune(writer: ChunkedWriter, current: Iterable[str]) -> None:
    """Removes what is kept of conversations that are no longer current: longer forms stand for them."""
    known = set(current)
    gone = [
        (id_,)
        for (id_,) in writer.connection.execute("SELECT conversation_id FROM assessments")
        if id_ not in known
    ]
    with writer.transaction():
        for row in gone:
            writer.connection.execute("DELETE FROM assessments WHERE conversation_id = ?", row)
            writer.commit_if_due()
