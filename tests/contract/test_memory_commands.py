"""The memory and workspace commands, run as a user runs them."""

from __future__ import annotations

import io
import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.core.errors import BadInput
from engine.core.paths import Workspace, shipped
from engine.workspace.open import open_workspace
from tests.badger_writer import write_folder
from tests.cli import run_cli

SAMPLE = shipped("data") / "sample" / "memory"
EXPORTS = Path(__file__).parents[1] / "data" / "exports"


class Shell:
    """Runs `h2q-tui` on one workspace in this process."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, *arguments: str | Path, code: int = 0) -> str:
        result = run_cli(*map(str, arguments), "--data-dir", str(self.root))
        self.err = result.err
        assert result.code == code, result.out + result.err
        assert "Traceback" not in result.err
        return result.out

    def json(self, *arguments: str | Path, code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", code=code))


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    return Shell(tmp_path / "h2q")


def test_import_reports_new_unchanged_and_skipped_content(shell: Shell) -> None:
    first = shell.json("memory", "import", SAMPLE / "chatgpt_export.json")
    assert (first["taken"], first["skipped"]) == (2, {"image": 1, "empty conversation": 1})
    assert first["files"][0]["format"] == "chatgpt"
    again = shell("memory", "import", SAMPLE / "chatgpt_export.json")
    assert "0 new, 2 unchanged" in again
    assert "skipped: 1 × image" in again
    assert shell.json("memory", "stats")["conversations"] == 2


def test_a_malformed_file_is_named_and_the_others_are_imported(shell: Shell, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"messages": [{"role": "user", "content": "a"}]}\n{"messages": [}\n')
    answer = shell.json("memory", "import", SAMPLE / "chatgpt_export.json", broken)
    (unread,) = answer["unread"]
    assert (unread["path"], unread["line"]) == (str(broken), 2)
    assert answer["taken"] == 3


def test_a_file_of_which_nothing_can_be_read_imports_nothing(shell: Shell, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"messages": [}\n')
    answer = shell.json("memory", "import", broken, code=2)
    assert "broken.jsonl, line 1" in answer["error"]
    assert shell.json("memory", "stats")["conversations"] == 0


def test_a_map_makes_a_text_of_other_names_a_transcript(shell: Shell, tmp_path: Path) -> None:
    talk = tmp_path / "talk.txt"
    talk.write_text("Ann: When?\n\nGPT-4: At noon.\n", encoding="utf-8")
    roles = ("--map", "Ann=user,GPT-4=assistant")
    assert shell.json("memory", "import", "--dry-run", *roles, talk)[0]["files"][0]["conversations"] == 1
    assert shell.json("memory", "import", *roles, talk)["taken"] == 1
    assert shell.json("memory", "import", *roles, tmp_path)["unchanged"] == 1


def test_a_missing_file_starts_no_run(shell: Shell, tmp_path: Path) -> None:
    shell("memory", "import", tmp_path / "missing.json", code=2)
    assert "missing.json" in shell.err
    assert not shell.root.exists()


def test_a_folder_is_searched_and_other_files_are_counted(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.txt").write_text("客服：您好\n顾客：在吗\n", encoding="utf-8")
    (folder / "user.json").write_text('{"id": 1}')
    (folder / ".hidden.json").write_text("{")
    shell("memory", "import", folder, code=2)
    (folder / "b.txt").write_text("User: hi\nAssistant: ho\n")
    report = shell.json("memory", "import", folder)
    assert (report["taken"], report["skipped"]) == (1, {"file of another kind": 2})
    mapped = shell.json(
        "memory", "import", folder / "sub", "--format", "text", "--map", "客服=assistant，顾客=user"
    )
    assert mapped["taken"] == 1


def test_mindx_data_is_imported_by_the_hinted_command(shell: Shell, tmp_path: Path) -> None:
    mindx = tmp_path / "mindx"
    shutil.copytree(EXPORTS / "mindx", mindx)
    # A store that MindX creates but never fills, and an empty session.
    write_folder(mindx / "data" / "memory", [])
    (mindx / "data" / "sessions" / "session_2.json").write_text('{"id": "session_2", "messages": []}')
    with pytest.raises(BadInput, match="memory import") as caught:
        open_workspace(Workspace(root=mindx))
    report = shell.json(*shlex.split(caught.value.hint)[1:])
    assert (report["taken"], report["points"]) == (3, 3)
    assert report["skipped"] == {"index of a skill": 2, "empty conversation": 1}
    assert len(shell.json("memory", "list", "--points")["points"]) == 3
    assert "1 memory point contains it → h2q-tui memory list --points" in shell(
        "memory", "list", "--match", "过拟合"
    )
    (point,) = shell.json("memory", "list", "--points", "--match", "过拟合")["points"]
    assert point["source"] == "mindx"


def test_conversations_are_listed_found_and_shown(shell: Shell) -> None:
    assert "memory import" in shell("memory", "list")
    shell("memory", "import", SAMPLE / "crosswoz.jsonl", "--quiet")
    assert len(shell.json("memory", "list", "--limit", "3")["conversations"]) == 3
    conversations = shell.json("memory", "list", "--match", "故宫")["conversations"]
    assert conversations
    shown = shell.json("memory", "show", conversations[0]["id"][:8])
    assert any("故宫" in turn["text"] for turn in shown["turns"])
    shell("memory", "show", "zzz", code=2)


def test_a_conversation_can_be_added_by_hand_and_from_a_pipe(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shell.json("memory", "add", "--user", "a\x1b[2J", "--assistant", "b")["taken"] == 1
    shell("memory", "add", "--user", "a", code=2)
    piped = json.dumps(
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}
    )
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(piped.encode())))
    assert shell.json("memory", "add")["taken"] == 1
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    shell("memory", "add", code=2)
    assert "nothing to add" in shell.err
    out = shell("memory", "list")
    assert "\x1b" not in out
    assert shell.json("memory", "stats")["sources"] == {"added": 1, "openai": 1}


def test_forget_needs_confirmation_and_prints_the_command_with_yes(shell: Shell) -> None:
    shell("memory", "import", SAMPLE / "crosswoz.jsonl", "--quiet")
    answer = shell.json("memory", "forget", "--match", "故宫", code=2)
    assert shell.json("memory", "stats")["conversations"] == 300
    import shlex

    arguments = shlex.split(answer["hint"])
    assert arguments[0] == "h2q-tui"
    report = shell.json(*(word for word in arguments[1:] if word not in ("--data-dir", str(shell.root))))
    assert len(report["ids"]) > 10
    assert shell.json("memory", "list", "--match", "故宫")["conversations"] == []
    again = shell.json("memory", "import", SAMPLE / "crosswoz.jsonl")
    assert again["skipped"] == {"forgotten earlier": len(report["ids"])}
    assert shell.json("memory", "import", SAMPLE / "crosswoz.jsonl", "--again")["taken"] == len(report["ids"])


@pytest.mark.parametrize(("language", "count"), [("en", 173), ("zh", 710)])
def test_the_sample_prints_commands_that_run(shell: Shell, tmp_path: Path, language: str, count: int) -> None:
    out = shell("sample", tmp_path / "my sample", "--lang", language)
    line = next(line for line in out.splitlines() if "memory import" in line)
    import shlex

    arguments = [word for word in shlex.split(line)[1:] if word not in ("--data-dir", str(shell.root))]
    assert shell.json(*arguments)["taken"] == count


def test_paths_lists_everything_and_creates_nothing(shell: Shell) -> None:
    assert shell.json("paths")["memory"] == str(shell.root / "memory" / "memory.db")
    assert not shell.root.exists()


def test_a_backup_is_created_listed_and_restored(shell: Shell) -> None:
    shell("memory", "add", "--user", "a", "--assistant", "b")
    created = shell.json("backup", "create")
    assert shell.json("backup", "list")["backups"][0]["stamp"] == created["stamp"]
    shell("memory", "add", "--user", "c", "--assistant", "d")
    shell("backup", "restore", created["stamp"], code=2)
    assert shell.json("memory", "stats")["conversations"] == 2
    assert shell.json("backup", "restore", created["stamp"], "--yes")["conversations"] == 1
    assert shell.json("memory", "stats")["conversations"] == 1


def test_reset_keeps_user_data_and_all_keeps_foreign_files(shell: Shell) -> None:
    shell("memory", "import", SAMPLE / "chatgpt_export.json", "--quiet")
    (shell.root / "training" / "train_data_1.jsonl").write_text("{}\n")
    (shell.root / "holiday.jpg").write_bytes(b"x")
    (shell.root / "demo.json").write_text("{}\n")
    shell("reset", code=2)
    assert (shell.root / "runs").exists()
    assert set(shell.json("reset", "--yes")["removed"]) == {"runs", "training"}
    assert shell.json("memory", "stats")["conversations"] == 2
    assert "memory" in shell.json("reset", "--all", "--yes")["removed"]
    assert [path.name for path in shell.root.iterdir()] == ["holiday.jpg"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("memory", "import", str(SAMPLE), "--format", "claud"),
        ("memory", "import", str(SAMPLE), "--map", "客服"),
        ("memory", "import", str(SAMPLE), "--map", "客服=boss"),
        ("memory", "forget"),
        ("memory", "forget", "--match", "no such text", "--yes"),
        ("memory", "show", "0"),
        ("backup", "restore"),
        ("backup", "restore", "20010101_000000"),
    ],
)
def test_invalid_arguments_exit_with_code_2(shell: Shell, arguments: tuple[str, ...]) -> None:
    shell(*arguments, code=2)
    assert len(shell.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "total"),
    [
        ((), 3),
        (("--match", "zzz"), 0),
        (("--match", "river"), 2),
        (("--match", "river", "--limit", "1"), 2),
        (("--source", "added"), 3),
        (("--source", "none"), 0),
    ],
)
def test_the_total_of_a_list_counts_what_was_asked_for(
    shell: Shell, arguments: tuple[str, ...], total: int
) -> None:
    for text in ("a river", "the river", "a hill"):
        shell("memory", "add", "--user", text, "--assistant", "yes")
    assert shell.json("memory", "list", *arguments)["total"] == total


def test_a_failed_import_has_the_fields_of_every_error(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "talk.txt"
    path.write_text("Ann: When?\n\nBo: At noon.\n\nAnn: Why?\n\nBo: So.\n", encoding="utf-8")
    failed = shell.json("memory", "import", path, code=2)
    direct = shell.json("memory", "import", "--dry-run", path, code=2)
    assert {name: failed[name] for name in direct} == direct
    assert "→" not in failed["error"] and failed["hint"].startswith("h2q-tui memory import ")


def test_the_version_is_a_document_under_json(shell: Shell) -> None:
    assert list(shell.json("--version")) == ["version"]
