"""How the threads of matrix products wait for each other. Read once, when torch or llama.cpp is loaded."""

from __future__ import annotations

import os

WAIT_POLICY, SLEEP = "OMP_WAIT_POLICY", "PASSIVE"


def let_waiting_threads_sleep() -> None:
    """Called before torch is loaded, in every process that may load it. What the user has set stays.

    Threads that spin while they wait block a core that another process could use: next to one busy process they were
    ten times slower than sleeping threads, and no faster alone.
    """
    os.environ.setdefault(WAIT_POLICY, SLEEP)


def of_several_processes(threads: int) -> dict[str, str]:
    """The environment of a process that computes with `threads` threads beside others on the same cores.

    Each of them would otherwise start as many threads as there are cores.
    """
    return {"OMP_NUM_THREADS": str(threads), WAIT_POLICY: os.environ.get(WAIT_POLICY, SLEEP)}
