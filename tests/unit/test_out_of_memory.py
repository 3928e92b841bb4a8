"""A failed allocation anywhere in a step is retried, and the run ends as if it had succeeded."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.core.errors import RunFailed
from engine.inference.backends import native
from engine.inference.backends.native import NativeModel
from engine.machine.budget import Budget
from engine.models.transformer import Transformer
from engine.runs.context import RunContext
from engine.runs.events import CheckpointWritten, Evaluated, GovernorAction, Step
from engine.training import checkpoint, governor
from engine.training.batches import ScratchBatches
from engine.training.control import apply_setting
from engine.training.objective import Objective
from engine.training.optim import Optimizer
from engine.training.scratch import model_config, train_scratch
from engine.training.text_files import general_tail
from engine.training.trainer import TrainingJob
from engine.validation.cases import cut_general
from tests.unit.out_of_memory import Failing
from tests.unit.training_run import SIZE, events, new_run, text_file, tiny
from tui.cli.commands.runs import is_assignment


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.metrics.MIN_EVENT_GAP_S", 0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def run(root: Path, name: str) -> RunContext:
    ctx = new_run(root / name)
    train_scratch(ctx, tiny(), [text_file(root)], name="m", out=root / name / "m")
    return ctx


def recorded(ctx: RunContext) -> list[tuple[int, float | None]]:
    return [(event.step, event.loss) for event in events(ctx, Step)]


def last_weights(ctx: RunContext) -> dict[str, torch.Tensor]:
    found = checkpoint.find_newest(ctx.run_dir.checkpoints, "scratch").checkpoint
    assert found is not None
    return found.weights | found.optimizer


@pytest.fixture
def clean(tmp_path: Path) -> RunContext:
    return run(tmp_path, "clean")


def fail_once(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int, when: Callable[[Any], bool]
) -> None:
    """Fails allocation `at` of the first call of `owner.name` for which `when` holds."""
    work = getattr(owner, name)
    failed: list[int] = []

    def failing(self: Any, *arguments: Any) -> Any:
        if failed or not when(self):
            return work(self, *arguments)
        failed.append(1)
        with Failing(at):
            return work(self, *arguments)

    monkeypatch.setattr(owner, name, failing)


@pytest.mark.parametrize("part", ["forward", "backward", "step", "norm", "evaluate", "draw"])
def test_one_failed_allocation_does_not_change_the_run(
    tmp_path: Path, clean: RunContext, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    jobs: list[TrainingJob] = []
    monkeypatch.setattr(governor.ResourceGovernor, "fit_micro_batches", lambda self: jobs.append(self.job))
    again = run(tmp_path, "again")
    assert recorded(again) == recorded(clean)

    def third(_one: Any) -> bool:
        return jobs[-1].state.step == 2

    if part == "forward":
        fail_once(monkeypatch, TrainingJob, "accumulate", 3, third)
    elif part == "backward":
        backward = torch.autograd.backward

        def failing(*arguments: Any) -> None:
            if third(None) and not spent:
                spent.append(1)
                backward(*arguments)  # gradients exist, and a retry that added to them would be wrong
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
            backward(*arguments)

        spent: list[int] = []
        monkeypatch.setattr(torch.autograd, "backward", failing)
    elif part == "step":
        fail_once(monkeypatch, Optimizer, "step", 9, third)
    elif part == "norm":
        fail_once(monkeypatch, Optimizer, "grad_norm", 0, third)
    elif part == "evaluate":
        fail_once(monkeypatch, TrainingJob, "evaluate", 1, third)
    else:
        draw = ScratchBatches.batch_at

        def empty(self: ScratchBatches, number: int, *rest: Any) -> Any:
            if number == 3 and not spent:
                spent.append(1)
                raise MemoryError
            return draw(self, number, *rest)

        spent = []
        monkeypatch.setattr(ScratchBatches, "batch_at", empty)
    failed = run(tmp_path, "failed")
    assert [(event.cause, event.action) for event in events(failed, GovernorAction)] == [
        ("allocation", "caches")
    ]
    assert recorded(failed) == recorded(clean)
    before, after = last_weights(clean), last_weights(failed)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    if part != "evaluate":
        assert events(failed, Evaluated) == events(clean, Evaluated)


def test_an_evaluation_that_does_not_fit_uses_smaller_batches(
    tmp_path: Path, clean: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = Objective.losses

    def greedy(objective: Objective, model: Any, part: Any) -> Any:
        if not torch.is_grad_enabled() and part.ids.numel() > 128:
            raise MemoryError
        return losses(objective, model, part)

    monkeypatch.setattr(Objective, "losses", greedy)
    monkeypatch.setattr(governor, "MIN_EVAL_TOKENS", 64)
    small = run(tmp_path, "small")
    expected = [event.loss for event in events(clean, Evaluated)]
    assert [event.loss for event in events(small, Evaluated)] == pytest.approx(expected, rel=1e-5)


def test_permanent_out_of_memory_ends_the_run_with_a_checkpoint_of_the_last_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Optimizer.step
    ctx = new_run(tmp_path)

    def never(self: Optimizer, *arguments: float) -> float:
        if ctx.view.step == 2:
            raise MemoryError
        return step(self, *arguments)

    monkeypatch.setattr(Optimizer, "step", never)
    with pytest.raises(RunFailed, match="a checkpoint is kept") as failed:
        train_scratch(ctx, tiny(), [text_file(tmp_path)], name="m", out=tmp_path / "m")
    assert failed.value.hint.startswith(f"h2q-tui runs resume {ctx.spec.run_id} --max-memory-gb ")
    assert [event.action for event in events(ctx, GovernorAction)][-1] == "stop"
    assert events(ctx, CheckpointWritten)[-1].step == 2
    found = checkpoint.find_newest(ctx.run_dir.checkpoints, "scratch").checkpoint
    assert found is not None and (found.state.step, found.state.batches_drawn) == (2, 2)


def test_the_budget_can_be_set_during_a_run_and_invalid_values_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[tuple[bool, str]] = []
    check = governor.ResourceGovernor.check_budget

    def person(self: governor.ResourceGovernor, saver: Any) -> None:
        if self.job.state.step == 2:
            answers.extend(
                apply_setting(self.job, text) for text in ("max_memory_gb=none", "max_memory_gb=0.01")
            )
            answers.append(apply_setting(self.job, "max_memory_gb=3.5"))
        check(self, saver)

    monkeypatch.setattr(governor.ResourceGovernor, "check_budget", person)
    ctx = run(tmp_path, "set")
    assert [accepted for accepted, _text in answers] == [False, False, True]
    assert is_assignment("max_memory_gb=3.5") and not is_assignment("max_memory_gb=none")
    (event,) = [event for event in events(ctx, GovernorAction) if event.cause == "set"]
    assert (event.action, event.step, event.budget_mb) == ("limit", 2, 3584.0)
    assert any("3584" in line.text for line in ctx.view.log)


def test_a_changing_cgroup_limit_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = iter([None, 900 << 20, 900 << 20, 2000 << 20, None, None, None])
    monkeypatch.setattr("engine.machine.budget.memory_limit_bytes", lambda *_root, **_name: next(limits))
    monkeypatch.setattr(
        "engine.training.setup.resolve_budget", lambda *_gigabytes: Budget(1500.0, "max_memory_gb")
    )
    resized: list[float] = []
    refusals = [True]  # the first attempt fails, as when the kernel still charges file pages

    def resize(mb: float) -> bool:
        if refusals:
            refusals.pop()
            return False
        resized.append(mb)
        return True

    monkeypatch.setattr("engine.machine.cgroup.resize_limit", resize)
    # The test process may use more than the lower limit.
    monkeypatch.setattr("engine.training.peak_memory.PeakMemory.peak_mb", lambda _self: 500.0)
    start = governor.ResourceGovernor.__init__

    def often(self: governor.ResourceGovernor, *arguments: Any) -> None:
        start(self, *arguments)
        self._limit_checked_at = -math.inf

    monkeypatch.setattr(governor.ResourceGovernor, "__init__", often)
    check = governor.ResourceGovernor.check_budget

    def at_each_step(self: governor.ResourceGovernor, saver: Any) -> None:
        self._limit_checked_at = -math.inf
        check(self, saver)

    monkeypatch.setattr(governor.ResourceGovernor, "check_budget", at_each_step)
    ctx = run(tmp_path, "limit")
    changes = [
        (event.step, event.budget_mb) for event in events(ctx, GovernorAction) if event.action == "limit"
    ]
    assert changes == [(2, 900.0), (4, 1500.0)]
    assert resized == [900.0, 1500.0]


def test_a_validation_that_does_not_fit_uses_smaller_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Transformer(model_config(SIZE))
    model.initialise(0)
    texts = [bytes(range(20 + number)) for number in range(12)]
    language_model = NativeModel(model)
    expected = [loss.nats for loss in language_model.rolling_nll(texts)]
    monkeypatch.setattr(native, "BATCH_TOKENS", 200)
    forward, seen = Transformer.forward, []

    def greedy(self: Transformer, ids: torch.Tensor, *rest: Any) -> Any:
        seen.append(ids.numel())
        if ids.numel() > 60:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return forward(self, ids, *rest)

    monkeypatch.setattr(Transformer, "forward", greedy)
    steps: list[int] = []
    losses = [loss.nats for loss in language_model.rolling_nll(texts, on_tokens=steps.append)]
    assert losses == pytest.approx(expected, rel=1e-5)
    assert sum(steps) >= sum(map(len, texts)) and max(seen) > 60
    monkeypatch.setattr(Transformer, "forward", lambda self, ids: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError):
        language_model.rolling_nll(texts[:1])


def test_the_general_set_is_read_in_parts(tmp_path: Path) -> None:
    file = text_file(tmp_path, size=300_000)
    tail = general_tail(file)
    assert cut_general({"a": tail}, 512) == cut_general({"a": tail.read()}, 512)
    assert tail[5:25] == tail.read()[5:25] and tail[len(tail) - 3 :] == tail.read()[-3:]
