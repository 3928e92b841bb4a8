"""Finds the benchmarks, and saves results with a description of the machine."""

from __future__ import annotations

import importlib
import os
import pkgutil
import platform
import time
from importlib import metadata
from pathlib import Path

import msgspec
import psutil

import bench
from bench.result import Benchmark, BenchResult

RESULTS = Path(__file__).with_name("results.jsonl")


class SavedResult(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `bench/results.jsonl`: a result with its date and machine."""

    date: str
    """UTC, RFC 3339."""
    machine: str
    """CPU model."""
    cores: int
    """Usable by this process."""
    memory_gb: float
    system: str
    """Operating system with its version."""
    torch: str
    """Version; "" when it is not installed."""
    load: float
    """Load average (1 minute) before the run; figures of a busy machine are less reliable."""
    full: bool
    result: BenchResult


def discover() -> list[Benchmark]:
    """The benchmarks of all modules of `bench`, sorted by name. Raises ValueError for a duplicate name."""
    benchmarks: dict[str, Benchmark] = {}
    for module in pkgutil.iter_modules(bench.__path__):
        if module.name.startswith("_"):
            continue
        in_module: tuple[Benchmark, ...] = getattr(
            importlib.import_module(f"bench.{module.name}"), "BENCHMARKS", ()
        )
        for benchmark in in_module:
            if benchmark.name in benchmarks:
                raise ValueError(f"two benchmarks are called {benchmark.name}")
            benchmarks[benchmark.name] = benchmark
    return [benchmarks[name] for name in sorted(benchmarks)]


def choose(names: list[str], *, full: bool = True) -> list[Benchmark]:
    """The benchmarks whose name equals or begins with one of `names`; without names all, the long ones if `full`.

    Raises KeyError for a name that matches no benchmark.
    """
    known = discover()
    if not names:
        return [benchmark for benchmark in known if full or not benchmark.long]
    chosen: list[Benchmark] = []
    for name in names:
        matching = [benchmark for benchmark in known if benchmark.name == name] or [
            benchmark for benchmark in known if benchmark.name.startswith(name)
        ]
        if not matching:
            raise KeyError(name)
        chosen += [benchmark for benchmark in matching if benchmark not in chosen]
    return chosen


def cpu_model() -> str:
    """The CPU model."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _system() -> str:
    """The operating system with its distribution (Linux) or version (macOS)."""
    try:
        version = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        version = platform.mac_ver()[0]
    return f"{platform.system()} {version}".strip()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def save(result: BenchResult, *, full: bool, load: float) -> None:
    """Appends one line to `bench/results.jsonl`. Raises OSError."""
    line = msgspec.json.encode(
        SavedResult(
            date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            machine=cpu_model(),
            cores=len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else psutil.cpu_count() or 1,
            memory_gb=round(psutil.virtual_memory().total / 2**30, 1),
            system=_system(),
            torch=_version("torch"),
            load=round(load, 2),
            full=full,
            result=result,
        )
    )
    with RESULTS.open("ab") as file:
        file.write(line + b"\n")
