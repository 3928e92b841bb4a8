"""Which near duplicate is kept, and that a corpus does not depend on import order and hashing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from engine.core.settings import Settings
from engine.corpus.build import build_corpus
from engine.corpus.review.store import ReviewStore
from engine.memory.records import Conversation
from engine.memory.store import MemoryStore
from tests.corpus_store import conversation, distinct, memory

_FORMS = ("", "！", "对吧", "对吧，就这样", "，就是这样的意思了")


def form(number: int, which: int, at: float | None) -> Conversation:
    question, answer = (turn.text for turn in distinct(number).turns)
    return conversation(f"n{number}f{which}", question, answer + _FORMS[which], at=at)


_TALKS = st.lists(
    st.builds(
        form,
        st.integers(0, 3),
        st.integers(0, len(_FORMS) - 1),
        st.sampled_from([None, 1e6, 2e6, 3e6]),
    ),
    min_size=2,
    max_size=12,
    unique_by=lambda talk: talk.id,
)


def corpus(store: MemoryStore) -> list[tuple[object, ...]]:
    return store.connection.execute(
        "SELECT conversation_id, state, stage, reason, twin, cluster, split FROM corpus ORDER BY 1"
    ).fetchall()


@settings(
    max_examples=20,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
@given(_TALKS, st.data())
def test_the_best_near_duplicate_is_kept_in_any_import_order(
    talks: list[Conversation], data: st.DataObject
) -> None:
    other = data.draw(st.permutations(talks))
    accepted = data.draw(st.sets(st.sampled_from([talk.id for talk in talks]), max_size=2))
    found = []
    for order in (talks, other):
        with (
            tempfile.TemporaryDirectory() as folder,
            memory(Path(folder), order) as store,
            ReviewStore(store.path) as review,
        ):
            build_corpus(store, Settings())
            for id_ in sorted(accepted):
                review.decide(id_, "accepted")
            build_corpus(store, Settings())
            found.append(corpus(store))
    assert found[0] == found[1]
    states = {str(row[0]): (row[1], row[4]) for row in found[0]}
    size = {talk.id: sum(len(turn.text) for turn in talk.turns) for talk in talks}
    for id_, (state, twin) in sorted(states.items()):
        if state != "dropped":
            continue
        assert id_ not in accepted
        # A duplicate of a near duplicate: the chain ends at one that is kept.
        for _ in range(2):
            assert isinstance(twin, str)
            if states[twin][0] == "dropped":
                assert size[twin] >= size[id_]
                twin = states[twin][1]
        assert isinstance(twin, str) and states[twin][0] == "accepted"
        assert twin in accepted or size[twin] >= size[id_]


_BUILD = """
import sys
from pathlib import Path
from engine.core.settings import Settings
from engine.corpus.build import build_corpus
from engine.corpus.split import open_window
from engine.memory.store import MemoryStore
from tests.unit.test_deduplication import form, distinct

with MemoryStore(Path(sys.argv[1])) as store:
    talks = [form(n, which, None if n % 2 else 1e6 * n) for n in range(12) for which in range(5)]
    store.add([*talks, *(distinct(100 + n, at=1e6 * n) for n in range(60))], "test", "test")
    build_corpus(store, Settings(near_threshold=0.7), now=1.0)
    open_window(store, 1.0)
    for table in ("corpus", "ledger", "assessments", "window_members", "test_windows"):
        for row in store.connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3"):
            print(row)
"""


def test_a_corpus_is_equal_in_every_process(tmp_path: Path) -> None:
    outputs = []
    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", _BUILD, str(tmp_path / f"{seed}.db")],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            check=True,
        )
        outputs.append(run.stdout)
    assert outputs[0] == outputs[1]
    assert outputs[0].count(b"near_duplicate") > 5
