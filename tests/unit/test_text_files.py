from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.errors import BadInput, NotEnoughData
from engine.core.paths import Workspace
from engine.training.text_files import (
    cjk_bytes,
    find_text,
    general_tail,
    languages_of,
    training_part,
)

TEXT = b"some text that is long enough to learn from\n"


def test_a_given_path_has_priority_over_the_workspace(tmp_path: Path) -> None:
    ws = Workspace(tmp_path / "ws")
    ws.training_data.mkdir(parents=True)
    (ws.training_data / "a.txt").write_bytes(TEXT)
    named = tmp_path / "b.log"
    named.write_bytes(TEXT)
    assert find_text([named], ws).files == [named]
    assert find_text([], ws).files == [ws.training_data / "a.txt"]


def test_without_text_in_the_workspace_the_h2q_folder_is_used(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "training_data"
    folder.mkdir(parents=True)
    (folder / "b.txt").write_bytes(TEXT)
    (folder / "a.TXT").write_bytes(TEXT)
    (folder / "notes.md").write_bytes(TEXT)
    (folder / ".hidden.txt").write_bytes(TEXT)
    found = find_text([], Workspace(tmp_path / "ws"), relative_to=tmp_path)
    assert [file.name for file in found.files] == ["a.TXT", "b.txt"]
    assert found.places == [folder]


def test_a_missing_path_is_reported(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"missing\.txt"):
        find_text([tmp_path / "missing.txt"], Workspace(tmp_path))


def test_empty_files_are_reported(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_bytes(b"")
    with pytest.raises(NotEnoughData, match=r"empty\.txt"):
        find_text([tmp_path], Workspace(tmp_path / "ws"))


def test_an_empty_file_next_to_a_good_one_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "good.txt").write_bytes(TEXT)
    found = find_text([tmp_path], Workspace(tmp_path / "ws"))
    assert [file.name for file in found.files] == ["good.txt"]
    assert [file.name for file in found.skipped] == ["empty.txt"]


def test_a_file_given_twice_counts_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(TEXT)
    (tmp_path / "b.txt").symlink_to(tmp_path / "a.txt")
    assert find_text([tmp_path, tmp_path / "a.txt"], Workspace(tmp_path)).files == [tmp_path / "a.txt"]


@given(text=st.text(min_size=1, max_size=300))
@settings(max_examples=60, deadline=None)
def test_the_tail_starts_at_a_character_boundary_and_the_rest_is_for_training(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("tail") / "a.txt"
    data = text.encode("utf-8", "surrogatepass")
    path.write_bytes(data)
    tail, head = general_tail(path), training_part(path)
    assert head.read() + tail.read() == data
    assert len(tail) <= max(1, len(data) // 10)
    assert not tail.read() or tail.read()[0] & 0xC0 != 0x80


def test_the_tail_of_text_is_its_last_tenth(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(bytes(range(65, 75)) * 10)
    assert general_tail(path).read() == bytes(range(65, 75))


def test_languages_are_detected_from_their_bytes(tmp_path: Path) -> None:
    chinese, english = tmp_path / "zh.txt", tmp_path / "en.txt"
    chinese.write_text("今天的天气很好，我们去公园散步吧。" * 50, encoding="utf-8")
    english.write_text("The weather is fine today, let us walk in the park. " * 100, encoding="utf-8")
    assert languages_of([chinese]) == ["zh"]
    assert languages_of([english]) == ["en"]
    assert languages_of([chinese, english]) == ["en", "zh"]


def test_broken_utf8_has_no_language_and_raises_nothing() -> None:
    assert cjk_bytes(b"\xff\xfe\x80abc") == 0
    assert cjk_bytes("水".encode() + b"\xe6") == 3
