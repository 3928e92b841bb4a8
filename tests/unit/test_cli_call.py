"""Commands of the program that the app runs in a process of their own."""

from __future__ import annotations

import asyncio
import gc
import warnings
from pathlib import Path

from engine.core.paths import Workspace
from tui.host.cli_call import cli_json


def test_a_cancelled_call_leaves_no_pipe_open(tmp_path: Path) -> None:
    async def cancelled() -> None:
        call = asyncio.create_task(cli_json(Workspace(tmp_path), "check"))
        await asyncio.sleep(0.2)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        asyncio.run(cancelled())
        gc.collect()
    assert [str(one.message) for one in warned if issubclass(one.category, ResourceWarning)] == []
