"""Keys that come faster than the screen: none is lost, and each is done to what it was typed at."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from textual.events import Key
from textual.keys import _character_to_key

from bench.typist import ReviewModel, TypedDecision, key_sequences
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.corpus.build import build_corpus
from engine.corpus.review.store import ReviewStore
from engine.memory.store import MemoryStore
from tests.corpus_store import distinct
from tests.tui.helpers import until
from tui.app.app import H2QApp
from tui.screens.ask import LinePrompt
from tui.tabs.corpus.tab import CorpusTab

ROWS = 60


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path)
    with MemoryStore(workspace.memory_db) as store:
        store.add([distinct(n, at=1e9 + n) for n in range(ROWS)], "text", "x")
        build_corpus(store, Settings())
    return workspace


def typed(app: H2QApp, keys: str) -> None:
    """All of `keys` at once, as a terminal hands over what was typed while the app was busy."""
    names = {"\r": "enter", "\x1b": "escape"}
    for character in keys:
        if character in names:
            app.post_message(Key(names[character], None))
        else:
            app.post_message(Key(_character_to_key(character), character))


def written(ws: Workspace) -> list[TypedDecision]:
    with ReviewStore(ws.memory_db, readonly=True) as store:
        rows = store.connection.execute(
            "SELECT conversation_id, verdict, reason FROM decisions WHERE undone = 0 ORDER BY seq"
        )
        return [TypedDecision(*row) for row in rows]


@pytest.mark.parametrize("seed", range(3))
async def test_every_key_of_a_burst_decides_what_it_was_typed_at(ws: Workspace, seed: int) -> None:
    with ReviewStore(ws.memory_db, readonly=True) as store:
        model = ReviewModel(store.ids())
    sequences = key_sequences(60, random.Random(seed))
    for keys in sequences:
        model.apply(keys)
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        # The first keys come before the tab has read its list.
        typed(app, "2" + "".join(sequences))
        await pilot.pause()
        await until(pilot, lambda: written(ws) == model.decisions, 20)
        tab = app.tab
        assert isinstance(tab, CorpusTab) and len(app.screen_stack) == 1
        await until(pilot, lambda: tab.conversations.index == model.cursor)
    assert written(ws) == model.decisions


async def test_keys_after_a_filter_apply_to_its_result(ws: Workspace) -> None:
    with ReviewStore(ws.memory_db, readonly=True) as store:
        ids = store.ids()
        word = store.detail(ids[40]).turns[0].text[:8]
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        typed(app, f"2/{word}\rx2\x1bjja")
        await until(pilot, lambda: len(written(ws)) == 2, 20)
        assert written(ws)[0] == TypedDecision(ids[40], "rejected", "wrong")
        assert written(ws)[1].verdict == "accepted"


async def test_a_letter_right_behind_esc_is_that_letter(ws: Workspace) -> None:
    """A terminal sends esc and the letter in one go, which reads as the letter with alt."""
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        typed(app, "2x")
        await until(pilot, lambda: isinstance(app.screen, LinePrompt))
        app.post_message(Key("alt+a", "a"))
        await until(pilot, lambda: len(written(ws)) == 1)
        assert written(ws)[0].verdict == "accepted"
