"""File names that are not UTF-8, as text."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.filenames import path_to_text, printable_name, shell_word, text_to_path
from engine.memory.store import MemoryStore
from engine.pipeline.import_run import import_paths
from tests.cli import run_cli

names = st.binary(min_size=1, max_size=20).filter(lambda name: b"/" not in name and b"\0" not in name)


@given(names)
def test_any_path_survives_as_text(name: bytes) -> None:
    path = Path(os.fsdecode(b"/folder/" + name))
    text = path_to_text(path)
    assert text_to_path(json.loads(json.dumps(text).encode("utf-8"))) == path
    assert printable_name(str(path)) < "\ud800" or printable_name(str(path)).encode("utf-8")


@pytest.mark.parametrize(
    "name", [b"\xb6\xd4", b"a b", b"it's \xff", b"back\\slash\xff", b"line\nend\xff", b"$HOME\xff"]
)
def test_a_name_as_a_word_is_read_by_bash(name: bytes) -> None:
    word = shell_word(os.fsdecode(name))
    printed = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True).stdout
    assert printed == name


def test_a_path_in_utf8_is_its_own_text() -> None:
    assert path_to_text(Path("/对话/a b%20.json")) == "/对话/a b%20.json"


@pytest.mark.parametrize("whole_folder", [False, True])
def test_a_file_whose_name_is_not_utf8_is_imported(tmp_path: Path, whole_folder: bool) -> None:
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    folder = tmp_path / "in"
    folder.mkdir()
    path = folder / os.fsdecode("对话.json".encode("gbk"))
    path.write_text(json.dumps(row), encoding="utf-8")
    (folder / os.fsdecode("坏.json".encode("gbk"))).write_text("[{", encoding="utf-8")
    with MemoryStore(tmp_path / "memory.db") as store:
        report = import_paths(store, [folder if whole_folder else path])
        assert report.added == 1
        stored = store.connection.execute("SELECT path FROM imports").fetchall()
    texts = [*report.skipped, *(file.path for file in report.files), *(row[0] for row in stored)]
    assert all(text.encode("utf-8") for text in texts)
    assert "\\xb6" in report.files[0].path


def test_a_command_with_a_foreign_name_works_when_typed_and_its_name_is_shown_as_its_bytes(
    tmp_path: Path,
) -> None:
    root = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9"))
    none = run_cli("models", "list", "--data-dir", str(root))
    assert f"--data-dir $'{tmp_path}/caf\\xe9'" in none.out
    added = ("memory", "add", "--user", "What is a comet?", "--assistant", "A ball of ice.")
    assert run_cli(*added, "--data-dir", str(root)).code == 0
    for number in range(2):
        out = os.fsdecode(bytes(tmp_path) + b"/out\xe9%d.jsonl" % number)
        done = run_cli("corpus", "export", "--output", out, "--data-dir", str(root))
        assert (done.code, f"out\\xe9{number}.jsonl" in done.out) == (0, True)
