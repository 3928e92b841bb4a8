"""Attachments in the archives of programs are counted and are no conversations, whatever they hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.memory.importers.readers.attachments import attached_files
from tests.unit.test_import_containers import CONTAINERS, ROWS, chat, ids_after

TALK = b"User: Name a river\nAssistant: The Rhine.\n"

ATTACHED = {
    "chat-1-files/talk.txt": ["chat-1.json"],
    "export/chat-1-files/deep/talk.md": ["export/chat-1.json"],
    "Data/Files/talk.txt": ["data.json"],
    "backup/Data/Files/talk.txt": ["backup/metadata.json"],
    "resources/talk.txt": ["sessions/a/session.json"],
    "sessions/a/resources/talk.txt": ["sessions/a/session.json"],
}
OWN = {
    "chat-1-files/talk.txt": ["chat-2.json"],
    "my-files/talk.txt": ["other.json"],
    "Data/Files/talk.txt": ["notes.txt"],
    "resources/talk.txt": ["chats.json"],
    "Files/talk.txt": ["data.json"],
}


@pytest.mark.parametrize(("name", "beside"), ATTACHED.items())
def test_files_in_the_folder_of_a_program_are_attachments(name: str, beside: list[str]) -> None:
    assert attached_files([name, *beside]) == {name}


@pytest.mark.parametrize(("name", "beside"), OWN.items())
def test_files_in_any_other_folder_are_none(name: str, beside: list[str]) -> None:
    assert attached_files([name, *beside]) == set()


@pytest.mark.parametrize("container", [name for name in CONTAINERS if name != "compressed files"])
def test_an_attached_transcript_is_counted_and_not_imported(tmp_path: Path, container: str) -> None:
    files = {"chat-1.json": json.dumps([chat("a")]).encode(), "chat-1-files/talk.txt": TALK}
    files["chat-1-files/rows.jsonl"] = ROWS
    ids, report = ids_after(CONTAINERS[container](files, tmp_path), tmp_path)
    assert ids == {"a"}
    assert report.skipped == {"attachment": 2}
