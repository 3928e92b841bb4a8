"""The verdict of a journal in the language of the reader. Imports nothing heavy."""

from __future__ import annotations

import msgspec

from engine.runs.events import JournalRecord, VerdictGiven
from engine.validation.report import Verdict
from engine.validation.verdict_text import sentence_of


def in_own_language(record: JournalRecord) -> JournalRecord:
    """The record, the sentence of a verdict in the language of this process; as it was where it cannot be read."""
    event = record.event
    if type(event) is not VerdictGiven:
        return record
    try:
        sentence = sentence_of(msgspec.json.decode(event.verdict, type=Verdict))
    except msgspec.DecodeError:
        return record
    return msgspec.structs.replace(
        record, event=msgspec.structs.replace(event, sentence=sentence or event.sentence)
    )
