"""Peak memory of a run since the last reading: its process tree and the device."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
import weakref

import torch

from engine.machine.process_memory import ProcessTreeMemory, RssSampler, peak_rss_mb, reset_peak_rss


class PeakMemory:
    """Measures a run that computes on `device`."""

    def __init__(self, device: str, *, tree_every_s: float = 2.0) -> None:
        """Child processes are measured every `tree_every_s` seconds: finding them takes milliseconds."""
        self.device = device
        self.tree_every_s = tree_every_s
        self._resident = ProcessTreeMemory()
        self._children = 0.0
        self._looked = -tree_every_s
        self._sampler: RssSampler | None = None
        if not reset_peak_rss():
            self._sampler = RssSampler()
            self._sampler.start()
            weakref.finalize(self, self._sampler.ended.set)

    def peak_mb(self) -> float:
        """The peak since the last call, in MB (2^20 bytes)."""
        now = time.monotonic()
        if now - self._looked >= self.tree_every_s:
            self._looked = now
            self._children = self._resident.children_mb()
        own = self._sampler.pop_peak() if self._sampler is not None else peak_rss_mb()
        reset_peak_rss(self._children)
        return own + self._children + peak_memory_mb(self.device)

    def drop_caches(self) -> None:
        """Drops the caches of Python, the C library and the device, and starts a new peak."""
        gc.collect()
        drop_device_cache(self.device)
        with contextlib.suppress(OSError, AttributeError):  # glibc only
            ctypes.CDLL(None).malloc_trim(0)
        if self._sampler is not None:
            self._sampler.pop_peak()
        reset_peak_rss()


def peak_memory_mb(device: str) -> float:
    """Peak MB (2^20 bytes) that torch reserved on an accelerator since the last call; 0 for a CPU.

    MPS reports current usage only, which grows until its cache is dropped.
    """
    if device in ("cuda", "xpu"):
        memory = torch.get_device_module(device)
        peak: int = memory.max_memory_reserved()
        memory.reset_peak_memory_stats()
        return peak / 2**20
    return torch.mps.driver_allocated_memory() / 2**20 if device == "mps" else 0.0


def drop_device_cache(device: str) -> None:
    """Drops torch's cache on an accelerator."""
    if device != "cpu":
        torch.get_device_module(device).empty_cache()
