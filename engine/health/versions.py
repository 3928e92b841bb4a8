"""Checks of installed versions: combinations that public reports show to be broken, and products on Apple's GPUs."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import NamedTuple

from engine.core.i18n import N_, _
from engine.core.paths import Workspace
from engine.health.grades import Fix, Grade, Judgement, fixable, passes, warns

WATCHED = ("accelerate", "numpy", "ollama", "peft", "safetensors", "torch", "transformers")
"""The packages whose versions are judged."""


@dataclass(frozen=True)
class Broken:
    """A combination that is known to fail.

    Attributes:
        package: the one to change.
        below: first version without the fault.
        why: what happens, marked for the catalogs.
        source: the public report.
        since: first version with the fault.
        beside: another package and the version from which it has to be for the fault to show.
        beside_below: the version of the other one below which it has to be.
        grade: FAIL where our own code meets the fault.
    """

    package: str
    below: tuple[int, ...]
    why: str
    source: str
    since: tuple[int, ...] = (0,)
    beside: tuple[str, tuple[int, ...]] | None = None
    beside_below: tuple[int, ...] | None = None
    grade: Grade = Grade.FAIL


KNOWN_BROKEN = (
    Broken(
        "peft",
        (0, 18),
        N_("cannot be imported: it needs HybridCache, which transformers 5 has removed"),
        "https://github.com/huggingface/peft/issues/3333",
        beside=("transformers", (5,)),
    ),
    Broken(
        "torch",
        (2, 7),
        N_("transformers cannot be imported: it needs torch.float8_e8m0fnu of torch 2.7"),
        "https://github.com/facebookresearch/neuroai/issues/155",
        beside=("transformers", (5,)),
    ),
    Broken(
        "torch",
        (2, 3),
        N_("is built for numpy 1: tensors cannot be turned into arrays"),
        "https://github.com/pytorch/pytorch/issues/132179",
        beside=("numpy", (2,)),
    ),
    Broken(
        "safetensors",
        (0, 6, 2),
        N_("cannot be imported: it needs torch.uint64 of torch 2.3"),
        "https://github.com/rwth-i6/returnn/issues/1747",
        since=(0, 6),
        beside=("torch", (0,)),
        beside_below=(2, 3),
    ),
)
"""Each with the report that shows it."""
ACCELERATE = Broken(
    "accelerate",
    (1, 9),
    N_("fails on an empty dataset with an UnboundLocalError (current_batch)"),
    "https://github.com/huggingface/accelerate/pull/3659",
    grade=Grade.WARN,
)


def read_versions(_ws: Workspace) -> dict[str, str]:
    """The version of each of `WATCHED` that is installed."""
    return {name: version for name in WATCHED if (version := installed_version(name))}


def installed_version(name: str) -> str:
    """The version of an installed package; "" without one, or when its metadata cannot be read."""
    try:
        return metadata.version(name) or ""
    except (metadata.PackageNotFoundError, OSError, ValueError, KeyError, TypeError):
        return ""


def judge_versions(versions: Mapping[str, str]) -> Judgement:
    """The first of `KNOWN_BROKEN` that the versions meet."""
    for row in KNOWN_BROKEN:
        if is_broken(row, versions):
            return _finding(row, versions)
    named = _(", ").join(f"{name} {version}" for name, version in sorted(versions.items()))
    return passes(_("no combination is known to be broken: {versions}").format(versions=named or "–"))


def judge_accelerate(versions: Mapping[str, str]) -> Judgement:
    version = versions.get("accelerate")
    if version is None:
        return passes(_("not installed (optional)"))
    return (
        _finding(ACCELERATE, versions) if is_broken(ACCELERATE, versions) else passes(f"accelerate {version}")
    )


def is_broken(row: Broken, versions: Mapping[str, str]) -> bool:
    """Whether the installed versions are that combination."""
    own = versions.get(row.package)
    if own is None or not row.since <= version_tuple(own) < row.below:
        return False
    if row.beside is None:
        return True
    name, least = row.beside
    other = versions.get(name)
    if other is None or version_tuple(other) < least:
        return False
    return row.beside_below is None or version_tuple(other) < row.beside_below


def _finding(row: Broken, versions: Mapping[str, str]) -> Judgement:
    what = f"{row.package} {versions[row.package]}"
    if row.beside is not None:
        what += f" + {row.beside[0]} {versions[row.beside[0]]}"
    text = _("{what}: {why} ({source})").format(what=what, why=_(row.why), source=row.source)
    return fixable(row.grade, text, install_fix(f"{row.package}>={'.'.join(map(str, row.below))}"))


def install_fix(*requirements: str, again: bool = False, over: bool = False) -> Fix:
    """The fix that installs `requirements` into this Python.

    `again`: also where they are installed already; `over`: without removing a damaged one first, which pip cannot.
    """
    return Fix(
        change=_("Install {names} into {path}; this needs a network").format(
            names=_(", ").join(requirements), path=sys.prefix
        ),
        command=install_command(*requirements, again=again, over=over),
        outside=True,
    )


def install_command(*requirements: str, again: bool = False, over: bool = False) -> tuple[str, ...]:
    """The command that installs packages into this Python: pip's, or uv's where that made the environment."""
    if importlib.util.find_spec("pip") is None and shutil.which("uv"):
        reinstall = ["--reinstall"] if again or over else []
        return ("uv", "pip", "install", "--python", sys.executable, *reinstall, *requirements)
    flags = (
        ["--ignore-installed", "--no-deps"] if over else ["--force-reinstall", "--no-deps"] if again else []
    )
    return (sys.executable, "-m", "pip", "install", *flags, *requirements)


def version_tuple(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: (1, 10, 2) for "1.10.2.dev0"; (0,) for what is none."""
    return tuple(int(part) for part in re.findall(r"\d+", re.split(r"[^\d.]", text.strip())[0])) or (0,)


