"""The dataset file, `training/train_data_<stamp>.jsonl`: one conversation a line, with its one reader and writer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

import msgspec

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput
from engine.core.files import atomic_file
from engine.core.i18n import _
from engine.core.paths import Workspace


class DatasetRow(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation, redacted. `train` of its messages is the loss mask."""

    id: str
    cluster: str = ""
    messages: list[ChatMessage]

    @property
    def trained_answers(self) -> int:
        """Answers that contribute to the loss."""
        return sum(message.role == "assistant" and message.train for message in self.messages)


def dataset_path(ws: Workspace, stamp: str) -> Path:
    """The dataset that `stamp`, a run or a candidate model, writes."""
    return ws.training / f"train_data_{stamp}.jsonl"


def read_dataset(path: Path) -> Iterator[DatasetRow]:
    """The rows of a dataset. Raises BadInput with the file and line."""
    decoder = msgspec.json.Decoder(DatasetRow)
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    yield decoder.decode(line)
                except msgspec.DecodeError as problem:
                    raise BadInput(
                        _("the dataset has a broken row"), path=path, line=number, hint="h2q-tui corpus build"
                    ) from problem
    except OSError as problem:
        raise BadInput(
            _("the dataset cannot be read: {reason}").format(reason=problem.strerror),
            path=path,
            hint="h2q-tui corpus build",
        ) from problem


def dataset_ids(path: Path) -> frozenset[str]:
    """The conversations of a dataset; empty when the file is missing or broken."""
    try:
        return frozenset(row.id for row in read_dataset(path))
    except BadInput:
        return frozenset()


def encode_row(row: DatasetRow) -> bytes:
    """The line of a row. Lone surrogates, which are not valid UTF-8, become U+FFFD or `?`."""
    try:
        return msgspec.json.encode(row) + b"\n"
    except UnicodeEncodeError:
        messages = [
            msgspec.structs.replace(message, content=message.content.encode("utf-8", "replace").decode())
            for message in row.messages
        ]
        return msgspec.json.encode(msgspec.structs.replace(row, messages=messages)) + b"\n"


def write_lines(path: Path, lines: Iterable[bytes]) -> str:
    """Writes a file atomically, line by line; returns its sha256. Raises OSError."""
    digest = sha256()
    with atomic_file(path, mode=0o600) as temporary, temporary.open("wb") as file:
        for line in lines:
            file.write(line)
            digest.update(line)
    return digest.hexdigest()
