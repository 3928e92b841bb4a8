"""Environment variables that bound allocators: Apple GPU memory and oneDNN's kernel cache. Set before torch loads.

By default torch lets a process allocate 1.7 times the size that Metal recommends, which exceeds the machine's memory:
it would swap long before it ran out.
"""

from __future__ import annotations

import os
import platform
from collections.abc import MutableMapping

HIGH_WATERMARK, LOW_WATERMARK = "PYTORCH_MPS_HIGH_WATERMARK_RATIO", "PYTORCH_MPS_LOW_WATERMARK_RATIO"
HOST_MB = 400.0
"""Memory of Python and torch outside the device; it belongs to the same budget."""
LOW_SHARE = 0.8
"""Low mark as a share of the high mark; above it torch frees its cache."""
MIN_WATERMARK = 0.01
"""0 would mean no limit."""
ONEDNN_CACHE, ONEDNN_CACHE_SIZE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", 256
"""oneDNN compiles a kernel of about a megabyte for each shape of a bfloat16 product, and caches 1,024 by default."""


def recommended_mb(memory_mb: float) -> float:
    """Metal's recommendedMaxWorkingSetSize of a machine with `memory_mb`: two thirds, three quarters from 36 GB on."""
    return memory_mb * (3 / 4 if memory_mb >= 36 * 1024 else 2 / 3)


def watermarks(budget_mb: float, memory_mb: float) -> tuple[float, float]:
    """High and low watermark of a run with `budget_mb`, as shares of the size that Metal recommends."""
    high = (budget_mb - HOST_MB) / recommended_mb(memory_mb)
    high = min(1.0, max(MIN_WATERMARK, high))
    return round(high, 4), round(LOW_SHARE * high, 4)


def limit_device_memory(
    budget_mb: float, environment: MutableMapping[str, str] | None = None, memory_mb: float | None = None
) -> None:
    """Sets both watermarks for this process. A lower value of the user stays, except 0, which disables the limit."""
    environment = os.environ if environment is None else environment
    if memory_mb is None:
        if platform.system() != "Darwin":
            return
        import psutil

        memory_mb = psutil.virtual_memory().total / 2**20
    high, low = watermarks(budget_mb, memory_mb)
    try:
        own = float(environment.get(HIGH_WATERMARK, ""))
    except ValueError:
        own = 0.0
    # torch refuses to start with a low mark above the high one.
    high = min(own, high) if own > 0 else high
    environment[HIGH_WATERMARK], environment[LOW_WATERMARK] = (
        f"{high:.4f}",
        f"{min(low, LOW_SHARE * high):.4f}",
    )


def limit_onednn_cache(environment: MutableMapping[str, str] | None = None) -> None:
    """Shrinks oneDNN's kernel cache, unless the user set a size: texts of all lengths have many shapes."""
    environment = os.environ if environment is None else environment
    environment.setdefault(ONEDNN_CACHE, str(ONEDNN_CACHE_SIZE))
