"""Train/test contamination: text shared by both sets, and a model that was trained on the test set."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.corpus.clusters import HoldoutWindow, read_clusters, with_longer_forms
from engine.corpus.dedup.drop import plain_texts, turns_in_force
from engine.corpus.dedup.near import (
    MIN_LENGTH,
    PERMUTATIONS,
    candidate_pairs,
    sketch_texts,
    verified_pairs,
)
from engine.corpus.enums import DataSplit
from engine.corpus.filters.cache import code_version, load
from engine.corpus.filters.folding import fold, fold_turns
from engine.corpus.filters.normalise import letters
from engine.corpus.filters.run import digest_of
from engine.corpus.ledger import Database
from engine.corpus.review.decision_log import ever_edited

_PAGE = 1000


class ContaminationError(BadInput):
    """Training and test share text; the run does not start."""


def check_not_trained_on(
    store: Database, window: HoldoutWindow, lineage: frozenset[str], *, model: str = ""
) -> None:
    """Raises BadInput with the ids when a model was trained on a cluster of the window."""
    trained = with_longer_forms(store.connection, lineage)
    members = set(window.conversations)
    seen = sorted(
        member.id
        for cluster in read_clusters(store.connection, trained)
        if any(member.id in members for member in cluster.members)
        for member in cluster.members
        if member.id in trained
    )
    if seen:
        raise BadInput(
            _(
                "{model} was trained on {count} conversations of the test window or their near duplicates: {ids}"
            ).format(model=model or _("the model"), count=len(seen), ids=_(", ").join(seen[:8])),
            hint="h2q-tui models list",
        )


def check_split_contamination(store: Database, window: HoldoutWindow | None = None) -> None:
    """Raises ContaminationError when a test conversation is a duplicate or near duplicate of one in training.

    Compares texts, not clusters.
    """
    connection = store.connection
    splits = dict(
        connection.execute(
            "SELECT conversation_id, split FROM corpus WHERE split IN (?, ?)",
            (DataSplit.TEST, DataSplit.TRAIN),
        )
    )
    texts = _text_digests(connection, splits)
    splits_by_digest: dict[bytes, set[str]] = {}
    first: dict[bytes, str] = {}
    for id_, text in texts.items():
        splits_by_digest.setdefault(text.digest, set()).add(splits[id_])
        first.setdefault(text.digest, id_)
    shared = {digest for digest, found in splits_by_digest.items() if len(found) > 1}
    distinct = [digest for digest, id_ in first.items() if texts[id_].sketch is not None]
    sketches = [texts[first[digest]].sketch for digest in distinct]
    threshold = _near_threshold(connection)
    pairs = candidate_pairs(
        np.array(sketches, dtype=np.uint8).reshape(len(sketches), PERMUTATIONS),
        np.array([texts[first[digest]].length for digest in distinct], dtype=np.int64),
        threshold,
        kinds=np.array([DataSplit.TEST in splits_by_digest[digest] for digest in distinct], dtype=bool),
    )
    for pair in verified_pairs(
        pairs,
        lambda indices: plain_texts(connection, [first[distinct[i]] for i in indices]),
        threshold,
    ):
        shared |= {distinct[pair.first], distinct[pair.second]}
    frozen = set(window.conversations) if window else set()
    ids = sorted(
        id_
        for id_, text in texts.items()
        if text.digest in shared or (id_ in frozen and splits[id_] == DataSplit.TRAIN)
    )
    if ids:
        raise ContaminationError(
            _("training and test share {count} conversations: {ids}").format(
                count=len(ids), ids=_(", ").join(ids[:8])
            ),
            hint="h2q-tui corpus build",
        )


class _TextDigest(NamedTuple):
    digest: bytes
    length: int
    sketch: NDArray[np.uint8] | None
    """None for short texts."""


def _text_digests(connection: sqlite3.Connection, splits: Mapping[str, str]) -> dict[str, _TextDigest]:
    """Digest of the text in force of each conversation, length and sketch of its letters.

    Test conversations are read here; for the many in training the filter cache is used where nothing was
    edited and the code is that of the last build.
    """
    built_by = connection.execute("SELECT value FROM meta WHERE key = 'corpus_code'").fetchone()
    edited = ever_edited(connection)
    cached = [
        id_
        for id_, split in splits.items()
        if split == DataSplit.TRAIN and id_ not in edited and built_by == (code_version(),)
    ]
    corpus = load(connection, dict.fromkeys(cached, b""))
    digests = {
        entry.id: _TextDigest(
            entry.text_digest,
            entry.lengths[0],
            corpus.text_sketches[row] if corpus.sketch_counts[row] else None,
        )
        for row, entry in enumerate(corpus.entries)
    }
    unknown = [id_ for id_ in splits if id_ not in digests]
    for start in range(0, len(unknown), _PAGE):
        page = unknown[start : start + _PAGE]
        texts = [[text for _role, text in turns] for turns in turns_in_force(connection, page)]
        plain = ["".join(map(letters, turns)) for turns in texts]
        sketches = iter(sketch_texts([text for text in plain if len(text) >= MIN_LENGTH]))
        digests |= {
            id_: _TextDigest(
                digest_of(fold_turns([fold(turn) for turn in turns])),
                len(text),
                next(sketches) if len(text) >= MIN_LENGTH else None,
            )
            for id_, turns, text in zip(page, texts, plain, strict=True)
        }
    return digests


def _near_threshold(connection: sqlite3.Connection) -> float:
    """The threshold of the last build."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'corpus_near_threshold'").fetchone()
    return float(row[0]) if row else 0.8
