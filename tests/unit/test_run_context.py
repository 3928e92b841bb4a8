"""What the code of a kind gets from its run: stages, progress, snapshots."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.core.errors import BadInput, Interrupted
from engine.core.paths import Workspace
from engine.runs.context import RunContext
from engine.runs.control import Request
from engine.runs.events import Event, JournalRecord, Progress, StageChanged, Started
from engine.runs.journal import JournalWriter
from engine.runs.kinds import CorpusParams
from engine.runs.launch import create_run
from engine.runs.rundir import summarise
from engine.runs.spec import make_spec


@pytest.fixture
def emitted() -> list[Event]:
    return []


@pytest.fixture
def ctx(tmp_path: Path, emitted: list[Event]) -> Iterator[RunContext]:
    run = create_run(Workspace(tmp_path), make_spec(tmp_path, CorpusParams()))
    journal = JournalWriter(run.events_path)

    def collect(record: JournalRecord) -> None:
        emitted.append(record.event)

    yield RunContext(run, journal, collect)
    journal.close()


def states(emitted: list[Event]) -> list[tuple[str, str]]:
    return [(event.state, event.detail) for event in emitted if isinstance(event, StageChanged)]


def progress(emitted: list[Event]) -> list[float]:
    return [event.done for event in emitted if isinstance(event, Progress)]


def test_a_stage_ends_with_the_state_of_its_code(ctx: RunContext, emitted: list[Event]) -> None:
    with ctx.stage("corpus", 1, 2) as stage:
        stage.detail = "1,539 conversations"
    with ctx.stage("promote") as stage:
        stage.skip("the verdict keeps the base")
    with pytest.raises(BadInput), ctx.stage("native"):
        raise BadInput("no text", path=Path("a.txt"))
    with pytest.raises(Interrupted), ctx.stage("native"):
        raise Interrupted("stopped")
    assert [state for state in states(emitted) if state[0] != "started"] == [
        ("done", "1,539 conversations"),
        ("skipped", "the verdict keeps the base"),
        ("failed", "no text: a.txt"),
        ("stopped", ""),
    ]


def test_frequent_progress_emits_a_few_events_and_the_last(ctx: RunContext, emitted: list[Event]) -> None:
    with ctx.stage("corpus"):
        for done in range(1, 10_001):
            ctx.progress("corpus", done, 10_000)
        ctx.progress("corpus", 10_000, 10_000)
    found = progress(emitted)
    assert found[0] == 1
    assert found[-1] == 10_000
    assert found.count(10_000) == 1
    assert len(found) < 50


def test_progress_without_a_total_emits_the_last_row(ctx: RunContext, emitted: list[Event]) -> None:
    with ctx.stage("import"):
        for done in range(1, 100):
            ctx.progress("import", done)
    assert progress(emitted)[-1] == 99


def test_the_remaining_time_is_extrapolated_from_the_elapsed_time(
    ctx: RunContext, emitted: list[Event]
) -> None:
    with ctx.stage("corpus"):
        ctx.progress("corpus", 1, 4)
    event = next(event for event in emitted if isinstance(event, Progress))
    assert event.eta_s is not None
    assert 0 <= event.eta_s < 5


def test_no_stage_starts_after_a_stop_request(ctx: RunContext, emitted: list[Event]) -> None:
    ctx.commands.handle(Request("stop"))
    with pytest.raises(Interrupted), ctx.stage("validate"):
        raise AssertionError("the stage must not begin")
    assert states(emitted) == []


def test_state_json_is_replaced_atomically(ctx: RunContext) -> None:
    ctx.emit(Started(pid=1, program="0"))
    for _again in range(3):
        ctx.write_state()
    assert summarise(ctx.run_dir).id == ctx.run_dir.run_id
    assert sorted(path.name for path in ctx.run_dir.path.iterdir()) == [
        "checkpoints",
        "events.jsonl",
        "spec.json",
        "state.json",
    ]


def test_memory_events_carry_the_effective_budget(ctx: RunContext) -> None:
    ctx.set_budget(1500.0, "cgroup")
    ctx.record_memory()
    memory = ctx.view.memory
    assert memory is not None
    assert (memory.budget_mb, memory.reason) == (1500.0, "cgroup")
    assert memory.peak_mb >= memory.used_mb > 5
