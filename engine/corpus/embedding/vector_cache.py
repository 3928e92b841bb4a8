"""Vectors of conversations, cached in `memory.db` by content hash and embedder.

A row holds two vectors, of the questions and of the answers. `engine.memory.deletion` deletes it with its
conversation. Vectors that came with an import are in the same table under the name of their program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from engine.corpus.ledger import Database
from engine.memory.transactions import write_in_chunks

if TYPE_CHECKING:
    from engine.corpus.embedding.backends import Embedder, Matrix

MAX_LENGTH = 2_000
"""Code points of the questions, and of the answers, that are embedded."""
_CHUNK = 64


class Dialogue(msgspec.Struct, frozen=True):
    """All questions and all answers of a conversation, each joined by line breaks."""

    questions: str
    answers: str

    @property
    def truncated(self) -> bool:
        return len(self.questions) > MAX_LENGTH or len(self.answers) > MAX_LENGTH


def read_dialogues(store: Database, ids: Sequence[str]) -> dict[str, Dialogue]:
    """Questions and answers of some conversations, in order."""
    turns: dict[str, tuple[list[str], list[str]]] = {id_: ([], []) for id_ in ids}
    for id_, role, text in store.connection.execute(
        "SELECT conversation_id, role, text FROM turns WHERE role IN ('user', 'assistant') "
        "AND conversation_id IN (SELECT value FROM json_each(?)) ORDER BY conversation_id, position",
        (msgspec.json.encode(list(ids)).decode(),),
    ):
        turns[id_][role == "assistant"].append(text)
    return {
        id_: Dialogue("\n".join(questions), "\n".join(answers)) for id_, (questions, answers) in turns.items()
    }


def vectors(
    store: Database,
    embedder: Embedder,
    ids: Sequence[str],
    on_progress: Callable[[int, int], None] | None = None,
) -> Matrix:
    """The vectors of questions and answers, of length 1; shape (ids, 2, dimensions).

    Missing vectors are computed and saved chunk by chunk. Raises what the embedder and `on_progress` raise.
    """
    import numpy as np

    size = embedder.encode(["?"]).shape[1]
    found = np.zeros((len(ids), 2, size), dtype=np.float32)
    done = 0
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        hashes = _hashes(store, chunk)
        cached = dict(_cached(store, embedder.name, list(hashes.values()), size))
        missing = [id_ for id_ in chunk if hashes[id_] not in cached]
        if missing:
            dialogues = read_dialogues(store, missing)
            texts = [
                text[:MAX_LENGTH] or " "
                for id_ in missing
                for text in (dialogues[id_].questions, dialogues[id_].answers)
            ]
            fresh = np.ascontiguousarray(embedder.encode(texts), dtype="<f4").reshape(len(missing), 2, size)
            rows = {hashes[id_]: fresh[index].tobytes() for index, id_ in enumerate(missing)}
            _save(store, embedder.name, rows)
            cached |= rows
        for index, id_ in enumerate(chunk):
            found[start + index] = np.frombuffer(cached[hashes[id_]], dtype="<f4").reshape(2, size)
        done += len(chunk)
        if on_progress:
            on_progress(done, len(ids))
    return found


def _hashes(store: Database, ids: Sequence[str]) -> dict[str, str]:
    """The content hash of each conversation."""
    return dict(
        store.connection.execute(
            "SELECT id, content_hash FROM conversations WHERE id IN (SELECT value FROM json_each(?))",
            (msgspec.json.encode(list(ids)).decode(),),
        )
    )


def _cached(store: Database, name: str, hashes: Sequence[str], size: int) -> Iterator[tuple[str, bytes]]:
    for hash_, blob in store.connection.execute(
        "SELECT content_hash, vector FROM embeddings WHERE embedder = ? "
        "AND content_hash IN (SELECT value FROM json_each(?))",
        (name, msgspec.json.encode(list(hashes)).decode()),
    ):
        if len(blob) == 2 * 4 * size:
            yield hash_, blob


def _save(store: Database, name: str, rows: dict[str, bytes]) -> None:
    def write(row: tuple[str, bytes]) -> None:
        store.connection.execute("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)", (row[0], name, row[1]))

    write_in_chunks(store.connection, list(rows.items()), write)
