"""Which conversations are twins: exact and near duplicates are left out, and clusters keep kin on one side.

A cluster is what the split may not tear: duplicates, near duplicates, and conversations that open with the
same question (alternatives of one tree, a question asked again).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.corpus.assess import Assessed
from engine.corpus.filters.near import Pair, clusters, near_pairs
from engine.corpus.states import Stage, State

_OPENING_NEAR = 20
"""Folded characters from which openings are compared nearly too: in shorter ones a word makes the question."""


def drop_exact(items: Sequence[Assessed], decided: Mapping[str, str]) -> None:
    """Keeps the best of each group with the same words. What the person accepted always stays."""
    groups: dict[str, list[Assessed]] = {}
    for item in items:
        if competes(item, decided):
            groups.setdefault(item.key, []).append(item)
    for group in groups.values():
        best, *others = sorted(group, key=lambda item: rank(item, decided))
        for other in others:
            if decided.get(other.id) != State.ACCEPTED:
                other.drop(Stage.EXACT, "duplicate", twin=best.id, similarity=1.0)


def drop_near(items: Sequence[Assessed], decided: Mapping[str, str], threshold: float) -> list[Pair]:
    """Goes from the best to the worst and leaves out what is a near duplicate of one already kept.

    Returns all near pairs by index of `items`, dropped conversations included: clusters need them.
    """
    first_of: dict[str, int] = {}
    for index, item in enumerate(items):
        first_of.setdefault(item.folded, index)
    distinct = list(first_of.values())
    pairs = [
        Pair(distinct[pair.first], distinct[pair.second], pair.similarity)
        for pair in near_pairs([items[index].folded for index in distinct], threshold)
    ]
    twins: dict[str, list[tuple[str, float]]] = {}
    for pair in pairs:
        one, other = items[pair.first].folded, items[pair.second].folded
        twins.setdefault(one, []).append((other, pair.similarity))
        twins.setdefault(other, []).append((one, pair.similarity))
    kept: dict[str, str] = {}
    for item in sorted(
        (item for item in items if competes(item, decided)), key=lambda item: rank(item, decided)
    ):
        twin = max(
            ((similarity, kept[text]) for text, similarity in twins.get(item.folded, ()) if text in kept),
            key=lambda found: found[0],
            default=None,
        )
        if twin and decided.get(item.id) != State.ACCEPTED:
            item.drop(Stage.NEAR, "near_duplicate", twin=twin[1], similarity=round(twin[0], 4))
        else:
            kept.setdefault(item.folded, item.id)
    return pairs


def name_clusters(items: Sequence[Assessed], pairs: Sequence[Pair], threshold: float) -> None:
    """Gives each conversation the id of its cluster: the smallest conversation id in it."""
    links = [(pair.first, pair.second) for pair in pairs]
    openings: dict[str, int] = {}
    for texts in ((item.key for item in items), (item.folded for item in items)):
        seen: dict[str, int] = {}
        for index, text in enumerate(texts):
            if text:
                links.append((seen.setdefault(text, index), index))
    for index, item in enumerate(items):
        if item.opening:
            links.append((openings.setdefault(item.opening, index), index))
    long = [opening for opening in openings if len(opening) >= _OPENING_NEAR]
    for pair in near_pairs(long, threshold):
        links.append((openings[long[pair.first]], openings[long[pair.second]]))
    roots = clusters(len(items), links)
    names: dict[int, str] = {}
    for root, item in zip(roots, items, strict=True):
        names[root] = min(names.get(root, item.id), item.id)
    for root, item in zip(roots, items, strict=True):
        item.cluster = names[root]


def competes(item: Assessed, decided: Mapping[str, str]) -> bool:
    """Whether it may keep or lose a place: not dropped already, not rejected by the person."""
    verdict = decided.get(item.id)
    return verdict == State.ACCEPTED or (item.dropped is None and verdict != State.REJECTED)


def rank(item: Assessed, decided: Mapping[str, str]) -> tuple[object, ...]:
    """Smallest first: accepted by the person, not held, longer, newer, then by id so that builds agree."""
    return (
        decided.get(item.id) != State.ACCEPTED,
        item.held is not None,
        -item.characters,
        -(item.end or 0.0),
        item.id,
    )
