"""The Corpus tab on a real memory with a corpus built by the engine."""

from __future__ import annotations

import sqlite3
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import pytest
from textual.events import Key

from engine.core.chat import Role
from engine.core.config import load_settings
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.corpus.build import build_corpus
from engine.corpus.review.store import ReviewStore
from engine.memory.records import Conversation, Turn
from engine.memory.store import MemoryStore
from engine.runs.kinds import RunKind
from engine.runs.spec import RunSpec
from engine.workspace.backup import create_backup
from tests.tui.corpus_workspace import QUESTIONS, build, conversation, opened, states
from tests.tui.helpers import text_of, until
from tui.actions import BY_ID
from tui.app.app import H2QApp


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path)
    build(workspace)
    return workspace


async def test_the_list_the_conversation_and_the_funnel_are_shown_as_text(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(120, 30)) as pilot:
        tab = await opened(app, pilot)
        await until(pilot, lambda: "Write a short poem" in text_of(app))
        assert "Answer 4" in text_of(app)
        assert "collected 5" in text_of(app)
        await pilot.press("j")
        await until(pilot, lambda: "[red]markup[/] and ␛[2J" in text_of(app))
        assert tab.conversations.index == 1


async def test_pii_is_redacted_and_d_shows_the_original(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(120, 30)) as pilot:
        await opened(app, pilot)
        await pilot.press("j", "j", "j")
        await until(pilot, lambda: "‹PHONE›" in text_of(app))
        assert "13812345678" not in app.tab.pane.plain_text  # type: ignore[union-attr]
        assert "redacted" in text_of(app)
        await pilot.press("d")
        await until(pilot, lambda: "13812345678" in app.tab.pane.plain_text)  # type: ignore[union-attr]


async def test_a_decision_moves_the_cursor_and_can_be_undone_and_redone(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(120, 30)) as pilot:
        tab = await opened(app, pilot)
        first = tab.conversations.cursor_id
        await pilot.press("x")
        await until(pilot, lambda: "1 unwanted" in text_of(app))
        await pilot.press("2")
        assert tab.conversations.index == 1
        await until(pilot, lambda: states(ws)[QUESTIONS[4]] == "rejected")
        with ReviewStore(ws.memory_db, readonly=True) as store:
            assert store.detail(first).decisions[0].reason == "wrong"
        await pilot.press("u")
        await until(pilot, lambda: states(ws)[QUESTIONS[4]] == "accepted")
        await until(pilot, lambda: tab.conversations.cursor_id == first)
        await pilot.press("U")
        await until(pilot, lambda: states(ws)[QUESTIONS[4]] == "rejected")
        await until(pilot, lambda: tab.reader.items[first].state == "rejected")


