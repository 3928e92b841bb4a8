"""The training set and the test set of a run, read from the corpus: redacted, with the loss masked per the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec

from engine.core.chat import ChatMessage
from engine.core.errors import NotEnoughData
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.corpus.dataset import DatasetRow, dataset_path, encode_row, write_lines
from engine.corpus.enums import DataSplit, LedgerAction
from engine.corpus.filters.pii import PiiType, find_pii
from engine.corpus.filters.turn import SOURCE_MASKS, filter_turn
from engine.corpus.ledger import Database, placeholder, redact, rows_of
from engine.corpus.preview import DatasetSummary
from engine.corpus.review.decision_log import (
    TurnEdit,
    describes_current_text,
    edits_in_force,
    ever_edited,
    fingerprint,
    turns_changed_since_build,
)
from engine.memory.integrity import is_damaged_turn, marked_damage
from engine.memory.records import hash_texts
from engine.models.card import Lineage
from engine.models.chatml import render, windows

_CHUNK = 200
Spans = list[tuple[str, int, int]]


class TrainingSet(msgspec.Struct, frozen=True, kw_only=True):
    """A written dataset. `lineage` is all that a model trained on it has seen, its ancestors' data included."""

    path: Path
    sha256: str
    conversations: list[str]
    pairs: int
    """Answers that contribute to the loss."""
    lineage: Lineage
    replayed: int
    """Conversations that the base model was already trained on."""


def corpus_rows(store: Database, split: DataSplit | None) -> Iterator[DatasetRow]:
    """The accepted conversations of one split (None: of all), by id; damaged ones are skipped."""
    where = "state = 'accepted'" if split is None else "state = 'accepted' AND split = ?"
    rows = store.connection.execute(
        f"SELECT conversation_id, cluster, pairs FROM corpus WHERE {where} ORDER BY conversation_id",  # noqa: S608
        () if split is None else (split.value,),
    ).fetchall()
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        ids = [row[0] for row in chunk]
        edits = edits_in_force(store.connection, ids)
        turns = _turns(store, ids, edits)
        marks = _ledger_marks(store, ids, edits)
        for id_, (masked, spans) in _marks_of_new_edits(store, turns).items():
            known_masked, known_spans = marks.setdefault(id_, (set(), {}))
            known_masked |= masked
            known_spans.update(spans)
        for id_, cluster, pairs in chunk:
            if id_ not in turns:
                continue
            masked, spans = marks.get(id_, (set(), {}))
            # pairs == 0: the user restored a conversation of small talk only, so its answers keep their loss.
            if not pairs:
                masked = masked & _masked_by_source(store, id_)
            messages = _messages(turns[id_], masked, spans)
            yield DatasetRow(id=id_, cluster=cluster, messages=messages)


def _messages(
    turns: Sequence[tuple[int, str, str]], masked: set[int], spans: Mapping[int, Spans]
) -> list[ChatMessage]:
    return [
        ChatMessage(
            role=role,
            content=redact(text, spans[position]) if position in spans else text,
            train=role == "assistant" and position not in masked,
        )
        for position, role, text in turns
        if text.strip()
    ]


def _turns(
    store: Database, ids: list[str], edits: Mapping[str, Mapping[int, TurnEdit]]
) -> dict[str, list[tuple[int, str, str]]]:
    """(position, role, text in force) of each turn, without conversations that are damaged or not as imported."""
    turns: dict[str, list[tuple[int, str, str]]] = {}
    imported: dict[str, list[tuple[str, str]]] = {}
    damaged: set[str] = set()
    with marked_damage(store.connection):
        hashes = dict(
            store.connection.execute(
                "SELECT id, content_hash FROM conversations WHERE id IN (SELECT value FROM json_each(?))",
                (msgspec.json.encode(ids).decode(),),
            )
        )
        rows = store.connection.execute(
            "SELECT conversation_id, position, role, text FROM turns "
            "WHERE conversation_id IN (SELECT value FROM json_each(?)) ORDER BY conversation_id, position",
            (msgspec.json.encode(ids).decode(),),
        ).fetchall()
    for id_, position, role, text in rows:
        if is_damaged_turn(role, text):
            damaged.add(id_)
            continue
        imported.setdefault(id_, []).append((role, text))
        edit = edits.get(id_, {}).get(position)
        turns.setdefault(id_, []).append((position, role, text if edit is None else edit.text))
    damaged |= {id_ for id_, texts in imported.items() if hash_texts(texts) != hashes.get(id_)}
    return {id_: values for id_, values in turns.items() if id_ not in damaged}


