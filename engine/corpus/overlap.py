"""What forbids a run: training and test that share words, and a model that has seen the test."""

from __future__ import annotations

import sqlite3
from itertools import groupby
from operator import itemgetter

from engine.corpus.candidates import read_clusters, with_superseded
from engine.corpus.decisions import edits
from engine.corpus.filters.near import near_pairs
from engine.corpus.filters.normalise import fold
from engine.corpus.ledger import Database
from engine.corpus.states import Split
from engine.corpus.windows import Window
from engine.errors import BadInput
from engine.i18n import _


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
            mend="h2q-tui models list",
        )


def assert_no_overlap(store: Database, window: Window | None = None) -> None:
    """Raises Overlap when a test conversation is, or is nearly, one in training. Looks at words, not at clusters."""
    connection = store.connection
    test, train = _texts(connection, Split.TEST), _texts(connection, Split.TRAIN)
    in_test, in_train = set(test.values()), set(train.values())
    shared = in_test & in_train
    texts = list(dict.fromkeys([*in_test, *in_train]))
    sides = [(text in in_test, text in in_train) for text in texts]

    def across(first: int, second: int) -> bool:
        return sides[first] != sides[second] or sides[first] == (True, True)

    for pair in near_pairs(texts, _threshold(connection), compared=across):
        shared |= {texts[pair.first], texts[pair.second]}
    frozen = set(window.conversations) if window else set()
    ids = sorted(
        {id_ for id_, text in (*test.items(), *train.items()) if text in shared} | (frozen & set(train))
    )
    if ids:
        raise Overlap(
            _("training and test share {count} conversations: {ids}").format(
                count=len(ids), ids=", ".join(ids[:8])
            ),
            mend="h2q-tui corpus build",
        )


def _texts(connection: sqlite3.Connection, part: Split) -> dict[str, str]:
    """Folded text of each conversation of a split."""
    changes = edits(connection)
    rows = connection.execute(
        "SELECT t.conversation_id, t.position, t.text FROM turns t JOIN corpus k ON k.conversation_id = t.conversation_id "
        "WHERE k.split = ? ORDER BY t.conversation_id, t.position",
        (part,),
    )
    folded: dict[str, str] = {}
    for id_, turns in groupby(rows, key=itemgetter(0)):
        change = changes.get(id_, {})
        parts = [change[position].text if position in change else text for _id, position, text in turns]
        folded[id_] = fold(" ".join(text for text in parts if text.strip()))
    return folded


def _threshold(connection: sqlite3.Connection) -> float:
    row = connection.execute("SELECT value FROM meta WHERE key = 'corpus_near_threshold'").fetchone()
    return float(row[0]) if row else 0.8
