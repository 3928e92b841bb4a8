"""Command line and environment of the processes that this program starts of itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def engine_command() -> list[str]:
    """Start of a command line for `engine.__main__`; use it with `engine_environment`.

    -P keeps the current folder out of the module search path.
    """
    return [sys.executable, "-P", "-m", "engine"]


def engine_environment() -> dict[str, str]:
    """Environment in which `engine` is this program, also in a checkout that is not installed."""
    home = str(Path(__file__).resolve().parents[2])
    paths = [home, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "PYTHONUNBUFFERED": "1"}
