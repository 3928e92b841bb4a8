"""An empty corpus offers the sample, and says what is under way until its conversations are in the list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.core.paths import Workspace
from engine.corpus.review.store import ReviewStore
from engine.runs.kinds import RunKind
from engine.runs.rundir import list_runs
from tests.tui.corpus_workspace import QUESTIONS, build, opened
from tests.tui.helpers import text_of, until
from tui.actions import BY_ID
from tui.app.app import H2QApp

NOT_BUILT = "not built yet"


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "data")


async def test_s_imports_the_sample_and_builds_without_asking_for_b(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(120, 30)) as pilot:
        tab = await opened(app, pilot, 0)
        await until(pilot, lambda: "s   take the sample" in text_of(app))
        assert "s take the sample" in text_of(app).splitlines()[-1]
        seen: set[str] = set()
        shows = tab._empty.update

        def note(content: Any, **options: Any) -> None:
            seen.add(str(content))
            shows(content, **options)

        monkeypatch.setattr(tab._empty, "update", note)
        await pilot.press("s")
        await until(pilot, lambda: app.footer.message.startswith("1 file: one_year.jsonl 173"), 60)
        await until(pilot, lambda: len(tab.conversations.ids) == 173, 60)
        assert not app.is_offered(BY_ID["corpus.sample"])
        assert app.focused is tab.conversations
    assert {run.spec.kind for run in list_runs(ws)} == {RunKind.IMPORT, RunKind.CORPUS}
    assert any("is being built" in text for text in seen)
    assert not [text for text in seen if NOT_BUILT in text]
    assert (ws.root / "sample" / "memory" / "crosswoz.jsonl").exists()


async def test_a_sample_folder_with_other_files_is_left_alone_and_named(ws: Workspace) -> None:
    other = ws.root / "sample" / "memory" / "crosswoz.jsonl"
    other.parent.mkdir(parents=True)
    other.write_text("mine", encoding="utf-8")
    app = H2QApp(ws)
    async with app.run_test(size=(120, 30)) as pilot:
        await opened(app, pilot, 0)
        await until(pilot, lambda: "s   take the sample" in text_of(app))
        await pilot.press("s")
        await until(pilot, lambda: "A different file of this name exists" in app.footer.message)
    assert other.read_text(encoding="utf-8") == "mine"
    assert not list_runs(ws)


async def test_reading_again_keeps_what_is_shown(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    build(ws)
    app = H2QApp(ws)
    async with app.run_test(size=(120, 30)) as pilot:
        tab = await opened(app, pilot)
        await until(pilot, lambda: "Write a short poem" in tab.pane.plain_text)
        reads: list[int] = []
        ids = ReviewStore.ids

        def count(store: ReviewStore, *arguments: Any) -> list[str]:
            reads.append(1)
            return ids(store, *arguments)

        monkeypatch.setattr(ReviewStore, "ids", count)
        placeholders: list[str] = []
        set_blocks = tab.pane.set_blocks

        def note(blocks: Any, **options: Any) -> None:
            placeholders.extend(span.text for block in blocks for span in block.spans if span.text == "…")
            set_blocks(blocks, **options)

        monkeypatch.setattr(tab.pane, "set_blocks", note)
        for tab_id in ("train", "corpus"):
            await app.show_tab(tab_id)
            await tab.wait_until_loaded()
        assert not reads, "nothing has changed since the list was read"
        with ReviewStore(ws.memory_db) as store:
            store.decide(store.ids()[0], "rejected")
        reads.clear()
        for tab_id in ("train", "corpus"):
            await app.show_tab(tab_id)
        await until(pilot, lambda: "rejected by you" in text_of(app))
        assert reads and not placeholders
        assert [row.cells[1].text for id_ in tab.conversations.ids if (row := tab.conversations.row(id_))][
            -1
        ] == QUESTIONS[0]
