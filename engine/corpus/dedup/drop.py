"""Drops exact and near duplicates, and names the clusters that the split keeps on one side.

A cluster holds duplicates, near duplicates, and conversations that open with the same question (alternatives of one
message tree, a question asked again).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.corpus.dedup.meaning import SpokenText, say_the_same
from engine.corpus.dedup.near import Components, SimilarPair, candidate_pairs, verified_pairs
from engine.corpus.enums import CorpusStage, ReviewState
from engine.corpus.filters.cache import FilteredCorpus
from engine.corpus.filters.normalise import letters
from engine.corpus.filters.run import CorpusEntry
from engine.corpus.review.decision_log import edits_in_force

_PAIRS_READ = 500
"""Candidates whose texts are read together."""
_CACHED_CHARACTERS = 1_000_000
"""Characters of conversations whose words are kept for the next candidates: some 40 MB."""

Candidates = NDArray[np.int64]
Decided = Mapping[str, str]
"""The user's decision (a ReviewState) by conversation."""


def drop_exact(entries: Sequence[CorpusEntry], decided: Decided) -> None:
    """Keeps the best of each group of exact duplicates, and everything that the user accepted."""
    groups: dict[bytes, list[CorpusEntry]] = {}
    for entry in entries:
        if is_competing(entry, decided):
            groups.setdefault(entry.content_key, []).append(entry)
    for group in groups.values():
        if len(group) == 1:
            continue
        best, *others = sorted(group, key=lambda entry: rank(entry, decided))
        for other in others:
            if decided.get(other.id) != ReviewState.ACCEPTED:
                other.drop(CorpusStage.EXACT, "duplicate", duplicate_of=best.id, similarity=1.0)


def find_candidates(corpus: FilteredCorpus, threshold: float) -> Candidates:
    """Pairs of conversations that may be similar, by index of the entries, shape (n, 2); each distinct text once. Dropped
    entries are included."""
    entries = corpus.entries
    distinct = _first_index(entry.text_digest for entry in entries)
    rows = np.array([index for index in distinct.values() if corpus.sketch_counts[index] > 0], dtype=np.int64)
    lengths = np.array([entries[index].lengths[0] for index in rows], dtype=np.int64)
    return rows[candidate_pairs(corpus.text_sketches[rows], lengths, threshold)]


def near_duplicates(
    connection: sqlite3.Connection, entries: Sequence[CorpusEntry], candidates: Candidates, threshold: float
) -> list[SimilarPair]:
    """Those of the candidates that are similar and say the same."""
    same: list[tuple[int, int]] = []
    known: dict[int, SpokenText] = {}
    for start in range(0, len(candidates), _PAIRS_READ):
        block = candidates[start : start + _PAIRS_READ].tolist()
        wanted = dict.fromkeys(index for pair in block for index in pair)
        if sum(entries[index].characters for index in known) > _CACHED_CHARACTERS:
            known = {index: known[index] for index in wanted if index in known}
        missing = [index for index in wanted if index not in known]
        turns = turns_in_force(connection, [entries[index].id for index in missing])
        known.update(zip(missing, map(SpokenText.of, turns), strict=True))
        same += [(one, other) for one, other in block if say_the_same(known[one], known[other])]
    return list(
        verified_pairs(
            np.array(same, dtype=np.int64).reshape(-1, 2),
            _plain_texts_of(connection, entries),
            threshold,
            by_words=True,
        )
    )


def _plain_texts_of(
    connection: sqlite3.Connection, entries: Sequence[CorpusEntry]
) -> Callable[[Sequence[int]], list[str]]:
    return lambda indices: plain_texts(connection, [entries[index].id for index in indices])


def drop_near(entries: Sequence[CorpusEntry], decided: Decided, pairs: Sequence[SimilarPair]) -> None:
    """From best to worst, drops entries that are a near duplicate of one already kept."""
    neighbours: dict[bytes, list[tuple[bytes, float]]] = {}
    for pair in pairs:
        one, other = entries[pair.first].text_digest, entries[pair.second].text_digest
        neighbours.setdefault(one, []).append((other, pair.similarity))
        neighbours.setdefault(other, []).append((one, pair.similarity))
    kept: dict[bytes, str] = {}
    competing = (
        entry for entry in entries if entry.text_digest in neighbours and is_competing(entry, decided)
    )
    for entry in sorted(competing, key=lambda entry: rank(entry, decided)):
        nearest = max(
            ((similarity, kept[text]) for text, similarity in neighbours[entry.text_digest] if text in kept),
            key=itemgetter(0),
            default=None,
        )
        if nearest and decided.get(entry.id) != ReviewState.ACCEPTED:
            similarity, kept_id = nearest
            entry.drop(
                CorpusStage.NEAR, "near_duplicate", duplicate_of=kept_id, similarity=round(similarity, 4)
            )
        else:
            kept.setdefault(entry.text_digest, entry.id)


