"""Resuming a training that crashed, was stopped or failed: which runs can resume, and the spec of the new run."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from engine.core.config import frozen_settings, load_settings
from engine.core.errors import BadInput
from engine.core.paths import Workspace
from engine.runs.events import RunStatus
from engine.runs.kinds import KINDS, EvolveParams, RunKind, TrainParams
from engine.runs.rundir import RunDir, find_run, list_runs, summarise
from engine.runs.spec import RunSpec, make_spec, params_of

UNFINISHED = (RunStatus.DEAD, RunStatus.STOPPED, RunStatus.FAILED)


def can_resume(kind: RunKind, status: RunStatus) -> bool:
    """Whether an ended run can resume from its checkpoint."""
    return KINDS[kind].resumable and status in UNFINISHED


def resume_spec(run: RunDir, language: str, *, max_memory_gb: float | None = None) -> RunSpec:
    """Spec of a run that resumes `run` from its newest checkpoint, or from its start if it has none.

    `max_memory_gb` replaces the budget.

    Raises BadInput for an invalid specification.
    """
    params: TrainParams | EvolveParams
    if run.spec.kind is RunKind.EVOLVE:
        params = params_of(run.spec, EvolveParams)
    else:
        params = params_of(run.spec, TrainParams)
    params = msgspec.structs.replace(params, resume=run.run_id, wait=True)
    if isinstance(params, TrainParams):
        params = msgspec.structs.replace(params, scheduled=False)
    if max_memory_gb is not None:
        params = msgspec.structs.replace(params, max_memory_gb=max_memory_gb)
    return make_spec(run.workspace.root, params, language=language)


def interrupted_run(ws: Workspace, params: TrainParams) -> RunDir | None:
    """The newest run with these parameters, if it has not come to its end and none of them is alive."""

    def comparable(one: TrainParams) -> TrainParams:
        return msgspec.structs.replace(one, resume=None, settings={}, wait=True, scheduled=False)

    for run in list_runs(ws):
        if run.spec.kind is RunKind.TRAIN and comparable(params_of(run.spec, TrainParams)) == comparable(
            params
        ):
            return run if can_resume(run.spec.kind, summarise(run).status) else None
    return None


def run_with_checkpoints(ws: Workspace, name: str) -> RunDir:
    """The run `name`; if it crashed before its first checkpoint, the run that it resumed.

    Raises BadInput for an unknown run.
    """
    named = run = find_run(ws, name)
    seen: set[str] = set()
    while not has_checkpoint(run.path) and run.run_id not in seen:
        seen.add(run.run_id)
        earlier = _resumed_run(run)
        try:
            run = find_run(ws, earlier) if earlier else named
        except BadInput:
            return named
    return run


def freeze_settings(ws: Workspace, spec: RunSpec) -> RunSpec:
    """`spec` with those settings written down that decide what a training learns, as they are now.

    A run that is continued later takes the same steps, whatever has been set meanwhile. Settings that cannot be
    read are left to the engine to tell.
    """
    if not KINDS[spec.kind].resumable:
        return spec
    with contextlib.suppress(BadInput, msgspec.DecodeError):
        params = msgspec.json.decode(spec.params)
        params["settings"] = frozen_settings(load_settings(ws)) | params.get("settings", {})
        return msgspec.structs.replace(spec, params=msgspec.Raw(msgspec.json.encode(params)))
    return spec


def has_checkpoint(folder: Path) -> bool:
    """Whether the folder of a run contains what looks like a checkpoint."""
    with contextlib.suppress(OSError):
        return any(
            path.is_dir() and not path.name.startswith(".") for path in (folder / "checkpoints").iterdir()
        )
    return False


def _resumed_run(run: RunDir) -> str:
    """Id of the run that `run` resumes, "" for none."""
    with contextlib.suppress(BadInput, msgspec.DecodeError):
        found: object = msgspec.json.decode(run.spec.params).get("resume")
        return found if isinstance(found, str) else ""
    return ""
