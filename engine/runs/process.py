"""How an engine process is started: this program's own code, wherever the person stands."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def engine_command() -> list[str]:
    """Begins the command line of `engine.__main__`; goes with `engine_environment`.

    With -P the folder that the person stands in is not searched for code.
    """
    return [sys.executable, "-P", "-m", "engine"]


def engine_environment() -> dict[str, str]:
    """The environment in which `engine` is this very program, also from a checkout that is not installed."""
    home = str(Path(__file__).resolve().parents[2])
    paths = [home, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "PYTHONUNBUFFERED": "1"}
