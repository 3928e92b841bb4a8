"""Which conversations are twins: exact and near duplicates are left out, and clusters keep kin on one side.

A cluster is what the split may not tear: duplicates, near duplicates, and conversations that open with the
same question (alternatives of one tree, a question asked again).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from engine.corpus.dedup.near import Pair, candidates, clusters, verified
from engine.corpus.dedup.texts import folded_openings, folded_words
from engine.corpus.enums import Stage, State
from engine.corpus.filters.cache import Assessments
from engine.corpus.filters.result import Item


def drop_exact(items: Sequence[Item], decided: Mapping[str, str]) -> None:
    """Keeps the best of each group with the same words. What the person accepted always stays."""
    groups: dict[bytes, list[Item]] = {}
    for item in items:
        if competes(item, decided):
            groups.setdefault(item.key, []).append(item)
    for group in groups.values():
        if len(group) == 1:
            continue
        best, *others = sorted(group, key=lambda item: rank(item, decided))
        for other in others:
            if decided.get(other.id) != State.ACCEPTED:
                other.drop(Stage.EXACT, "duplicate", twin=best.id, similarity=1.0)


def near_twins(connection: sqlite3.Connection, known: Assessments, threshold: float) -> list[Pair]:
    """Near pairs by index of the items, each words once: conversations that are dropped are among them."""
    items = known.items
    distinct = _first_of(item.words for item in items)
    rows = np.array([index for index in distinct.values() if known.sketched[index] > 0], dtype=np.int64)
    lengths = np.array([items[index].lengths[0] for index in rows], dtype=np.int64)
    pairs = rows[candidates(known.words[rows], lengths, threshold)]
    return list(
        verified(pairs, lambda indices: folded_words(connection, [items[i].id for i in indices]), threshold)
    )


def drop_near(items: Sequence[Item], decided: Mapping[str, str], pairs: Sequence[Pair]) -> None:
    """Goes from the best to the worst and leaves out what is a near duplicate of one already kept."""
    twins: dict[bytes, list[tuple[bytes, float]]] = {}
    for pair in pairs:
        one, other = items[pair.first].words, items[pair.second].words
        twins.setdefault(one, []).append((other, pair.similarity))
        twins.setdefault(other, []).append((one, pair.similarity))
    kept: dict[bytes, str] = {}
    # One without twins neither loses its place nor takes another's.
    concerned = (item for item in items if item.words in twins and competes(item, decided))
    for item in sorted(concerned, key=lambda item: rank(item, decided)):
        twin = max(
            ((similarity, kept[words]) for words, similarity in twins[item.words] if words in kept),
            key=lambda found: found[0],
            default=None,
        )
        if twin and decided.get(item.id) != State.ACCEPTED:
            item.drop(Stage.NEAR, "near_duplicate", twin=twin[1], similarity=round(twin[0], 4))
        else:
            kept.setdefault(item.words, item.id)


def name_clusters(
    connection: sqlite3.Connection, known: Assessments, pairs: Iterable[Pair], threshold: float
) -> None:
    """Gives each conversation the id of its cluster: the smallest conversation id in it."""
    items = known.items
    links = [(pair.first, pair.second) for pair in pairs]
    openings = _first_of(item.opening for item in items)
    for first_of, values in (
        (_first_of(item.key for item in items), (item.key for item in items)),
        (_first_of(item.words for item in items), (item.words for item in items)),
        (openings, (item.opening for item in items)),
    ):
        links += [
            (first_of[value], index)
            for index, value in enumerate(values)
            if value and first_of[value] != index
        ]
    rows = np.array([index for index in openings.values() if known.sketched[index] == 2], dtype=np.int64)
    lengths = np.array([items[index].lengths[1] for index in rows], dtype=np.int64)
    near = rows[candidates(known.openings[rows], lengths, threshold)]
    links += [
        (pair.first, pair.second)
        for pair in verified(
            near, lambda indices: folded_openings(connection, [items[i] for i in indices]), threshold
        )
    ]
    roots = clusters(len(items), links)
    names: dict[int, str] = {}
    for root, item in zip(roots, items, strict=True):
        names[root] = min(names.get(root, item.id), item.id)
    for root, item in zip(roots, items, strict=True):
        item.cluster = names[root]


def _first_of(values: Iterable[bytes]) -> dict[bytes, int]:
    """Where each value stands first; b"" is none."""
    found: dict[bytes, int] = {}
    for index, value in enumerate(values):
        if value:
            found.setdefault(value, index)
    return found


def competes(item: Item, decided: Mapping[str, str]) -> bool:
    """Whether it may keep or lose a place: not dropped already, not rejected by the person."""
    verdict = decided.get(item.id)
    return verdict == State.ACCEPTED or (item.dropped is None and verdict != State.REJECTED)


def rank(item: Item, decided: Mapping[str, str]) -> tuple[object, ...]:
    """Smallest first: accepted by the person, not held, longer, newer, then by id so that builds agree."""
    return (
        decided.get(item.id) != State.ACCEPTED,
        item.held is not None,
        -item.characters,
        -(item.end or 0.0),
        item.id,
    )
