"""H2Q-Evo's streaming configuration sets a run; a models.json is left to be one."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from engine.compat.h2q_config import IGNORED, SUPPORTED, StreamingConfig, read_streaming_config
from engine.core.config import with_overrides
from engine.core.errors import BadInput
from engine.core.settings import Settings
from engine.runs.kinds import TrainParams
from engine.runs.rundir import list_runs
from engine.runs.spec import params_of
from tests.contract.test_help import h2q

H2Q_DEFAULTS = {
    "max_memory_gb": 4.0, "memory_buffer_gb": 0.5, "streaming_batch_size": 1, "micro_batch_size": 1,
    "enable_streaming": True, "stream_buffer_size": 10, "prefetch_buffer_size": 3, "gradient_accumulation_steps": 4,
    "model_memory_limit_mb": 500, "activation_checkpointing": True, "use_mixed_precision": True,
    "data_chunk_size": 32, "max_cached_chunks": 1, "max_sequence_length": 64, "encoding_resolution": 0.01,
    "fixed_point_iterations": 10, "compression_layers": 5, "num_worker_threads": 2, "enable_cpu_affinity": True,
    "use_memory_pool": True,
}  # fmt: skip
"""The fields and defaults of H2Q-Evo's `MemoryEfficientConfig`."""


def written(folder: Path, content: object) -> Path:
    path = folder / "streaming.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_each_field_is_a_setting_or_reported_as_ignored(tmp_path: Path) -> None:
    found = read_streaming_config(written(tmp_path, H2Q_DEFAULTS))
    assert found is not None
    chosen = with_overrides(Settings(), found.settings)
    assert (chosen.memory_buffer_gb, chosen.num_worker_threads, chosen.cpu_affinity) == (0.5, 2, "auto")
    assert (chosen.data_chunk_size, chosen.max_cached_chunks, chosen.gradient_accumulation_steps) == (
        32,
        1,
        4,
    )
    assert found.context == 64
    assert set(found.ignored) == IGNORED
    assert {field.name for field in msgspec.structs.fields(Settings)} >= SUPPORTED


@pytest.mark.parametrize("content", [{"models": [], "max_memory_gb": 4}, {}, [], {"name": "x"}, "text"])
def test_other_files_are_not_read(tmp_path: Path, content: object) -> None:
    assert read_streaming_config(written(tmp_path, content)) is None
    assert read_streaming_config(tmp_path / "none.json") is None


def test_unknown_names_and_invalid_values_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no setting max_memory"):
        read_streaming_config(written(tmp_path, {**H2Q_DEFAULTS, "max_memory": 1}))
    with pytest.raises(BadInput, match="data_chunk_size"):
        read_streaming_config(written(tmp_path, {"data_chunk_size": [1]}))
    assert read_streaming_config(written(tmp_path, {"max_sequence_length": 8})) == StreamingConfig({}, 64, [])


def test_a_run_uses_the_settings_of_its_flags(tmp_path: Path) -> None:
    data = [
        "--data-dir",
        str(tmp_path / "ws"),
        "train",
        "--mode",
        "scratch",
        "--data",
        str(tmp_path),
        "--detach",
    ]
    config = written(tmp_path, {"num_worker_threads": 2, "max_sequence_length": 128, "use_memory_pool": True})
    process = h2q(*data, "--config", str(config), "--set", "micro_batch_size=2", "--unload-ollama")
    assert process.returncode == 0, process.stderr
    assert "use_memory_pool" in process.stderr
    (run,) = list_runs_of(tmp_path / "ws")
    params = params_of(run, TrainParams)
    given = {"num_worker_threads": 2, "micro_batch_size": "2", "unload_ollama": True}
    # What decides the steps is written down beside it, for the day that the run is continued.
    written_down = {"streaming_batch_size": 0, "gradient_accumulation_steps": 0, "lora_hold": 1.0}
    assert params.settings == given | written_down
    assert (params.context, params.config) == (128, None)


@pytest.mark.parametrize(
    ("flag", "word"),
    [
        ("micro_batch_size", "NAME=VALUE"),
        ("micro_batch=2", "micro_batch"),
        ("data_chunk_size=x", "data_chunk_size"),
    ],
)
def test_an_invalid_setting_is_rejected_before_the_run_starts(tmp_path: Path, flag: str, word: str) -> None:
    process = h2q("--data-dir", str(tmp_path / "ws"), "train", "--mode", "scratch", "--set", flag)
    assert process.returncode == 2
    assert word in process.stderr
    assert list_runs_of(tmp_path / "ws") == []


def list_runs_of(folder: Path):  # type: ignore[no-untyped-def]
    from engine.core.paths import Workspace

    return [run.spec for run in list_runs(Workspace(folder))]
