"""What an import run took, from its journal."""

from __future__ import annotations

import msgspec

from engine.memory.import_texts import taken_text
from engine.runs.events import Finished
from engine.runs.journal import JournalReader
from engine.runs.rundir import RunDir


class _TakenFile(msgspec.Struct):
    path: str
    conversations: int


class _Taken(msgspec.Struct):
    files: list[_TakenFile]


def import_result_text(run: RunDir) -> str:
    """ "3 files: crosswoz.jsonl 300, …" for an import that has ended, "" when its journal does not say. Reads the
    journal: call it in a thread. Raises OSError."""
    reader, finished = JournalReader(run.events_path), None
    while records := reader.poll():
        finished = next((one.event for one in records if isinstance(one.event, Finished)), finished)
    try:
        taken = msgspec.json.decode(finished.result if finished is not None else b"", type=_Taken)
    except msgspec.DecodeError:
        return ""
    return taken_text([(file.path, file.conversations) for file in taken.files])
