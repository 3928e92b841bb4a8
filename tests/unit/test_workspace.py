from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from engine.core.chat import Role
from engine.core.errors import BadInput, UsageProblem
from engine.core.paths import Workspace, find_workspace, shipped
from engine.memory.records import Conversation, Turn
from engine.memory.store import MemoryStore
from engine.workspace.open import MIGRATIONS, open_workspace
from tests.cli import run_cli


def test_opening_creates_private_folders(tmp_path: Path) -> None:
    workspace = open_workspace(Workspace(tmp_path / "deep" / "h2q"))
    assert json.loads(workspace.schema_file.read_bytes())["schema"] == len(MIGRATIONS)
    for folder in (
        workspace.root,
        workspace.training_data,
        workspace.models,
        workspace.config,
        workspace.runs,
    ):
        assert folder.is_dir()
    assert stat.S_IMODE(workspace.root.stat().st_mode) == 0o700


def test_opening_without_create_writes_nothing(tmp_path: Path) -> None:
    open_workspace(Workspace(tmp_path / "none"), create=False)
    assert list(tmp_path.iterdir()) == []


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    workspace = open_workspace(Workspace(tmp_path))
    before = workspace.schema_file.read_bytes()
    open_workspace(workspace)
    assert workspace.schema_file.read_bytes() == before
    assert not list(workspace.backups.iterdir())


def test_an_older_workspace_is_backed_up_then_migrated(tmp_path: Path) -> None:
    workspace = open_workspace(Workspace(tmp_path))
    with MemoryStore(workspace.memory_db) as store:
        store.add([Conversation.of([Turn(role=Role.USER, text="hello")], source="text")])
    seen = []

    def to_two(ws: Workspace) -> None:
        seen.append(list(ws.backups.iterdir()))

    open_workspace(workspace, migrations=(*MIGRATIONS, to_two))
    assert len(seen) == 1
    assert len(seen[0]) == 1
    assert json.loads(workspace.schema_file.read_bytes())["schema"] == len(MIGRATIONS) + 1


def test_a_newer_workspace_is_rejected_with_the_upgrade_command(tmp_path: Path) -> None:
    (tmp_path / "workspace.json").write_text('{"schema": 999}')
    for create in (True, False):
        with pytest.raises(BadInput, match="999") as caught:
            open_workspace(Workspace(tmp_path), create=create)
        assert "upgrade" in caught.value.hint


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema": "1"}', '{"schema": true}', '{"schema": -1}'])
def test_a_damaged_schema_file_is_bad_input(tmp_path: Path, text: str) -> None:
    (tmp_path / "workspace.json").write_text(text)
    with pytest.raises(BadInput, match=r"workspace\.json"):
        open_workspace(Workspace(tmp_path))


def test_the_programs_own_data_folder_is_rejected() -> None:
    for root in (shipped("data"), shipped("data") / "sample"):
        with pytest.raises(BadInput, match="belongs to the program"):
            open_workspace(Workspace(root))


@pytest.mark.parametrize(
    "mindx_file",
    [
        "vectors/MANIFEST",
        "memory/MANIFEST",
        "sessions/session_1.json",
        "data/vectors/MANIFEST",
        "data/sessions/session_1.json",
    ],
)
def test_mindx_memory_is_rejected_with_the_import_command(tmp_path: Path, mindx_file: str) -> None:
    root = tmp_path / "mind x"
    (root / mindx_file).parent.mkdir(parents=True)
    (root / mindx_file).touch()
    with pytest.raises(BadInput) as caught:
        open_workspace(Workspace(root))
    assert caught.value.hint == f"h2q-tui memory import '{root}'"
    assert not (root / "workspace.json").exists()


def test_a_file_as_workspace_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="file"):
        open_workspace(Workspace(tmp_path / "file"))


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder_is_a_usage_problem(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageProblem):
        open_workspace(Workspace(tmp_path / "h2q"))


def test_links_in_a_circle_are_bad_input(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(BadInput, match="loop"):
        open_workspace(find_workspace(tmp_path / "loop"))
    with pytest.raises(BadInput, match="loop"):
        open_workspace(find_workspace(tmp_path / "loop" / "below"), create=False)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"schema":' * 50_000])
def test_a_deep_workspace_file_is_bad_input(tmp_path: Path, text: str) -> None:
    workspace = open_workspace(Workspace(tmp_path / "h2q"))
    workspace.schema_file.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match="schema"):
        open_workspace(workspace)


def test_a_data_folder_whose_name_is_not_utf8_works(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xca\xfd\xbe\xdd"))
    for command in (
        ("memory", "add", "--user", "What is tea?", "--assistant", "Leaves in hot water."),
        ("corpus", "build"),
        ("corpus", "export"),
        ("backup", "create"),
        ("backup", "restore", "--yes"),
        ("memory", "forget", "--match", "tea", "--yes"),
        ("runs", "show", "latest"),
        ("paths",),
        ("reset", "--all", "--yes"),
    ):
        result = run_cli(*command, "--json", "--data-dir", str(folder))
        assert result.code == 0, (command, result)
        json.loads(result.out)
    assert not folder.exists()
