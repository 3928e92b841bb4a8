"""Whether two folded texts are near duplicates: the same text with slips, not other words in the same frame."""

from __future__ import annotations

import re
from collections import Counter

EDITS = 0.08
"""Share of characters that may differ where the Jaccard index falls just short of its threshold."""
SHORT = 1000
"""Folded characters up to which single edits are counted."""
SENTENCE = 200
"""Folded characters up to which the same characters in another order say something else."""
SLACK = 0.2
"""How far below its threshold the Jaccard index may be for edits to be counted: one edit breaks three 3-grams."""

_NUMBER = re.compile(r"[0-9]+")


def are_twins(one: str, other: str, similarity: float, threshold: float) -> bool:
    """`similarity` is the exact Jaccard index of the two.

    Short texts of the same characters in another order ("A beat B", "B beat A") are no twins, whatever the
    index; a short text with few edits and the same figures is one although each edit breaks three n-grams.
    """
    if one == other:
        return True
    longest = max(len(one), len(other))
    if similarity >= threshold:
        return longest > SENTENCE or Counter(one) != Counter(other) or _neighbours_swapped(one, other)
    if similarity < threshold - SLACK or longest > SHORT or _NUMBER.findall(one) != _NUMBER.findall(other):
        return False
    most = int(EDITS * longest)
    here, there = Counter(one), Counter(other)
    # Characters that only one of them has (the bag distance) are edits at least.
    return (
        here != there
        and max((here - there).total(), (there - here).total()) <= most
        and _within(one, other, most)
    )


def _neighbours_swapped(one: str, other: str) -> bool:
    """Whether only pairs of neighbours changed places, as slips of the fingers do."""
    place = 0
    while place < len(one):
        if one[place] == other[place]:
            place += 1
        elif one[place : place + 2] == other[place : place + 2][::-1]:
            place += 2
        else:
            return False
    return True


def _within(one: str, other: str, most: int) -> bool:
    """Whether the Levenshtein distance is at most `most` (banded, Ukkonen 1985)."""
    if abs(len(one) - len(other)) > most:
        return False
    # What both begin and end with takes no edit.
    start = _common(one, other)
    one, other = one[start:], other[start:]
    end = _common(one[::-1], other[::-1])
    one, other = one[: len(one) - end], other[: len(other) - end]
    far = most + 1
    row = [min(column, far) for column in range(len(other) + 1)]
    for line, character in enumerate(one, 1):
        low, high = max(1, line - most), min(len(other), line + most)
        new = [far] * (len(other) + 1)
        new[0] = min(line, far)
        for column in range(low, high + 1):
            best = row[column - 1] + (character != other[column - 1])
            if row[column] < best:
                best = row[column] + 1
            if new[column - 1] < best:
                best = new[column - 1] + 1
            new[column] = best
        if min(new[max(0, low - 1) : high + 1]) > most:
            return False
        row = new
    return row[len(other)] <= most


def _common(one: str, other: str) -> int:
    """Characters that two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (here, there) in pairs if here != there), min(len(one), len(other)))