def name_clusters(
    connection: sqlite3.Connection,
    corpus: FilteredCorpus,
    candidates: Candidates,
    duplicates: Iterable[SimilarPair],
    threshold: float,
) -> None:
    """Sets the cluster of each entry: the smallest conversation id in it. Candidates are in one when they are similar, whatever
    they say."""
    entries = corpus.entries
    clusters = Components(len(entries))
    for pair in duplicates:
        clusters.link(pair.first, pair.second)
    openings = _first_index(entry.opening_digest for entry in entries)
    for first_index, values in (
        (_first_index(entry.content_key for entry in entries), (entry.content_key for entry in entries)),
        (_first_index(entry.text_digest for entry in entries), (entry.text_digest for entry in entries)),
        (openings, (entry.opening_digest for entry in entries)),
    ):
        for index, value in enumerate(values):
            if value:
                clusters.link(first_index[value], index)
    rows = np.array(
        [index for index in openings.values() if corpus.sketch_counts[index] == 2], dtype=np.int64
    )
    lengths = np.array([entries[index].lengths[1] for index in rows], dtype=np.int64)
    near = rows[candidate_pairs(corpus.opening_sketches[rows], lengths, threshold)]
    # Of many texts of one template only as many pairs are read as connect them.
    for pairs, texts in (
        (near, lambda indices: _plain_openings(connection, [entries[index] for index in indices])),
        (candidates, _plain_texts_of(connection, entries)),
    ):
        for pair in verified_pairs(pairs, texts, threshold, may_compare=clusters.apart):
            clusters.link(pair.first, pair.second)
    roots = [clusters.root(index) for index in range(len(entries))]
    names: dict[int, str] = {}
    for root, entry in zip(roots, entries, strict=True):
        names[root] = min(names.get(root, entry.id), entry.id)
    for root, entry in zip(roots, entries, strict=True):
        entry.cluster = names[root]


def _first_index(values: Iterable[bytes]) -> dict[bytes, int]:
    """The index of the first occurrence of each value; b"" is ignored."""
    found: dict[bytes, int] = {}
    for index, value in enumerate(values):
        if value:
            found.setdefault(value, index)
    return found


def is_competing(entry: CorpusEntry, decided: Decided) -> bool:
    """Whether an entry takes part in deduplication: neither dropped before nor rejected by the user."""
    decision = decided.get(entry.id)
    return decision == ReviewState.ACCEPTED or (entry.dropped is None and decision != ReviewState.REJECTED)


def rank(entry: CorpusEntry, decided: Decided) -> tuple[object, ...]:
    """Sort key, best first: accepted by the user, not held, longer, newer; then by id, so that builds agree."""
    return (
        decided.get(entry.id) != ReviewState.ACCEPTED,
        entry.held is not None,
        -entry.characters,
        -(entry.end_time or 0.0),
        entry.id,
    )


def turns_in_force(connection: sqlite3.Connection, ids: Sequence[str]) -> list[list[tuple[str, str]]]:
    """Role and text of the turns with content of each conversation, edits applied, in the order of `ids`."""
    edits = edits_in_force(connection, ids)
    found: dict[str, list[tuple[str, str]]] = {}
    rows = connection.execute(
        "SELECT conversation_id, position, role, text FROM turns "
        "WHERE conversation_id IN (SELECT value FROM json_each(?)) ORDER BY conversation_id, position",
        (_json(ids),),
    )
    for id_, turns in groupby(rows, key=itemgetter(0)):
        edited = edits.get(id_, {})
        parts = (
            (role, edited[position].text if position in edited else text)
            for _id, position, role, text in turns
        )
        found[id_] = [(role, text) for role, text in parts if text.strip()]
    return [found.get(id_, []) for id_ in ids]


def plain_texts(connection: sqlite3.Connection, ids: Sequence[str]) -> list[str]:
    """The letters of the text in force of each conversation, in the order of `ids`."""
    return ["".join(letters(text) for _role, text in turns) for turns in turns_in_force(connection, ids)]


def _plain_openings(connection: sqlite3.Connection, entries: Sequence[CorpusEntry]) -> list[str]:
    """The letters of the opening question in force of each entry."""
    edits = edits_in_force(connection, [entry.id for entry in entries])
    turns = dict(
        connection.execute(
            "SELECT t.conversation_id, t.text FROM json_each(?) j JOIN turns t "
            "ON t.conversation_id = json_extract(j.value, '$[0]') "
            "AND t.position = json_extract(j.value, '$[1]')",
            (_json([(entry.id, entry.opening_turn) for entry in entries]),),
        )
    )
    return [
        letters(
            edits[entry.id][entry.opening_turn].text
            if entry.opening_turn in edits.get(entry.id, {})
            else turns.get(entry.id, "")
        )
        for entry in entries
    ]


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
