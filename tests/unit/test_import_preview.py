"""A preview says what the import of the same path takes, and imports nothing."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from engine.core.errors import BadInput
from engine.memory.import_texts import ImportPreview, preview_lines, preview_sentence, taken_text
from engine.memory.store import MemoryStore
from engine.pipeline.import_preview import preview_import
from engine.pipeline.import_run import import_paths


def talk(number: int) -> dict[str, object]:
    return {
        "messages": [
            {"role": "user", "content": f"What is {number}?"},
            {"role": "assistant", "content": f"It is {number}."},
        ]
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "given"
    place.mkdir()
    (place / "a.jsonl").write_text("\n".join(json.dumps(talk(n)) for n in range(3)), encoding="utf-8")
    (place / "b.json").write_text(json.dumps([talk(n) for n in range(3, 8)]), encoding="utf-8")
    with zipfile.ZipFile(place / "c.zip", "w") as archive:
        archive.writestr("d.json", json.dumps([talk(n) for n in range(8, 10)]))
    (place / "photo.png").write_bytes(b"\x89PNG\r\n\0\0")
    (place / "broken.json").write_text("[{", encoding="utf-8")
    return place


def test_a_preview_counts_what_the_import_takes(folder: Path, tmp_path: Path) -> None:
    preview = preview_import(folder, tmp_path / "memory")
    with MemoryStore(tmp_path / "memory" / "memory.db") as store:
        report = import_paths(store, [folder])
    assert [(file.name, file.format, file.conversations) for file in preview.files] == [
        ("a.jsonl", "openai", 3),
        ("b.json", "openai", 5),
        ("c.zip/d.json", "openai", 2),
    ]
    assert [file.conversations for file in report.files] == [file.conversations for file in preview.files]
    assert all(file.complete and file.turns == 2 * file.conversations for file in preview.files)
    assert (len(preview.unread), preview.others, preview.complete) == (len(report.unread), 1, True)
    assert preview_sentence(preview) == (
        "10 conversations in 3 files; 1 file of another kind is left out; 1 file cannot be read"
    )
    assert len(list(preview_lines(preview))) == 5


def test_a_preview_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    before = sorted(folder.iterdir())
    preview_import(folder, tmp_path / "memory")
    assert sorted(folder.iterdir()) == before
    assert [path for path in (tmp_path / "memory").rglob("*") if path.is_file()] == []


def test_when_the_time_is_over_files_are_named_and_not_counted(folder: Path, tmp_path: Path) -> None:
    preview = preview_import(folder, tmp_path / "memory", within_s=0.0)
    assert not preview.complete
    assert all(not file.complete and not file.conversations for file in preview.files)
    assert preview_sentence(preview).startswith("at least 0 conversations")


@pytest.mark.parametrize("name", ["photo.png", "broken.json", "missing.json", "empty"])
def test_what_an_import_refuses_a_preview_refuses_with_the_same_sentence(
    folder: Path, tmp_path: Path, name: str
) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(BadInput) as shown:
        preview_import(folder / name, tmp_path / "memory")
    with MemoryStore(tmp_path / "memory.db") as store, pytest.raises(BadInput) as raised:
        import_paths(store, [folder / name])
    assert shown.value.reason == raised.value.reason


def test_the_largest_files_are_named() -> None:
    files = [(f"/x/{name}.json", count) for name, count in zip("abcdefg", range(7), strict=True)]
    assert taken_text(files) == "7 files: g.json 6, f.json 5, e.json 4, d.json 3, c.json 2, …"
    assert (
        taken_text([("/x/export.zip: chats/conversations.json", 1200)]) == "1 file: conversations.json 1,200"
    )
    assert preview_sentence(ImportPreview(files=[], unread=[], others=2, complete=False)).startswith(
        "at least 0"
    )
