"""`h2q-tui evolve`: measure the champion, make material, train a candidate, measure both alike, keep the better one.

A cycle reads from top to bottom in `Evolving.cycle`. What decides is the verdict of DESIGN 8 alone; the
canary can only forbid. A candidate that loses leaves its row in the statistics and nothing else.
"""

from __future__ import annotations

from engine.core.errors import NotEnoughData, UsageProblem
from engine.core.i18n import _, n_
from engine.corpus import dataset as corpus_dataset
from engine.evolution import canary
from engine.evolution.held_out_guard import all_held_back
from engine.evolution.report import (
    EvolutionReport,
    correction,
    cycle_event,
    improvement_of,
    row_of,
    status_of,
    write_report,
)
from engine.evolution.state import OpenCycle
from engine.evolution.stats import FILE, CycleRow
from engine.evolution.steps import STAGES, Steps
from engine.evolution.synthetic import REAL_FLOOR
from engine.memory.store import MemoryStore
from engine.models.card import load_card
from engine.models.registry import find_model, in_use, promote
from engine.pipeline.corpus import PreparedCorpus, prepare_corpus
from engine.pipeline.promote import promote_if_better
from engine.pipeline.stages import StagePlan, existing_texts
from engine.runs.context import RunContext, RunResult
from engine.runs.events import RunStatus
from engine.runs.spec import EvolveParams
from engine.training.recipe import Phase
from engine.validation.sequential import MIN_CLUSTERS


def run(ctx: RunContext) -> RunResult:
    """The code of the run kind `evolve`."""
    params = ctx.params(EvolveParams)
    check(params)
    with ctx.train_lock(wait=params.wait), MemoryStore(ctx.workspace.memory_db) as store:
        return Evolving(ctx, params, store).all()


def check(params: EvolveParams) -> None:
    """Raises UsageProblem in the words of the flag."""
    if params.cycles < 1:
        raise UsageProblem(_("--cycles takes 1 or more, not {value}").format(value=params.cycles))
    if not REAL_FLOOR <= params.real_share <= 1:
        raise UsageProblem(
            _("--real-share takes {floor} to 1, not {value}: at least half of what is learnt is real").format(
                floor=REAL_FLOOR, value=params.real_share
            ),
            hint="h2q-tui evolve --real-share 0.7",
        )


