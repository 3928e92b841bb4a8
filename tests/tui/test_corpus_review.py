"""The review in the Corpus tab: whose decision it is, how many are left, and what undo took back."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
import pytest

from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.corpus.review.store import ReviewStore
from engine.memory.records import Conversation
from engine.memory.store import MemoryStore
from engine.runs.events import Funnel
from tests.tui.corpus_workspace import QUESTIONS, build, conversation, opened, states
from tests.tui.helpers import text_of, until
from tui.app.app import H2QApp
from tui.tabs.corpus.summary_text import funnel_line
from tui.terminal.text import cells


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path)
    build(workspace)
    return workspace


def line_with(app: H2QApp, text: str) -> str:
    """The first line of the list that shows `text`."""
    return next(line for line in text_of(app).split("\n") if text in line.partition("││")[0])


@pytest.mark.parametrize(
    ("signs", "colours", "filtered", "mine"),
    [("unicode", True, "✓", "✓"), ("unicode", False, "·", "✓"), ("ascii", False, "ok", "OK")],
)
async def test_the_users_decisions_look_other_than_the_filters(
    ws: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    signs: Literal["unicode", "ascii"],
    colours: bool,
    filtered: str,
    mine: str,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not colours:
        monkeypatch.setenv("NO_COLOR", "1")
    app = H2QApp(ws, settings=Settings(signs=signs))
    async with app.run_test(size=(120, 30)) as pilot:
        tab = await opened(app, pilot)
        await until(pilot, lambda: f" {filtered} " in line_with(app, "Write a short"))
        before = tab.conversations.row(tab.conversations.ids[0])
        await pilot.press("a")
        await until(pilot, lambda: f" {mine} " in line_with(app, "Write a short"))
        after = tab.conversations.row(tab.conversations.ids[0])
        assert before is not None and after is not None
        assert (before.cells[0].kind, after.cells[0].kind) == ("dim", "success")
        await pilot.press("k")
        await until(pilot, lambda: "accepted by you" in text_of(app))
        await pilot.press("j")
        await until(pilot, lambda: "accepted by the filter" in text_of(app))


async def test_the_border_counts_the_reviewed_and_the_last_one_is_announced(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(120, 30)) as pilot:
        tab = await opened(app, pilot)
        assert "reviewed 0 of 5" in text_of(app)
        await pilot.press("a", "a")
        await until(pilot, lambda: "reviewed 2 of 5" in text_of(app))
        await until(pilot, lambda: not tab.recorder.queue.unwritten)
        tab.conversations.set_filter("state:unreviewed")
        await until(pilot, lambda: len(tab.conversations.ids) == 3)
        assert "reviewed 0 of 3" in text_of(app)
        await pilot.press("a", "a")
        assert "all reviewed" not in text_of(app)
        await pilot.press("a")
        await until(pilot, lambda: "all reviewed: 3 conversations" in text_of(app))
        await pilot.press("u")
        await until(pilot, lambda: "reviewed 2 of 3" in text_of(app))
        tab.conversations.set_filter("state:reviewed")
        await until(pilot, lambda: len(tab.conversations.ids) == 4)


async def test_the_next_unreviewed_one_is_found_behind_the_cursor_and_from_the_top(ws: Workspace) -> None:
    with ReviewStore(ws.memory_db) as store:
        for place in (1, 2, 4):
            store.decide(store.ids()[place], "accepted")
    app = H2QApp(ws)
    async with app.run_test(size=(120, 30)) as pilot:
        tab = await opened(app, pilot)
        places = []
        for _n in range(3):
            await pilot.press("]")
            places.append(tab.conversations.index)
        assert places == [3, 0, 3]
        await pilot.press("a", "g", "a")
        await pilot.press("]")
        await until(pilot, lambda: "not now" in text_of(app) or "not here" in text_of(app))


async def test_a_decision_and_its_undo_and_redo_say_what_they_did(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        tab = await opened(app, pilot)

        async def says(key: str, text: str) -> None:
            await pilot.press(*key)
            await until(pilot, lambda: app.footer.message.startswith(text))

        title = "Write a short poem about the autumn"
        await pilot.press("x")
        await until(pilot, lambda: "1 unwanted" in text_of(app))
        await says("2", f"rejected (wrong answer): {title}")
        await says("k", f"rejected (wrong answer): {title}")
        await says("a", f"accepted: {title}")
        await says("u", f"rejected again: {title}")
        await says("u", f"back to accepted by the filter: {title}")
        await says("U", f"rejected again: {title}")
        await says("U", f"accepted again: {title}")
        await says("kf", f"flagged: {title}")
        await says("u", f"flag taken back: {title}")
        await says("U", f"flagged again: {title}")
        await says("gvjja", f"3 conversations accepted: {title}")
        await says("u", f"3 conversations taken back: {title}")
        tab.conversations.set_filter("lang:zh")
        await until(pilot, lambda: len(tab.conversations.ids) == 1)
        await says("u", "flag taken back: Write a short")
        assert "not under this filter; esc clears it" in text_of(app)


async def test_undo_of_a_rule_names_the_rule(ws: Workspace) -> None:
    with ReviewStore(ws.memory_db) as store:
        store.set_rule("paging")
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot)
        await pilot.press("u")
        await until(pilot, lambda: app.footer.message == "rule taken back: paging")
        assert states(ws)[QUESTIONS[2]] == "accepted"


async def test_a_stray_letter_rejects_nothing_under_a_filter(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(120, 30)) as pilot:
        await opened(app, pilot)
        await pilot.press("X")
        await until(pilot, lambda: "Reject all 5 in the corpus, because" in text_of(app))
        await pilot.press("n", "enter")
        await until(pilot, lambda: "1 to 5, or esc" in text_of(app))
        await pilot.press("escape")
        await pilot.pause()
        assert "rejected" not in states(ws).values()


FUNNELS = [
    Funnel(
        collected=705,
        dropped={"low_value": 3, "sensitive": 2, "near": 16},
        redacted=193,
        duplicates=16,
        pending=0,
        accepted=666,
        rejected=18,
        train=563,
        test=100,
        unassigned=3,
    ),
    Funnel(
        collected=1_234_567,
        dropped={"collect": 1000, "low_value": 214, "injection": 31, "exact": 96, "rule": 77},
        redacted=0,
        duplicates=96,
        pending=40,
        accepted=1_233_000,
        rejected=109,
        train=1_200_000,
        test=20_000,
        waiting=12_000,
        border=1000,
    ),
]


@pytest.mark.parametrize("funnel", FUNNELS)
@pytest.mark.parametrize("width", [58, 78, 118, 260])
def test_the_figures_fit_and_add_up(funnel: Funnel, width: int) -> None:
    line = funnel_line(funnel, width)
    assert cells(line) <= width
    assert f"{funnel.accepted:,}" in line
    parts = [part for part in line.split(" ▸ ") if part.startswith("accepted")]
    assert len(parts) == 1
    _total, equal, sum_ = parts[0].partition(" = ")
    if equal:
        numbers = ["".join(c for c in term if c.isdigit()) for term in sum_.split(" + ")]
        assert sum(map(int, numbers)) == funnel.accepted
    left_out = [part.partition("−")[2].partition(" ")[0] for part in line.split(" ▸ ")[1:-1]]
    if any(left_out):
        assert funnel.collected - sum(int(n.replace(",", "")) for n in left_out if n) == funnel.accepted
    if funnel.unassigned and width >= 78:
        assert "3 at the next build (b)" in line


async def test_the_figures_add_up_after_a_decision(ws: Workspace) -> None:
    with MemoryStore(ws.memory_db) as store:
        again = tuple(
            msgspec.structs.replace(turn, text=turn.text + " ")
            for turn in conversation(0, QUESTIONS[0]).turns
        )
        store.add([Conversation.of(again, source="text", external_id="again")], "text", "x")
    build(ws)
    app = H2QApp(ws)
    async with app.run_test(size=(120, 30)) as pilot:
        tab = await opened(app, pilot, 6)
        tab.conversations.set_filter("state:dropped")
        await until(pilot, lambda: len(tab.conversations.ids) == 1)
        assert "accepted 5 = train" in text_of(app)
        await until(pilot, lambda: "5 in the corpus → 1 n trains them" in text_of(app))
        await pilot.press("a")
        await until(pilot, lambda: "accepted 6 = train" in text_of(app))
        assert "1 at the next build (b)" in text_of(app)
        await until(
            pilot,
            lambda: "6 in the corpus → 1 decision not built in yet → b builds the corpus" in text_of(app),
        )
