"""What another threshold would change is what the build then does."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import Settings
from engine.corpus.build import build_corpus
from engine.corpus.threshold import outcome
from engine.memory.store import MemoryStore
from tests.corpus_store import conversation, distinct, memory


def near(store: MemoryStore) -> set[str]:
    return {
        id_
        for (id_,) in store.connection.execute(
            "SELECT conversation_id FROM corpus WHERE automatic = 'dropped' AND stage = 'near'"
        )
    }


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9, 1.0])
def test_the_outcome_is_that_of_the_build(tmp_path: Path, threshold: float) -> None:
    talks = [distinct(n, at=1e9 + n) for n in range(10)]
    words = [f"word{n * n}" for n in range(60)]
    for step in range(8):
        answer = " ".join(words[: 60 - step * 3] + [f"other{step}x{n}" for n in range(step * 3)])
        talks.append(
            conversation(f"n{step}", "Tell me all of the words that you know", answer, at=1e8 + step)
        )
    with memory(tmp_path, talks) as store:
        build_corpus(store, Settings())
        before = near(store)
        told = outcome(store, threshold)
        build_corpus(store, Settings(near_threshold=threshold))
        after = near(store)
    assert (told.now, told.then) == (len(before), len(after))
    assert (told.leave, told.back) == (len(after - before), len(before - after))
