"""Apple silicon through `macmon pipe`: graphics processor, temperatures and power, without root."""

from __future__ import annotations

import math
import shutil
import subprocess
from typing import Any

import msgspec

from engine.machine.accelerators import GpuSample

SAMPLE_MS = 200
"""Span that macmon measures for one answer."""
TIMEOUT_S = 5.0


class MacmonSample(msgspec.Struct, frozen=True, kw_only=True):
    """What macmon reports; None for what it does not."""

    gpu: GpuSample
    temperature_c: float | None
    """Of the processor."""
    power_w: float | None
    """Of the whole machine where it reports that, else of processor, graphics and neural engine."""


def parse_macmon(text: str) -> MacmonSample:
    """One line of `macmon pipe`, of its earlier format (`gpu_usage: [MHz, share]`) or the present one. Raises ValueError."""
    try:
        values = msgspec.json.decode(text.strip())
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error
    if not isinstance(values, dict):
        raise ValueError("not an object")
    busy = _figure(values, "gpu_active_ratio")
    if busy is None:
        pair = values.get("gpu_usage")
        busy = _number(pair[1]) if isinstance(pair, list) and len(pair) == 2 else None
    heat = values.get("temp")
    heat = heat if isinstance(heat, dict) else {}
    return MacmonSample(
        gpu=GpuSample(
            name="Apple",
            busy_percent=None if busy is None else round(100 * busy, 1),
            temperature_c=_positive(heat, "gpu_temp_avg"),
            power_w=_figure(values, "gpu_power"),
        ),
        temperature_c=_positive(heat, "cpu_temp_avg"),
        power_w=_positive(values, "sys_power") or _figure(values, "all_power"),
    )


def _number(value: Any) -> float | None:
    is_figure = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_figure else None


def _figure(values: dict[str, Any], name: str) -> float | None:
    return _number(values.get(name))


def _positive(values: dict[str, Any], name: str) -> float | None:
    """0 stands for a sensor that did not answer."""
    value = _figure(values, name)
    return value if value else None


def find_macmon() -> str | None:
    """Path of `macmon`; None when it is not installed."""
    return shutil.which("macmon")


def run_macmon(command: str) -> MacmonSample:
    """One sample; takes SAMPLE_MS and a little. Raises OSError, ValueError or subprocess.SubprocessError."""
    done = subprocess.run(
        [command, "pipe", "-s", "1", "-i", str(SAMPLE_MS)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=TIMEOUT_S,
    )
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if not lines:
        raise ValueError("no output")
    return parse_macmon(lines[-1])
