"""Bounds of Apple's GPU memory from the budget of a run, and of oneDNN's programs, set before torch is loaded.

Without the former torch lets a process take 1.7 times what Metal recommends, which is more than the machine has: it
would swap long before it ran out of memory.
"""

from __future__ import annotations

import os
import platform
from collections.abc import MutableMapping

HIGH, LOW = "PYTORCH_MPS_HIGH_WATERMARK_RATIO", "PYTORCH_MPS_LOW_WATERMARK_RATIO"
PROGRAM_MB = 400.0
"""What Python and torch hold beside the device: it belongs to the same budget."""
LOW_SHARE = 0.8
"""Of the high mark: from there on torch gives back what it keeps for later."""
LEAST = 0.01
"""Zero would mean no bound."""
PROGRAMS, PROGRAMS_KEPT = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", 256
"""oneDNN makes a program of about a megabyte for each shape of a product in bfloat16, and keeps 1,024 by itself."""


def recommended_mb(memory_mb: float) -> float:
    """Metal's recommendedMaxWorkingSetSize of a machine with `memory_mb`: two thirds, three quarters from 36 GB on."""
    return memory_mb * (3 / 4 if memory_mb >= 36 * 1024 else 2 / 3)


def watermarks(budget_mb: float, memory_mb: float) -> tuple[float, float]:
    """High and low mark, as shares of what Metal recommends, of a run that may take `budget_mb` in all."""
    high = (budget_mb - PROGRAM_MB) / recommended_mb(memory_mb)
    high = min(1.0, max(LEAST, high))
    return round(high, 4), round(LOW_SHARE * high, 4)


def bound_device(
    budget_mb: float, environment: MutableMapping[str, str] | None = None, memory_mb: float | None = None
) -> None:
    """Sets both marks for this process. A mark that the person set stays, unless it is 0, which lifts the bound."""
    environment = os.environ if environment is None else environment
    if memory_mb is None:
        if platform.system() != "Darwin":
            return
        import psutil

        memory_mb = psutil.virtual_memory().total / 2**20
    high, low = watermarks(budget_mb, memory_mb)
    try:
        own = float(environment.get(HIGH, ""))
    except ValueError:
        own = 0.0
    # The low mark must not lie above the high one: torch refuses to start then.
    high = min(own, high) if own > 0 else high
    environment[HIGH], environment[LOW] = f"{high:.4f}", f"{min(low, LOW_SHARE * high):.4f}"


def bound_programs(environment: MutableMapping[str, str] | None = None) -> None:
    """Fewer programs of oneDNN are kept, unless the person says how many: texts of all lengths have many shapes."""
    environment = os.environ if environment is None else environment
    environment.setdefault(PROGRAMS, str(PROGRAMS_KEPT))
