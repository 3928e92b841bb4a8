"""A person at the keys of the review, faster than any: random keys, and what they must have decided."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

REASONS = ("unwanted", "wrong", "private", "low_value", "duplicate")
"""By their digits in the one-line prompt."""


class Verdict(NamedTuple):
    id: str
    verdict: str
    reason: str


def strokes(count: int, chance: random.Random, *, leaving: bool = True) -> list[str]:
    """`count` strokes, each a key, or `x` with its reason (a digit, enter, or words of the person's own). With
    `leaving` some reasons are left with esc, which a terminal does not always tell from alt when keys are quick."""
    kinds = "aaaxxx jkuUv"
    made = []
    for _ in range(count):
        kind = chance.choice(kinds)
        if kind == "x":
            kind += chance.choice(["1", "2", "3", "4", "5", "\r", "ab 6\r"] + ["\x1b"] * leaving)
        elif kind == "v":
            kind += "j" * chance.randint(1, 3) + chance.choice(["a", "x3"])
        made.append(kind)
    return made


class Model:
    """What the review must do: a cursor on a list that does not move, and a log with undo and redo."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = list(ids)
        self.cursor = 0
        self.done: list[list[Verdict]] = []
        self.undone: list[list[Verdict]] = []

    def take(self, stroke: str) -> None:
        """Does one of `strokes`."""
        key, rest = stroke[0], stroke[1:]
        if key in "ax":
            self._decide(self.cursor, self.cursor, stroke)
        elif key == "v":
            last = min(self.cursor + rest.count("j"), len(self.ids) - 1)
            self._decide(self.cursor, last, rest.lstrip("j"))
        elif key in " j":
            self._go(self.cursor + 1)
        elif key == "k":
            self._go(self.cursor - 1)
        elif key == "u" and self.done:
            self.undone.append(self.done.pop())
            self._go(self.ids.index(self.undone[-1][-1].id))
        elif key == "U" and self.undone:
            self.done.append(self.undone.pop())
            self._go(self.ids.index(self.done[-1][0].id))

    @property
    def verdicts(self) -> list[Verdict]:
        """In force, in their order."""
        return [one for step in self.done for one in step]

    def _decide(self, first: int, last: int, keys: str) -> None:
        answer = keys[1:]
        if answer == "\x1b":
            self._go(last)
            return
        reason = ""
        if keys[0] == "x":
            words = answer.removesuffix("\r")
            reason = REASONS[int(words) - 1] if words.isdigit() else words or REASONS[0]
        verdict = "accepted" if keys[0] == "a" else "rejected"
        self.done.append([Verdict(id_, verdict, reason) for id_ in self.ids[first : last + 1]])
        self.undone.clear()
        self._go(last + 1)

    def _go(self, place: int) -> None:
        self.cursor = max(0, min(place, len(self.ids) - 1))
