"""Rule suggestions: what rejections share and accepted conversations do not, with its figures."""

from __future__ import annotations

from pathlib import Path

from engine.core.settings import Settings
from engine.corpus.build import build_corpus
from engine.corpus.review.rule_suggestions import suggest_rules
from engine.corpus.review.store import ReviewStore
from tests.corpus_store import conversation, distinct, memory

SORRY = "As an AI language model, I cannot have opinions on {}, but many people do."
TOPICS = [
    "music",
    "politics",
    "football",
    "weather",
    "painting",
    "cooking",
    "travel",
    "history",
    "chess",
    "gardening",
    "poetry",
    "theatre",
]


def store_of(folder: Path) -> ReviewStore:
    talks = [distinct(n, at=1e9 + n) for n in range(40)]
    talks += [
        conversation(f"ai{n}", f"{topic.title()} {n * n}, {topic}?", SORRY.format(topic * 3), at=1e8 + n)
        for n, topic in enumerate(TOPICS)
    ]
    with memory(folder, talks) as store:
        build_corpus(store, Settings(near_threshold=1.0))
    return ReviewStore(folder / "memory" / "memory.db")


def test_a_phrase_shared_by_rejections_is_suggested_with_its_figures(tmp_path: Path) -> None:
    with store_of(tmp_path) as store:
        store.decide_many([f"ai{n}" for n in range(7)], "rejected")
        store.decide_many([f"c{n:05d}" for n in range(6)], "accepted")
        store.decide("c00030", "rejected")
        found = suggest_rules(store)
        best = next(one for one in found if "As an AI language model" in one.line)
        assert best.line.startswith('"') and best.line.endswith('"')
        assert (best.rejected, best.of_rejected, best.accepted, best.of_accepted, best.others) == (
            7,
            8,
            0,
            6,
            5,
        )
        assert best.precision == 1.0
        assert not any(one.line == "source:test" for one in found)
        store.set_rule(best.line)
        assert store.count("state:rejected") == 13
        assert all(one.line != best.line for one in suggest_rules(store))
        store.undo()
        assert store.count("state:rejected") == 8


def test_a_phrase_shared_by_accepted_conversations_is_not_suggested(tmp_path: Path) -> None:
    with store_of(tmp_path) as store:
        store.decide_many([f"ai{n}" for n in range(6)], "rejected")
        assert suggest_rules(store)
        store.decide_many([f"ai{n}" for n in range(6, 9)], "accepted")
        assert not any("AI" in one.line for one in suggest_rules(store))


def test_few_rejections_suggest_nothing(tmp_path: Path) -> None:
    with store_of(tmp_path) as store:
        store.decide_many([f"ai{n}" for n in range(4)], "rejected")
        assert suggest_rules(store) == []
        store.decide("ai4", "rejected")
        assert suggest_rules(store)
        store.undo()
        assert suggest_rules(store) == []
