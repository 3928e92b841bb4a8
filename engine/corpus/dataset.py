"""The dataset of a run: `training/train_data_<stamp>.jsonl` with its hash and lineage, and the held-out conversations."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import msgspec

from engine.core.chat import ChatMessage
from engine.core.errors import NotEnoughData
from engine.core.files import atomic_file
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.corpus.enums import Split
from engine.corpus.funnel import pair_counts
from engine.corpus.ledger import Database
from engine.corpus.review.decision_log import fingerprint
from engine.corpus.training_messages import Prepared, exchange_keys, prepared
from engine.models.card import Lineage


class Row(msgspec.Struct, frozen=True):
    """One line of the dataset."""

    id: str
    cluster: str
    messages: list[ChatMessage]


class _Id(msgspec.Struct, frozen=True):
    """A row, as far as its conversation."""

    id: str


class DatasetReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the dataset holds, for the report of the run. A pair is an answer with loss."""

    conversations: int
    pairs: int
    collected_pairs: int
    """Answers of all conversations of memory, before any filter."""
    accepted_pairs: int
    """Pairs of accepted conversations: those in training, test and waiting."""
    test_pairs: int
    masked_turns: int
    """Answers that stay as context without loss."""
    bytes: int
    """UTF-8 bytes of the messages."""
    replayed: int
    """Conversations that the base was trained on already."""
    new: int
    """Conversations that it was not."""


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """A written dataset. `lineage` is what a model trained on it has seen, its ancestors' included."""

    path: Path
    sha256: str
    conversations: list[str]
    pairs: int
    lineage: Lineage
    newest: float | None
    report: DatasetReport

    @property
    def collected_pairs(self) -> int:
        return self.report.collected_pairs

    @property
    def accepted_pairs(self) -> int:
        return self.report.accepted_pairs

    @property
    def test_pairs(self) -> int:
        return self.report.test_pairs


class HeldOut(msgspec.Struct, frozen=True):
    """A conversation of the test window. Answers that stand verbatim in training bear no loss: they are not scored."""

    conversation: str
    cluster: str
    messages: list[ChatMessage]


def dataset_path(ws: Workspace, stamp: str) -> Path:
    """Of the dataset that `stamp`, a run or a candidate, writes."""
    return ws.training / f"train_data_{stamp}.jsonl"


def ids_of(path: Path) -> frozenset[str]:
    """The conversations of a dataset that was written; none where it is gone or broken."""
    decoder = msgspec.json.Decoder(_Id)
    try:
        with path.open("rb") as file:
            return frozenset(decoder.decode(line).id for line in file if line.strip())
    except (OSError, msgspec.DecodeError):
        return frozenset()


def write_dataset(
    store: Database,
    ws: Workspace,
    stamp: str,
    *,
    base_lineage: Lineage | None = None,
    only: frozenset[str] = frozenset(),
) -> Dataset:
    """Writes every conversation of the training split, old ones too: what the base has learnt is replayed.

    With `only`, none but these: a training that goes on learns from what it began with. The file is whole or not
    there. Raises NotEnoughData when nothing is to be trained on, OSError.
    """
    base = base_lineage or Lineage()
    path = dataset_path(ws, stamp)
    ids: list[str] = []
    clusters: set[str] = set()
    pairs = masked = size = 0
    newest: float | None = None

    def rows() -> Iterable[bytes]:
        nonlocal pairs, masked, size, newest
        for item in prepared(store, Split.TRAIN):
            learnt = item.pairs
            if not learnt or (only and item.id not in only):
                continue
            ids.append(item.id)
            clusters.add(item.cluster)
            pairs += learnt
            masked += [message.role for message in item.messages].count("assistant") - learnt
            size += len("".join([one.content for one in item.messages]).encode("utf-8", "surrogatepass"))
            newest = item.newest if newest is None else max(newest, item.newest or newest)
            yield _line(item)

    digest = write_lines(path, rows())
    if not ids:
        path.unlink(missing_ok=True)
        raise NotEnoughData(_("no accepted conversation is there to train on"), hint="h2q-tui corpus stats")
    known = set(base.conversations)
    settings = store.connection.execute("SELECT value FROM meta WHERE key = 'corpus_settings'").fetchone()
    decided, decisions = fingerprint(store.connection)
    times = [time for time in (newest, base.newest_conversation) if time is not None]
    lineage = Lineage(
        conversations=sorted(known | set(ids)),
        clusters=sorted(set(base.clusters) | clusters),
        texts=dict(base.texts),
        dataset=path.name,
        dataset_sha256=digest,
        settings_sha256=settings[0] if settings else "",
        decisions=decided,
        decisions_sha256=decisions,
        newest_conversation=max(times, default=None),
    )
    counts = pair_counts(store)
    report = DatasetReport(
        conversations=len(ids),
        pairs=pairs,
        collected_pairs=counts.collected,
        accepted_pairs=counts.accepted,
        test_pairs=counts.test,
        masked_turns=masked,
        bytes=size,
        replayed=len(known & set(ids)),
        new=len(set(ids) - known),
    )
    return Dataset(
        path=path,
        sha256=digest,
        conversations=ids,
        pairs=pairs,
        lineage=lineage,
        newest=newest,
        report=report,
    )


def held_out(store: Database, window_id: int) -> list[HeldOut]:
    """The accepted conversations of a test window that hold something to score."""
    members = {
        id_
        for (id_,) in store.connection.execute(
            "SELECT conversation_id FROM window_members WHERE window_id = ?", (window_id,)
        )
    }
    if not members:
        return []
    seen = {key for item in prepared(store, Split.TRAIN) for _index, key in exchange_keys(item.messages)}
    found = []
    for item in prepared(store, Split.TEST):
        if item.id not in members:
            continue
        known = {index for index, key in exchange_keys(item.messages) if key in seen}
        messages = [
            msgspec.structs.replace(message, train=False) if index in known else message
            for index, message in enumerate(item.messages)
        ]
        if any(message.role == "assistant" and message.train for message in messages):
            found.append(HeldOut(item.id, item.cluster, messages))
    return found


def _line(item: Prepared) -> bytes:
    try:
        return msgspec.json.encode(Row(item.id, item.cluster, item.messages)) + b"\n"
    except UnicodeEncodeError:
        # Lone surrogates cannot be UTF-8; what a strict reader would refuse is shown as U+FFFD.
        messages = [
            msgspec.structs.replace(message, content=message.content.encode("utf-8", "replace").decode())
            for message in item.messages
        ]
        return msgspec.json.encode(Row(item.id, item.cluster, messages)) + b"\n"


def write_lines(path: Path, lines: Iterable[bytes]) -> str:
    """Writes a file that is whole or not there, line by line; returns its sha256. Raises OSError."""
    digest = sha256()
    with atomic_file(path, mode=0o600) as temporary, temporary.open("wb") as file:
        for line in lines:
            file.write(line)
            digest.update(line)
    return digest.hexdigest()
