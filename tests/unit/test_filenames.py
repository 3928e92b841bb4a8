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
