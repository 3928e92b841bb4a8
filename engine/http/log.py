"""A server's log: tracebacks of faults, in a file that only the user reads. Requests are not logged: they are private."""

from __future__ import annotations

import os
import time
from pathlib import Path

from engine.core.local_time import local_time

MAX_BYTES = 1 << 20
_LONGEST = 4_000
_file: Path | None = None


def open_log(file: Path) -> None:
    """Directs `log` to a file, which starts empty."""
    global _file
    _file = file
    _file.parent.mkdir(parents=True, exist_ok=True)
    _file.unlink(missing_ok=True)


def log(text: str) -> None:
    """Adds an entry, as long as the file is small. Never raises."""
    if _file is None:
        return
    try:
        descriptor = os.open(_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            if file.tell() < MAX_BYTES:
                stamp = local_time("%Y-%m-%d %H:%M:%S", time.time())
                file.write(f"{stamp} {text[-_LONGEST:]}\n".encode("utf-8", "replace"))
    except OSError:
        return
