"""The checks before a run: those that matter to its kind and take a few milliseconds.

A failed one ends the run before it begins, with its remedy; a warning stands in the run's log.
"""

from __future__ import annotations

import os
import sqlite3
import time

from engine.core.errors import RunFailed
from engine.core.i18n import N_, _, colon
from engine.core.paths import Workspace
from engine.health import clock, disk, machine, versions, workspace_data
from engine.health.grades import AnyCheck, Check, CheckResult, Grade, Judgement, fails, passes, warns
from engine.runs.context import RunContext
from engine.runs.kinds import KINDS, RunKind

NO_PREFLIGHT = "H2Q_NO_PREFLIGHT"
"""Environment variable: when set, a failed check is a warning and the run begins."""
LEAST_DISK = 64 << 20
"""Bytes without which no checkpoint can be written."""
_PAGES_S = 0.1
_STEPS = 2000


def check_before_run(context: RunContext) -> None:
    """Raises RunFailed for a failed check, unless `H2Q_NO_PREFLIGHT` is set; logs warnings."""
    for result in results_before(context.workspace, context.spec.kind):
        sentence = colon(result.name, result.detail)
        if result.grade is Grade.FAIL and not os.environ.get(NO_PREFLIGHT):
            raise RunFailed(sentence, hint=result.hint or "h2q-tui check")
        if result.grade in (Grade.WARN, Grade.FAIL):
            context.log(f"{sentence} → {result.hint}" if result.hint else sentence, "warning")


def results_before(ws: Workspace, kind: RunKind) -> list[CheckResult]:
    """The results of the checks of a kind of run."""
    return [check.run(ws) for check in checks_of(kind)]


def checks_of(kind: RunKind) -> tuple[AnyCheck, ...]:
    """The checks that matter to a kind of run, in the order in which they stop it."""
    info = KINDS[kind]
    writes = info.trains or kind is RunKind.EXPORT
    computes = writes or info.validates
    reads_memory = info.imports or info.builds_corpus or info.validates
    return (
        _WORKSPACE,
        _LOCKS,
        *((_DISK,) if writes else ()),
        *((_PAGES,) if reads_memory else ()),
        *((_VERSIONS, _MPS) if computes else ()),
        *((_MEMORY,) if info.trains else ()),
        _CLOCK,
    )


def judge_free_space(reading: disk.DiskReading) -> Judgement:
    """Training waits where the disk fills up later: only a disk that is full already stops it."""
    if reading.free < LEAST_DISK:
        text = _("{mb:.0f} MB free for {path}: no checkpoint can be written")
        return fails(text.format(mb=reading.free / (1 << 20), path=reading.path), "df -h")
    finding = disk.judge_disk(reading)
    return warns(finding.detail, finding.hint) if finding.grade is Grade.FAIL else passes(finding.detail)


def judge_run_locks(reading: disk.LocksReading) -> Judgement:
    """As the check, without what a run that is about to begin cannot change."""
    if reading.works and not disk.is_network(reading.filesystem):
        return passes(reading.filesystem)
    return disk.judge_locks(reading)


def judge_run_clock(reading: clock.ClockReading) -> Judgement:
    """As the check; a clock without a time server is no news before each run."""
    finding = clock.judge_clock(reading._replace(synchronised=True))
    return warns(finding.detail, finding.hint) if finding.grade is Grade.FAIL else finding


def judge_run_memory(reading: machine.MemoryReading) -> Judgement:
    """As the check, as a warning: the budget of the run fits it to what there is."""
    finding = machine.judge_memory(reading)
    return warns(finding.detail, finding.hint) if finding.grade is Grade.FAIL else finding


def read_pages(ws: Workspace) -> str:
    """The first damage of the pages of the memory that is found in a moment; "" without one."""
    if not ws.memory_db.exists():
        return ""
    end = time.monotonic() + _PAGES_S
    connection = sqlite3.connect(f"{ws.memory_db.resolve().as_uri()}?mode=ro", uri=True, timeout=0.2)
    try:
        connection.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
        found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        return "" if found == "ok" else found
    except sqlite3.OperationalError:
        return ""  # it is locked or takes longer: the run itself reads it
    except sqlite3.DatabaseError as error:
        return str(error)
    finally:
        connection.close()


def judge_pages(damage: str) -> Judgement:
    if damage:
        return fails(_("the memory is damaged: {why}").format(why=damage), "h2q-tui backup restore")
    return passes("")


_WORKSPACE = Check(
    "workspace", N_("workspace"), workspace_data.read_workspace, workspace_data.judge_workspace
)
_LOCKS = Check("locks", N_("file locks"), disk.read_locks, judge_run_locks)
_DISK = Check("disk", N_("disk"), disk.read_disk, judge_free_space)
_PAGES = Check("store", N_("conversations"), read_pages, judge_pages)
_VERSIONS = Check("versions", N_("versions"), versions.read_versions, versions.judge_versions)
_MPS = Check("mps", N_("MPS memory"), versions.read_mps, versions.judge_mps)
_MEMORY = Check("memory", N_("memory"), machine.read_memory, judge_run_memory)
_CLOCK = Check("clock", N_("clock"), clock.read_clock, judge_run_clock)
