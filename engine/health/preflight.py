"""The preflight of `h2q-tui check`: machine, programs and workspace, before anything is started.

Reads only: nothing is created, repaired or downloaded. Each check is a row of `CHECKS`: a reading at the edge, a pure
judgement of it, and the time after which the reading is not known.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from engine.core.i18n import N_, _
from engine.core.paths import Workspace
from engine.health import (
    clock,
    disk,
    embedding,
    integrity,
    libraries,
    machine,
    privacy,
    services,
    terminal,
    versions,
    workspace_data,
)
from engine.health.grades import AnyCheck, Check, CheckResult, Judgement, fails, passes
from engine.health.reading import run_beside_each_other

_SLOW_S = 12.0
"""Reads thousands of files."""


def read_sqlite(_ws: Workspace) -> tuple[int, ...]:
    return sqlite3.sqlite_version_info


def judge_sqlite(version: tuple[int, ...]) -> Judgement:
    text = _("version {version}").format(version=".".join(map(str, version)))
    return passes(text) if version >= (3, 35) else fails(text)


CHECKS: tuple[AnyCheck, ...] = (
    Check("python", N_("Python"), machine.read_python, machine.judge_python),
    Check("platform", N_("system"), machine.read_system, machine.judge_system),
    Check("cores", N_("processor"), machine.read_cores, machine.judge_cores),
    Check("memory", N_("memory"), machine.read_memory, machine.judge_memory),
    Check("compression", N_("memory compression"), machine.read_compression, machine.judge_compression),
    Check("disk", N_("disk"), disk.read_disk, disk.judge_disk),
    Check("locks", N_("file locks"), disk.read_locks, disk.judge_locks),
    Check("clock", N_("clock"), clock.read_clock, clock.judge_clock),
    Check("torch", N_("torch"), libraries.read_torch, libraries.judge_torch, libraries.TORCH_S + 1),
    Check("openmp", N_("OpenMP"), libraries.read_openmp, libraries.judge_openmp, libraries.TORCH_S + 1),
    Check("llama", N_("llama.cpp"), libraries.read_llama, libraries.judge_llama, libraries.LLAMA_S + 1),
    Check("mps", N_("MPS memory"), versions.read_mps, versions.judge_mps),
    Check("versions", N_("versions"), versions.read_versions, versions.judge_versions),
    Check("accelerate", N_("accelerate"), versions.read_versions, versions.judge_accelerate),
    Check("packages", N_("packages"), integrity.read_requirements, integrity.judge_requirements, _SLOW_S),
    Check("files", N_("package files"), integrity.read_files, integrity.judge_files, _SLOW_S),
    Check("sqlite", N_("SQLite"), read_sqlite, judge_sqlite),
    terminal.TERMINAL,
    terminal.COLOURS,
    Check("logout", N_("logging out"), terminal.read_logout, terminal.judge_logout),
    Check("workspace", N_("workspace"), workspace_data.read_workspace, workspace_data.judge_workspace),
    Check(
        "store",
        N_("conversations"),
        workspace_data.read_store,
        workspace_data.judge_store,
        workspace_data.STORE_S + 3,
    ),
    Check("backups", N_("backups"), workspace_data.read_backups, workspace_data.judge_backups),
    Check("secrets", N_("secrets"), privacy.read_secrets, privacy.judge_secrets),
    Check("offline", N_("offline"), privacy.read_offline, privacy.judge_offline, privacy.OFFLINE_S + 1),
    Check("embedder", N_("embedder"), embedding.read_embedder, embedding.judge_embedder),
    Check("languages", N_("languages"), embedding.read_languages, embedding.judge_languages),
    Check("text", N_("text"), workspace_data.read_texts, workspace_data.judge_texts),
    Check("models", N_("models"), workspace_data.read_models, workspace_data.judge_models),
    Check("cache", N_("Hugging Face cache"), disk.read_cache, disk.judge_cache),
    Check("ollama", N_("Ollama"), services.read_ollama, services.judge_ollama),
    Check("reboot", N_("after a reboot"), services.read_boot, services.judge_boot, 8.0),
    Check("listening", N_("open ports"), services.read_listeners, services.judge_listeners),
    Check("linger", N_("schedule"), services.read_linger, services.judge_linger),
    Check("runs", N_("runs"), workspace_data.read_runs, workspace_data.judge_runs),
)
"""In the order of the output."""


def find_check(id_: str) -> AnyCheck:
    """The check named `id_`. Raises KeyError."""
    return {check.id: check for check in CHECKS}[id_]


def run_checks(ws: Workspace, checks: Sequence[AnyCheck] | None = None) -> Iterator[CheckResult]:
    """Runs `checks`, `CHECKS` by default, beside each other and yields the results in their order."""
    return run_beside_each_other(ws, CHECKS if checks is None else checks)
