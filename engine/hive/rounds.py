"""One round: the adapters that wait are joined, the result passes the gate or not, and the next round begins."""

from __future__ import annotations

import asyncio
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.core.errors import RunFailed
from engine.core.filenames import path_to_text
from engine.core.files import locked_folder
from engine.core.i18n import _, language
from engine.hive.admission import counted_samples
from engine.hive.aggregation.terms import JoinMethod, JoinReport
from engine.hive.gate import GateRequest, run_gate
from engine.hive.intake import Intake
from engine.hive.protocol import (
    ARCHIVE_WEIGHTS,
    AdapterInfo,
    AggregateRequest,
    Parent,
    VersionInfo,
    VersionState,
)
from engine.hive.round_work import WorkOrder, run_order
from engine.hive.store import JOINED, AdapterStore
from engine.hive.versions import Versions, write_info
from engine.http.log import log
from engine.http.refused import RequestRefused, bad_request


@dataclass(frozen=True)
class GateSetup:
    """What candidates are judged with."""

    workspace: str
    """As `GateRequest.workspace`."""
    base: str
    """The base model on this machine."""
    held_out: str
    """File or folder of conversations, as `path_to_text`."""


@dataclass(frozen=True)
class RoundOptions:
    """How this hive joins, unless a request says otherwise."""

    method: JoinMethod = JoinMethod.CLIP
    rank: int | None = None
    gate: GateSetup | None = None
    """None: every version is published."""


class Rounds:
    """Aggregations of one store, one at a time."""

    def __init__(self, intake: Intake, options: RoundOptions) -> None:
        self._intake = intake
        self._store: AdapterStore = intake.store
        self._options = options
        self._lock = asyncio.Lock()
        self.versions = Versions(intake.store)

    @property
    def is_busy(self) -> bool:
        return self._lock.locked()

    @property
    def is_gated(self) -> bool:
        """Whether versions are compared with the base before they are published."""
        return self._options.gate is not None

    async def aggregate(self, request: AggregateRequest) -> VersionInfo:
        """Joins the adapters of the open round into a version, current or rejected.

        Raises RequestRefused when there are too few or another aggregation is at work, RunFailed.
        """
        if self._lock.locked():
            raise RequestRefused(409, _("an aggregation is at work already"))
        async with self._lock:
            method = _method(request.method) or self._options.method
            name = await asyncio.to_thread(self.versions.new_name, request.version)
            waiting = await asyncio.to_thread(self._store.pending)
            least = self._intake.limits.min_adapters
            if len(waiting) < least:
                raise bad_request(f"Need at least {least} adapters, but only {len(waiting)} available")
            with locked_folder(self._store.aggregated, JOINED) as staged:
                order = WorkOrder(
                    names=[one.id for one in waiting],
                    folders=[str(self._store.folder_of(one.id)) for one in waiting],
                    samples=counted_samples([one.training_samples for one in waiting], self._intake.limits.max_samples),
                    destination=str(staged / "adapter"),
                    method=method,
                    rank=request.rank or self._options.rank,
                )  # fmt: skip
                outcome = await run_order(order)
                if outcome.report is None:
                    raise bad_request(
                        _("the adapters could not be joined: {reason}").format(reason=outcome.problem)
                    )
                report = outcome.report
                if report.num_adapters < least:
                    raise bad_request(
                        f"Need at least {least} adapters, but only {report.num_adapters} can be joined"
                    )
                version = self._version(name, waiting, report)
                folder = staged / "adapter"
                version = msgspec.structs.replace(version, bytes=(folder / ARCHIVE_WEIGHTS).stat().st_size)
                if self._options.gate is not None:
                    version = await self._judged(self._options.gate, folder, version)
                write_info(folder, version, msgspec.to_builtins(report))
                if version.state is VersionState.REJECTED:
                    return await asyncio.to_thread(self.versions.reject, version)
                used = [parent.adapter_id for parent in version.parents]
                return await asyncio.to_thread(self.versions.publish, folder, version, used)

    async def _judged(self, gate: GateSetup, folder: Path, version: VersionInfo) -> VersionInfo:
        """The version with what the gate says of it. Raises RequestRefused when nothing could be compared."""
        current = await asyncio.to_thread(self.versions.current)
        request = GateRequest(
            workspace=gate.workspace,
            base=gate.base,
            candidate=path_to_text(folder),
            served=path_to_text(self._store.aggregated / current.version) if current is not None else "",
            held_out=gate.held_out,
            look=1 + await asyncio.to_thread(self.versions.judged),
            language=language(),
        )
        started: list[subprocess.Popen[bytes]] = []
        try:
            result = await asyncio.to_thread(run_gate, request, on_start=started.append)
        except RunFailed as problem:
            log(problem.message)
            raise RequestRefused(
                500, _("the gate could not compare the candidate: the log of the server says why")
            ) from None
        finally:
            # When the server stops, the thread that waits for the process ends with it.
            for process in started:
                process.kill()
        return msgspec.structs.replace(
            version,
            state=VersionState.CURRENT if result.decision == "promote" else VersionState.REJECTED,
            gate=result.decision,
            gain=result.gain,
            reason=result.sentence,
        )

    def _version(self, name: str, waiting: list[AdapterInfo], report: JoinReport) -> VersionInfo:
        users = {one.id: one.user_id for one in waiting}
        base = self._intake.base()
        return VersionInfo(
            version=name,
            state=VersionState.CURRENT,
            created_at=time.time(),
            round=waiting[0].round,
            base_model=base.name,
            base_fingerprint=base.fingerprint,
            previous="",
            parents=[
                Parent(
                    adapter_id=share.adapter,
                    user_id=users[share.adapter],
                    weight=share.weight,
                    outlier=bool(share.flags),
                )
                for share in report.adapters
            ],
            method=report.method,
            rank=report.rank,
            energy=report.energy,
            error_vs_exact=report.error_vs_exact,
            epsilon=report.privacy.epsilon if report.privacy is not None else None,
            gate="",
            gain=None,
            reason="",
            sha256=report.sha256,
            bytes=0,
        )


def _method(name: str) -> JoinMethod | None:
    if not name:
        return None
    try:
        return JoinMethod(name)
    except ValueError:
        raise bad_request(
            _("{name} is no way to join adapters; they are {names}").format(
                name=ascii(name[:40]), names=", ".join(JoinMethod)
            )
        ) from None
