"""Drops exact and near duplicates, and names the clusters that the split keeps on one side.

A cluster holds duplicates, near duplicates, and conversations that open with the same question (alternatives of one
message tree, a question asked again).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter

import msgspec
import numpy as np

from engine.corpus.dedup.meaning import SpokenText, say_the_same
from engine.corpus.dedup.near import SimilarPair, candidate_pairs, connected_components, verified_pairs
from engine.corpus.enums import CorpusStage, ReviewState
from engine.corpus.filters.cache import FilteredCorpus
from engine.corpus.filters.normalise import letters
from engine.corpus.filters.run import CorpusEntry
from engine.corpus.review.decision_log import edits_in_force

_PAIRS_READ = 500
"""Similar pairs whose texts are read together."""

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


def find_similar(
    connection: sqlite3.Connection, corpus: FilteredCorpus, threshold: float
) -> list[SimilarPair]:
    """Pairs of conversations of almost the same letters by index of the entries, each distinct text once; dropped
    entries are included. They may say different things: `near_duplicates` selects those that do not."""
    entries = corpus.entries
    distinct = _first_index(entry.text_digest for entry in entries)
    rows = np.array([index for index in distinct.values() if corpus.sketch_counts[index] > 0], dtype=np.int64)
    lengths = np.array([entries[index].lengths[0] for index in rows], dtype=np.int64)
    pairs = rows[candidate_pairs(corpus.text_sketches[rows], lengths, threshold)]
    return list(
        verified_pairs(
            pairs, lambda indices: plain_texts(connection, [entries[i].id for i in indices]), threshold
        )
    )


def near_duplicates(
    connection: sqlite3.Connection, entries: Sequence[CorpusEntry], similar: Sequence[SimilarPair]
) -> list[SimilarPair]:
    """Those of the `similar` pairs that say the same."""
    found: list[SimilarPair] = []
    known: dict[int, SpokenText] = {}
    for start in range(0, len(similar), _PAIRS_READ):
        block = similar[start : start + _PAIRS_READ]
        wanted = dict.fromkeys(index for pair in block for index in (pair.first, pair.second))
        known = {index: known[index] for index in wanted if index in known}
        missing = [index for index in wanted if index not in known]
        turns = turns_in_force(connection, [entries[index].id for index in missing])
        known.update(zip(missing, map(SpokenText.of, turns), strict=True))
        found += [pair for pair in block if say_the_same(known[pair.first], known[pair.second])]
    return found


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
    connection: sqlite3.Connection, corpus: FilteredCorpus, pairs: Iterable[SimilarPair], threshold: float
) -> None:
    """Sets the cluster of each entry: the smallest conversation id in it."""
    entries = corpus.entries
    links = [(pair.first, pair.second) for pair in pairs]
    openings = _first_index(entry.opening_digest for entry in entries)
    for first_index, values in (
        (_first_index(entry.content_key for entry in entries), (entry.content_key for entry in entries)),
        (_first_index(entry.text_digest for entry in entries), (entry.text_digest for entry in entries)),
        (openings, (entry.opening_digest for entry in entries)),
    ):
        links += [
            (first_index[value], index)
            for index, value in enumerate(values)
            if value and first_index[value] != index
        ]
    rows = np.array(
        [index for index in openings.values() if corpus.sketch_counts[index] == 2], dtype=np.int64
    )
    lengths = np.array([entries[index].lengths[1] for index in rows], dtype=np.int64)
    near = rows[candidate_pairs(corpus.opening_sketches[rows], lengths, threshold)]
    links += [
        (pair.first, pair.second)
        for pair in verified_pairs(
            near, lambda indices: _plain_openings(connection, [entries[i] for i in indices]), threshold
        )
    ]
    roots = connected_components(len(entries), links)
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
