"""An app that only looks: no key and no click changes a byte of the workspace or starts anything."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from textual.widgets import Input, TextArea

from engine.core.errors import UsageProblem
from engine.core.paths import Workspace
from engine.runs.kinds import CorpusParams
from engine.runs.spec import make_spec
from engine.workspace.open import open_workspace
from tests.tui.corpus_workspace import build
from tests.tui.helpers import text_of, until
from tests.tui.live_run import live_run
from tests.tui.validation_reports import add_model, make_report, write_report
from tui.actions import ACTIONS, BY_ID, EVERYWHERE, of_tab
from tui.app.app import H2QApp
from tui.app.read_only import LOOKING
from tui.host import launch
from tui.host.shutdown import refuse_changes, uninterruptible
from tui.tabs.registry import TABS

SETTLE_S = 0.3
"""What a key has started in a thread has written something by then."""
PASSED_OVER = {"leave", "suspend", "go_tab", "tab_before", "tab_after", "next_panel", "go_top", "go_end"}
PASSED_OVER |= {"move_left", "move_down", "move_up", "move_right"}


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    """Conversations, a corpus, two models and a verdict."""
    workspace = open_workspace(Workspace(tmp_path))
    build(workspace)
    for number in (1, 2):
        add_model(workspace, f"native-{number}", float(number))
    write_report(workspace, make_report("promote"))
    return workspace


@pytest.fixture(autouse=True)
def unlocked() -> Iterator[None]:
    yield
    refuse_changes(False)


def contents(ws: Workspace) -> dict[str, str]:
    """Every file and its hash. SQLite's shared memory is no part of the data: readers take locks there."""
    return {
        str(file.relative_to(ws.root)): sha256(file.read_bytes()).hexdigest()
        for file in sorted(ws.root.rglob("*"))
        if file.is_file() and not file.name.endswith("-shm")
    }


@pytest.mark.parametrize("tab", [row.id for row in TABS])
async def test_every_key_in_every_tab_changes_nothing(ws: Workspace, tab: str) -> None:
    """Not even without `refuse_changes`, except on Validate, whose key shows a verdict that is there or judges."""
    with live_run(ws, done=5):
        app = H2QApp(ws, tab, read_only=True, welcome=True)
        async with app.run_test(size=(120, 40)) as pilot:
            assert app.tab is not None
            await app.tab.wait_until_loaded()
            await pilot.pause()
            refuse_changes(tab == "validate")
            before = contents(ws)
            for action in (*of_tab(tab), *of_tab(EVERYWHERE)):
                for key in () if action.verb in PASSED_OVER else action.keys:
                    await pilot.press(key)
                    if len(app.screen_stack) > 1:
                        # What a key has opened is answered: yes, the first choice, some text.
                        await pilot.press("y", "enter", "1", "escape")
                    while len(app.screen_stack) > 1:
                        app.pop_screen()
                    await pilot.pause()
            assert app.is_running
            await asyncio.sleep(SETTLE_S)
            assert contents(ws) == before


async def test_a_refused_key_says_so_and_no_footer_offers_it(ws: Workspace) -> None:
    app = H2QApp(ws, "corpus", read_only=True)
    async with app.run_test(size=(120, 40)) as pilot:
        assert app.tab is not None
        await app.tab.wait_until_loaded()
        await pilot.press("x")
        await until(pilot, lambda: "read-only: reject" in text_of(app))
        offered = {action.id for action in app.tab.available_actions()}
        assert offered <= LOOKING
        assert "corpus.why" in offered and "corpus.accept" not in offered


async def test_the_chat_has_no_field_to_write_in(ws: Workspace) -> None:
    app = H2QApp(ws, "chat", read_only=True)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: bool(getattr(app.tab, "model", "")))
        assert not [field for field in app.screen.query("Input, TextArea") if field.display]
        assert not isinstance(app.focused, Input | TextArea)


def test_every_action_that_stays_exists() -> None:
    assert BY_ID.keys() >= LOOKING
    assert len(LOOKING) < len(ACTIONS)


def test_changes_and_launches_are_refused_also_below_the_keys(ws: Workspace) -> None:
    H2QApp(ws, read_only=True)
    before = contents(ws)
    with pytest.raises(UsageProblem, match="read-only"), uninterruptible():
        pytest.fail("a change was let in")
    with pytest.raises(UsageProblem, match="read-only"):
        launch.launch_uninterrupted(ws, make_spec(ws.root, CorpusParams()))
    assert contents(ws) == before
