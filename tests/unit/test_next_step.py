"""What the line above the footer says in each state of a workspace."""

from __future__ import annotations

import pytest

from engine.runs.estimates import Estimate
from tui.actions import keys_in_use
from tui.app.next_step_text import NextFacts, Now, next_step

BUILT = NextFacts(in_memory=705, collected=705, accepted=667, train=567)
ESTIMATE = Estimate(seconds={"native": 300.0, "validate": 60.0}, steps=100, memory_mb=614.0, run="")


def now(tab: str = "train", *, training: bool = False, preparing: bool = False) -> Now:
    return Now(tab, keys_in_use({}), training=training, preparing=preparing)


@pytest.mark.parametrize(
    ("facts", "tab", "said"),
    [
        (NextFacts(), "train", "2 i imports conversations → the corpus is built from them → n trains"),
        (NextFacts(), "corpus", "i imports conversations → the corpus is built from them → 1 n trains"),
        (
            NextFacts(in_memory=705, collected=300, accepted=290, train=200),
            "chat",
            "705 in memory → 2 b builds the corpus → 1 n trains",
        ),
        (BUILT, "train", "705 in memory → 667 in the corpus → n trains them"),
        (
            NextFacts(
                in_memory=705, collected=705, accepted=667, train=567, estimate=ESTIMATE, budget_mb=4096.0
            ),
            "train",
            "705 in memory → 667 in the corpus → n trains them (about 6 min, 0.6 of 4.0 GB)",
        ),
        (
            NextFacts(in_memory=705, collected=705, accepted=668, train=567, unassigned=1),
            "corpus",
            "705 in memory → 668 in the corpus → 1 decision not built in yet → b builds the corpus",
        ),
        (
            NextFacts(in_memory=9, collected=9, accepted=0, train=0),
            "corpus",
            "9 in memory → 0 in the corpus → i imports more",
        ),
        (
            NextFacts(in_memory=705, collected=705, accepted=667, train=567, trained=567, in_use="n-1"),
            "train",
            "567 trained → 3 shows the verdict → 2 i imports more",
        ),
        (
            NextFacts(
                in_memory=705,
                collected=705,
                accepted=667,
                train=567,
                trained=567,
                in_use="n-1",
                trained_in_use=True,
            ),
            "health",
            "n-1 is in use → 4 asks it → 2 i imports more",
        ),
        (
            NextFacts(
                in_memory=705,
                collected=705,
                accepted=667,
                train=567,
                trained=567,
                in_use="n-1",
                trained_in_use=True,
            ),
            "hive",
            "n-1 is in use → P shares it",
        ),
        (
            NextFacts(in_memory=705, collected=705, accepted=667, train=567, trained=500, in_use="n-1"),
            "train",
            "705 in memory → 667 in the corpus → n trains them",
        ),
    ],
)
def test_the_next_step_follows_from_what_the_workspace_has(facts: NextFacts, tab: str, said: str) -> None:
    assert next_step(facts, now(tab)) == said


def test_runs_come_before_what_is_left_to_do() -> None:
    assert next_step(BUILT, now(training=True)).startswith("training → the verdict follows")
    preparing = next_step(NextFacts(in_memory=3), now("corpus", preparing=True))
    assert preparing == "3 in memory → the corpus is being built → then 1 n trains"


def test_own_keys_are_named() -> None:
    own = Now("train", keys_in_use({"train.new": "N"}))
    assert next_step(BUILT, own).endswith("N trains them")