async def test_a_reason_typed_with_the_key_itself_is_not_lost(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        tab = await opened(app, pilot)
        for _n in range(3):
            # Both keys are in the queue before the question is on the screen.
            for key in ("x", "4"):
                app.post_message(Key(key, key))
            await until(pilot, lambda n=_n: list(states(ws).values()).count("rejected") == n + 1)  # type: ignore[misc]
        for key in ("x", "4", "a"):
            app.post_message(Key(key, key))
        await until(pilot, lambda: list(states(ws).values()).count("rejected") == 4)
        await until(pilot, lambda: tab.recorder.queue.unwritten == 0)
        assert len(app.screen_stack) == 1
    with ReviewStore(ws.memory_db, readonly=True) as store:
        assert {store.detail(id_).decisions[0].reason for id_ in store.ids("state:rejected")} == {"low_value"}
        assert store.undoable() == 5


async def test_a_range_takes_one_decision_and_one_undo(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(120, 30)) as pilot:
        tab = await opened(app, pilot)
        await pilot.press("v", "j", "j")
        assert len(tab.conversations.selected) == 3
        await pilot.press("x")
        await until(pilot, lambda: "Reject 3, because" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: list(states(ws).values()).count("rejected") == 3)
        assert tab.conversations.index == 3
        await pilot.press("u")
        await until(pilot, lambda: "rejected" not in states(ws).values())


async def test_a_decision_on_all_under_a_filter_names_their_number_first(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(120, 30)) as pilot:
        tab = await opened(app, pilot)
        await pilot.press("slash")
        await until(pilot, lambda: "Filter:" in text_of(app))
        await pilot.press(*"lang:zh", "enter")
        await until(pilot, lambda: len(tab.conversations.ids) == 1)
        assert "/lang:zh" in text_of(app)
        await pilot.press("X")
        await until(pilot, lambda: "Reject all 1 under /lang:zh" in text_of(app))
        await pilot.press("escape")
        await pilot.pause()
        assert "rejected" not in states(ws).values()
        await pilot.press("A")
        await until(pilot, lambda: "Accept all 1 under /lang:zh?" in text_of(app))
        await pilot.press("enter", "escape")
        await until(pilot, lambda: len(tab.conversations.ids) == len(QUESTIONS))


async def test_a_filter_without_matches_shows_how_to_clear_it(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        tab = await opened(app, pilot)
        tab.conversations.set_filter("[red]none[/]")
        await until(pilot, lambda: "Nothing under /[red]none[/]." in text_of(app))
        await pilot.press("escape")
        await until(pilot, lambda: len(tab.conversations.ids) == len(QUESTIONS))
        assert tab.query_one("#corpus-panels").display


async def test_an_empty_workspace_and_an_unbuilt_corpus_show_the_next_step(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        tab = await opened(app, pilot, 0)
        await until(pilot, lambda: "No conversations yet" in text_of(app))
        assert (
            tab.is_enabled(next(row for row in tab.available_actions() if row.verb == "import")) is not False
        )
        with MemoryStore(ws.memory_db) as store:
            store.add([conversation(1, QUESTIONS[0])], "text", "x")
        await pilot.press("R")
        await until(pilot, lambda: "the corpus is not built yet" in text_of(app))
        with MemoryStore(ws.memory_db) as store:
            build_corpus(store, Settings())
        await pilot.press("R")
        await until(pilot, lambda: "router" in text_of(app))


async def test_why_lists_the_ledger_and_the_decisions(ws: Workspace) -> None:
    with ReviewStore(ws.memory_db) as store:
        store.decide(store.ids("lang:zh")[0], "rejected", "private")
    app = H2QApp(ws)
    async with app.run_test(size=(120, 30)) as pilot:
        tab = await opened(app, pilot)
        tab.conversations.move_to(3)
        await until(pilot, lambda: "‹PHONE›" in text_of(app))
        await pilot.press("w")
        await until(pilot, lambda: "rejected (private)" in text_of(app))
        assert "PII, turn 1: phone" in text_of(app)


async def test_the_duplicate_is_shown_below_with_the_similarity(ws: Workspace) -> None:
    with MemoryStore(ws.memory_db) as store:
        first = conversation(9, "Explain paging once more to me please")
        answer = (
            "Paging splits the memory of a process into pages of one size and remembers the place of each in a table, "
            "so that a process may use more memory than the machine has."
        )
        first = Conversation.of(
            [first.turns[0], msgspec.structs.replace(first.turns[1], text=answer)],
            source="text",
            external_id="9",
        )
        misspelt = answer.replace("remembers", "remebmers")
        second = msgspec.structs.replace(first.turns[1], text=misspelt)
        twin = Conversation.of([first.turns[0], second], source="text", external_id="twin")
        store.add([first, twin], "text", "x")
        build_corpus(store, Settings())
    app = H2QApp(ws)
    async with app.run_test(size=(120, 30)) as pilot:
        tab = await opened(app, pilot, len(QUESTIONS) + 2)
        tab.conversations.set_filter("stage:near state:dropped")
        await until(pilot, lambda: "/stage:near" in text_of(app))
        await pilot.press("p")
        await until(pilot, lambda: "of words in common)" in text_of(app))
        assert tab.pane.plain_text.count("Explain paging once more") == 2
        await pilot.press("p")
        await pilot.pause()
        assert tab.pane.plain_text.count("Explain paging once more") == 1


async def test_a_decision_that_cannot_be_written_is_kept_and_shown(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(120, 30)) as pilot:
        tab = await opened(app, pilot)
        writer = ReviewStore(ws.memory_db)
        blocker = sqlite3.connect(ws.memory_db, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        writer.close()
        await pilot.press("x")
        await pilot.pause()
        await pilot.press("enter")
        assert tab.conversations.index == 1
        await until(pilot, lambda: "1 decision is being written" in text_of(app))
        assert tab.recorder.queue.unwritten == 1
        blocker.execute("ROLLBACK")
        blocker.close()
        await until(pilot, lambda: states(ws)[QUESTIONS[4]] == "rejected", 15)
        await until(pilot, lambda: "being written" not in text_of(app))


async def test_leaving_writes_the_queue(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(120, 30)) as pilot:
        await opened(app, pilot)
        for _n in range(3):
            await pilot.press("x")
            await pilot.pause()
            await pilot.press("enter")
    assert list(states(ws).values()).count("rejected") == 3


async def test_b_builds_in_a_run_and_t_sets_the_threshold(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.runs.launch import create_run

    specs: list[RunSpec] = []

    def start(workspace: Workspace, spec: RunSpec) -> Any:
        specs.append(spec)
        return create_run(workspace, spec)

    monkeypatch.setattr("tui.host.launch.launch_uninterrupted", start)
    app = H2QApp(ws)
    async with app.run_test(size=(120, 30)) as pilot:
        await opened(app, pilot)
        await pilot.press("b")
        await until(pilot, lambda: len(specs) == 1)
        assert specs[0].kind is RunKind.CORPUS
        await pilot.press("t")
        await until(pilot, lambda: "have 80 % of their words in common" in text_of(app))
        await until(pilot, lambda: "no change" in text_of(app), 20)
        await pilot.press("left", "h")
        await until(pilot, lambda: "have 70 % of their words in common" in text_of(app))
        await until(pilot, lambda: "no change" in text_of(app), 20)
        await pilot.press("enter")
        await until(pilot, lambda: load_settings(ws).near_threshold == 0.7)
        await until(pilot, lambda: len(specs) == 2)


async def test_an_edit_in_the_editor_is_shown_compared_and_undone(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "editor"
    script.write_text('#!/bin/sh\nsed -i "s/Answer 4/A better answer/" "$2"\n')
    script.chmod(0o700)
    monkeypatch.setenv("VISUAL", f"{script} --wait")
    app = H2QApp(ws)
    monkeypatch.setattr(app, "suspend", nullcontext)
    async with app.run_test(size=(120, 30)) as pilot:
        tab = await opened(app, pilot)
        await pilot.press("e")
        await until(pilot, lambda: "Edit turn 1–2 (enter: 2, the last answer)" in text_of(app))
        await pilot.press("9", "enter")
        await until(pilot, lambda: "a turn from 1 to 2" in text_of(app))
        await pilot.press("backspace", "enter")
        await until(pilot, lambda: "A better answer" in tab.pane.plain_text)
        assert "[filtered at the next build]" in tab.pane.plain_text
        await until(pilot, lambda: "edited" in text_of(app))
        await pilot.press("d")
        await until(pilot, lambda: "[-Answer 4-]{+A better answer+}: Write4-0" in tab.pane.plain_text)
        await pilot.press("d", "u")
        await until(pilot, lambda: "Answer 4" in tab.pane.plain_text)
    assert (
        sorted(path.suffix for path in ws.memory_db.parent.iterdir() if path.name.startswith(".edit.")) == []
    )


async def test_without_an_editor_a_turn_is_edited_in_place(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.delenv("EDITOR", raising=False)
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        tab = await opened(app, pilot)
        await pilot.press("e")
        await until(pilot, lambda: "Edit turn" in text_of(app))
        await pilot.press("1", "enter")
        await until(pilot, lambda: "esc done editing" in text_of(app))
        await pilot.press(*"Now: ", "escape")
        await until(pilot, lambda: "x discard" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: "Now: Write a short poem" in tab.pane.plain_text)
        await pilot.press("e")
        await until(pilot, lambda: "Edit turn" in text_of(app))
        await pilot.press("1", "enter")
        await until(pilot, lambda: "esc done editing" in text_of(app))
        await pilot.press(*"zzz", "escape", "x")
        await pilot.pause()
    with ReviewStore(ws.memory_db, readonly=True) as store:
        assert store.undoable() == 1


async def test_f_flags_a_range(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(120, 30)) as pilot:
        tab = await opened(app, pilot)
        await pilot.press("v", "j", "f")
        await until(pilot, lambda: text_of(app).count("▲ ") >= 2 or text_of(app).count("! ") >= 2)
        tab.conversations.set_filter("flag:")
        await until(pilot, lambda: len(tab.conversations.ids) == 2)
        await pilot.press("f")
        await until(pilot, lambda: not tab.reader.items[tab.conversations.cursor_id].flagged)
        await until(
            pilot,
            lambda: tab.conversations.cursor_id in tab.reader.details and not tab.recorder.queue.unwritten,
        )
        await pilot.press("u")
        await until(pilot, lambda: tab.reader.items[tab.conversations.cursor_id].flagged)


async def test_a_pattern_of_rejections_is_suggested_as_a_rule_and_u_undoes_it(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    talks = [conversation(n, f"Question {n * n} about subject {n}{n}{n}?") for n in range(24)]
    bad = [
        msgspec.structs.replace(
            talk,
            turns=(
                talk.turns[0],
                Turn(role=Role.ASSISTANT, text=f"I am sorry but I cannot help, case {n}{n * 7}."),
            ),
        )
        for n, talk in enumerate(talks[:8])
    ]
    with MemoryStore(ws.memory_db) as store:
        store.add(
            [
                Conversation.of(one.turns, source="text", external_id=one.external_id)
                for one in bad + talks[8:]
            ],
            "text",
            "x",
        )
        build_corpus(store, Settings(near_threshold=1.0))
    app = H2QApp(ws)
    async with app.run_test(size=(120, 30)) as pilot:
        tab = await opened(app, pilot, 24)
        await pilot.press("O")
        await until(pilot, lambda: "oldest first" in text_of(app))
        await pilot.press("g")
        await until(pilot, lambda: tab.conversations.ids[0] in tab.reader.details)
        for _n in range(6):
            await pilot.press("x")
            await until(pilot, lambda: "1 unwanted" in text_of(app))
            await pilot.press("1")
        await until(pilot, lambda: "6 of your 6 rejections match" in text_of(app))
        assert "F makes it a rule" in text_of(app)
        await pilot.press("F")
        await until(pilot, lambda: "Reject 2 others" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: list(states(ws).values()).count("rejected") == 8)
        assert tab.summary.pattern is None
        await pilot.press("u")
        await until(pilot, lambda: list(states(ws).values()).count("rejected") == 6)


def fill(ws: Workspace, count: int) -> None:
    """Many conversations at once, past the importers: only their number matters here."""
    with MemoryStore(ws.memory_db) as store:
        store.connection.execute("BEGIN")
        store.connection.execute(
            "INSERT INTO imports (id, source, path, started_at, completed_at) VALUES ('big', 'text', '', 0, 1)"
        )
        store.connection.executemany(
            "INSERT INTO conversations (id, import_id, source, added_at, turns, characters, content_hash) "
            "VALUES (?, 'big', 'text', 0, 2, 80, ?)",
            ((f"big{n}", str(n)) for n in range(count)),
        )
        store.connection.executemany(
            "INSERT INTO turns (conversation_id, position, role, text) VALUES (?, ?, ?, ?)",
            (
                (f"big{n}", p, ("user", "assistant")[p], f"line {n} 的内容 " * 5)
                for n in range(count)
                for p in (0, 1)
            ),
        )
        store.connection.executemany(
            "INSERT INTO corpus (conversation_id, build_id, state, automatic, first_line, sort_time, cluster) "
            "VALUES (?, 'b', 'accepted', 'accepted', ?, ?, ?)",
            ((f"big{n}", f"line {n}", float(n), f"k{n}") for n in range(count)),
        )
        store.connection.execute("COMMIT")


async def test_a_decision_shows_the_next_conversation_without_waiting_for_the_database(ws: Workspace) -> None:
    fill(ws, 50_000)
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        tab = await opened(app, pilot, 50_000 + len(QUESTIONS))
        await until(pilot, lambda: len(tab.reader.details) >= 4)
        for _n in range(20):
            next_id = tab.conversations.ids[tab.conversations.index + 1]
            await until(pilot, lambda next_id=next_id: next_id in tab.reader.details)  # type: ignore[misc]
            await tab.action_accept()
            tab.follow_cursor()
            assert tab.pane.shown_id == next_id
            await pilot.pause()


async def test_a_damaged_memory_is_reported_and_b_restores_the_backup(ws: Workspace) -> None:
    create_backup(ws)
    for path in ws.memory_db.parent.glob("memory.db*"):
        path.unlink()
    ws.memory_db.write_bytes(b"no database" * 1000)
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        tab = await opened(app, pilot, 0)
        await until(pilot, lambda: "h2q-tui backup restore" in text_of(app))
        assert str(ws.memory_db) in "".join(text_of(app).split())
        assert not tab.is_enabled(BY_ID["corpus.build"]) and tab.is_enabled(BY_ID["corpus.restore"])
        await pilot.press("B")
        await until(pilot, lambda: "(5 conversations)?" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: len(tab.conversations.ids) == len(QUESTIONS))
        await until(pilot, lambda: "backup restored: 5 conversations" in text_of(app))
        assert not tab.is_enabled(BY_ID["corpus.restore"])


async def test_leaving_with_an_unwritten_decision_asks_first(ws: Workspace) -> None:
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        tab = await opened(app, pilot)

        def full(_store: ReviewStore) -> list[Any]:
            raise sqlite3.OperationalError("database or disk is full")

        tab.recorder.submit(full, 1)
        await until(pilot, lambda: "1 decision is not written yet (database or disk is full)" in text_of(app))
        await pilot.press("q")
        await until(pilot, lambda: "Quit and lose it?" in text_of(app))
        await pilot.press("escape")
        await pilot.pause()
        assert app.is_running and tab.recorder.queue.unwritten == 1