# Apple's GPUs


class MpsReading(NamedTuple):
    system: str
    chip: str
    """"Apple M1 Pro"; "" where there is none or it is not known."""
    torch: str
    """Version; "" when it is not installed."""
    ratio: str
    """PYTORCH_MPS_HIGH_WATERMARK_RATIO."""
    prefer_metal: str
    """PYTORCH_MPS_PREFER_METAL."""


def read_mps(_ws: Workspace) -> MpsReading:
    system, chip = platform.system(), ""
    if system == "Darwin":
        done = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2,
        )
        chip = done.stdout.strip()
    environ = os.environ
    return MpsReading(
        system,
        chip,
        read_versions(_ws).get("torch", ""),
        environ.get("PYTORCH_MPS_HIGH_WATERMARK_RATIO", ""),
        environ.get("PYTORCH_MPS_PREFER_METAL", ""),
    )


_MPS_FIXED = (2, 14)
"""First torch whose products of two matrices with long rows are right on M1 and M2 (pytorch#193487, pytorch#183535)."""


def judge_mps(reading: MpsReading) -> Judgement:
    if reading.ratio and reading.ratio.strip("0.") == "":
        text = _("PYTORCH_MPS_HIGH_WATERMARK_RATIO={ratio} disables the memory limit of MPS")
        return warns(text.format(ratio=reading.ratio), "unset PYTORCH_MPS_HIGH_WATERMARK_RATIO")
    affected = reading.system == "Darwin" and re.match(r"Apple M[12]\b", reading.chip)
    old = (2, 7) <= version_tuple(reading.torch) < _MPS_FIXED
    if affected and old and reading.prefer_metal not in ("1", "true"):
        text = _(
            "torch {version} on {chip}: products of matrices with more than 32766 columns, as of a large vocabulary,"
            " may be wrong on the GPU without an error ({source})"
        )
        return warns(
            text.format(
                version=reading.torch,
                chip=reading.chip,
                source="https://github.com/pytorch/pytorch/issues/193487",
            ),
            "export PYTORCH_MPS_PREFER_METAL=1",
        )
    return passes(_("no setting disables the memory limit"))
