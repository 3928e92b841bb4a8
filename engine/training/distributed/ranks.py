"""The first process of a training with several: it orders each step, and has everything that must not be lost.

In every step it sends each process its windows and all of them the weights; each adds up the gradients of its own
windows, and their sum comes back. So all processes compute with the same weights without an optimizer of their own,
and a new process can take the place of a lost one between any two steps.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import msgspec
import torch

from engine.core.errors import Interrupted, RunFailed
from engine.core.i18n import _, n_
from engine.machine.process_memory import ProcessTreeMemory
from engine.runs.event_text import rank_lost_text
from engine.runs.events import RankHealth, RankLost, RanksReported
from engine.training.batches import MicroBatch
from engine.training.devices import threads_alone
from engine.training.distributed.divide import divide
from engine.training.distributed.exchange import ConnectionLost, Order, ProcessGroup, StepReport
from engine.training.distributed.processes import NOTICE_S, Processes
from engine.training.distributed.worker import SETUP, Introduction, ready_key, this_process
from engine.training.distributed.worker import step as compute_step

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

    from engine.training.distributed.setup import RankSetup
    from engine.training.trainer import TrainingJob

REPORT_S = 5.0
"""Seconds between two reports of the processes in the journal."""
_POLL_S = 0.05


class Ranks:
    """`Replicas` of several processes."""

    def __init__(self, processes: Processes, setup: RankSetup) -> None:
        """`setup` is how the other processes compute; they are started with the first step."""
        self.processes, self.setup = processes, setup
        self.count, self.memory_shares = processes.count, processes.memory_shares
        self._memory = ProcessTreeMemory()
        self._group: ProcessGroup | None = None
        self._introductions: list[Introduction] = []
        self._lost = 0
        self._reported_at = -REPORT_S

    def start(self, job: TrainingJob) -> None:
        while self._group is None:
            try:
                self._group = self._started(job)
            except ConnectionLost as problem:
                self._recover(job, str(problem))

    def accumulate(self, job: TrainingJob, parts: Sequence[MicroBatch]) -> float:
        while True:
            self.start(job)
            try:
                return self._step(job, parts)
            except ConnectionLost as problem:
                job.optimizer.zero_grad()
                self._recover(job, str(problem))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        if self._group is not None:
            group, self._group = self._group, None
            # After any other exception ranks may be within a step, where they take no order.
            if problem[0] is None or problem[0] is Interrupted:
                with contextlib.suppress(ConnectionLost):
                    for rank in range(1, self.count):
                        group.send_order(Order(ends=True), [], rank)
                    self.processes.stop()
            self.processes.kill()
            group.close()
        # What follows the training computes alone.
        torch.set_num_threads(threads_alone())

    def _step(self, job: TrainingJob, parts: Sequence[MicroBatch]) -> float:
        group = self._group
        assert group is not None
        order = Order(seed=job.dropout_seed, activation_checkpointing=job.state.activation_checkpointing)
        shares = divide(parts, self.count)
        for rank in range(1, self.count):
            group.send_order(order, shares[rank], rank)
        reports, failure = compute_step(group, job.model, job.objective, shares[0], order.seed, self._memory)
        if failure is not None:
            raise failure
        if not all(report.fits for report in reports):
            short = next(rank for rank, report in enumerate(reports) if not report.fits)
            raise MemoryError(f"rank {short} ran out of memory")
        self._report(job, reports)
        return sum(report.loss for report in reports)

    def _started(self, job: TrainingJob) -> ProcessGroup:
        """A new group of processes, as soon as all of them have the model. Raises ConnectionLost, Interrupted."""
        store = self.processes.start(self.setup.threads)
        store.set(SETUP, self.setup.encode())
        waiting = [ready_key(rank) for rank in range(1, self.count)]
        while not store.check(waiting):
            if self.processes.ended() is not None:
                raise ConnectionLost(_("it ended before the first step"))
            if job.ctx.stop_requested:
                self.processes.kill()
                raise Interrupted(_("stopped on request"))
            time.sleep(_POLL_S)
        self._introductions = [this_process(), *(_introduction(store, key) for key in waiting)]
        group = ProcessGroup(store, 0, self.count, cuda=job.device.name == "cuda")
        job.ctx.log(
            n_(
                "{count} processes compute each step together, with {n} thread each",
                "{count} processes compute each step together, with {n} threads each",
                self.setup.threads,
            ).format(count=self.count, n=self.setup.threads)
        )
        return group

    def _recover(self, job: TrainingJob, reason: str) -> None:
        """Ends the group and journals the loss. Raises RunFailed after too many."""
        ended = self.processes.ended(NOTICE_S)
        self.processes.kill()
        if self._group is not None:
            self._group.close()
            self._group = None
        self._lost += 1
        event = RankLost(
            phase=job.state.phase,
            step=job.state.step + 1,
            rank=ended.rank if ended else None,
            pid=ended.pid if ended else None,
            reason=ended.reason if ended else reason,
            restarts=self._lost,
            limit=self.processes.restarts,
        )
        if self._lost > self.processes.restarts:
            raise RunFailed(
                _("training failed at step {step}: {words}").format(
                    step=event.step, words=rank_lost_text(event)
                ),
                hint=f"less {job.ctx.run_dir.log_path}",
            )
        job.ctx.emit(event)

    def _report(self, job: TrainingJob, reports: Sequence[StepReport]) -> None:
        now = time.monotonic()
        if now - self._reported_at < REPORT_S:
            return
        self._reported_at, seen = now, time.time()
        health = [
            RankHealth(
                rank=rank,
                pid=who.pid,
                host=who.host,
                tokens_per_s=round(report.tokens / max(report.seconds, 1e-9), 1),
                used_mb=round(report.used_mb, 1),
                seen=seen,
            )
            for rank, (who, report) in enumerate(zip(self._introductions, reports, strict=True))
        ]
        job.ctx.emit(RanksReported(phase=job.state.phase, step=job.state.step, ranks=health))


def _introduction(store: Store, key: str) -> Introduction:
    return msgspec.json.decode(store.get(key), type=Introduction)
