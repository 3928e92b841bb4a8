"""Repeated conversations of an incremental native run, and the sample for the forgetting test."""

from __future__ import annotations

import json
from pathlib import Path

from engine.models.card import Lineage
from engine.runs.events import Log
from engine.training.chat_batches import read_windows
from engine.training.replay import MAX_SAMPLE, replay_counts_for, sample_of_older
from tests.hf_models import talks
from tests.unit.training_run import events, new_run


def dataset(folder: Path, count: int) -> Path:
    path = folder / "data.jsonl"
    rows = talks([(f"question {number}", "An answer of some length.") for number in range(count)])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_half_of_the_windows_are_older_conversations_and_this_is_logged(tmp_path: Path) -> None:
    data, ctx = dataset(tmp_path, 10), new_run(tmp_path)
    older = Lineage(conversations=["c0", "c1", "gone"]).conversations
    repeats = replay_counts_for(ctx, data, older)
    assert repeats == {"c0": 4, "c1": 4}
    names = read_windows(data, 256, repeats).names
    assert sum(name in older for name in names) * 2 >= len(names) == 16
    assert any("2 older conversations, 4 times per epoch, with 8 new" in log.text for log in events(ctx, Log))


def test_a_first_run_repeats_nothing_and_logs_nothing(tmp_path: Path) -> None:
    ctx = new_run(tmp_path)
    assert replay_counts_for(ctx, dataset(tmp_path, 3), []) == {}
    assert events(ctx, Log) == []


def test_the_sample_of_older_conversations_is_deterministic(tmp_path: Path) -> None:
    data = dataset(tmp_path, 60)
    older = [f"c{number}" for number in range(50)]
    sample = sample_of_older(data, older)
    assert len(sample) == MAX_SAMPLE and {one.id for one in sample} <= set(older)
    assert sample == sample_of_older(data, older[::-1])
    assert sample_of_older(data, []) == []
