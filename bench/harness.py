"""Finds the benchmarks, runs the chosen ones, and says what machine they ran on."""

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


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `bench/results.jsonl`: a result, when and where it was measured."""

    date: str
    """UTC, RFC 3339."""
    machine: str
    """The processor's model."""
    cores: int
    """That this process may use."""
    memory_gb: float
    system: str
    """Operating system with its version."""
    torch: str
    """Version, "" when it is not installed."""
    load: float
    """Load of the last minute before the run: figures of a busy machine are worth less."""
    full: bool
    result: BenchResult


def discover() -> list[Benchmark]:
    """The benchmarks of every module of `bench`, in the order of their names.

    Raises ValueError when two have the same name.
    """
    found: dict[str, Benchmark] = {}
    for module in pkgutil.iter_modules(bench.__path__):
        if module.name.startswith("_"):
            continue
        listed: tuple[Benchmark, ...] = getattr(
            importlib.import_module(f"bench.{module.name}"), "BENCHMARKS", ()
        )
        for benchmark in listed:
            if benchmark.name in found:
                raise ValueError(f"two benchmarks are called {benchmark.name}")
            found[benchmark.name] = benchmark
    return [found[name] for name in sorted(found)]


def choose(names: list[str]) -> list[Benchmark]:
    """The benchmarks whose name is, or begins with, one of `names`; all when there are none.

    Raises KeyError with the first name that fits no benchmark.
    """
    known = discover()
    if not names:
        return known
    chosen: list[Benchmark] = []
    for name in names:
        fitting = [one for one in known if one.name == name] or [
            one for one in known if one.name.startswith(name)
        ]
        if not fitting:
            raise KeyError(name)
        chosen += [one for one in fitting if one not in chosen]
    return chosen


def processor() -> str:
    """The processor's model as the system names it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _system() -> str:
    """The system with its distribution (Linux) or version (macOS)."""
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
        Saved(
            date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            machine=processor(),
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
