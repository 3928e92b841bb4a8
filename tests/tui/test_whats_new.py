"""The screen that tells what a scheduled run did while nobody looked."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.core.i18n import set_language
from engine.core.paths import Workspace
from engine.models.registry import in_use, promote
from engine.runs import lock
from engine.runs.events import Event, Finished, Funnel, Promoted, RunStatus, Started, Step, VerdictGiven
from engine.runs.journal import JournalWriter
from engine.runs.kinds import Params, TrainParams
from engine.runs.last_visit import news_since_last_visit
from engine.runs.launch import create_run
from engine.runs.rundir import RunDir
from engine.runs.spec import make_spec
from engine.workspace.open import open_workspace
from tests.tui.helpers import text_of, until
from tests.unit.test_registry import put_model
from tui.app.app import H2QApp
from tui.app.whats_new import WhatsNewScreen


@pytest.fixture
def ws(tmp_path: Path) -> Any:
    yield open_workspace(Workspace(tmp_path))
    set_language("en")


def funnel(collected: int) -> Funnel:
    return Funnel(
        collected=collected,
        dropped={},
        redacted=0,
        duplicates=0,
        pending=0,
        accepted=collected,
        rejected=0,
        train=collected - 5,
        test=5,
    )


def run_of(ws: Workspace, params: Params, *events: Event, created_at: float | None = None) -> RunDir:
    run = create_run(ws, make_spec(ws.root, params, now=created_at))
    journal = JournalWriter(run.events_path)
    for event in (Started(pid=1, program="test"), *events):
        journal.write(event)
    journal.close()
    return run


def step(number: int, loss: float) -> Step:
    return Step(
        phase="native", step=number, max_steps=200, loss=loss, lr=0.1, tokens=number, tokens_per_s=9.0
    )


def trained(ws: Workspace, promoted: Promoted | None = None, collected: int = 120) -> RunDir:
    verdict = VerdictGiven(
        base="one",
        new="two",
        decision="promote",
        sentence="two answers better than one",
        verdict=msgspec.Raw(b"{}"),
    )
    return run_of(
        ws,
        TrainParams(scheduled=True),
        funnel(collected),
        step(1, 4.0),
        step(200, 1.25),
        verdict,
        *([promoted] if promoted else []),
        Finished(status=RunStatus.DONE, exit_code=0),
    )


def test_a_scheduled_run_is_reported_once(ws: Workspace) -> None:
    run_of(ws, TrainParams(), funnel(100), Finished(status=RunStatus.DONE, exit_code=0), created_at=1e9)
    run = trained(ws)
    since = news_since_last_visit(ws)
    assert since is not None
    assert (since.run_id, since.new_conversations, since.other_runs, since.backup_stamp) == (
        run.run_id,
        20,
        0,
        "",
    )
    assert news_since_last_visit(ws) is None


def test_a_skipped_run_does_not_hide_an_earlier_promotion_and_a_failed_one_is_reported(ws: Workspace) -> None:
    run = trained(ws, Promoted(name="two", previous="one", backup="models.json.backup.20260101_030000"))
    run_of(ws, TrainParams(scheduled=True), Finished(status=RunStatus.SKIPPED, exit_code=3))
    since = news_since_last_visit(ws)
    assert since is not None
    assert (since.run_id, since.other_runs, since.backup_stamp) == (run.run_id, 1, "20260101_030000")
    (ws.config / "last_seen.json").unlink()
    failed = run_of(ws, TrainParams(scheduled=True), Finished(status=RunStatus.FAILED, exit_code=5))
    since = news_since_last_visit(ws)
    assert since is not None and since.run_id == failed.run_id


def test_a_corpus_build_does_not_hide_new_conversations(ws: Workspace) -> None:
    run_of(ws, TrainParams(), funnel(100), Finished(status=RunStatus.DONE, exit_code=0), created_at=1e9)
    (ws.config / "last_seen.json").write_text('{"at": 1.5e9}')
    run_of(ws, TrainParams(), funnel(120), Finished(status=RunStatus.DONE, exit_code=0), created_at=1.6e9)
    trained(ws)
    since = news_since_last_visit(ws)
    assert since is not None and since.new_conversations == 20


def test_only_finished_scheduled_runs_are_reported(ws: Workspace) -> None:
    run_of(ws, TrainParams(), Finished(status=RunStatus.DONE, exit_code=0))
    running = run_of(ws, TrainParams(scheduled=True))
    journal = JournalWriter(running.events_path)
    held = lock.acquire(running.lock_path)
    assert held is not None
    assert news_since_last_visit(ws) is None
    journal.write(Finished(status=RunStatus.SKIPPED, exit_code=3, error="49 of 50 pairs"))
    journal.close()
    os.close(held)
    since = news_since_last_visit(ws)
    assert since is not None and since.run_id == running.run_id and since.new_conversations is None


def test_a_broken_note_of_the_last_visit_is_ignored(ws: Workspace) -> None:
    trained(ws)
    (ws.config / "last_seen.json").write_text('{"at": []}')
    assert news_since_last_visit(ws) is not None


def test_a_missing_workspace_is_not_created(tmp_path: Path) -> None:
    assert news_since_last_visit(Workspace(tmp_path / "none")) is None
    assert not (tmp_path / "none").exists()


async def test_the_screen_shows_everything_and_rolls_the_promotion_back(ws: Workspace) -> None:
    for name in ("one", "two"):
        put_model(ws.models / name)
    promote(ws, "one")
    done = promote(ws, "two")
    trained(ws, Promoted(name="two", previous="one", backup=done.backup))
    app = H2QApp(ws, welcome=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, WhatsNewScreen))
        shown = text_of(app)
        for words in (
            "120",
            "200 steps, loss 4",
            "two answers better than one",
            "two is in use now",
            "B roll back",
        ):
            assert words in shown, shown
        await pilot.press("B")
        await until(pilot, lambda: in_use(ws) == "one")
        await until(pilot, lambda: "rollback --to" in text_of(app))
    again = H2QApp(ws, welcome=True)
    async with again.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: not any(worker.group == "first-start" for worker in again.workers))
        assert not isinstance(again.screen, WhatsNewScreen)


async def test_esc_closes_and_a_later_promotion_is_not_rolled_back(ws: Workspace) -> None:
    for name in ("one", "two", "three"):
        put_model(ws.models / name)
    promote(ws, "one")
    done = promote(ws, "two")
    trained(ws, Promoted(name="two", previous="one", backup=done.backup))
    promote(ws, "three")
    app = H2QApp(ws, welcome=True)
    async with app.run_test(size=(60, 20)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, WhatsNewScreen))
        assert "B roll back" not in text_of(app)
        await pilot.press("B")
        assert isinstance(app.screen, WhatsNewScreen)
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, WhatsNewScreen))
    assert in_use(ws) == "three"


async def test_a_run_with_too_little_data_shows_the_reason(ws: Workspace) -> None:
    run_of(
        ws,
        TrainParams(scheduled=True),
        Finished(status=RunStatus.SKIPPED, exit_code=3, error="12 of 50 pairs"),
        created_at=time.time(),
    )
    app = H2QApp(ws, welcome=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, WhatsNewScreen))
        assert "12 of 50 pairs" in text_of(app) and "skipped" in text_of(app)
