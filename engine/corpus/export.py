"""The accepted corpus in the formats of other trainers, redacted; answers without loss are marked or left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from engine.core import files
from engine.core.chat import ChatMessage
from engine.core.errors import UsageProblem
from engine.core.i18n import _
from engine.core.outputs import check_output_file
from engine.corpus.dataset import write_lines
from engine.corpus.enums import Split
from engine.corpus.filters.prompt_injection import neutralise
from engine.corpus.ledger import Database
from engine.corpus.training_messages import Prepared, prepared

DATASET_INFO = "dataset_info.json"
"""The index of datasets that LLaMA-Factory reads."""


class ExportFormat(StrEnum):
    """`MESSAGES` is the canonical one. Alpaca and ShareGPT are JSON arrays, the others JSON lines."""

    MESSAGES = "messages"
    ALPACA = "alpaca"
    SHAREGPT = "sharegpt"
    PROMPT_COMPLETION = "prompt-completion"


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """What `corpus export --json` prints."""

    path: str
    format: str
    rows: int
    conversations: int
    sha256: str
    dataset_info: str
    """The LLaMA-Factory entry beside it."""


def suffix(format: ExportFormat) -> str:
    return ".json" if format in (ExportFormat.ALPACA, ExportFormat.SHAREGPT) else ".jsonl"


def export(store: Database, path: Path, format: ExportFormat, *, part: Split | None = None) -> Exported:
    """Writes the accepted conversations of one split (None: all) with a `dataset_info.json` beside them. Raises OSError."""
    counts = {"rows": 0, "conversations": 0}

    def rows() -> Iterator[Any]:
        for item in prepared(store, part):
            made = list(_ROWS[format](_harmless(item)))
            counts["conversations"] += bool(made)
            counts["rows"] += len(made)
            yield from made

    entries = check_export_file(path)
    digest = write_lines(path, _as_array(rows()) if suffix(format) == ".json" else _as_lines(rows()))
    info = path.with_name(DATASET_INFO)
    entries[path.stem] = {"file_name": path.name, **_INFO[format]}
    files.write_json(info, entries)
    return Exported(
        path=str(path),
        format=format.value,
        rows=counts["rows"],
        conversations=counts["conversations"],
        sha256=digest,
        dataset_info=str(info),
    )


def check_export_file(path: Path) -> dict[str, Any]:
    """The entries of the `dataset_info.json` next to `path`.

    Raises UsageProblem when `path` or that file would be replaced and no export has written it, or when `path` is
    a device, a FIFO, a link or a folder.
    """
    hint = "h2q-tui corpus export --output NEW-FILE"
    info = path.with_name(DATASET_INFO)
    check_output_file(path, hint=hint)
    check_output_file(info, hint=hint)
    entries: dict[str, Any] = {}
    if info.exists():
        try:
            entries = msgspec.json.decode(info.read_bytes(), type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError) as problem:
            raise UsageProblem(
                _("{path} is not an index of datasets and would be replaced").format(path=info), hint=hint
            ) from problem
    written = {entry.get("file_name") for entry in entries.values() if isinstance(entry, dict)}
    if path.exists() and path.name not in written and path.stem not in entries:
        raise UsageProblem(_("{path} exists and no export has written it").format(path=path), hint=hint)
    return entries


def _harmless(item: Prepared) -> Prepared:
    """Without control tokens in its texts: another trainer's tokenizer would take them for its own."""
    messages = [
        msgspec.structs.replace(message, content=neutralise(message.content)) for message in item.messages
    ]
    return msgspec.structs.replace(item, messages=messages)


def _as_lines(rows: Iterable[Any]) -> Iterator[bytes]:
    for row in rows:
        yield msgspec.json.encode(row) + b"\n"


def _as_array(rows: Iterable[Any]) -> Iterator[bytes]:
    before = b"[\n"
    for row in rows:
        yield before + msgspec.json.encode(row)
        before = b",\n"
    yield (b"[" if before == b"[\n" else b"\n") + b"]\n"


def _messages(item: Prepared) -> Iterator[dict[str, Any]]:
    """OpenAI's chat format; `weight` 0 keeps an answer as context only."""
    messages: list[dict[str, Any]] = []
    for message in item.messages:
        entry: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.role == "assistant" and not message.train:
            entry["weight"] = 0
        messages.append(entry)
    yield {"id": item.id, "messages": messages}


class Exchange(NamedTuple):
    question: str
    answer: str


def _exchanges(messages: list[ChatMessage]) -> list[Exchange]:
    """Each question with its answer that bears loss; consecutive turns of one role are joined, what nobody asked
    or answered is left out. These formats cannot mark an answer, so that one without loss goes with its question."""
    found: list[Exchange] = []
    question: list[str] = []
    answer: list[str] = []

    def close() -> None:
        if question and answer:
            found.append(Exchange("\n".join(question), "\n".join(answer)))
        question.clear()
        answer.clear()

    answered = False
    for message in messages:
        if message.role == "user":
            if answered:
                close()
                question.clear()
                answered = False
            question.append(message.content)
        elif message.role == "assistant":
            answered = True
            if message.train and question:
                answer.append(message.content)
    close()
    return found


def _system(item: Prepared) -> str:
    return "\n".join(message.content for message in item.messages if message.role == "system")


def _alpaca(item: Prepared) -> Iterator[dict[str, Any]]:
    """One row for a conversation: a trainer that reads `history` learns its answers too, so that a row for each
    answer would teach the first ones several times."""
    exchanges = _exchanges(item.messages)
    if exchanges:
        *history, last = exchanges
        yield {
            "instruction": last.question,
            "input": "",
            "output": last.answer,
            "system": _system(item),
            "history": history,
        }


def _sharegpt(item: Prepared) -> Iterator[dict[str, Any]]:
    """Questions and answers by turns, the only order that LLaMA-Factory takes."""
    turns = [
        {"from": who, "value": text}
        for exchange in _exchanges(item.messages)
        for who, text in (("human", exchange.question), ("gpt", exchange.answer))
    ]
    if turns:
        yield {"id": item.id, "system": _system(item), "conversations": turns}


def _prompt_completion(item: Prepared) -> Iterator[dict[str, Any]]:
    """One row for an answer, without what was said before it."""
    for exchange in _exchanges(item.messages):
        yield {"system": _system(item), "prompt": exchange.question, "completion": exchange.answer}


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
