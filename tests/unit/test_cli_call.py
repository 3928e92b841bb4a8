"""Commands of the program that the app runs in a process of their own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil

from engine.core.paths import Workspace
from tui.host.cli_call import cli_json


def test_a_cancelled_call_leaves_no_pipe_open(tmp_path: Path) -> None:
    async def opened_by_a_cancelled_call() -> int:
        before = psutil.Process().num_fds()
        call = asyncio.create_task(cli_json(Workspace(tmp_path), "check"))
        await asyncio.sleep(0.2)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        return int(psutil.Process().num_fds() - before)

    assert asyncio.run(opened_by_a_cancelled_call()) == 0
