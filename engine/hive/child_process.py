"""A process that works for a server and ends with it, however the server ends: its input stays open until then."""

from __future__ import annotations

import os
import sys
import threading


def end_with_stdin() -> None:
    """Ends this process when its standard input is closed; the first line must have been read."""
    threading.Thread(target=_wait, args=[sys.stdin.fileno()], daemon=True).start()


def _wait(descriptor: int) -> None:
    while os.read(descriptor, 1 << 12):
        pass
    # Threads of torch are not waited for.
    os._exit(0)
