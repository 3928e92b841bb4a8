"""The cases of the Validate tab: groups, places, blind votes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import msgspec
import pytest

from engine.core.chat import Role
from engine.core.paths import Workspace
from engine.memory.records import Conversation, Turn
from engine.memory.store import MemoryStore
from engine.validation.report import (
    load_report,
)
from engine.validation.votes import new_is_left
from tests.tui.helpers import text_of, until
from tests.tui.validation_reports import gain_shown, make_report, opened, write_report
from tui.app.app import H2QApp


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path)
    workspace.training.mkdir(parents=True)
    return workspace


async def test_wins_and_losses_are_stepped_through_with_their_conversation(ws: Workspace) -> None:
    with MemoryStore(ws.memory_db) as store:
        turns = (
            Turn(role=Role.USER, text="Explain paging"),
            Turn(role=Role.ASSISTANT, text="A table of pages"),
        )
        store.add([Conversation(id="c0", source="text", turns=turns)], "text", "x")
    write_report(ws, make_report())
    app = H2QApp(ws)
    async with app.run_test(size=(120, 40)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.report is not None)
        await pilot.press("w")
        await until(pilot, lambda: "Explain paging" in text_of(app))
        assert gain_shown(tab) == pytest.approx(0.2 / math.log(2))
        assert "A table of pages" in text_of(app)
        await pilot.press("W")
        assert gain_shown(tab) == pytest.approx(-0.3 / math.log(2)), "the worst loss stands first"
        await until(pilot, lambda: "is no longer in" in text_of(app))
        await pilot.press("left")
        assert gain_shown(tab) == pytest.approx(0.0)


async def test_every_case_is_reached_again_whatever_was_shown_between(ws: Workspace) -> None:
    write_report(ws, make_report())
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: tab.report is not None)
        seen: list[str] = []
        for key in ("w", "right", "W", "right", "w", "w", "W", "W"):
            await pilot.press(key)
            await pilot.pause()
            assert tab.cases.deck.current is not None
            seen.append(f"{tab.cases.deck.group} {tab.cases.deck.current.number}")
        assert seen == [
            "wins 1",
            "wins 2",
            "losses 1",
            "losses 2",
            "wins 2",
            "questions 1",
            "losses 2",
            "questions 1",
        ]
        assert "[questions 1]" in text_of(app)
        assert "w +2 W −4" in text_of(app)


@pytest.mark.parametrize("key", ["[", "]", "="])
async def test_a_blind_vote_hides_the_sides_stays_in_the_report_and_can_be_undone(
    ws: Workspace, key: str
) -> None:
    file = write_report(ws, make_report())
    app = H2QApp(ws)
    async with app.run_test(size=(120, 40)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: "Which is better?" in text_of(app))
        panel = tab.cases.view.plain_text
        assert "Base" not in panel and "New" not in panel, "whose answer it is stays hidden"
        left_is_new = panel.index("the new way") < panel.index("the old way")
        await pilot.press(key)
        await until(pilot, lambda: "Base" in tab.cases.view.plain_text)
        expected = "equal" if key == "=" else "new" if (key == "[") == left_is_new else "base"
        stored = load_report(file)
        assert stored is not None and [vote.choice for vote in stored.votes] == [expected]
        assert "Blind votes:" in text_of(app)
        assert json.loads(file.read_bytes())["run_id"] == "x", "other fields of the report stay"
        await pilot.press("u")
        await until(pilot, lambda: "Which is better?" in text_of(app))
        stored = load_report(file)
        assert stored is not None and stored.votes == []


async def test_what_was_shown_by_d_is_not_voted_on(ws: Workspace) -> None:
    file = write_report(ws, make_report())
    app = H2QApp(ws)
    async with app.run_test(size=(120, 40)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: "Which is better?" in text_of(app))
        await pilot.press("d")
        await until(pilot, lambda: "Base" in tab.cases.view.plain_text)
        await pilot.press("[")
        await pilot.pause()
        stored = load_report(file)
        assert stored is not None and stored.votes == []


async def test_a_question_stays_blind_among_the_wins_too(ws: Workspace) -> None:
    report = make_report()
    answers = [msgspec.structs.replace(report.answers[0], conversation="c0")]
    file = write_report(ws, msgspec.structs.replace(report, answers=answers))
    app = H2QApp(ws)
    async with app.run_test(size=(120, 40)) as pilot:
        tab = await opened(app)
        await until(pilot, lambda: "Which is better?" in text_of(app))
        await pilot.press("w")
        await until(pilot, lambda: "score" in tab.cases.view.plain_text)
        assert "Which is better?" in tab.cases.view.plain_text and "Base" not in tab.cases.view.plain_text
        await pilot.press("=")
        await until(pilot, lambda: "You found both equal." in tab.cases.view.plain_text)
        stored = load_report(file)
        assert stored is not None and [vote.conversation for vote in stored.votes] == ["c0"]


def test_sides_are_shuffled_by_case_and_the_same_each_time() -> None:
    sides = [new_is_left("1120-220400-aa", f"c{n}") for n in range(200)]
    assert sides == [new_is_left("1120-220400-aa", f"c{n}") for n in range(200)]
    assert 70 < sum(sides) < 130
