"""The mitigation policy by example and property, and a real run whose budget is too small for its
micro-batches."""

from __future__ import annotations

import contextlib
import gc
import mmap
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import RunFailed, UsageProblem, is_out_of_memory
from engine.machine.budget import Budget
from engine.machine.process_memory import SAMPLE_S, ProcessTreeMemory, reset_peak_rss
from engine.models.transformer import ModelConfig, Transformer
from engine.runs.context import RunContext
from engine.runs.events import CheckpointWritten, GovernorAction, MemoryPlan, Step
from engine.training import checkpoint, governor
from engine.training.governor import BUFFER_SHARE, Mitigation, buffer_mb, next_mitigation
from engine.training.peak_memory import PeakMemory
from engine.training.recipe import CurriculumStage, Recipe
from engine.training.scratch import train_scratch
from engine.training.trainer import TrainingJob
from tests.unit.training_run import events, new_run, text_file, tiny

MB = st.floats(1, 1e6)


@pytest.fixture(autouse=True)
def journal_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.metrics.MIN_EVENT_GAP_S", 0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_mitigations_go_from_the_mildest_to_the_last() -> None:
    found, taken = [], {"dropped": False, "halvable": True, "checkpointing": False}
    for change in ({"dropped": True}, {"halvable": False}, {"checkpointing": True}, {}):
        found.append(next_mitigation(4200, 4096, 512, **taken))
        taken |= change
    assert found == [
        Mitigation.DROP_CACHES,
        Mitigation.HALVE_MICRO_BATCH,
        Mitigation.ACTIVATION_CHECKPOINTING,
        Mitigation.STOP,
    ]


@given(MB, MB, st.booleans(), st.booleans(), st.booleans())
def test_no_mitigation_below_the_buffer_and_no_stop_within_the_budget(
    used: float, budget: float, dropped: bool, halvable: bool, recomputes: bool
) -> None:
    found = next_mitigation(
        used, budget, buffer_mb(budget), dropped=dropped, halvable=halvable, checkpointing=recomputes
    )
    if used <= budget - buffer_mb(budget):
        assert found is None
    if found is Mitigation.STOP:
        assert used > budget
        assert dropped and recomputes and not halvable
    if used > budget:
        assert found is not None


