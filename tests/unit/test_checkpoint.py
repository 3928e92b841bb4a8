from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.training import checkpoint
from engine.training.checkpoint import LoopState, find_newest, load, save

WEIGHTS = {"w": torch.arange(6.0).reshape(2, 3)}
STATE = {"momentum/w": torch.ones(2, 3)}


def written(folder: Path, step: int, evaluation: float | None = None, phase: str = "scratch") -> Path:
    state = LoopState(
        phase=phase, step=step, batches_drawn=step, max_steps=100, peak_lr=0.1, last_eval=evaluation
    )
    return save(folder, state, WEIGHTS, STATE)[0]


def test_a_saved_checkpoint_is_read_back(tmp_path: Path) -> None:
    path = written(tmp_path, 7)
    assert path.name == "scratch-0000007"
    found = load(path)
    assert found.state.step == 7
    assert torch.equal(found.weights["w"], WEIGHTS["w"])
    assert torch.equal(found.optimizer["momentum/w"], STATE["momentum/w"])


def seed_all(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def test_random_states_are_restored(tmp_path: Path) -> None:
    seed_all(3)
    path = written(tmp_path, 1)
    wanted = (torch.rand(3).tolist(), random.random(), np.random.rand())
    seed_all(4)
    load(path).rng.restore()
    assert (torch.rand(3).tolist(), random.random(), np.random.rand()) == wanted


@given(
    name=st.sampled_from(
        ["weights.safetensors", "optimizer.safetensors", "random.safetensors", "state.json", "manifest.json"]
    ),
    place=st.floats(0, 0.999),
    bit=st.integers(0, 7),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_is_reported_and_the_older_checkpoint_is_used(
    name: str, place: float, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("flip")
    written(folder, 1)
    path = written(folder, 2)
    data = bytearray((path / name).read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    (path / name).write_bytes(data)
    found = find_newest(folder, "scratch")
    assert found.checkpoint is not None
    assert found.checkpoint.state.step == 1
    assert str(path) in found.damaged[0]
    assert name in found.damaged[0] or name == "manifest.json"


def test_an_incomplete_folder_is_skipped(tmp_path: Path) -> None:
    written(tmp_path, 1)
    cut = written(tmp_path, 4)
    os.truncate(cut / "weights.safetensors", 20)
    (tmp_path / "scratch-0000005").mkdir()
    found = find_newest(tmp_path, "scratch")
    assert found.checkpoint is not None
    assert found.checkpoint.state.step == 1
    assert len(found.damaged) == 2


def test_a_damaged_checkpoint_never_displaces_a_valid_one(tmp_path: Path) -> None:
    written(tmp_path, 1)
    os.truncate(written(tmp_path, 2) / "state.json", 5)
    (tmp_path / "scratch-0000009").mkdir()
    written(tmp_path, 3)
    assert sorted(path.name[-1] for path in tmp_path.iterdir()) == ["1", "3"]


def test_phases_have_separate_checkpoints(tmp_path: Path) -> None:
    written(tmp_path, 9, phase="scratch")
    written(tmp_path, 2, phase="native")
    found = find_newest(tmp_path, "native").checkpoint
    assert found is not None
    assert found.state.step == 2
    assert find_newest(tmp_path / "nothing", "native").checkpoint is None


def test_the_last_two_and_the_best_are_kept(tmp_path: Path) -> None:
    for step, evaluation in enumerate([3.0, 1.0, 2.0, 2.5, None], start=1):
        written(tmp_path, step, evaluation)
    assert sorted(path.name[-1] for path in tmp_path.iterdir()) == ["2", "4", "5"]


def test_a_full_disk_keeps_older_checkpoints_and_leaves_no_partial_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, 1)

    def full(path: Path, data: bytes) -> None:
        path.write_bytes(data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_synced", full)
    with pytest.raises(OSError, match="No space"):
        written(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["scratch-0000001"]


def test_partial_folders_of_a_crash_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".writing-abc").mkdir()
    (tmp_path / ".writing-abc" / "weights.safetensors").write_bytes(b"half")
    written(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["scratch-0000001"]


def test_a_state_file_of_another_program_is_rejected(tmp_path: Path) -> None:
    path = written(tmp_path, 1)
    (path / "extra.bin").write_bytes(b"1")
    assert load(path).state.step == 1
    (path / "manifest.json").write_text('{"schema":1,"files":{"../../etc/passwd":"00"}}')
    with pytest.raises(ValueError, match="names other files"):
        load(path)
    (path / "manifest.json").write_text('{"schema":9,"files":{}}')
    with pytest.raises(ValueError, match="another version"):
        load(path)
