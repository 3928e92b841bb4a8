"""Vectors of conversations, kept in `memory.db` by the hash of the content: each is computed once for an embedder.

A row holds two vectors, of the questions and of the answers. `engine.memory.deletion` removes it with its
conversation. Vectors that came with an import lie in the same table under the name of their program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from engine.corpus.ledger import Database
from engine.memory.transactions import write_in_chunks

if TYPE_CHECKING:
    from engine.corpus.embedding.protocol import Embedder, Matrix

LONGEST = 2_000
"""Code points of the questions, and of the answers, that are read."""
_CHUNK = 64


class Sides(msgspec.Struct, frozen=True):
    """What the people of a conversation said: all questions, all answers."""

    questions: str
    answers: str

    @property
    def cut(self) -> bool:
        return len(self.questions) > LONGEST or len(self.answers) > LONGEST


def sides(store: Database, ids: Sequence[str]) -> dict[str, Sides]:
    """Questions and answers of some conversations, in order."""
    said: dict[str, tuple[list[str], list[str]]] = {id_: ([], []) for id_ in ids}
    for id_, role, text in store.connection.execute(
        "SELECT conversation_id, role, text FROM turns WHERE role IN ('user', 'assistant') "
        "AND conversation_id IN (SELECT value FROM json_each(?)) ORDER BY conversation_id, position",
        (msgspec.json.encode(list(ids)).decode(),),
    ):
        said[id_][role == "assistant"].append(text)
    return {id_: Sides("\n".join(asked), "\n".join(told)) for id_, (asked, told) in said.items()}


def vectors(
    store: Database,
    embedder: Embedder,
    ids: Sequence[str],
    on_progress: Callable[[int, int], None] | None = None,
) -> Matrix:
    """Shape (ids, 2, dimensions), each vector of length 1; what is computed is kept before the next is.

    Raises what the embedder and `on_progress` raise.
    """
    import numpy as np

    size = embedder.encode(["?"]).shape[1]
    found = np.zeros((len(ids), 2, size), dtype=np.float32)
    done = 0
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        hashes = _hashes(store, chunk)
        kept = dict(_kept(store, embedder.name, list(hashes.values()), size))
        missing = [id_ for id_ in chunk if hashes[id_] not in kept]
        if missing:
            said = sides(store, missing)
            texts = [
                text[:LONGEST] or " " for id_ in missing for text in (said[id_].questions, said[id_].answers)
            ]
            fresh = np.ascontiguousarray(embedder.encode(texts), dtype="<f4").reshape(len(missing), 2, size)
            rows = {hashes[id_]: fresh[place].tobytes() for place, id_ in enumerate(missing)}
            _keep(store, embedder.name, rows)
            kept |= rows
        for place, id_ in enumerate(chunk):
            found[start + place] = np.frombuffer(kept[hashes[id_]], dtype="<f4").reshape(2, size)
        done += len(chunk)
        if on_progress:
            on_progress(done, len(ids))
    return found


def _hashes(store: Database, ids: Sequence[str]) -> dict[str, str]:
    return dict(
        store.connection.execute(
            "SELECT id, content_hash FROM conversations WHERE id IN (SELECT value FROM json_each(?))",
            (msgspec.json.encode(list(ids)).decode(),),
        )
    )


def _kept(store: Database, name: str, hashes: Sequence[str], size: int) -> Iterator[tuple[str, bytes]]:
    for hash_, blob in store.connection.execute(
        "SELECT content_hash, vector FROM embeddings WHERE embedder = ? "
        "AND content_hash IN (SELECT value FROM json_each(?))",
        (name, msgspec.json.encode(list(hashes)).decode()),
    ):
        if len(blob) == 2 * 4 * size:
            yield hash_, blob


def _keep(store: Database, name: str, rows: dict[str, bytes]) -> None:
    def write(row: tuple[str, bytes]) -> None:
        store.connection.execute("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)", (row[0], name, row[1]))

    write_in_chunks(store.connection, list(rows.items()), write)
