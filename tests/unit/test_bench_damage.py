"""The benchmark of damaged memories: nothing is silently wrong, and it notices what is."""

from __future__ import annotations

import pytest

from bench import damaged_memory
from engine.memory import checksums


def test_no_damaged_copy_is_silently_wrong() -> None:
    counts = damaged_memory.try_copies(16, seed=11)
    assert (counts.silent, counts.unforeseen, counts.quoted, counts.examples) == (0, 0, 0, [])
    assert (counts.restored, counts.backed_up_as_sound) == (16, 0)
    assert counts.told > 4


def test_the_benchmark_notices_a_reader_without_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksums, "is_intact", lambda *_args: True)
    assert damaged_memory.try_copies(16, seed=11).silent > 0
