"""Runs a command of this program in its own process, for work that is too heavy for the app; the result is JSON."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import suppress

from engine.core.errors import RunFailed
from engine.core.i18n import language
from engine.core.paths import Workspace
from tui.host.shutdown import uninterruptible


async def cli_json(workspace: Workspace, *words: str, codes: tuple[int, ...] = (0,)) -> bytes:
    """The JSON that `h2q-tui … --json` prints. Ends the process when the caller is cancelled.

    Raises RunFailed with the last line of the command's standard error for an exit code that is not in `codes`, and
    OSError.
    """
    process = await asyncio.create_subprocess_exec(
        *_command(workspace, *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await process.communicate()
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):
            process.kill()
        # The pipes are closed while there is still an event loop to do it.
        with suppress(TimeoutError):
            await asyncio.wait_for(process.communicate(), 1)
        raise
    if process.returncode not in codes:
        raise _failure(err, process.returncode)
    return out


def change_json(workspace: Workspace, *words: str, codes: tuple[int, ...] = (0,)) -> bytes:
    """As `cli_json`, for a command that changes something: the program does not end before it. Called in a thread.

    Raises UsageProblem in a read-only app.
    """
    with uninterruptible():
        done = subprocess.run(_command(workspace, *words), stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode not in codes:
        raise _failure(done.stderr, done.returncode)
    return done.stdout


def _command(workspace: Workspace, *words: str) -> tuple[str, ...]:
    return (
        *(sys.executable, "-m", "tui.cli.main", "--lang", language()),
        *words,
        *("--json", "--data-dir", str(workspace.root)),
    )


def _failure(stderr: bytes, code: int | None) -> RunFailed:
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    return RunFailed(lines[-1] if lines else str(code))
