"""Simulates a very fast user of the review: random keys, and the decisions that must result."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

REASONS = ("unwanted", "wrong", "private", "low_value", "duplicate")
"""In the order of their digits in the prompt."""


class TypedDecision(NamedTuple):
    id: str
    verdict: str
    reason: str


def key_sequences(count: int, chance: random.Random, *, cancel: bool = True) -> list[str]:
    """`count` random inputs, each a key, or `x` with its reason (a digit, enter, or free text).

    With `cancel` some reason prompts are cancelled with esc, which a terminal may confuse with alt when keys are fast.
    """
    kinds = "aaaxxx jkuUv"
    sequences = []
    for _ in range(count):
        kind = chance.choice(kinds)
        if kind == "x":
            kind += chance.choice(["1", "2", "3", "4", "5", "\r", "ab 6\r"] + ["\x1b"] * cancel)
        elif kind == "v":
            kind += "j" * chance.randint(1, 3) + chance.choice(["a", "x3"])
        sequences.append(kind)
    return sequences


class ReviewModel:
    """The expected behaviour of the review: a cursor on a fixed list, and a log with undo and redo."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = list(ids)
        self.cursor = 0
        self.done: list[list[TypedDecision]] = []
        self.undone: list[list[TypedDecision]] = []

    def apply(self, keys: str) -> None:
        """Applies one of `key_sequences`."""
        key, rest = keys[0], keys[1:]
        if key in "ax":
            self._decide(self.cursor, self.cursor, keys)
        elif key == "v":
            last = min(self.cursor + rest.count("j"), len(self.ids) - 1)
            self._decide(self.cursor, last, rest.lstrip("j"))
        elif key in " j":
            self._move_to(self.cursor + 1)
        elif key == "k":
            self._move_to(self.cursor - 1)
        elif key == "u" and self.done:
            self.undone.append(self.done.pop())
            self._move_to(self.ids.index(self.undone[-1][-1].id))
        elif key == "U" and self.undone:
            self.done.append(self.undone.pop())
            self._move_to(self.ids.index(self.done[-1][0].id))

    @property
    def decisions(self) -> list[TypedDecision]:
        """The decisions in effect, in order."""
        return [decision for step in self.done for decision in step]

    def _decide(self, first: int, last: int, keys: str) -> None:
        answer = keys[1:]
        if answer == "\x1b":
            self._move_to(last)
            return
        reason = ""
        if keys[0] == "x":
            words = answer.removesuffix("\r")
            reason = REASONS[int(words) - 1] if words.isdigit() else words or REASONS[0]
        verdict = "accepted" if keys[0] == "a" else "rejected"
        self.done.append([TypedDecision(id_, verdict, reason) for id_ in self.ids[first : last + 1]])
        self.undone.clear()
        self._move_to(last + 1)

    def _move_to(self, place: int) -> None:
        self.cursor = max(0, min(place, len(self.ids) - 1))
