"""How the threads of matrix products wait for each other. Read once, when torch or llama.cpp is loaded."""

from __future__ import annotations

import os

WAIT_POLICY, SPIN_COUNT = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"
SLEEP_SOON = {WAIT_POLICY: "PASSIVE", SPIN_COUNT: "1000"}
"""Some microseconds of spinning, then sleep. Waking a sleeping thread takes longer than most waits within a step: on two
cores without other work llama.cpp generates 2.4 times as fast as with threads that sleep immediately (with an adapter 4
times), and a LoRA step takes 0.85 of the time. libgomp alone reads the count."""


def let_waiting_threads_sleep() -> None:
    """Called before torch is loaded, in every process that may load it. What the user has set stays.

    Threads that spin for long block a core that another process could use: next to one busy process they were
    ten times slower than sleeping threads, and no faster alone.
    """
    for name, value in _wanted().items():
        os.environ[name] = value


def of_several_processes(threads: int) -> dict[str, str]:
    """The environment of a process that computes with `threads` threads beside others on the same cores.

    Each of them would otherwise start as many threads as there are cores.
    """
    return {"OMP_NUM_THREADS": str(threads), **_wanted()}


def _wanted() -> dict[str, str]:
    """`SLEEP_SOON`, unless the user has chosen how threads wait."""
    own = {name: os.environ[name] for name in SLEEP_SOON if name in os.environ}
    return own if WAIT_POLICY in own else SLEEP_SOON | own
