"""Exports the accepted corpus, redacted, in the formats of other trainers; masked answers are marked or dropped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from engine.core import files
from engine.core.chat import ChatMessage
from engine.core.errors import UsageProblem
from engine.core.i18n import _
from engine.core.outputs import check_output_file
from engine.corpus.dataset import DatasetRow, write_lines
from engine.corpus.enums import DataSplit
from engine.corpus.filters.prompt_injection import neutralise
from engine.corpus.ledger import Database
from engine.corpus.training_set import corpus_rows

DATASET_INFO = "dataset_info.json"
"""The index of datasets that LLaMA-Factory reads."""


class ExportFormat(StrEnum):
    """`MESSAGES` is the canonical one. Alpaca and ShareGPT are JSON arrays, the others JSON lines."""

    MESSAGES = "messages"
    ALPACA = "alpaca"
    SHAREGPT = "sharegpt"
    PROMPT_COMPLETION = "prompt-completion"


class CorpusExport(msgspec.Struct, frozen=True, kw_only=True):
    """A written export, as `corpus export --json` prints it."""

    path: str
    format: str
    rows: int
    conversations: int
    answers_without_place: int
    """Trained answers that the format cannot express, because no question is directly before them."""
    sha256: str
    dataset_info: str
    """The file with the LLaMA-Factory entry, in the same folder."""


def suffix(format: ExportFormat) -> str:
    """The file name extension of a format."""
    return ".json" if format in (ExportFormat.ALPACA, ExportFormat.SHAREGPT) else ".jsonl"


def export_corpus(
    store: Database, path: Path, format: ExportFormat, *, split: DataSplit | None = None
) -> CorpusExport:
    """Writes the accepted conversations of one split (None: all) and a `dataset_info.json` in the same folder.

    Raises OSError.
    """
    counts = {"rows": 0, "conversations": 0, "answers": 0}

    def rows() -> Iterator[Any]:
        for row in corpus_rows(store, split):
            exported = list(_ROWS[format](_neutralised(row)))
            if format is not ExportFormat.MESSAGES:
                counts["answers"] += row.trained_answers - len(_question_answers(row.messages))
            counts["conversations"] += bool(exported)
            counts["rows"] += len(exported)
            yield from exported

    entries = check_export_file(path, hint=_command(format, split))
    digest = write_lines(path, _as_array(rows()) if suffix(format) == ".json" else _as_lines(rows()))
    info = path.with_name(DATASET_INFO)
    entries[path.stem] = {"file_name": path.name, **_INFO[format]}
    files.write_json(info, entries)
    return CorpusExport(
        path=str(path),
        format=format.value,
        rows=counts["rows"],
        conversations=counts["conversations"],
        answers_without_place=counts["answers"],
        sha256=digest,
        dataset_info=str(info),
    )


def _command(format: ExportFormat, split: DataSplit | None) -> str:
    """The command that exports the same rows into another file."""
    part = f" --split {split.value}" if split else ""
    return f"h2q-tui corpus export --format {format.value}{part} --output NEW-FILE"


def check_export_file(path: Path, *, hint: str) -> dict[str, Any]:
    """The entries of the `dataset_info.json` next to `path`.

    Raises UsageProblem when `path` or that file would be replaced and no export has written it, or when `path` is
    a device, a FIFO, a link or a folder.
    """
    info = path.with_name(DATASET_INFO)
    check_output_file(path, hint=hint)
    check_output_file(info, hint=hint)
    entries: dict[str, Any] = {}
    if info.exists():
        try:
            # Python's decoder takes the lone surrogates of file names that are not UTF-8.
            entries = msgspec.convert(json.loads(info.read_bytes()), dict[str, Any])
        except (ValueError, RecursionError) as problem:
            raise UsageProblem(
                _("{path} is not an index of datasets and would be replaced").format(path=info), hint=hint
            ) from problem
    written = {entry.get("file_name") for entry in entries.values() if isinstance(entry, dict)}
    if path.exists() and path.name not in written and path.stem not in entries:
        raise UsageProblem(_("{path} exists and no export has written it").format(path=path), hint=hint)
    return entries


def _neutralised(row: DatasetRow) -> DatasetRow:
    """The row without control tokens in its texts: another trainer's tokenizer would interpret them."""
    messages = [
        msgspec.structs.replace(message, content=neutralise(message.content)) for message in row.messages
    ]
    return msgspec.structs.replace(row, messages=messages)


