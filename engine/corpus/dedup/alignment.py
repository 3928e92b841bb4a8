"""The differences of two sequences, where there are few (Myers 1986, O(ND))."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Difference(NamedTuple):
    """The half-open range [start, end) of one sequence stands where the other has [other_start, other_end)."""

    start: int
    end: int
    other_start: int
    other_end: int


def differences(one: Sequence[str], other: Sequence[str], *, most: int) -> list[Difference] | None:
    """The differences in order; None where more than `most` tokens must be put in or left out."""
    if abs(len(one) - len(other)) > most:
        return None
    start = 0
    end, other_end = len(one), len(other)
    while start < min(end, other_end) and one[start] == other[start]:
        start += 1
    while start < min(end, other_end) and one[end - 1] == other[other_end - 1]:
        end -= 1
        other_end -= 1
    edits = _edit_path(one[start:end], other[start:other_end], most)
    if edits is None:
        return None
    found: list[Difference] = []
    for x, y, right in edits:
        here = Difference(start + x, start + x + right, start + y, start + y + (not right))
        last = found[-1] if found else None
        if last and last.end == here.start and last.other_end == here.other_start:
            found[-1] = Difference(last.start, here.end, last.other_start, here.other_end)
        else:
            found.append(here)
    return found


def _edit_path(one: Sequence[str], other: Sequence[str], most: int) -> list[tuple[int, int, bool]] | None:
    """The edits as (position in one, position in other, whether it leaves out a token of `one`)."""
    reached = {1: 0}
    history: list[dict[int, int]] = []
    for edits in range(most + 1):
        history.append(dict(reached))
        for diagonal in range(-edits, edits + 1, 2):
            below = reached.get(diagonal + 1, -1)
            beside = reached.get(diagonal - 1, -1) + 1
            down = diagonal == -edits or (diagonal != edits and beside <= below)
            x = below if down else beside
            y = x - diagonal
            while x < len(one) and y < len(other) and one[x] == other[y]:
                x += 1
                y += 1
            reached[diagonal] = x
            if x >= len(one) and y >= len(other):
                return _walk_back(history, len(one), len(other))
    return None


def _walk_back(history: Sequence[dict[int, int]], x: int, y: int) -> list[tuple[int, int, bool]]:
    path: list[tuple[int, int, bool]] = []
    for edits in range(len(history) - 1, 0, -1):
        reached = history[edits]
        diagonal = x - y
        below = reached.get(diagonal + 1, -1)
        down = diagonal == -edits or (diagonal != edits and reached.get(diagonal - 1, -1) + 1 <= below)
        before = diagonal + 1 if down else diagonal - 1
        x = reached[before]
        y = x - before
        path.append((x, y, not down))
    return path[::-1]
