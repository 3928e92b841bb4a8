"""The conversations that would decide a verdict: counted as the windows of the corpus are cut."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from bench.verdict import cases_of
from engine.core.settings import Settings
from engine.corpus import split
from engine.corpus.build import build_corpus
from engine.corpus.clusters import MIN_CLUSTERS
from engine.corpus.next_window import WindowOutlook, assumed_outlook, read_outlook
from engine.memory.store import MemoryStore
from engine.validation.sequential import alpha_for, groups_needed
from engine.validation.verdict import nll_verdict
from tests.corpus_store import conversation, distinct, memory

DAY = 86400.0


def add(store: MemoryStore, start: int, count: int, *, dated: bool = True) -> None:
    new = [distinct(n, at=DAY * n if dated else None) for n in range(start, start + count)]
    store.add(new, "test", f"more {start}")
    build_corpus(store, Settings())


@pytest.mark.parametrize(("groups", "expected"), [(20, 20), (22, 84), (25, 104)])
def test_the_window_opens_with_the_last_conversation_that_was_said(
    tmp_path: Path, groups: int, expected: int
) -> None:
    with memory(tmp_path, []) as store:
        add(store, 0, 80)
        first = split.open_window(store, 1.0)
        said = read_outlook(store, frozenset()).conversations_until(groups)
        assert said == expected
        add(store, 80, said - 1)
        # Reads only: what would be chosen now.
        assert read_outlook(store, frozenset()).next_size(0) < groups
        assert read_outlook(store, frozenset()).conversations_until(groups) == 1
        add(store, 80 + said - 1, 1)
        second = split.open_window(store, 2.0)
        assert second.id != first.id and len(second.clusters) == groups


def test_what_was_trained_on_is_not_held_out_any_more(tmp_path: Path) -> None:
    with memory(tmp_path, []) as store:
        add(store, 0, 80)
        window = split.open_window(store, 1.0)
        trained = frozenset(f"c{n:05d}" for n in range(80)) - set(window.conversations)
        outlook = read_outlook(store, trained)
        assert (outlook.fresh, outlook.total, outlook.window) == (0, 80, 20)
        said = outlook.conversations_until(22)
        assert said == math.ceil(21.5 / 0.15)
        add(store, 80, said)
        assert len(split.open_window(store, 2.0, trained=trained).clusters) == 22


def test_undated_conversations_wait_only_below_the_edge_of_the_window(tmp_path: Path) -> None:
    with memory(tmp_path, []) as store:
        add(store, 0, 80, dated=False)
        first = split.open_window(store, 1.0)
        assert not first.dated
        said = read_outlook(store, frozenset()).conversations_until(20)
        assert said is not None and said > 50
        found = 0
        while split.open_window(store, 2.0).id == first.id:
            add(store, 80 + found, 10, dated=False)
            found += 10
        assert found / 1.5 <= said <= found * 1.5


def test_several_conversations_of_a_cluster_count(tmp_path: Path) -> None:
    """Conversations of one cluster are one group of the test set."""
    question = "早先问过的这个问题究竟应该怎么办才好呢"
    talks = [distinct(n, at=DAY * n) for n in range(60)]
    talks += [
        conversation(f"same{n}", f"{question}", distinct(500 + n).turns[1].text, at=DAY * n)
        for n in range(20)
    ]
    with memory(tmp_path, talks) as store:
        build_corpus(store, Settings())
        outlook = read_outlook(store, frozenset())
    assert outlook.total < 80
    assert outlook.conversations_per_cluster == pytest.approx(80 / outlook.total)
    ours, alone = outlook, replace(outlook, conversations_per_cluster=1.0)
    assert (alone.conversations_until(40), ours.conversations_until(40)) == (203, math.ceil(203 * 80 / 61))


@pytest.mark.parametrize("look", [1, 2, 5, 10])
def test_a_verdict_counts_conversations_of_a_new_window_at_its_first_look(look: int) -> None:
    verdict = nll_verdict(cases_of(0.25, 45), base_name="a", new_name="b", look=look, general=None)
    target = groups_needed(0.02, 0.25 * 0.02, alpha_for(1))
    assert target is not None and verdict.needed_cases is not None
    # A window takes 15 % of what is untrained; of the 300 conversations of this corpus 45 have been tested on.
    assert verdict.needed_cases == pytest.approx(target / 0.15 - 255, abs=4)
    assert f"About {verdict.needed_cases} more conversations would decide it." in verdict.sentence
    assert f"a test set of {target} groups would decide it at its first look" in verdict.reasons


def test_the_corpus_changes_what_is_said() -> None:
    def needed(outlook: WindowOutlook) -> int:
        verdict = nll_verdict(
            cases_of(0.25, 45), base_name="a", new_name="b", look=1, general=None, outlook=outlook
        )
        assert verdict.needed_cases is not None
        return verdict.needed_cases

    usual = needed(WindowOutlook(fresh=255, total=300, window=45))
    assert needed(WindowOutlook(fresh=0, total=300, window=45)) == usual + 255
    doubled = WindowOutlook(fresh=255, total=300, window=45, conversations_per_cluster=2.0)
    assert needed(doubled) == 2 * usual


def test_a_window_that_is_enough_at_its_first_look_needs_twenty_new_groups() -> None:
    """At the tenth look a gain is not found that any new window finds."""
    verdict = nll_verdict(cases_of(0.55, 45), base_name="a", new_name="b", look=10, general=None)
    assert verdict.decision == "keep" and verdict.needed_cases == MIN_CLUSTERS


@pytest.mark.parametrize(("groups", "needed"), [(19, 2), (15, 10), (2, 36)])
def test_too_small_a_corpus_says_the_conversations_for_a_window(groups: int, needed: int) -> None:
    """A window holds at most half of the corpus."""
    verdict = nll_verdict(cases_of(1.0, groups), base_name="a", new_name="b", look=1, general=None)
    assert verdict.needed_cases == needed
    assert f"About {needed} more conversations are needed for a verdict." in verdict.sentence


def test_nothing_known_needs_forty() -> None:
    assert assumed_outlook(0, 0).conversations_until(20) == 40


def test_an_impossible_window_is_not_counted() -> None:
    assert WindowOutlook(fresh=0, total=0, waiting_share=0.0, window=20).conversations_until(20) is None
