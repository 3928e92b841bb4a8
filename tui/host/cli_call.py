"""Runs a command of this program in its own process, for work that is too heavy for the app; the result is JSON."""

from __future__ import annotations

import asyncio
import sys

from engine.core.errors import RunFailed
from engine.core.i18n import language
from engine.core.paths import Workspace


async def cli_json(workspace: Workspace, *words: str) -> bytes:
    """The JSON that `h2q-tui … --json` prints. Ends the process when the caller is cancelled.

    Raises RunFailed with the last line of the command's standard error, and OSError.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tui.cli.main",
        "--lang",
        language(),
        *words,
        "--json",
        "--data-dir",
        str(workspace.root),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        raise
    if process.returncode:
        lines = err.decode("utf-8", "replace").strip().splitlines()
        raise RunFailed(lines[-1] if lines else str(process.returncode))
    return out
