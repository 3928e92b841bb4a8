"""What forbids a run: training and test that share words, and a model that has seen the test."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.corpus.candidates import read_clusters, with_superseded
from engine.corpus.dedup.near import PERMUTATIONS, SHORTEST, candidates, sketches, verified
from engine.corpus.dedup.texts import folded_words
from engine.corpus.enums import Split
from engine.corpus.filters.cache import code_version, load
from engine.corpus.filters.result import digest_of
from engine.corpus.ledger import Database
from engine.corpus.review.decision_log import ever_edited
from engine.corpus.windows import Window

_READ = 1000


class Overlap(BadInput):
    """Training and test share words; the run does not start."""


def refuse_trained(store: Database, window: Window, lineage: frozenset[str], *, model: str = "") -> None:
    """Raises BadInput, naming the ids, when a model was trained on a cluster of the window."""
    seen = with_superseded(store.connection, lineage)
    members = set(window.conversations)
    guilty = sorted(
        member.id
        for cluster in read_clusters(store.connection, seen)
        if any(member.id in members for member in cluster.members)
        for member in cluster.members
        if member.id in seen
    )
    if guilty:
        raise BadInput(
            _(
                "{model} was trained on {count} conversations of the test window or their near duplicates: {ids}"
            ).format(model=model or _("the model"), count=len(guilty), ids=", ".join(guilty[:8])),
            hint="h2q-tui models list",
        )


def assert_no_overlap(store: Database, window: Window | None = None) -> None:
    """Raises Overlap when a test conversation is, or is nearly, one in training. Looks at words, not at clusters."""
    connection = store.connection
    part = dict(
        connection.execute(
            "SELECT conversation_id, split FROM corpus WHERE split IN (?, ?)", (Split.TEST, Split.TRAIN)
        )
    )
    words = _words(connection, part)
    sides: dict[bytes, set[str]] = {}
    first: dict[bytes, str] = {}
    for id_, one in words.items():
        sides.setdefault(one.digest, set()).add(part[id_])
        first.setdefault(one.digest, id_)
    shared = {digest for digest, found in sides.items() if len(found) > 1}
    distinct = [digest for digest, id_ in first.items() if words[id_].sketch is not None]
    sketched = [words[first[digest]].sketch for digest in distinct]
    pairs = candidates(
        np.array(sketched, dtype=np.uint8).reshape(len(sketched), PERMUTATIONS),
        np.array([words[first[digest]].length for digest in distinct], dtype=np.int64),
        _threshold(connection),
        kinds=np.array([Split.TEST in sides[digest] for digest in distinct], dtype=bool),
    )
    for pair in verified(
        pairs,
        lambda indices: folded_words(connection, [first[distinct[i]] for i in indices]),
        _threshold(connection),
    ):
        shared |= {distinct[pair.first], distinct[pair.second]}
    frozen = set(window.conversations) if window else set()
    ids = sorted(
        id_
        for id_, one in words.items()
        if one.digest in shared or (id_ in frozen and part[id_] == Split.TRAIN)
    )
    if ids:
        raise Overlap(
            _("training and test share {count} conversations: {ids}").format(
                count=len(ids), ids=", ".join(ids[:8])
            ),
            hint="h2q-tui corpus build",
        )


class _Words(NamedTuple):
    """The folded words of a conversation, without the words."""

    digest: bytes
    length: int
    sketch: NDArray[np.uint8] | None
    """None for short ones."""


def _words(connection: sqlite3.Connection, part: Mapping[str, str]) -> dict[str, _Words]:
    """The words of each conversation as they are now.

    What is judged by is read and folded here; of the many that are trained on, what the build kept is taken
    where nothing was written anew and its code is this code.
    """
    built_by = connection.execute("SELECT value FROM meta WHERE key = 'corpus_code'").fetchone()
    edited = ever_edited(connection)
    kept = [
        id_
        for id_, side in part.items()
        if side == Split.TRAIN and id_ not in edited and built_by == (code_version(),)
    ]
    known = load(connection, dict.fromkeys(kept, b""))
    words = {
        item.id: _Words(item.words, item.lengths[0], known.words[row] if known.sketched[row] else None)
        for row, item in enumerate(known.items)
    }
    unknown = [id_ for id_ in part if id_ not in words]
    for start in range(0, len(unknown), _READ):
        page = unknown[start : start + _READ]
        folded = folded_words(connection, page)
        made = iter(sketches([text for text in folded if len(text) >= SHORTEST]))
        words |= {
            id_: _Words(digest_of(text), len(text), next(made) if len(text) >= SHORTEST else None)
            for id_, text in zip(page, folded, strict=True)
        }
    return words


def _threshold(connection: sqlite3.Connection) -> float:
    row = connection.execute("SELECT value FROM meta WHERE key = 'corpus_near_threshold'").fetchone()
    return float(row[0]) if row else 0.8