def _ledger_marks(
    store: Database, ids: list[str], edits: Mapping[str, Mapping[int, TurnEdit]]
) -> dict[str, tuple[set[int], dict[int, Spans]]]:
    """Masked turns and redacted spans of each conversation."""
    marks: dict[str, tuple[set[int], dict[int, Spans]]] = {}
    for row in rows_of(store.connection, ids):
        if not describes_current_text(row, edits.get(row.conversation, {})):
            continue
        masked, spans = marks.setdefault(row.conversation, (set(), {}))
        if row.action == LedgerAction.MASK:
            masked.add(row.turn)
        elif row.action == LedgerAction.REDACT:
            spans[row.turn] = row.evidence.spans
    return marks


def _masked_by_source(store: Database, id_: str) -> set[int]:
    """The turns of a conversation that are masked whatever the user decides."""
    return {
        row.turn
        for row in rows_of(store.connection, [id_])
        if row.action == LedgerAction.MASK and row.reason in SOURCE_MASKS
    }


def _marks_of_new_edits(
    store: Database, turns: Mapping[str, list[tuple[int, str, str]]]
) -> dict[str, tuple[set[int], dict[int, Spans]]]:
    """Masked turns and PII of turns edited since the last build: no unfiltered text reaches a dataset."""
    marks: dict[str, tuple[set[int], dict[int, Spans]]] = {}
    for id_ in ever_edited(store.connection) & turns.keys():
        unfiltered = turns_changed_since_build(store.connection, id_)
        masked, spans = marks.setdefault(id_, (set(), {}))
        question = ""
        for position, role, text in turns[id_]:
            if position in unfiltered:
                found = filter_turn(role, text, question)
                spans[position] = found.pii
                if found.masked:
                    masked.add(position)
            if role == "user":
                question = text
    return marks


def write_dataset(
    store: Database,
    ws: Workspace,
    stamp: str,
    *,
    base_lineage: Lineage | None = None,
    only: frozenset[str] = frozenset(),
) -> TrainingSet:
    """Writes every conversation of the training split, earlier ones included: they replay what the base learned.

    With `only`, none but these: a resumed run keeps the data it began with. The file is written atomically.
    Raises NotEnoughData when there is nothing to train on, OSError.
    """
    base = base_lineage or Lineage()
    path = dataset_path(ws, stamp)
    ids: list[str] = []
    clusters: set[str] = set()
    pairs = 0

    def lines() -> Iterable[bytes]:
        nonlocal pairs
        for row in corpus_rows(store, DataSplit.TRAIN):
            answers = row.trained_answers
            if not answers or (only and row.id not in only):
                continue
            ids.append(row.id)
            clusters.add(row.cluster)
            pairs += answers
            yield encode_row(row)

    digest = write_lines(path, lines())
    if not ids:
        path.unlink(missing_ok=True)
        raise NotEnoughData(_("there is no accepted conversation to train on"), hint="h2q-tui corpus stats")
    known = set(base.conversations)
    settings = store.connection.execute("SELECT value FROM meta WHERE key = 'corpus_settings'").fetchone()
    decisions, decisions_sha256 = fingerprint(store.connection)
    times = [time for time in (_newest_time(store, ids), base.newest_conversation) if time is not None]
    lineage = Lineage(
        conversations=sorted(known | set(ids)),
        clusters=sorted(set(base.clusters) | clusters),
        texts=dict(base.texts),
        dataset=path.name,
        dataset_sha256=digest,
        settings_sha256=settings[0] if settings else "",
        decisions=decisions,
        decisions_sha256=decisions_sha256,
        newest_conversation=max(times, default=None),
    )
    return TrainingSet(
        path=path,
        sha256=digest,
        conversations=ids,
        pairs=pairs,
        lineage=lineage,
        replayed=len(known & set(ids)),
    )


