"""Graphics processors: NVIDIA's through NVML when `nvidia-ml-py` is installed, Apple's through `macmon`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

MW = 1000.0


class GpuSample(msgspec.Struct, frozen=True, kw_only=True):
    """One graphics processor. Memory in bytes; None for what it does not report."""

    name: str
    busy_percent: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    temperature_c: float | None = None
    power_w: float | None = None


class NvidiaGpus:
    """Reads all NVIDIA processors of the machine; none where driver or package are missing."""

    def __init__(self, module: str = "pynvml") -> None:
        """`module` has the interface of NVML."""
        self._nvml: Any = None
        self._handles: list[tuple[str, Any]] = []
        try:
            nvml = importlib.import_module(module)
            nvml.nvmlInit()
        except Exception:
            # No package, no driver, or one that does not match: NVML has its own tree of errors.
            return
        self._nvml = nvml
        for number in range(self._ask(nvml.nvmlDeviceGetCount) or 0):
            handle = self._ask(nvml.nvmlDeviceGetHandleByIndex, number)
            if handle is not None:
                name = self._ask(nvml.nvmlDeviceGetName, handle) or ""
                self._handles.append((name.decode() if isinstance(name, bytes) else str(name), handle))

    def _ask(self, function: Callable[..., T], *arguments: Any) -> T | None:
        """One figure; None where this processor does not have it, as the memory of one that shares the machine's."""
        try:
            return function(*arguments)
        except self._nvml.NVMLError:
            return None

    def read(self) -> list[GpuSample]:
        """The processors in NVML's order."""
        return [self._read(name, handle) for name, handle in self._handles]

    def _read(self, name: str, handle: Any) -> GpuSample:
        nvml = self._nvml
        busy = self._ask(nvml.nvmlDeviceGetUtilizationRates, handle)
        memory = self._ask(nvml.nvmlDeviceGetMemoryInfo, handle)
        power = self._ask(nvml.nvmlDeviceGetPowerUsage, handle)
        heat = self._ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
        return GpuSample(
            name=name.removeprefix("NVIDIA "),
            busy_percent=None if busy is None else float(busy.gpu),
            memory_used=None if memory is None else int(memory.used),
            memory_total=None if memory is None else int(memory.total),
            temperature_c=None if heat is None else float(heat),
            power_w=None if power is None else power / MW,
        )
