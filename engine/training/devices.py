"""Chooses device, threads and number format by short measurements instead of tables."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from engine.core.i18n import _
from engine.machine.cpu import allowed_cores
from engine.models.kernels.build import load_kernels
from engine.training.autotune import CpuTuning, tune_cpu


@dataclass(frozen=True)
class Device:
    """Device, threads and number format of a phase."""

    name: str
    """ "cpu", "mps", "cuda" or "xpu"."""
    threads: int
    bf16: bool
    reason: str = ""
    """The measurements, for the log."""
    fused: bool = False
    """Uses the kernels of `engine.models.kernels.build`."""

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """A context with bfloat16 matrix products where they are faster."""
        if not self.bf16:
            return contextlib.nullcontext()
        return torch.autocast(self.name, dtype=torch.bfloat16)


def choose_device(
    width: int = 256,
    *,
    threads: int | None = None,
    bf16: bool | None = None,
    fused: bool | None = None,
    processes: int = 1,
) -> Device:
    """The device for a model of `width`; measures for 0.1 to 3 s and sets torch's thread count.

    `threads`, `bf16` and `fused` override the measurement: a resumed phase computes as it began. `processes` share
    the cores of this machine.
    """
    requested = threads or _requested_threads()
    if processes > 1 and not requested:
        requested = max(1, physical_cores() // processes)
    count = requested or threads_alone()
    torch.set_num_threads(count)
    if torch.cuda.is_available():
        return Device("cuda", count, True if bf16 is None else bf16, torch.cuda.get_device_name())
    if torch.xpu.is_available():
        return Device("xpu", count, True if bf16 is None else bf16, torch.xpu.get_device_name())
    if torch.backends.mps.is_available():
        slow, fast = _product_time("cpu", width), _product_time("mps", width)
        if fast < slow:
            return Device("mps", count, False, f"mps {slow / fast:.1f}x cpu")
    fixed = None
    if threads is not None and bf16 is not None and fused is not None:
        fixed = CpuTuning(
            threads=count, bf16=bf16, fused=fused and load_kernels() is not None, reason=_("as before")
        )
    tuning = tune_cpu(width, count, fixed=fixed, measured_threads=not requested)
    return Device(
        "cpu",
        tuning.threads,
        tuning.bf16 if bf16 is None else bf16,
        tuning.reason,
        (tuning.fused if fused is None else fused) and load_kernels() is not None,
    )


def _requested_threads() -> int:
    """Thread count of OMP_NUM_THREADS; 0: not set."""
    requested = os.environ.get("OMP_NUM_THREADS", "")
    return int(requested) if requested.isdecimal() else 0


def threads_alone() -> int:
    """Threads of a process that has this machine to itself, as the user has set them."""
    return _requested_threads() or physical_cores()


def physical_cores() -> int:
    """Physical cores this process may use: hyperthreads do not speed up matrix products."""
    allowed = len(allowed_cores())
    physical = psutil.cpu_count(logical=False) or allowed
    quota = _cpu_quota()
    return max(1, min(allowed, physical, quota or allowed))


def _cpu_quota() -> int | None:
    """Whole cores granted by cgroup v2; None: no limit."""
    try:
        with Path("/sys/fs/cgroup/cpu.max").open(encoding="ascii") as file:
            quota, period = file.read().split()
        return None if quota == "max" else max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return None


def _product_time(device: str, width: int) -> float:
    """Minimum seconds of a matrix product of a layer's size."""
    x = torch.randn(2048, width, device=device)
    weight = torch.randn(width, 4 * width, device=device)

    def product() -> None:
        (x @ weight)[0, 0].item()

    product()
    return min(_seconds(product) for _round in range(5))


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