def _newest_time(store: Database, ids: Sequence[str]) -> float | None:
    """The latest time of some conversations, in seconds since the epoch."""
    row = store.connection.execute(
        "SELECT MAX(sort_time) FROM corpus WHERE conversation_id IN (SELECT value FROM json_each(?))",
        (msgspec.json.encode(list(ids)).decode(),),
    ).fetchone()
    return None if row[0] is None else float(row[0])


def held_out_rows(store: Database, window_id: int) -> list[DatasetRow]:
    """The accepted conversations of a test window that have something to score.

    Answers that occur verbatim in training, to the same question, are masked: they are not scored.
    """
    members = {
        id_
        for (id_,) in store.connection.execute(
            "SELECT conversation_id FROM window_members WHERE window_id = ?", (window_id,)
        )
    }
    if not members:
        return []
    trained = {key for row in corpus_rows(store, DataSplit.TRAIN) for _index, key in _pair_keys(row.messages)}
    rows = []
    for row in corpus_rows(store, DataSplit.TEST):
        if row.id not in members:
            continue
        seen = {index for index, key in _pair_keys(row.messages) if key in trained}
        messages = [
            msgspec.structs.replace(message, train=False) if index in seen else message
            for index, message in enumerate(row.messages)
        ]
        row = msgspec.structs.replace(row, messages=messages)
        if row.trained_answers:
            rows.append(row)
    return rows


def _pair_keys(messages: Sequence[ChatMessage]) -> list[tuple[int, str]]:
    """(index, digest of question and answer) of each answer: equal for verbatim repetitions."""
    keys = []
    question = ""
    for index, message in enumerate(messages):
        if message.role == "user":
            question = message.content
        elif message.role == "assistant":
            digest = sha256(
                f"{question.strip()}\x1f{message.content.strip()}".encode("utf-8", "surrogatepass")
            )
            keys.append((index, digest.hexdigest()[:24]))
    return keys


def summarise(store: Database, context: int) -> DatasetSummary:
    """Lengths, truncation and PII of the training split at a context length; renders every conversation once."""
    lengths: list[int] = []
    replaced: Counter[str] = Counter()
    left: Counter[str] = Counter()
    trained = windowed = cut = cut_tokens = 0
    for row in corpus_rows(store, DataSplit.TRAIN):
        if not row.trained_answers:
            continue
        rendered = render(row.messages)
        lengths.append(len(rendered.ids))
        trained += rendered.trained_tokens
        if len(rendered.ids) > context:
            lost = sum(window.truncated_bytes for window in windows(row.messages, context))
            windowed += 1
            cut += lost > 0
            cut_tokens += lost
        for message in row.messages:
            left.update(span.type.value for span in find_pii(message.content))
            if "‹" in message.content:
                for type_ in PiiType:
                    replaced[type_.value] += message.content.count(placeholder(type_.value))
    lengths.sort()

    def quantile(share: float) -> int:
        return lengths[min(len(lengths) - 1, int(share * len(lengths)))] if lengths else 0

    return DatasetSummary(
        conversations=len(lengths),
        tokens=sum(lengths),
        trained=trained,
        context=context,
        p50=quantile(0.5),
        p90=quantile(0.9),
        p99=quantile(0.99),
        longest=lengths[-1] if lengths else 0,
        windowed=windowed,
        cut=cut,
        cut_tokens=cut_tokens,
        replaced=+replaced,
        left=dict(left),
    )
