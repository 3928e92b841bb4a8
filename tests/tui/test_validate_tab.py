"""The Validate tab on reports as a run writes them, with real model folders and a real memory."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from engine.core.local_time import local_time
from engine.core.paths import Workspace
from engine.memory.store import MemoryStore
from engine.models.registry import in_use, promote
from engine.validation.report import (
    WorstTenth,
    list_reports,
    newest_report,
)
from engine.validation.sequential import alpha_for
from tests.tui.helpers import text_of, until
from tests.tui.validation_reports import add_model, make_report, measure, opened, write_report
from tui.app.app import H2QApp
from tui.tabs.validate.cases import compare
from tui.tabs.validate.measures import better, facts_lines, interval
from tui.terminal.glyphs import ASCII, UNICODE


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path)
    workspace.training.mkdir(parents=True)
    return workspace


async def test_the_verdict_the_measures_and_the_first_question_are_shown(ws: Workspace) -> None:
    write_report(ws, make_report())
    app = H2QApp(ws)
    async with app.run_test(size=(120, 40)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.report is not None)
        await pilot.pause()
        shown = text_of(app)
        assert "= KEEP BASE — 0.6 % better, p = 0.21. About 34 more conversations would decide it." in shown
        assert "1.214" in shown
        assert "−0.005" in shown
        assert "[red]怎么[/]重置?" in shown
        assert "Your question 1 of 1" in shown


async def test_the_verdicts_are_walked_through_and_the_model_in_use_stands_above(ws: Workspace) -> None:
    for number, name in enumerate(("native-1", "native-2", "native-3"), 1):
        add_model(ws, name, float(number))
    promote(ws, "native-1", now=1_700_000_000)
    promote(ws, "native-2", now=1_700_000_100)
    for number in range(1, 5):
        report = make_report("promote" if number == 2 else "keep")
        write_report(
            ws, msgspec.structs.replace(report, run_id=f"r{number}", created_at=float(number)), str(number)
        )
    app = H2QApp(ws)
    async with app.run_test(size=(120, 40)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.report is not None)
        assert tab.report is not None and tab.report.run_id == "r4"
        assert "native-2 → native-3" in text_of(app), "what waits for a verdict has a row"
        since = local_time("%m-%d %H:%M", 1_700_000_100)
        assert f"in use: native-2 since {since} · before: native-1 (B)" in text_of(app)
        await pilot.press("down", "down")
        await until(pilot, lambda: tab.report is not None and tab.report.run_id == "r2")
        assert "PROMOTE — " in text_of(app)
        await pilot.press("home")
        await until(pilot, lambda: "native-3 has not been judged against native-2 yet." in text_of(app))


async def test_a_verdict_is_exported(ws: Workspace) -> None:
    write_report(ws, make_report())
    app = H2QApp(ws)
    async with app.run_test(size=(120, 40)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.report is not None)
        await pilot.press("E")
        folder = ws.exports / "verdicts" / "1120-220400-aa"
        await until(pilot, lambda: (folder / "verdict.md").exists())
        await until(pilot, lambda: "it holds your texts" in text_of(app))


async def test_an_empty_workspace_shows_the_next_step(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: "There is no model yet" in text_of(app))
        assert "about 60 conversations" in text_of(app)
        assert [row.verb for row in tab.footer_actions()] == []


async def test_promotion_asks_once_and_can_be_undone(ws: Workspace) -> None:
    add_model(ws, "native-1", 1.0)
    add_model(ws, "native-2", 2.0)
    promote(ws, "native-1")
    before = ws.models_json.read_bytes()
    write_report(ws, make_report())
    app = H2QApp(ws)
    async with app.run_test(size=(100, 30)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.report is not None)
        await pilot.press("a")
        await until(pilot, lambda: "Promote native-2 to replace native-1?" in text_of(app))
        assert "Not recommended." in text_of(app)
        await pilot.press("escape")
        await pilot.pause()
        assert in_use(ws) == "native-1"
        await pilot.press("a")
        await pilot.pause()
        await pilot.press("enter")
        await until(pilot, lambda: in_use(ws) == "native-2")
        await until(pilot, lambda: "In use now: native-2" in text_of(app))
        await pilot.press("u")
        await until(pilot, lambda: in_use(ws) == "native-1")
        assert ws.models_json.read_bytes() == before


async def test_roll_back_names_the_backup_and_restores_it(ws: Workspace) -> None:
    add_model(ws, "native-1", 1.0)
    add_model(ws, "native-2", 2.0)
    promote(ws, "native-1", now=1_700_000_000)
    promote(ws, "native-2", now=1_700_000_100)
    app = H2QApp(ws)
    async with app.run_test(size=(100, 30)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: "roll_back" in [row.verb for row in tab.footer_actions()])
        await pilot.press("B")
        await until(pilot, lambda: "Roll back from native-2 to native-1" in text_of(app))
        await pilot.press("y")
        await until(pilot, lambda: in_use(ws) == "native-1")


async def test_broken_reports_and_runs_without_verdict_are_skipped(ws: Workspace) -> None:
    write_report(ws, make_report(), "1")
    await asyncio.sleep(0.01)
    write_report(ws, None, "2")
    (ws.training / "report_3.json").write_text("{")
    assert len(list_reports(ws)) == 3
    found = newest_report(ws)
    assert found is not None
    assert found.run_id == "1120-220400-aa"


def test_an_interval_shows_zero_and_its_side() -> None:
    worse = measure("nll", 1.0, 1.05, 0.01, 0.1)
    drawn = interval(worse, 15, UNICODE)
    assert len(drawn) == 15
    assert drawn[7] == "┊"
    assert drawn.index("├") > 7
    assert drawn[-1] == "┤"
    assert better(worse) is False
    assert better(measure("nll", 1.0, 0.9, -0.2, 0.01)) is None
    assert interval(worse, 15, ASCII).isascii()


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40), (200, 50)])
async def test_no_line_is_wider_than_its_panel(ws: Workspace, size: tuple[int, int]) -> None:
    write_report(ws, make_report("promote"))
    app = H2QApp(ws)
    async with app.run_test(size=size) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.report is not None)
        await pilot.pause()
        panel = tab.query_one("#validate-measures")
        table = tab.query_one("#validate-table")
        assert table.virtual_size.width <= panel.content_size.width or table.size.width <= panel.size.width
        assert "PROMOTE" in text_of(app)
        assert "┊" in text_of(app) or size[0] < 100


def test_a_comparison_marks_only_what_differs() -> None:
    base, new = compare("the old way 中文", "the new way 中国")
    assert [piece.text for piece in base if piece.kind == "removed"] == ["old", "文"]
    assert [piece.text for piece in new if piece.kind == "added"] == ["new", "国"]
    assert "".join(piece.text for piece in base) == "the old way 中文"


async def test_enter_validates_the_newest_model_against_the_one_in_use(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_model(ws, "native-1", 1.0)
    add_model(ws, "native-2", 2.0)
    promote(ws, "native-1")
    started: list[dict[str, str]] = []

    def record(_ws: Workspace, spec: object) -> None:
        started.append(json.loads(bytes(spec.params)))  # type: ignore[attr-defined]

    monkeypatch.setattr("tui.tabs.validate.tab.launch_uninterrupted", record)
    app = H2QApp(ws)
    async with app.run_test(size=(100, 30)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab._models.pair is not None)
        assert "validate native-2 against native-1" in text_of(app)
        await pilot.press("enter")
        await until(pilot, lambda: bool(started))
        assert started[0]["base"] == "native-1"
        assert started[0]["new"] == "native-2"


def count_launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The new models of the judgings that are started from here on."""
    started: list[str] = []

    def record(_ws: Workspace, spec: object) -> None:
        started.append(json.loads(bytes(spec.params))["new"])  # type: ignore[attr-defined]

    monkeypatch.setattr("tui.tabs.validate.tab.launch_uninterrupted", record)
    return started