@pytest.mark.parametrize(
    ("problem", "memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_errors_are_recognised(problem: BaseException, memory: bool) -> None:
    assert is_out_of_memory(problem) is memory


@pytest.mark.parametrize("child_mb", [0, 256])
@pytest.mark.parametrize("reports_peak", [True, False])
def test_the_peak_between_two_readings_is_measured_and_the_run_keeps_it(
    child_mb: int, reports_peak: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not reports_peak:
        monkeypatch.setattr("engine.training.peak_memory.reset_peak_rss", lambda *_children: False)
    elif not reset_peak_rss():
        pytest.skip("this system does not report the peak between two readings")
    footprint, resident = PeakMemory("cpu", tree_every_s=0.0), ProcessTreeMemory()
    with holding(child_mb):
        footprint.peak_mb()  # discards the peak of earlier tests
        before = footprint.peak_mb()
        # Freed before the reading; torch may keep this much in reserve.
        with mmap.mmap(-1, 128 << 20) as held:
            for page in range(0, len(held), mmap.PAGESIZE):
                held[page] = 1
            if not reports_peak:
                time.sleep(10 * SAMPLE_S)
        most = footprint.peak_mb()
        assert most > before + 100
        assert footprint.peak_mb() < before + 60
        resident.sample()
    assert not reports_peak or resident.peak_mb >= most


def test_the_sampling_thread_ends_with_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.peak_memory.reset_peak_rss", lambda *_children: False)
    before = set(threading.enumerate())
    footprint = PeakMemory("cpu")
    (thread,) = set(threading.enumerate()) - before
    del footprint
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


@contextlib.contextmanager
def holding(megabytes: int) -> Iterator[None]:
    """A child process with this much memory."""
    if not megabytes:
        yield
        return
    held = f"held = b'x' * ({megabytes} << 20); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdout.readline()
        try:
            yield
        finally:
            child.stdin.close()


def test_activation_checkpointing_gives_the_same_gradients() -> None:
    config = ModelConfig(dim=32, layers=2, heads=2, kv_heads=2, head_dim=16, ffn=32, context=64)
    ids = torch.randint(0, 256, (2, 64), generator=torch.Generator().manual_seed(1))
    found = []
    for recompute in (False, True):
        model = Transformer(config)
        model.initialise(3)
        with torch.no_grad():
            model.lm_head.weight.normal_(generator=torch.Generator().manual_seed(2))
        model.model.activation_checkpointing = recompute
        model(ids).square().mean().backward()
        found.append({name: one.grad for name, one in model.named_parameters() if one.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def wide(**changes: object) -> Recipe:
    """Steps of 64 windows of 128 bytes: about 60 MB of activations in one micro-batch."""
    recipe = tiny(**changes)  # type: ignore[arg-type]
    return msgspec.structs.replace(
        recipe,
        size=msgspec.structs.replace(recipe.size, context=128, dim=64, ffn=160, layers=2),
        curriculum=(CurriculumStage(until=1.0, context=128, batch=64),),
        max_steps=5,
        epochs=99,
    )


def run(ctx: RunContext, root: Path, recipe: Recipe) -> None:
    text = root / "a.txt"
    train_scratch(
        ctx, recipe, [text if text.exists() else text_file(root, size=40_000)], name="m", out=root / "m"
    )


def test_a_run_over_budget_halves_its_micro_batches_and_takes_the_same_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = new_run(tmp_path / "free")
    text_file(tmp_path, size=40_000)
    train_scratch(free, wide(), [tmp_path / "a.txt"], name="m", out=tmp_path / "free" / "m")
    # The measurement before the first step would already shrink it: here the memory shrinks later.
    monkeypatch.setattr("engine.training.microbatch.windows_that_fit", lambda *_figures: 64)
    check, limit = governor.ResourceGovernor.check_budget, []

    def shrinking(self: governor.ResourceGovernor, saver: object) -> None:
        if self.job.state.step == 2:
            self.memory.drop_caches()
            idle = self.memory.peak_mb()
            self.job.accumulate(self.job.batches.batch_at(0, 5))
            full = self.memory.peak_mb()
            self.job.optimizer.zero_grad()
            limit.append((idle + 0.4 * (full - idle)) / (1 - BUFFER_SHARE))
            self.job.budget = budget_of(limit[0])
        check(self, saver)  # type: ignore[arg-type]

    monkeypatch.setattr(governor.ResourceGovernor, "check_budget", shrinking)
    bound = new_run(tmp_path / "bound")
    train_scratch(bound, wide(), [tmp_path / "a.txt"], name="m", out=tmp_path / "bound" / "m")
    recorded = events(bound, GovernorAction)
    assert recorded and {event.action for event in recorded} <= {"limit", "caches", "smaller", "recompute"}
    assert "smaller" in {event.action for event in recorded}
    assert all(
        event.used_mb > event.budget_mb - event.buffer_mb for event in recorded if event.action != "limit"
    )
    assert recorded[-1].pass_tokens < 64 * 128
    losses = [{event.step: event.loss for event in events(ctx, Step)} for ctx in (free, bound)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert bound.view.annotations
    state = checkpoint.find_newest(bound.run_dir.checkpoints, "scratch").checkpoint
    assert state is not None
    assert state.state.tokens_per_micro_batch == recorded[-1].pass_tokens


def budget_of(mb: float) -> Budget:
    return Budget(mb, "max_memory_gb")


def test_a_failed_allocation_is_retried_with_smaller_micro_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulate = TrainingJob.accumulate

    def greedy(job: TrainingJob, batch):  # type: ignore[no-untyped-def]
        if job.state.batches_drawn == 3 and max(part.ids.shape[0] for part in batch.micro_batches) > 16:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return accumulate(job, batch)

    # The failure is made here, so the model may be small.
    recipe = msgspec.structs.replace(
        wide(), size=tiny().size, curriculum=(CurriculumStage(until=1.0, context=32, batch=64),)
    )
    whole, bound = new_run(tmp_path / "whole"), new_run(tmp_path / "bound")
    monkeypatch.setattr("engine.training.microbatch.windows_that_fit", lambda *_figures: 64)
    text_file(tmp_path, size=40_000)
    train_scratch(whole, recipe, [tmp_path / "a.txt"], name="m", out=tmp_path / "whole" / "m")
    monkeypatch.setattr(TrainingJob, "accumulate", greedy)
    train_scratch(bound, recipe, [tmp_path / "a.txt"], name="m", out=tmp_path / "bound" / "m")
    recorded = [(event.step, event.cause, event.action) for event in events(bound, GovernorAction)]
    assert recorded == [
        (2, "allocation", "caches"),
        (2, "allocation", "smaller"),
        (2, "allocation", "smaller"),
    ]
    losses = [{event.step: event.loss for event in events(ctx, Step)} for ctx in (whole, bound)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_without_a_mitigation_left_it_stops_with_a_checkpoint_and_a_sufficient_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = governor.ResourceGovernor.check_budget

    def shrunk(self: governor.ResourceGovernor, saver: object) -> None:
        if self.budget.mb > 10:
            self.job.budget = budget_of(10.0)
        check(self, saver)  # type: ignore[arg-type]

    monkeypatch.setattr(governor.ResourceGovernor, "check_budget", shrunk)
    ctx = new_run(tmp_path)
    with pytest.raises(RunFailed, match="needs more memory than its budget") as failed:
        run(ctx, tmp_path, tiny(epochs=99))
    assert failed.value.hint.startswith(f"h2q-tui runs resume {ctx.spec.run_id} --max-memory-gb ")
    assert [event.action for event in events(ctx, GovernorAction)][-2:] == ["recompute", "stop"]
    assert events(ctx, CheckpointWritten)[-1].step == events(ctx, GovernorAction)[-1].step


def test_caches_are_dropped_again_before_a_run_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = governor.ResourceGovernor.check_budget

    def grown(self: governor.ResourceGovernor, saver: object) -> None:
        step = self.job.state.step
        self._largest = (1, 64)  # every lasting mitigation is in place
        if step == 1:
            self.job.state.activation_checkpointing, self._dropped_at = True, 1
        self.memory.peak_mb = lambda: 5000.0 if step in (3 + governor.CACHE_RETRY_STEPS, 20) else 100.0  # type: ignore[method-assign]
        check(self, saver)  # type: ignore[arg-type]

    monkeypatch.setattr(governor.ResourceGovernor, "check_budget", grown)
    ctx = new_run(tmp_path)
    with pytest.raises(RunFailed, match="5000 MB of"):
        run(ctx, tmp_path, tiny(max_steps=30, epochs=999))
    recorded = [(event.step, event.action) for event in events(ctx, GovernorAction)]
    assert recorded == [(3 + governor.CACHE_RETRY_STEPS, "caches"), (20, "stop")]


def test_micro_batches_are_not_halved_again_when_halving_saves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program itself uses the buffer of 512 MB; halving continues only above the budget."""
    check, used = (
        governor.ResourceGovernor.check_budget,
        {1: 3950.0, 2: 3900.0, 3: 3800.0, 4: 3799.0, 5: 3799.0, 6: 4200.0},
    )

    def recorded(self: governor.ResourceGovernor, saver: object) -> None:
        self._largest = (64, 64 * 16)
        figure = used.get(self.job.state.step, 3799.0)
        self.memory.peak_mb = lambda: figure  # type: ignore[method-assign]
        check(self, saver)  # type: ignore[arg-type]

    monkeypatch.setattr(governor.ResourceGovernor, "check_budget", recorded)
    ctx = new_run(tmp_path)
    run(ctx, tmp_path, tiny(max_steps=8, epochs=999))
    actions = [(event.step, event.action) for event in events(ctx, GovernorAction)]
    assert actions == [(1, "caches"), (2, "smaller"), (3, "smaller"), (6, "smaller"), (7, "smaller")]


@pytest.mark.parametrize("reports_peak", [True, False])
def test_measurements_are_journalled_and_a_budget_below_the_program_is_rejected(
    tmp_path: Path, reports_peak: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not reports_peak:  # as on macOS
        monkeypatch.setattr("engine.training.peak_memory.reset_peak_rss", lambda *_children: False)
    ctx = new_run(tmp_path / "a")
    run(ctx, tmp_path, tiny())
    (plan,) = events(ctx, MemoryPlan)
    assert [rows for rows, _mb in plan.measured] == [1, 2]
    assert plan.windows == 2 and plan.context == 64
    assert all(50 < mb <= plan.room_mb for _rows, mb in plan.measured)
    assert any("measured" in line.text and "micro-batches of 2" in line.text for line in ctx.view.log)
    with pytest.raises(UsageProblem, match="of the program alone"):
        run(new_run(tmp_path / "b"), tmp_path, tiny(max_memory_gb=0.02))


@pytest.mark.parametrize("device", ["cuda", "xpu"])
def test_accelerator_memory_counts_as_peak_memory(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch reports the figures; only their sum and the reset of the peak are ours."""
    module, calls = torch.get_device_module(device), []
    monkeypatch.setattr(module, "max_memory_reserved", lambda: 3 << 30)
    monkeypatch.setattr(module, "reset_peak_memory_stats", lambda: calls.append("reset"))
    monkeypatch.setattr(module, "empty_cache", lambda: calls.append("dropped"))
    program, whole = PeakMemory("cpu").peak_mb(), PeakMemory(device)
    assert whole.peak_mb() == pytest.approx(program + 3072, abs=512)
    whole.drop_caches()
    assert calls == ["reset", "dropped"]


def test_mps_memory_is_the_memory_of_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 2 << 30)
    program = PeakMemory("cpu").peak_mb()
    assert PeakMemory("mps").peak_mb() == pytest.approx(program + 2048, abs=512)
