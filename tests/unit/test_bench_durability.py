"""Acknowledged state survives power failures, failed writes and flipped bits; and the benchmark detects faults."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import bit_flips, durability, overhead
from engine.training import checkpoint
from engine.training.checkpoint import LoopState
from tests.unit.training_run import tiny


def test_acknowledged_state_survives_every_power_failure() -> None:
    for counts in (durability.saves_crash(6, 2), durability.promotions_crash(4)):
        assert (counts.wrong, counts.first) == (0, "")
        assert counts.states > 60


def write_without_fsync(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(fd, data)
    os.close(fd)


def remove_before_rename(folder: Path, state: LoopState) -> Path:
    path = folder / f"{state.phase}-{state.batches_drawn:07d}"
    if path.exists():
        shutil.rmtree(path)
    return path


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("write_synced", write_without_fsync),
        ("fsync_dir", lambda _folder: None),
        ("make_dirs", lambda folder: folder.mkdir(parents=True, exist_ok=True)),
        ("_unused_path", remove_before_rename),
    ],
)
def test_a_missing_fsync_or_an_early_removal_is_detected(
    name: str, fault: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, name, fault)
    assert durability.saves_crash(6, 2).wrong > 0


def test_older_checkpoints_survive_any_failed_file_operation() -> None:
    (row,) = durability.io_errors(False)
    assert row.met, row.notes


def test_every_flipped_bit_is_detected() -> None:
    rows = bit_flips.bit_flips(False, total=100)
    assert [row.notes for row in rows if not row.met] == []


def test_the_cost_of_a_checkpoint_is_that_of_the_thread_and_of_the_step_that_copies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(overhead, "recipe_for", lambda _params, _phase: tiny())
    monkeypatch.setattr(overhead, "SCALED_S", 1e-6)
    first, second = overhead.overhead(False, steps=6)
    assert 0 < first.ours < 3.5
    assert "checkpoints and without" in second.notes
