"""Builds `kernels.cpp` once for this CPU with the installed compiler, and loads it.

The kernels are optional: without a compiler, or with H2Q_KERNELS=0, the same operations run in torch.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from engine.core.paths import cache_folder

SOURCE = Path(__file__).with_name("kernels.cpp")
FLAGS = (
    "-O3", "-march=native", "-std=c++17", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared",
)  # fmt: skip
BUILD_S = 60.0
SIGNATURES = {
    "norm_forward": "ppppiif",
    "norm_backward": "ppppppii",
    "frozen_norm_forward": "ppppiif",
    "frozen_norm_backward": "pppppii",
    "rope_forward": "ppppppiiiif",
    "rope_backward": "ppppppppiiii",
    "swiglu_forward": "pppi",
    "swiglu_backward": "pppppi",
    "drop": "ppiii",
    "drop_add": "ppiii",
    "softmax_forward": "piiiif",
    "softmax_backward": "ppiiiif",
}
"""Argument types of each kernel: p a tensor, i an integer, f a float."""
_TYPES: dict[str, type[ctypes.c_void_p] | type[ctypes.c_int64] | type[ctypes.c_float]] = {
    "p": ctypes.c_void_p,
    "i": ctypes.c_int64,
    "f": ctypes.c_float,
}
_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


class Kernels:
    """The loaded library."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        self._calls = {}
        for name, signature in SIGNATURES.items():
            for dtype, suffix in _NAMES.items():
                function = library[f"{name}_{suffix}"]
                function.argtypes = [_TYPES[letter] for letter in signature]
                function.restype = None
                self._calls[name, dtype] = function

    def call(self, name: str, dtype: torch.dtype, *arguments: Tensor | float) -> None:
        """Calls kernel `name` for `dtype`. Tensors must be contiguous and on the CPU."""
        self._calls[name, dtype](*(a.data_ptr() if isinstance(a, Tensor) else a for a in arguments))


@cache
def load_kernels() -> Kernels | None:
    """The kernels, built on first use (about two seconds); None where they cannot be built."""
    if os.environ.get("H2Q_KERNELS") == "0":
        return None
    try:
        return Kernels(_library())
    except (OSError, subprocess.SubprocessError, AttributeError):
        # No compiler, no OpenMP, a full disk: torch computes the same, somewhat slower.
        return None


def _library() -> Path:
    """The library file, built if missing. Raises OSError or SubprocessError."""
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        raise FileNotFoundError("c++")
    folder = cache_folder() / "kernels"
    file = folder / f"{_digest(compiler)}.so"
    if not file.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            target = Path(temporary) / file.name
            subprocess.run(
                [compiler, *FLAGS, str(SOURCE), "-o", str(target)],
                check=True, capture_output=True, timeout=BUILD_S,
            )  # fmt: skip
            target.replace(file)
    return file


def _digest(compiler: str) -> str:
    """Hash of the library's inputs: source, flags, compiler and CPU."""
    stat = Path(compiler).resolve().stat()
    parts = [SOURCE.read_text(), *FLAGS, compiler, str(stat.st_size), str(stat.st_mtime_ns), _cpu()]
    return sha256("\n".join(parts).encode()).hexdigest()[:16]


def _cpu() -> str:
    """The instruction sets of this CPU: a home folder may be shared between machines."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            return next(line for line in file if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
