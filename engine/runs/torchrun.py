"""What torchrun tells each of the processes that it starts, in environment variables."""

from __future__ import annotations

import os


def started_by_torchrun() -> bool:
    """Whether this process is one of several of torchrun."""
    return "TORCHELASTIC_RUN_ID" in os.environ and world_size() > 1


def world_size() -> int:
    """Processes of torchrun on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Number of this process; 0 is the first one."""
    return int(os.environ.get("RANK", "0"))


def rank_here(rank: int) -> int:
    """Number of the process `rank` of a training among those on this machine, for its GPU."""
    return int(os.environ.get("LOCAL_RANK", rank)) if started_by_torchrun() else rank


def restarts() -> int:
    """How often torchrun has started all processes again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def processes_here(nproc: int) -> int:
    """Of the `nproc` processes of a training those on this machine, which share its cores and its memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", nproc)) if started_by_torchrun() else nproc
