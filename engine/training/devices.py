"""Where and how to compute: device, threads and number format, by short measurements instead of tables."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

BF16_GAIN = 1.3
"""bfloat16 is taken when its matrix products are this much faster: the conversions around them cost, too."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""


@dataclass(frozen=True)
class Device:
    """What a phase computes with."""

    name: str
    """"cpu", "mps" or "cuda"."""
    threads: int
    bf16: bool
    reason: str = ""
    """What was measured, for the log."""

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """bfloat16 matrix products where they pay."""
        if not self.bf16:
            return contextlib.nullcontext()
        return torch.autocast(self.name, dtype=torch.bfloat16)


def choose_device(width: int = 256, *, threads: int | None = None, bf16: bool | None = None) -> Device:
    """The device for a model of `width`, in about 0.1 s; sets torch's thread count.

    `threads` and `bf16` overrule the measurement: a resumed phase must compute as it began.
    """
    count = threads or _threads_wanted() or usable_cores()
    _keep_freed_memory()
    torch.set_num_threads(count)
    if torch.cuda.is_available():
        return Device("cuda", count, True if bf16 is None else bf16, torch.cuda.get_device_name())
    if torch.backends.mps.is_available():
        slow, fast = _product_time("cpu", width, torch.float32), _product_time("mps", width, torch.float32)
        if fast < slow:
            return Device("mps", count, False, f"mps {slow / fast:.1f}x cpu")
    gain = _product_time("cpu", width, torch.float32) / _product_time("cpu", width, torch.bfloat16)
    return Device("cpu", count, gain > BF16_GAIN if bf16 is None else bf16, f"bf16 {gain:.1f}x fp32")


def _threads_wanted() -> int:
    """What OMP_NUM_THREADS asks for; 0: nothing."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdecimal() else 0


def usable_cores() -> int:
    """Physical cores this process may run on: hyperthreads do not make matrix products faster."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or allowed
    quota = _cpu_quota()
    return max(1, min(allowed, physical, quota or allowed))


def _keep_freed_memory() -> None:
    """Tells glibc to reuse what a step frees instead of returning it to the kernel: 3 to 5 % of a step.

    The peak of the resident memory stays the same. Other C libraries are left alone.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def _cpu_quota() -> int | None:
    """Whole cores that a cgroup v2 grants; None: no bound."""
    try:
        with Path("/sys/fs/cgroup/cpu.max").open(encoding="ascii") as file:
            quota, period = file.read().split()
        return None if quota == "max" else max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return None


def _product_time(device: str, width: int, dtype: torch.dtype) -> float:
    """Least seconds of a product as a layer makes them."""
    x = torch.randn(2048, width, device=device, dtype=dtype)
    weight = torch.randn(width, 4 * width, device=device, dtype=dtype)

    def product() -> None:
        (x @ weight)[0, 0].item()

    product()
    return min(_seconds(product) for _round in range(5))


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
