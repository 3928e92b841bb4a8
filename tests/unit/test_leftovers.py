"""Leftovers of killed processes are deleted, those of live ones stay, and nothing of a forgotten conversation is left."""

from __future__ import annotations

import gzip
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from engine.core.chat import Role
from engine.core.errors import Busy
from engine.core.files import atomic_file
from engine.core.outputs import MODEL_FOLDER, new_folder
from engine.core.paths import Workspace
from engine.memory.records import Conversation, Turn
from engine.memory.store import MemoryStore
from engine.pipeline.forget import forget
from engine.workspace.backup import create_backup, list_backups, restore_backup
from engine.workspace.leftovers import backup_lock, staging_folder, sweep_leftovers
from engine.workspace.open import open_workspace
from engine.workspace.reset import plan_reset, reset

TEXT, TITLE, FILE = "the-safe-opens-with-4711", "title-of-the-heist", "/home/me/heist-notes.json"
SECRET = Conversation.of(
    [Turn(role=Role.USER, text=TEXT), Turn(role=Role.ASSISTANT, text="ok")], source="text", title=TITLE
)
OTHER = Conversation.of(
    [Turn(role=Role.USER, text="harmless"), Turn(role=Role.ASSISTANT, text="ok")], source="text"
)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = open_workspace(Workspace(tmp_path / "h2q"))
    with MemoryStore(workspace.memory_db) as store:
        store.add([SECRET], path=FILE)
        store.add([OTHER], path="/home/me/other.json")
    create_backup(workspace)
    return workspace


def files_with(workspace: Workspace, *texts: str) -> list[str]:
    found = []
    for path in workspace.root.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            data += gzip.decompress(data) if path.suffix == ".gz" else b""
            if any(text.encode() in data for text in texts):
                found.append(str(path.relative_to(workspace.root)))
    return found


def killed(action: Callable[[], object]) -> None:
    """Runs `action` in a child process, which it kills."""
    child = multiprocessing.get_context("fork").Process(target=action)
    child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL


