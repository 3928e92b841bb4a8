"""Every command with `--output` refuses what is not its own before any work begins, and leaves it alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.test_loop import h2q
from tests.unit.test_outputs import contents, documents

COMMANDS = [
    ("train", "--mode", "scratch", "--max-steps", "1"),
    ("train", "--mode", "native", "--max-steps", "1"),
    ("train", "--mode", "lora", "--max-steps", "1", "--model", "{ws}/none"),
    ("corpus", "export"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_leaves_a_foreign_output_alone(tmp_path: Path, command: tuple[str, ...]) -> None:
    ws, place = tmp_path / "ws", tmp_path / "Documents"
    documents(place)
    h2q("memory", "add", "--user", "What is tea?", "--assistant", "Leaves in hot water.", root=ws)
    assert (ws / "memory" / "memory.db").is_file()
    before = contents(place)
    words = [word.format(ws=ws) for word in command]
    done = h2q(*words, "--output", str(place), "--json", root=ws, timeout=120)
    assert done.returncode == 2, done.stdout + done.stderr
    assert contents(place) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Documents", "ws"]
