"""Reads what the line of the next step is made of. The app loads this after its first picture."""

from __future__ import annotations

from engine.core.paths import Workspace
from engine.corpus.review.store import ReviewStore
from engine.memory.store import MemoryStore
from engine.models.registry import in_use, list_models
from engine.runs.estimates import MeasuredRun, RunHistory, Workload, estimate
from engine.runs.kinds import TrainMode
from tui.app.next_step_text import NextFacts


def read_facts(workspace: Workspace, history: RunHistory, budget_gb: float) -> NextFacts:
    """Reads memory, corpus, finished trainings and the model in use. Raises H2QError, OSError and sqlite3.Error."""
    used = in_use(workspace) or ""
    made_by = next((card.run_id for card in list_models(workspace) if card.name == used), "")
    runs = history.runs()
    last = runs[0] if runs else None
    if not workspace.memory_db.exists():
        return NextFacts(in_use=used)
    with MemoryStore(workspace.memory_db, readonly=True) as store:
        in_memory, characters = store.count(), store.mean_characters()
    with ReviewStore(workspace.memory_db, readonly=True) as review:
        funnel = review.funnel()
    load = _workload(last, funnel.train, funnel.test, characters)
    return NextFacts(
        in_memory=in_memory,
        collected=funnel.collected,
        accepted=funnel.accepted,
        train=funnel.train,
        unassigned=funnel.unassigned,
        # Of the demo, which is no training run, the model in use is all that is known.
        trained=last.summary.conversations if last is not None else funnel.train if made_by else 0,
        trained_in_use=bool(made_by) and (last is None or made_by == last.run),
        in_use=used,
        estimate=estimate(load, runs) if funnel.train else None,
        budget_mb=budget_gb * 1024,
    )


def _workload(last: MeasuredRun | None, train: int, test: int, characters: float) -> Workload:
    """The training that `n` offers: the newest one again, with the conversations of now."""
    mode = last.mode if last is not None and last.mode is not TrainMode.SCRATCH else TrainMode.NATIVE
    base = (last.params.model or "") if last is not None and mode is not TrainMode.NATIVE else ""
    return Workload(mode, conversations=train, test=test, base=base, characters=characters)
