"""The sheet that asks for files: it completes paths as a shell does, and says what an import would take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.core.paths import Workspace
from tests.tui.helpers import text_of, until
from tui.app.app import H2QApp
from tui.app.import_files import ImportScreen
from tui.app.path_completion import completed, folder_entries, split_typed, typed_path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    for name in ("Downloads", "Documents", "chats/old", ".hidden"):
        (folder / name).mkdir(parents=True)
    (folder / "chats" / "chat-2024.jsonl").write_text(_talks(3), encoding="utf-8")
    (folder / "chats" / "chat-2025.jsonl").write_text(_talks(2), encoding="utf-8")
    (folder / "chats" / "photo.png").write_bytes(b"\x89PNG\r\n")
    (folder / "chats" / "[red]x.txt").write_text("no speakers here", encoding="utf-8")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("XDG_DOWNLOAD_DIR", raising=False)
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    return folder


def _talks(count: int) -> str:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What is {n} plus {n}?"},
                {"role": "assistant", "content": f"It is {2 * n}."},
            ]
        }
        for n in range(count)
    ]
    return "\n".join(json.dumps(row) for row in rows)


@pytest.mark.parametrize(
    ("typed", "becomes"),
    [
        ("~", "~/"),
        ("~/Do", "~/Do"),
        ("~/Dow", "~/Downloads/"),
        ("~/dow", "~/Downloads/"),
        ("~/chats/ch", "~/chats/chat-202"),
        ("~/chats/chat-2024", "~/chats/chat-2024.jsonl"),
        ("~/chats/old", "~/chats/old/"),
        ("~/chats/none", "~/chats/none"),
        ("~/.hid", "~/.hidden/"),
        ("~nobody-of-this-name/x", "~nobody-of-this-name/x"),
        ("/nowhere/at/all", "/nowhere/at/all"),
        ("a\0b", "a\0b"),
    ],
)
def test_tab_completes_as_far_as_all_entries_agree(home: Path, typed: str, becomes: str) -> None:
    assert completed(typed, folder_entries(typed)) == becomes


def test_entries_are_folders_first_without_hidden_ones(home: Path) -> None:
    assert [entry.name for entry in folder_entries("~/")] == ["chats", "Documents", "Downloads"]
    assert [entry.name for entry in folder_entries("~/chats/")] == [
        "old",
        "[red]x.txt",
        "chat-2024.jsonl",
        "chat-2025.jsonl",
        "photo.png",
    ]
    assert typed_path("~/chats") == home / "chats"
    assert split_typed("chats") == ("", "chats")


async def test_the_sheet_lists_completes_previews_and_returns_the_path(home: Path) -> None:
    app = H2QApp(Workspace(home / "data"))
    async with app.run_test(size=(100, 24)) as pilot:
        answers: list[str | None] = []
        app.push_screen(ImportScreen(app.workspace), answers.append)
        await until(pilot, lambda: "no exports found in ~/Downloads" in text_of(app))
        await pilot.press(*"~/cha", "tab")
        await until(pilot, lambda: "[red]x.txt" in text_of(app))
        assert "chat-2024.jsonl" in text_of(app)
        await until(pilot, lambda: "5 conversations in 2 files; 2 files of another kind" in text_of(app), 30)
        assert "openai  3 conversations (6 turns)" in text_of(app)
        await pilot.press("down", "j", "j", "enter")
        await until(pilot, lambda: "~/chats/chat-2024.jsonl" in text_of(app))
        await until(pilot, lambda: "3 conversations in 1 file" in text_of(app), 30)
        assert not answers
        await pilot.press("enter")
        await until(pilot, lambda: bool(answers))
        assert answers == [str(home / "chats" / "chat-2024.jsonl")]


async def test_the_sheet_says_why_a_path_gives_nothing(home: Path) -> None:
    app = H2QApp(Workspace(home / "data"))
    async with app.run_test(size=(100, 24)) as pilot:
        app.push_screen(ImportScreen(app.workspace), lambda _path: None)
        await pilot.press(*"~/chats/photo.png")
        await until(pilot, lambda: "The file is not UTF-8" in text_of(app), 30)
        await pilot.press("enter")
        await pilot.pause()