def open_window(ws: Workspace, groups: int, looks: int) -> None:
    """A test set of `groups` clusters that has been looked at `looks` times."""
    with MemoryStore(ws.memory_db) as store, store.connection as connection:
        connection.execute(
            "INSERT INTO test_windows (id, opened_at, looks, ids_hash) VALUES (1, 1.0, ?, 'time:x')", (looks,)
        )
        connection.executemany(
            "INSERT INTO window_members (window_id, conversation_id, cluster) VALUES (1, ?, ?)",
            [(f"c{n}", f"k{n}") for n in range(groups)],
        )


async def test_enter_shows_the_verdict_and_asks_before_it_judges_again(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_model(ws, "native-1", 1.0)
    add_model(ws, "native-2", 2.0)
    promote(ws, "native-1")
    write_report(ws, make_report())
    open_window(ws, groups=45, looks=2)
    started = count_launches(monkeypatch)
    app = H2QApp(ws)
    async with app.run_test(size=(120, 40)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.report is not None)
        await pilot.press("w", "enter")
        await until(pilot, lambda: "Your question 1 of 1" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: "Judge native-2 against native-1 again?" in text_of(app))
        assert f"This is look 3 at these 45 groups; the level falls to p < {alpha_for(3):.3g}." in text_of(
            app
        )
        await pilot.press("escape")
        await pilot.pause()
        assert started == []
        await pilot.press("enter")
        await until(pilot, lambda: "Judge native-2" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: started == ["native-2"])


async def test_a_pair_without_a_verdict_is_not_judged_unasked_where_that_takes_another_look(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_model(ws, "native-1", 1.0)
    add_model(ws, "native-2", 2.0)
    add_model(ws, "native-3", 3.0)
    promote(ws, "native-2")
    write_report(ws, make_report())
    open_window(ws, groups=30, looks=1)
    started = count_launches(monkeypatch)
    app = H2QApp(ws)
    async with app.run_test(size=(120, 40)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.report is not None)
        await pilot.press("up", "enter")
        await until(pilot, lambda: "Judge native-3 against native-2? This is look 2" in text_of(app))
        assert started == []


async def test_the_scroll_bar_of_the_measures_breaks_no_line(ws: Workspace) -> None:
    many = [measure(f"general file{n}.txt", 1.3, 1.2, -0.12, -0.08) for n in range(30)]
    write_report(ws, msgspec.structs.replace(make_report(), measures=many))
    app = H2QApp(ws)
    async with app.run_test(size=(120, 40)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: "file9" in text_of(app))
        await pilot.pause()
        panel = tab.query_one("#validate-measures")
        assert panel.max_scroll_y > 0
        rows = [line for line in text_of(app).splitlines() if "file" in line]
        assert len(rows) > 5
        assert all("●" in row for row in rows)


def test_the_facts_give_the_worst_tenth_where_a_report_has_it() -> None:
    old = make_report()
    assert not any("worst tenth" in line for line in facts_lines(old))
    worst = WorstTenth(groups=4, loss=0.0312, limit=0.05, passed=True)
    new = msgspec.structs.replace(old, verdict=msgspec.structs.replace(old.verdict, worst_tenth=worst))
    assert "worst tenth of the groups: NLL +3.1 %, the limit is +5 %" in facts_lines(new)


@pytest.mark.parametrize(
    ("upper", "line"),
    [
        (0.012, "general set: at most 1.2 % worse, 3 % is the limit"),
        (-0.227, "general set: at least 22.7 % better; up to 3 % worse would be accepted"),
    ],
)
def test_a_bound_of_the_general_set_is_said_without_a_double_negative(upper: float, line: str) -> None:
    report = make_report()
    verdict = msgspec.structs.replace(report.verdict, noninferiority={"upper95": upper, "margin": 0.03})
    assert line in facts_lines(msgspec.structs.replace(report, verdict=verdict))
