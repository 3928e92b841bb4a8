"""One reading that may fail."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import TypeVar

import psutil

T = TypeVar("T")

_REFUSALS = (
    OSError,
    psutil.Error,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    KeyError,
    IndexError,
    subprocess.SubprocessError,
)


def read_or_none(probe: Callable[[], T]) -> T | None:
    """Result of `probe`; None when the system does not provide it (no permission, no such file, another kernel)."""
    try:
        return probe()
    except _REFUSALS:
        return None
