"""How much memory the run takes: its process tree and the device, at the highest since the last look."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time

import torch

from engine.runs.resident import MB, ResidentMemory, own_peak_mb, restart_own_peak


class Footprint:
    """Measures a run that computes on `device`."""

    def __init__(self, device: str, *, tree_every_s: float = 2.0) -> None:
        """Child processes are looked at every `tree_every_s` seconds: finding them takes milliseconds."""
        self.device = device
        self.tree_every_s = tree_every_s
        self._resident = ResidentMemory()
        self._children = 0.0
        self._looked = -tree_every_s
        self.exact = restart_own_peak()
        """Whether the system tells the peak between two looks; if not, memory is read at the looks alone."""

    def peak_mb(self) -> float:
        """The most since the last call, in MB (2^20 bytes)."""
        now = time.monotonic()
        if now - self._looked >= self.tree_every_s:
            self._looked = now
            self._children = self._resident.children_mb()
        own = own_peak_mb() if self.exact else self._resident.own_mb()
        restart_own_peak(self._children)
        return own + self._children + self._device_mb()

    def _device_mb(self) -> float:
        if self.device == "cuda":
            peak = torch.cuda.max_memory_reserved()
            torch.cuda.reset_peak_memory_stats()
            return peak / MB
        if self.device == "mps":
            return torch.mps.driver_allocated_memory() / MB
        return 0.0

    def drop_caches(self) -> None:
        """Gives back what Python, the C library and the device keep for later, and begins a new peak."""
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
        elif self.device == "mps":
            torch.mps.empty_cache()
        with contextlib.suppress(OSError, AttributeError):  # only glibc has it
            ctypes.CDLL(None).malloc_trim(0)
        restart_own_peak()
