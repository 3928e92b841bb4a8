"""Every command with `--output` refuses what is not its own before any work begins, and leaves it alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli import run_cli
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
    data_dir = ("--data-dir", str(ws))
    pair = ("--user", "What is tea?", "--assistant", "Leaves in hot water.")
    assert run_cli("memory", "add", *pair, *data_dir).code == 0
    assert (ws / "memory" / "memory.db").is_file()
    before = contents(place)
    words = [word.format(ws=ws) for word in command]
    refused = run_cli(*words, "--output", str(place), "--json", *data_dir)
    assert refused.code == 2, refused.out + refused.err
    assert str(place) in json.loads(refused.out)["error"], "refused for another reason"
    assert contents(place) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Documents", "ws"]
