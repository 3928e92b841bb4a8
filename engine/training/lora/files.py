"""`--data FILE` for `lora`: conversations of Alpaca or ShareGPT files, with a test set chosen by hash."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from engine.core.chat import ChatMessage
from engine.core.errors import BadInput, NotEnoughData
from engine.core.i18n import _
from engine.corpus.dataset import DatasetRow, encode_row, write_lines
from engine.corpus.dedup.near import Components, similar_pairs
from engine.corpus.filters.normalise import letters
from engine.memory.importers.datasets import alpaca, sharegpt
from engine.memory.importers.fields import ImportOptions
from engine.memory.importers.readers.files import first_value
from engine.memory.records import Conversation
from engine.models.card import Lineage

HELD_OUT = 10
"""One in this many conversations is held out ..."""
MOST_HELD_OUT = 100
"""... up to this many."""


@dataclass(frozen=True)
class FileDataset:
    """The conversations of the files, written as a dataset."""

    path: Path
    sha256: str
    lineage: Lineage
    held_out: list[DatasetRow]
    train_answers: int
    test_answers: int
    """Answers of the held-out conversations."""
    skipped: int
    """Rows without an answer, or of another format."""


def read_files(files: Sequence[Path], folder: Path, stamp: str) -> FileDataset:
    """Reads `files` and writes `folder/train_data_<stamp>.jsonl`. Near duplicates are on one side of the test set.

    Raises BadInput for a file of another format, NotEnoughData when fewer than two conversations have an
    answer.
    """
    rows, skipped = rows_of(conversation for file in files for conversation in _conversations(file))
    if len(rows) < 2:
        raise NotEnoughData(
            _("the files have {count} conversations with an answer; at least two are needed").format(
                count=len(rows)
            ),
            hint="h2q-tui train --mode lora",
        )
    clusters = near_clusters(rows)
    test_ids = _held_out(clusters)
    train_ids = sorted(rows.keys() - set(test_ids))
    rows = in_clusters(rows, clusters)
    path = folder / f"train_data_{stamp}.jsonl"
    digest = write_lines(path, (encode_row(rows[id_]) for id_ in train_ids))
    held_out = [rows[id_] for id_ in test_ids]
    train = sum(_answers(rows[id_].messages) for id_ in train_ids)
    test = sum(_answers(item.messages) for item in held_out)
    return FileDataset(
        path=path,
        sha256=digest,
        lineage=Lineage(
            conversations=train_ids,
            clusters=sorted({rows[id_].cluster for id_ in train_ids}),
            dataset=path.name,
            dataset_sha256=digest,
        ),
        held_out=held_out,
        train_answers=train,
        test_answers=test,
        skipped=skipped,
    )


def rows_of(conversations: Iterable[Conversation | None]) -> tuple[dict[str, DatasetRow], int]:
    """(conversations with an answer by id, how many have none or are None). Equal ones are one."""
    rows: dict[str, DatasetRow] = {}
    skipped = 0
    for conversation in conversations:
        messages = [] if conversation is None else _messages(conversation)
        if not any(message.role == "assistant" for message in messages):
            skipped += 1
            continue
        id_ = _id(messages)
        rows.setdefault(id_, DatasetRow(id=id_, cluster=id_, messages=messages))
    return rows, skipped


def in_clusters(
    rows: Mapping[str, DatasetRow], clusters: Mapping[str, Sequence[str]]
) -> dict[str, DatasetRow]:
    """The conversations with the names of their clusters."""
    return {
        id_: msgspec.structs.replace(rows[id_], cluster=name)
        for name, members in clusters.items()
        for id_ in members
    }


def near_clusters(rows: Mapping[str, DatasetRow]) -> dict[str, list[str]]:
    """Ids of conversations that are near duplicates, by the first of them, in the order of the names."""
    ids = sorted(rows)
    plain = ["".join(letters(message.content) for message in rows[id_].messages) for id_ in ids]
    found = Components(len(ids))
    first: dict[str, int] = {}
    for index, text in enumerate(plain):
        found.link(first.setdefault(text, index), index)
    for pair in similar_pairs(plain, may_compare=found.apart):
        found.link(pair.first, pair.second)
    clusters: dict[str, list[str]] = {}
    for index, id_ in enumerate(ids):
        clusters.setdefault(ids[found.root(index)], []).append(id_)
    return clusters


def _held_out(clusters: Mapping[str, Sequence[str]]) -> list[str]:
    """Ids of the test set, whole clusters only; empty when there is one cluster alone.

    Ids are hashes of the content, so the first ones are a random sample, and the same one every time.
    """
    total = sum(map(len, clusters.values()))
    count = max(1, min(total // HELD_OUT, MOST_HELD_OUT))
    chosen: list[str] = []
    for members in clusters.values():
        if len(chosen) + len(members) <= count:
            chosen += members
    if not chosen and len(clusters) > 1:
        smallest: Sequence[str] = min(clusters.values(), key=len)
        chosen += smallest
    return chosen


def _conversations(file: Path) -> Iterator[Conversation | None]:
    """Each conversation of a file; None for a skipped row. Raises BadInput."""
    first = first_value(file)
    reader = next((one for one in (alpaca, sharegpt) if one.detect(file, first)), None)
    if reader is None:
        raise BadInput(
            _("this is neither Alpaca nor ShareGPT"),
            path=file,
            hint=f"h2q-tui memory import {file}",
        )
    for item in reader.read(file, ImportOptions()):
        if isinstance(item, Conversation):
            yield item
        elif item.is_conversation:
            yield None


def _messages(conversation: Conversation) -> list[ChatMessage]:
    return [
        ChatMessage(
            role=turn.role.value,
            content=turn.text,
            train=turn.role.value == "assistant" and not turn.masked,
        )
        for turn in conversation.turns
        if not turn.is_empty
    ]


def _id(messages: Sequence[ChatMessage]) -> str:
    return sha256(msgspec.json.encode(messages)).hexdigest()[:24]


def _answers(messages: Sequence[ChatMessage]) -> int:
    return sum(message.role == "assistant" for message in messages)
