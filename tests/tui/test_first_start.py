"""The first start on an empty workspace, and the sheet that asks for files."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.core.chat import Role
from engine.core.config import load_settings
from engine.core.i18n import language, set_language
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.memory.records import Conversation, Turn
from engine.memory.store import MemoryStore
from engine.runs.kinds import RunKind
from engine.runs.rundir import list_runs
from engine.runs.spec import RunSpec
from tests.tui.helpers import text_of, until
from tui.app import onboarding
from tui.app.app import H2QApp
from tui.app.find_exports import find_exports, format_size
from tui.app.first_start import FirstStart, is_empty
from tui.app.import_files import ImportScreen
from tui.screens.help import KeysSheet
from tui.tabs.registry import TABS


@pytest.fixture
def ws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    home = tmp_path / "home"
    (home / "Downloads").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_DOWNLOAD_DIR", raising=False)
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    yield Workspace(tmp_path / "data")
    set_language("en")


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[RunSpec]:
    """Specs that the app launches; the runs themselves are prepared and not started."""
    from engine.runs.launch import create_run

    specs: list[RunSpec] = []

    def start(workspace: Workspace, spec: RunSpec) -> Any:
        specs.append(spec)
        return create_run(workspace, spec)

    monkeypatch.setattr("tui.host.launch.launch_uninterrupted", start)
    return specs


def export(folder: Path, name: str = "conversations.zip") -> Path:
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("conversations.json", "[]")
    return path


def first_start(app: H2QApp) -> Callable[[], bool]:
    return lambda: isinstance(app.screen, FirstStart)


async def test_an_empty_workspace_asks_in_both_languages(ws: Workspace) -> None:
    app = H2QApp(ws, welcome=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, first_start(app))
        shown = text_of(app)
        assert "Make your own model · 制作你自己的模型" in shown
        assert "Import conversations" in shown
        assert "Language / 语言" in shown
        assert "h2q-tui" in shown
        assert "Runs" not in shown, "nothing but the first start is on the screen"
        await pilot.press("escape")
        await pilot.pause()
        assert not first_start(app)()


@pytest.mark.parametrize("own", [{}, {"keys": "K"}], ids=["keys of the table", "an own key"])
async def test_digits_and_the_key_of_the_keys_leave_the_sheet(ws: Workspace, own: dict[str, str]) -> None:
    app = H2QApp(ws, welcome=True, settings=Settings(keys=own))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, first_start(app))
        await until(pilot, lambda: f"1–{len(TABS)} tabs  {'K' if own else '?'} keys" in text_of(app))
        await pilot.press("5")
        assert not first_start(app)()
        assert app.tab is not None
        assert app.tab.TAB_ID == "health"
    app = H2QApp(ws, welcome=True, settings=Settings(keys=own))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, first_start(app))
        await pilot.press("K" if own else "question_mark")
        await until(pilot, lambda: isinstance(app.screen, KeysSheet))
        await pilot.press("escape")
        assert len(app.screen_stack) == 1


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40)])
async def test_every_choice_is_on_the_screen_and_enter_takes_the_one_under_the_cursor(
    ws: Workspace, size: tuple[int, int]
) -> None:
    export(Path.home() / "Downloads")
    app = H2QApp(ws, welcome=True)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: "conversations.zip" in text_of(app))
        shown = text_of(app)
        for words in ("Found here", "Import conv", "Try it on", "Look around", "Language", "enter start"):
            assert words in shown, words
        await pilot.press("down", "enter")
        await until(pilot, lambda: isinstance(app.screen, ImportScreen))
    app = H2QApp(ws, welcome=True)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: "conversations.zip" in text_of(app))
        await pilot.press("j", "j", "k", "j", "enter")
        await until(pilot, lambda: app.demo_requested)


async def test_a_click_takes_a_choice(ws: Workspace) -> None:
    app = H2QApp(ws, welcome=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "Look around" in text_of(app))
        lines = text_of(app).splitlines()
        row = next(number for number, line in enumerate(lines) if "Try it on" in line)
        await pilot.click(offset=(10, row))
        await until(pilot, lambda: app.demo_requested)


async def test_a_workspace_with_conversations_or_runs_is_not_asked_again(ws: Workspace) -> None:
    assert is_empty(ws)
    with MemoryStore(ws.memory_db) as store:
        assert is_empty(ws)
        store.add([Conversation.of([Turn(role=Role.USER, text="a")], source="text")], "text", "x")
    assert not is_empty(ws)
    app = H2QApp(ws, welcome=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: not any(worker.group == "first-start" for worker in app.workers))
        assert not first_start(app)()


async def test_the_language_key_changes_every_word_and_is_saved(ws: Workspace) -> None:
    app = H2QApp(ws, welcome=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, first_start(app))
        await pilot.press("L")
        await until(pilot, lambda: "[中文]" in text_of(app))
        assert language() == "zh"
        assert "导入对话" in text_of(app)
        await until(pilot, lambda: load_settings(ws).language == "zh")
        await pilot.press("L")
        await until(pilot, lambda: load_settings(ws).language == "en")
        assert "[English]" in text_of(app)


async def test_a_found_export_is_imported_only_after_asking(ws: Workspace, launched: list[RunSpec]) -> None:
    path = export(Path.home() / "Downloads")
    app = H2QApp(ws, welcome=True)
    async with app.run_test(size=(100, 24)) as pilot:
        await until(pilot, lambda: "~/Downloads/conversations.zip" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: "Import ~/Downloads/conversations.zip" in text_of(app))
        assert not launched
        await pilot.press("escape")
        await pilot.pause()
        assert first_start(app)()
        await pilot.press("enter")
        await pilot.pause()
        await pilot.press("enter")
        await until(pilot, lambda: bool(launched))
        assert launched[0].kind is RunKind.IMPORT
        assert str(path) in bytes(launched[0].params).decode()


async def test_d_opens_the_demo_and_leaves_this_workspace_empty(
    ws: Workspace, launched: list[RunSpec]
) -> None:
    app = H2QApp(ws, "health", welcome=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, first_start(app))
        await pilot.press("d")
        await until(pilot, lambda: app.demo_requested)
    assert not launched and not list_runs(ws)


async def test_a_failed_import_shows_the_reason(ws: Workspace) -> None:
    broken = Path.home() / "conversations.json"
    broken.write_text("{")
    app = H2QApp(ws)
    async with app.run_test(size=(120, 24)) as pilot:
        app.run_worker(onboarding.import_then_build(app, str(broken)))
        await until(
            pilot, lambda: "The file ends in the middle of an entry" in text_of(app).splitlines()[-1], 30
        )
        assert [run.spec.kind for run in list_runs(ws)] == [RunKind.IMPORT]


async def test_an_import_is_followed_by_a_build_and_the_list(ws: Workspace) -> None:
    export = Path.home() / "chat.jsonl"
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What is {n} plus {n}, please?"},
                {"role": "assistant", "content": f"It is {2 * n}, as anybody can count."},
            ]
        }
        for n in range(3)
    ]
    export.write_text("\n".join(json.dumps(row) for row in rows))
    app = H2QApp(ws)
    async with app.run_test(size=(120, 24)) as pilot:
        app.run_worker(onboarding.import_then_build(app, str(export)))
        await until(pilot, lambda: "What is 2 plus 2" in text_of(app), 45)
        assert "collected 3" in text_of(app)
        assert {run.spec.kind for run in list_runs(ws)} == {RunKind.IMPORT, RunKind.CORPUS}


async def test_the_import_sheet_suggests_exports_and_accepts_a_path(ws: Workspace) -> None:
    downloads = Path.home() / "Downloads"
    export(downloads)
    (downloads / "photo.zip").write_bytes(b"PK")
    (downloads / "my[red]chat.jsonl").write_text("{}\n")
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        answers: list[str | None] = []
        app.push_screen(ImportScreen(ws), answers.append)
        await until(pilot, lambda: "my[red]chat.jsonl" in text_of(app))
        assert "photo.zip" not in text_of(app)
        await pilot.press(*"/nowhere", "enter")
        await until(pilot, lambda: "There is no /nowhere" in text_of(app))
        await pilot.press(*["backspace"] * len("/nowhere"))
        await until(pilot, lambda: "found in ~/Downloads" in text_of(app))
        await pilot.press("down", "enter")
        assert not answers
        await pilot.press("enter")
        await pilot.pause()
        assert answers
        assert answers[0] in {str(found.path) for found in find_exports(downloads)}


def test_exports_are_found_newest_first_and_an_unreadable_folder_has_none(tmp_path: Path) -> None:
    old, new = export(tmp_path, "conversations-old.zip"), export(tmp_path, "b.zip")
    os.utime(old, (1, 1))
    (tmp_path / "notes.json").write_text("{}")
    (tmp_path / "对话.json").write_text("[]")
    os.utime(tmp_path / "对话.json", (2, 2))
    assert [found.path.name for found in find_exports(tmp_path)] == [new.name, "对话.json", old.name]
    assert find_exports(tmp_path / "missing") == []


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (999, "999 B"), (1200, "1.2 KB"), (12_000_000, "12 MB"), (3 * 10**9, "3.0 GB")],
)
def test_sizes_are_short(count: int, shown: str) -> None:
    assert format_size(count) == shown


@pytest.mark.parametrize(
    ("member", "found"),
    [
        ("conversations.json", True),
        ("conversations-003.json", True),
        ("chat-0b6e.json", True),
        ("ttl/30d/export_data/x/prod-grok-backend.json", True),
        ("Takeout/My Activity/Gemini Apps/MyActivity.json", True),
        ("sessions/rollout.jsonl", True),
        ("WhatsApp Chat with Bo.txt", True),
        ("holiday/beach.jpg", False),
        ("package.json", False),
        ("conversations/photo.png", False),
    ],
)
def test_an_archive_is_offered_when_a_member_is_named_like_an_export(
    tmp_path: Path, member: str, found: bool
) -> None:
    with zipfile.ZipFile(tmp_path / "download.zip", "w") as archive:
        archive.writestr(member, "[]")
    assert bool(find_exports(tmp_path)) is found