class Evolving(Steps):
    """One run: its cycles, and what they share."""

    def all(self) -> RunResult:
        """Every cycle that is still to come, and the report.

        Raises NotEnoughData without a model in use, below `min_corpus`, or without enough to judge on.
        """
        champion = in_use(self.ws)
        if champion is None:
            raise NotEnoughData(
                _("evolution goes on from the model in use, and there is none yet"), hint="h2q-tui train"
            )
        folder = find_model(self.ws, champion)
        card = load_card(folder)
        mode = card.mode
        if mode not in (Phase.NATIVE, Phase.SCRATCH):
            raise UsageProblem(
                _("evolution works on the built-in model, and {name} in use is made by {mode}").format(
                    name=champion, mode=mode
                ),
                hint="h2q-tui rollback --list",
            )
        state = self.record.state
        state.first = state.first or champion
        self.prepared: PreparedCorpus = prepare_corpus(
            self.ctx,
            StagePlan(("corpus",), after=len(STAGES) * self.params.cycles),
            self.store,
            base=folder,
            min_pairs=self.params.min_corpus,
        )
        stopped = ""
        try:
            self._refuse_small()
            window = self.prepared.window
            self.held = corpus_dataset.held_out(self.store, window.id)
            self.held_text = all_held_back(self.store, self.held, existing_texts(card), self.canaries.texts)
            self.ctx.log(correction(window.looks, self.params.cycles - len(state.rows)))
            while len(state.rows) < self.params.cycles and not stopped:
                stopped = self._out_of_time() or self.cycle(len(state.rows) + 1)
        finally:
            # The datasets of the cycles hold its rows; this one was only their source.
            self.prepared.dataset.path.unlink(missing_ok=True)
            # A killed run could not take its own away.
            corpus_dataset.dataset_path(self.ws, self.record.earlier).unlink(missing_ok=True)
        return self._finish(stopped)

    def cycle(self, number: int) -> str:
        """One cycle. Returns why no other one may follow, "" when one may."""
        used = in_use(self.ws)
        assert used is not None
        old = self.record.state.open
        if old is not None and old.row is not None:
            return self._carry_out(old, old.row)
        open_ = self.record.open(number, used, self.prepared.window.id)
        pair = self.pair(open_)
        self._tell(open_, "began")

        champion = self.measure(pair)
        first = self.record.first_canary(champion)
        if warnings := canary.collapse(champion.canary, first):
            return self._refuse_to_begin(open_, warnings)
        mixed = self.material(open_, pair)
        card = self.train(open_, pair, mixed)
        report = self.judge(pair)
        candidate = self.canary(pair, report)
        warnings = canary.collapse(candidate.canary, first)

        row = row_of(
            open_,
            report,
            champion,
            candidate,
            run_id=self.ctx.spec.run_id,
            train_loss=card.loss,
            warnings=warnings,
            seconds=self.record.cycle_seconds(open_),
        )
        self.record.settle(open_, row)
        if row.kept:
            promote_if_better(
                self.ctx,
                pair.plan,
                pair.candidate,
                report,
                newest_conversation=card.lineage.newest_conversation,
            )
        else:
            self.drop(open_, pair, warnings)
        return self._close(open_, row)

    # What belongs to the cycles together

    def _refuse_small(self) -> None:
        have = len(self.prepared.window.clusters)
        if have < MIN_CLUSTERS:
            raise NotEnoughData(
                n_(
                    "{have} group of conversations is kept back, {needed} are needed to judge a candidate",
                    "{have} groups of conversations are kept back, {needed} are needed to judge a candidate",
                    have,
                ).format(have=have, needed=MIN_CLUSTERS),
                hint="h2q-tui memory import ~/Downloads",
            )

    def _out_of_time(self) -> str:
        if not self.record.time_is_up:
            return ""
        return _("the time is up after {n} of {cycles} cycles").format(
            n=len(self.record.state.rows), cycles=self.params.cycles
        )

    def _carry_out(self, open_: OpenCycle, row: CycleRow) -> str:
        """Ends a cycle whose outcome an earlier process wrote down and may not have carried out."""
        if not row.kept:
            self.record.clear(open_)
        elif in_use(self.ws) != open_.candidate:
            promote(self.ws, open_.candidate, description=row.sentence)
        return self._close(open_, row)

    def _close(self, open_: OpenCycle, row: CycleRow) -> str:
        """Into the books. Returns why no other cycle may follow, "" when one may."""
        self.record.close(open_, row)
        self._tell(open_, "kept" if row.kept else "collapsed" if row.warnings else "dropped", row)
        if not row.warnings:
            return ""
        return _("the candidate of cycle {n} collapses: {why}; evolution stops").format(
            n=row.cycle, why="; ".join(row.warnings)
        )

    def _refuse_to_begin(self, open_: OpenCycle, warnings: list[str]) -> str:
        """The champion itself is worse than the canary allows: no candidate of it can be better for it."""
        self.record.clear(open_)
        self.record.state.open = None
        self.record.save()
        why = _("{champion} collapses: {why}; evolution stops").format(
            champion=open_.champion, why="; ".join(warnings)
        )
        self._tell(open_, "collapsed", reason=why)
        return why

    def _tell(self, open_: OpenCycle, state: str, row: CycleRow | None = None, reason: str = "") -> None:
        self.ctx.emit(cycle_event(open_, self.params.cycles, state, row, reason))

    def _finish(self, stopped: str) -> RunResult:
        state = self.record.state
        if stopped:
            self.ctx.log(stopped, "warning")
        report = EvolutionReport(
            run_id=self.ctx.spec.run_id,
            base_model=state.first,
            new_model=in_use(self.ws) or "",
            status=status_of(state.rows, stopped),
            cycles=state.rows,
            improvement=improvement_of(state.rows),
            stopped=stopped,
            correction=correction(self.prepared.window.looks, len(state.rows) or 1),
            seconds=round(self.record.seconds, 1),
            peak_memory_mb=round(self.ctx.view.peak_memory_mb or 0.0, 1),
            stats=str(self.ws.root / FILE),
        )
        return RunResult(RunStatus.DONE, result=report, report=write_report(self.ws, report))