def _die(*_args: object, **_kwargs: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def kill_backup(workspace: Workspace) -> None:
    def action() -> None:
        import engine.workspace.backup as module

        module._pack = _die
        create_backup(workspace)

    killed(action)


def kill_restore(workspace: Workspace) -> None:
    def action() -> None:
        import engine.workspace.backup as module

        module._save_current = _die
        restore_backup(workspace, Path(list_backups(workspace)[0].path))

    killed(action)


def kill_forget(workspace: Workspace) -> None:
    def action() -> None:
        import engine.workspace.backup as module

        module._forget_in = _die
        forget(workspace, [SECRET.id])

    killed(action)


def kill_write(workspace: Workspace) -> None:
    def action() -> None:
        with atomic_file(workspace.training / "train_data_1.jsonl") as temporary:
            temporary.write_text(f"{TEXT} {TITLE}")
            _die()

    killed(action)


def kill_models_json(workspace: Workspace) -> None:
    def action() -> None:
        with atomic_file(workspace.models_json) as temporary:
            temporary.write_text(f"{TEXT} {TITLE}")
            _die()

    killed(action)


def kill_editor(workspace: Workspace) -> None:
    def action() -> None:
        from tui.host.external_editor import edit_externally

        edit_externally(_die, ["true"], f"{TEXT} {TITLE}", workspace.memory_db.parent)

    killed(action)


def kill_import(workspace: Workspace) -> None:
    """While a member of an archive is unpacked."""

    def action() -> None:
        with staging_folder(workspace.memory_db.parent, ".unpack.") as folder:
            (folder / "member.json").write_text(f"{TEXT} {TITLE}")
            _die()

    killed(action)


def put_damaged_aside(workspace: Workspace) -> None:
    for name in ("", "-wal"):
        memory = workspace.memory_db.with_name(workspace.memory_db.name + name)
        if memory.exists():
            shutil.copy(memory, memory.with_name(f"damaged-20260101_000000-{memory.name}"))


LEFTOVERS = [
    kill_backup,
    kill_restore,
    kill_forget,
    kill_write,
    kill_models_json,
    kill_editor,
    kill_import,
    put_damaged_aside,
]


@pytest.mark.parametrize("leave", LEFTOVERS)
def test_forget_leaves_nothing_of_the_conversation(
    workspace: Workspace, leave: Callable[[Workspace], None]
) -> None:
    before = len(files_with(workspace, TEXT))
    leave(workspace)
    assert len(files_with(workspace, TEXT)) > before
    forget(workspace, [SECRET.id])
    assert files_with(workspace, TEXT, TITLE, FILE) == []
    with MemoryStore(workspace.memory_db) as store:
        assert [c.turns[0].text for c in store.conversations()] == ["harmless"]
        assert store.connection.execute("SELECT path FROM imports ORDER BY started_at").fetchall() == [
            ("",),
            ("/home/me/other.json",),
        ]


@pytest.mark.parametrize("leave", LEFTOVERS)
def test_reset_all_leaves_nothing(workspace: Workspace, leave: Callable[[Workspace], None]) -> None:
    leave(workspace)
    (workspace.root / "mine.txt").write_text("a file of the user")
    reset(workspace, everything=True)
    assert [path.name for path in workspace.root.rglob("*")] == ["mine.txt"]


def test_reset_all_deletes_what_an_earlier_reset_left(workspace: Workspace) -> None:
    kill_restore(workspace)
    (left,) = workspace.root.glob(".restore.*")
    for name in plan_reset(workspace, everything=True).names:
        if name != left.name:
            path = workspace.root / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert plan_reset(workspace, everything=True).names == [left.name]
    reset(workspace, everything=True)
    assert not workspace.root.exists()


@pytest.mark.parametrize(
    "leave", [kill_backup, kill_restore, kill_forget, kill_models_json, kill_editor, kill_import]
)
@pytest.mark.parametrize("action", [open_workspace, create_backup], ids=["open", "backup"])
def test_leftovers_go_when_the_workspace_is_opened_or_backed_up(
    workspace: Workspace, leave: Callable[[Workspace], None], action: Callable[[Workspace], object]
) -> None:
    leave(workspace)
    assert any("/." in f"/{path}" for path in files_with(workspace, TEXT))
    action(workspace)
    assert not any("/." in f"/{path}" for path in files_with(workspace, TEXT))
    assert sweep_leftovers(workspace, everywhere=True) == 0


def test_folders_and_files_in_use_stay(workspace: Workspace) -> None:
    with (
        staging_folder(workspace.backups, ".backup.") as folder,
        atomic_file(workspace.models_json) as temporary,
    ):
        assert sweep_leftovers(workspace, everywhere=True) == 0
        assert folder.is_dir() and temporary.is_file()
        temporary.write_text("{}")
    assert workspace.models_json.read_text() == "{}"
    assert not folder.exists()


def test_a_linked_leftover_is_not_followed(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    (workspace.backups / ".backup.link").symlink_to(tmp_path / "mine")
    sweep_leftovers(workspace, everywhere=True)
    assert (tmp_path / "mine" / "file").exists()


def test_a_second_holder_of_the_lock_is_busy(workspace: Workspace) -> None:
    with backup_lock(workspace), pytest.raises(Busy), backup_lock(workspace, wait_s=0):
        pass
    with backup_lock(workspace, wait_s=0):
        pass


def test_a_model_that_was_replaced_when_the_process_was_killed_gets_its_name_back(
    workspace: Workspace,
) -> None:
    place = workspace.models / "m"
    place.mkdir()
    (place / "h2q.json").write_text("old")

    def action() -> None:
        rename, renamed = Path.rename, []

        def die_at_the_second(self: Path, target: Path) -> Path:
            renamed.append(self)
            if len(renamed) > 1:
                _die()
            return rename(self, target)

        Path.rename = die_at_the_second  # type: ignore[method-assign,assignment]
        with new_folder(place, MODEL_FOLDER) as new:
            (new / "h2q.json").write_text("new")

    killed(action)
    assert not place.exists()
    open_workspace(workspace)
    assert (place / "h2q.json").read_text() == "old"
    assert [path.name for path in workspace.models.iterdir()] == ["m"]


def test_a_model_that_is_being_written_is_left_alone(workspace: Workspace) -> None:
    with new_folder(workspace.models / "m", MODEL_FOLDER) as new:
        assert sweep_leftovers(workspace, everywhere=True) == 0
        (new / "h2q.json").write_text("new")
    assert [path.name for path in workspace.models.iterdir()] == ["m"]
