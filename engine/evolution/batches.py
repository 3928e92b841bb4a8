"""Batches in which real data keeps its share: new material is added to real windows, never put in their place."""

from __future__ import annotations

import math
from collections import deque
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from engine.evolution.synthetic import REAL_FLOOR, is_made
from engine.training.chat_batches import JITTER, NativeBatches


class FlooredBatches(NativeBatches):
    """`NativeBatches` in which at least `real_share` of the trained bytes of every batch is real.

    A made window joins real windows of about its length where they leave room for it; one that finds no
    room in an epoch waits for the next. Every real window comes once an epoch, as ever.
    """

    def shares(self, epoch: int = 0) -> list[float]:
        """The real share of each batch of an epoch, by trained bytes."""
        trained, made = self._trained, self._made
        return [
            1 - float(trained[members[made[members]]].sum()) / max(1.0, float(trained[members].sum()))
            for members in self._plan(epoch)
        ]

    def _make_plan(self, epoch: int) -> list[NDArray[np.int64]]:
        made, trained = self._made, self._trained
        if not made.any():
            return super()._make_plan(epoch)
        rng = np.random.default_rng((self.recipe.seed, epoch, len(self.data)))
        jittered = self.data.lengths * (1 + JITTER * rng.random(len(self.data)))
        order = np.argsort(jittered, kind="stable")
        room = math.ceil(self.recipe.tokens_per_step * (1 - self.share))
        # Real windows fill their share of the room, so that new ones find a place beside them.
        for_real = room * max(REAL_FLOOR, 1 - float(trained[made].sum()) / max(1.0, float(trained.sum())))
        waiting = deque(int(member) for member in order if made[member])
        batches: list[list[int]] = []
        held: list[int] = []
        longest = 0
        credit = 0.0
        for member in (int(member) for member in order if not made[member]):
            length = int(self.data.lengths[member])
            if held and max(longest, length) * (len(held) + 1) > for_real:
                batches.append(held)
                held, longest, credit = [], 0, 0.0
            held.append(member)
            longest = max(longest, length)
            credit += float(trained[member]) * (1 - REAL_FLOOR) / REAL_FLOOR
            while waiting:
                next_ = waiting[0]
                fits = int(self.data.lengths[next_]) <= longest and longest * (len(held) + 1) <= room
                if not fits or trained[next_] > credit:
                    break
                held.append(waiting.popleft())
                credit -= float(trained[next_])
        if held:
            batches.append(held)
        arrays = [np.array(members, dtype=np.int64) for members in batches]
        return [arrays[int(place)] for place in rng.permutation(len(arrays))]

    @cached_property
    def _made(self) -> NDArray[np.bool_]:
        return np.array([is_made(name) for name in self.data.names], dtype=np.bool_)

    @cached_property
    def _trained(self) -> NDArray[np.float64]:
        """Trained bytes of each window."""
        return np.array([float(self.data[index][1][1:].sum()) for index in range(len(self.data))])
