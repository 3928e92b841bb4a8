"""Checks of the libraries that compute: torch, llama.cpp, and the OpenMP runtimes that they bring.

Each is imported in a process of its own, because a broken build may crash the process that imports it.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from engine.core.i18n import _, n_
from engine.core.paths import Workspace
from engine.health.grades import Grade, Judgement, NotKnown, as_root, fails, fixable, passes, warns
from engine.health.reading import last_line, run_python
from engine.health.versions import install_fix, installed_version, version_tuple

TORCH_S, LLAMA_S = 30.0, 15.0
"""Time limits of the imports; a busy small machine takes long to read torch from its disk."""
_PROBE = """
import json, sys
import torch
device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
answer = {"device": device, "threads": torch.get_num_threads(), "openmp": None}
try:
    # Embedders and transformers load scikit-learn, which brings a runtime of its own.
    import sklearn.utils._openmp_helpers
except Exception:
    pass
try:
    from threadpoolctl import threadpool_info
    answer["openmp"] = [
        [row["prefix"], row["filepath"]] for row in threadpool_info() if row["user_api"] == "openmp"
    ]
except Exception:
    pass
print(json.dumps(answer))
"""


class Probe(NamedTuple):
    """What a process that imported torch says."""

    device: str = ""
    threads: int = 0
    openmp: tuple[tuple[str, str], ...] | None = None
    """Kind ("libgomp", "libomp", "libiomp") and file of each OpenMP runtime in the process; None: not known."""
    error: str = ""
    """Last line of the failed import."""


_probing = threading.Lock()


def probe_torch() -> Probe:
    """Imports torch once in a child process; later calls give the same answer. Raises NotKnown after the limit."""
    with _probing:
        return _probe_torch()


@cache
def _probe_torch() -> Probe:
    done = run_python(_PROBE, timeout_s=TORCH_S)
    if done.returncode:
        return Probe(error=last_line(done.stderr) or str(done.returncode))
    try:
        found = json.loads(last_line(done.stdout))
        runtimes = found["openmp"]
        openmp = None if runtimes is None else tuple((str(kind), str(path)) for kind, path in runtimes)
        return Probe(str(found["device"]), int(found["threads"]), openmp)
    except (ValueError, KeyError, TypeError):
        raise NotKnown(_("the answer of torch's process is not understood")) from None


class TorchReading(NamedTuple):
    version: str
    """"" when it is not installed."""
    probe: Probe


def read_torch(_ws: Workspace) -> TorchReading:
    version = installed_version("torch")
    return TorchReading(version, probe_torch() if version else Probe())


def judge_torch(reading: TorchReading) -> Judgement:
    if not reading.version:
        return fixable(Grade.FAIL, _("torch is not installed"), install_fix("torch"))
    version, probe = reading.version, reading.probe
    if probe.error:
        text = _("torch {version} fails to import: {reason}").format(version=version, reason=probe.error)
        if "libgomp" in probe.error:
            return fails(text, install_gomp())
        return fixable(Grade.FAIL, text, install_fix(f"torch=={version.partition('+')[0]}", again=True))
    text = _("torch {version} on {device}, {n} threads")
    return passes(text.format(version=version, device=probe.device, n=probe.threads))


_GOMP_PACKAGES = {
    "apt": "apt install libgomp1",
    "dnf": "dnf install libgomp",
    "zypper": "zypper install libgomp1",
    "pacman": "pacman -S gcc-libs",
    "apk": "apk add libgomp",
}
"""Package manager → its command. Debian's slim images lack the library."""


def install_gomp() -> str:
    """The command that installs libgomp here; "" without a package manager that is known."""
    return next((as_root(command) for name, command in _GOMP_PACKAGES.items() if shutil.which(name)), "")


class LlamaReading(NamedTuple):
    version: str
    """Of xllamacpp; "" when it is not installed."""
    error: str = ""


def read_llama(_ws: Workspace) -> LlamaReading:
    version = installed_version("xllamacpp")
    if not version:
        return LlamaReading("")
    done = run_python("import xllamacpp", timeout_s=LLAMA_S)
    return LlamaReading(version, (last_line(done.stderr) or str(done.returncode)) if done.returncode else "")


_LLAMA_SAFE = (2026, 9)
"""First month of xllamacpp whose llama.cpp has the fixes for crafted GGUF files of August 2026."""
_LLAMA_SOURCE = "https://github.com/lmstudio-ai/lmstudio-bug-tracker/issues/2289"


def judge_llama(reading: LlamaReading) -> Judgement:
    version = reading.version
    if not version:
        text = _("llama.cpp is not installed: GGUF models are answered by torch, slowly")
        return fixable(Grade.WARN, text, install_fix("xllamacpp"))
    if reading.error:
        text = _("llama.cpp fails to load: {reason}").format(reason=reading.error)
        if "libgomp" in reading.error:
            return warns(text, install_gomp())
        return fixable(Grade.WARN, text, install_fix(f"xllamacpp=={version}", again=True))
    if version_tuple(version) < _LLAMA_SAFE:
        text = _("xllamacpp {version}: a crafted GGUF file makes it write outside its memory ({source})")
        fix = install_fix(f"xllamacpp>={'.'.join(map(str, _LLAMA_SAFE))}")
        return fixable(Grade.WARN, text.format(version=version, source=_LLAMA_SOURCE), fix)
    return passes(f"xllamacpp {version}")


def read_openmp(_ws: Workspace) -> Probe:
    if not installed_version("torch"):
        raise NotKnown(_("torch is not installed"))
    return probe_torch()


def judge_openmp(probe: Probe) -> Judgement:
    """Two copies of GNU's runtime live together; two different ones in a process have crashed it."""
    if probe.error:
        if "libgomp" in probe.error:
            return fails(_("libgomp is missing: {reason}").format(reason=probe.error), install_gomp())
        raise NotKnown(_("torch does not load"))
    if probe.openmp is None:
        raise NotKnown(_("torch's process does not say which OpenMP runtimes it has"))
    if not probe.openmp:
        return passes(_("none is loaded"))
    kinds = sorted({kind for kind, _path in probe.openmp})
    names = _(", ").join(_owner(path) for _kind, path in probe.openmp)
    n = len(probe.openmp)
    text = n_("{n} copy of {kind} is loaded: {names}", "{n} copies of {kind} are loaded: {names}", n).format(
        n=n, kind=" + ".join(kinds), names=names
    )
    if len(kinds) > 1 or (n > 1 and kinds != ["libgomp"]):
        source = "https://github.com/pytorch/pytorch/issues/121101"
        warning = _("{detail}; they may crash each other ({source})").format(detail=text, source=source)
        return warns(warning, _without_foreign(probe.openmp))
    return passes(text)


def _owner(path: str) -> str:
    """The package that a library lies in: "torch" for `…/site-packages/torch/lib/libgomp.so.1`; else its path."""
    parts = Path(path).parts
    for folder in ("site-packages", "dist-packages"):
        if folder in parts[:-1]:
            return parts[parts.index(folder) + 1].removesuffix(".libs")
    return path


def _without_foreign(runtimes: Sequence[tuple[str, str]]) -> str:
    """The command that removes Homebrew's copy, which is the one too many in the reports; "" without one."""
    return "brew uninstall libomp" if any("/Cellar/libomp/" in path for _kind, path in runtimes) else ""
