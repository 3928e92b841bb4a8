"""Files and folders whose names are not UTF-8, as a GBK zip unpacked on Linux has them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.cli import run_cli

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="macOS has UTF-8 names only")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / os.fsdecode(b"caf\xe9")
    path.mkdir()
    return path


def test_a_base_learns_from_and_is_written_to_such_a_folder(folder: Path, tmp_path: Path) -> None:
    lines = (f"Line {n} of a text about boats, the sea and {n * 37 % 101} fishermen.\n" for n in range(900))
    (folder / "text.txt").write_text("".join(lines), "utf-8")
    workspace = ("--data-dir", str(tmp_path / "ws"))
    trained = run_cli(
        "train", "--mode", "scratch", "--data", str(folder / "text.txt"), "--max-steps", "2",
        "--output", str(folder / "model"), "--json", *workspace,
    )  # fmt: skip
    assert trained.code == 0, trained.err
    json.loads(trained.out)
    assert (folder / "model" / "model.safetensors").is_file()
    shown = run_cli("models", "list", "--json", *workspace)
    assert json.loads(shown.out)["in_use"]
    exported = run_cli(
        "export", str(folder / "model"), "--to", "gguf", "--no-measure", "--output", str(folder / "gguf"), "--json",
        *workspace,
    )  # fmt: skip
    assert exported.code == 0, exported.err
    assert list((folder / "gguf").glob("*.gguf"))


def test_a_workspace_with_such_a_name_is_used_by_every_reading_command(folder: Path) -> None:
    workspace = ("--data-dir", str(folder / "ws"))
    assert run_cli("memory", "add", "--user", "hello", "--assistant", "good day", *workspace).code == 0
    for command in (
        "memory list", "memory stats", "corpus build", "corpus stats", "corpus list", "runs list",
        "runs show latest", "models list", "backup create", "backup list", "paths", "check",
    ):  # fmt: skip
        result = run_cli(*command.split(), "--json", *workspace)
        assert result.code in (0, 2), (command, result.err)
        json.loads(result.out)
