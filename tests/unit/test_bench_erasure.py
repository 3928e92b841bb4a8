"""The benchmarks of erasing and of a wrong clock meet their targets, and notice what is left."""

from __future__ import annotations

import pytest

from bench import erasure
from engine.pipeline import forget


def test_a_wrong_clock_costs_no_backup() -> None:
    (row,) = erasure.wrong_clock(False)
    assert row.met, row.notes


@pytest.mark.long
def test_the_search_finds_files_that_were_not_cleaned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forget, "erase_files", lambda _workspace, _erased: [])
    (row,) = erasure.forget_search(False)
    assert not row.met and "training" in row.notes