def _as_lines(rows: Iterable[Any]) -> Iterator[bytes]:
    for row in rows:
        yield msgspec.json.encode(row) + b"\n"


def _as_array(rows: Iterable[Any]) -> Iterator[bytes]:
    before = b"[\n"
    for row in rows:
        yield before + msgspec.json.encode(row)
        before = b",\n"
    yield (b"[" if before == b"[\n" else b"\n") + b"]\n"


def _messages(row: DatasetRow) -> Iterator[dict[str, Any]]:
    """OpenAI's chat format; `weight` 0 keeps an answer as context only."""
    messages: list[dict[str, Any]] = []
    for message in row.messages:
        entry: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.role == "assistant" and not message.train:
            entry["weight"] = 0
        messages.append(entry)
    yield {"id": row.id, "messages": messages}


class QuestionAnswer(NamedTuple):
    """A question with its answer, and the system messages before it."""

    question: str
    answer: str
    system: str


def _question_answers(messages: list[ChatMessage]) -> list[QuestionAnswer]:
    """Each question with the answer directly after it; consecutive questions are joined.

    What these formats cannot express is dropped: a question without an answer, an answer without a question of its
    own, and a masked answer with its question.
    """
    found: list[QuestionAnswer] = []
    systems: list[str] = []
    questions: list[str] = []
    for message in messages:
        if message.role == "system":
            systems.append(message.content)
        elif message.role == "user":
            questions.append(message.content)
        elif message.role == "assistant":
            if questions and message.train:
                found.append(QuestionAnswer("\n".join(questions), message.content, "\n".join(systems)))
            questions = []
    return found


def _by_system(row: DatasetRow) -> Iterator[tuple[str, list[QuestionAnswer]]]:
    """The pairs of a conversation, divided where a system message in mid-talk changes what is in force."""
    for system, pairs in groupby(_question_answers(row.messages), key=lambda pair: pair.system):
        yield system, list(pairs)


def _alpaca(row: DatasetRow) -> Iterator[dict[str, Any]]:
    """One row for each conversation: trainers also train on the answers in `history`, so a row for each answer would
    repeat the first ones."""
    for system, pairs in _by_system(row):
        *history, last = pairs
        yield {
            "instruction": last.question,
            "input": "",
            "output": last.answer,
            "system": system,
            "history": [(pair.question, pair.answer) for pair in history],
        }


def _sharegpt(row: DatasetRow) -> Iterator[dict[str, Any]]:
    """Alternating questions and answers, the only order that LLaMA-Factory accepts."""
    for system, pairs in _by_system(row):
        turns = [
            {"from": who, "value": text}
            for pair in pairs
            for who, text in (("human", pair.question), ("gpt", pair.answer))
        ]
        yield {"id": row.id, "system": system, "conversations": turns}


def _prompt_completion(row: DatasetRow) -> Iterator[dict[str, Any]]:
    """One row for each answer, without the earlier turns."""
    for pair in _question_answers(row.messages):
        yield {"system": pair.system, "prompt": pair.question, "completion": pair.answer}


_ROWS = {
    ExportFormat.MESSAGES: _messages,
    ExportFormat.ALPACA: _alpaca,
    ExportFormat.SHAREGPT: _sharegpt,
    ExportFormat.PROMPT_COMPLETION: _prompt_completion,
}

_INFO: dict[ExportFormat, dict[str, Any]] = {
    ExportFormat.MESSAGES: {
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
            "observation_tag": "tool",
        },
    },
    ExportFormat.ALPACA: {
        "columns": {
            "prompt": "instruction",
            "query": "input",
            "response": "output",
            "system": "system",
            "history": "history",
        }
    },
    ExportFormat.SHAREGPT: {
        "formatting": "sharegpt",
        "columns": {"messages": "conversations", "system": "system"},
    },
    ExportFormat.PROMPT_COMPLETION: {
        "columns": {"prompt": "prompt", "response": "completion", "system": "system"}
    },
}
