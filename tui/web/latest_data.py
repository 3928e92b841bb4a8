"""Keeps the readings that `/api/latest-data` answers with."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from engine.compat.latest_data import PERFORMANCE, RewardReader, performance_row
from engine.core.paths import Workspace
from engine.machine.probes import MachineProbes

SAMPLE_S = 5.0
FIRST_SAMPLE_S = 0.5
"""Until the first sample; the share of the processor needs two readings."""


class LatestData:
    """Samples of the machine, and the newest steps of training, of one workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self._probes = MachineProbes(workspace.root)
        self._rewards = RewardReader(workspace)
        self._rows: deque[dict[str, Any]] = deque(maxlen=PERFORMANCE)
        self._reading = asyncio.Lock()

    async def keep_sampling(self) -> None:
        """Takes samples until it is cancelled."""
        await asyncio.sleep(FIRST_SAMPLE_S)
        while True:
            _rewards, training = await self._read_rewards()
            sample = await asyncio.to_thread(self._probes.sample)
            row = performance_row(sample, training=training)
            if row is not None:
                self._rows.append(row)
            await asyncio.sleep(SAMPLE_S)

    async def read(self) -> dict[str, Any]:
        """The answer, newest rows first."""
        rewards, _training = await self._read_rewards()
        return {"rewards": rewards, "performance": list(reversed(self._rows))}

    async def _read_rewards(self) -> tuple[list[dict[str, Any]], bool]:
        async with self._reading:
            return await asyncio.to_thread(self._rewards.read)
