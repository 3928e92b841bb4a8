"""Both watermarks of Apple's GPU follow from the budget, before torch is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.paths import Workspace
from engine.runs import launch
from engine.runs.allocator_env import (
    HIGH_WATERMARK,
    LOW_WATERMARK,
    ONEDNN_CACHE,
    limit_device_memory,
    limit_onednn_cache,
    recommended_mb,
    watermarks,
)
from engine.runs.kinds import TrainParams
from engine.runs.launch import create_run
from engine.runs.spec import make_spec


@pytest.mark.parametrize(
    ("memory_gb", "metal_mb"), [(8, 5461), (16, 10923), (32, 21845), (36, 27648), (64, 49152)]
)
def test_the_size_recommended_by_metal_follows_from_the_memory(memory_gb: int, metal_mb: int) -> None:
    # As llama.cpp prints recommendedMaxWorkingSetSize on these machines, there in 10^6 bytes.
    assert recommended_mb(memory_gb * 1024) == pytest.approx(metal_mb, abs=1)


@given(st.floats(1, 1e6), st.floats(4096, 1e6))
def test_device_and_host_memory_fit_the_budget_and_torch_accepts_the_watermarks(
    budget: float, memory: float
) -> None:
    high, low = watermarks(budget, memory)
    # torch wants 0 <= low <= high <= 2, and takes 0 for no bound at all.
    assert 0 < low <= high <= 1.0
    if budget > 600 and high > 0.01:
        assert high * recommended_mb(memory) <= budget * 1.001


def test_watermarks_of_four_gigabytes_on_a_mac_mini() -> None:
    assert watermarks(4096, 16 * 1024) == (0.3384, 0.2707)


@pytest.mark.parametrize(
    ("own", "high"), [("", 0.3384), ("0.0", 0.3384), ("none", 0.3384), ("0.2", 0.2), ("1.7", 0.3384)]
)
def test_a_lower_watermark_of_the_user_stays_and_a_disabled_one_does_not(own: str, high: float) -> None:
    environment = {HIGH_WATERMARK: own} if own else {}
    limit_device_memory(4096, environment, 16 * 1024)
    assert float(environment[HIGH_WATERMARK]) == high
    assert 0 < float(environment[LOW_WATERMARK]) <= high


def test_the_onednn_cache_is_reduced_unless_the_user_set_its_size() -> None:
    ours: dict[str, str] = {}
    own = {ONEDNN_CACHE: "9"}
    for environment in (ours, own):
        limit_onednn_cache(environment)
    assert (ours[ONEDNN_CACHE], own[ONEDNN_CACHE]) == ("256", "9")


def test_the_watermarks_are_set_before_the_entry_point_is_imported(tmp_path: Path) -> None:
    program = f"""
import os, platform, sys
from pathlib import Path
platform.system = lambda: "Darwin"
from engine.core.paths import Workspace
from engine.runs import runner
from engine.runs.launch import create_run
from engine.runs.spec import TrainParams, make_spec
def carry(context, code):
    print(context.budget_mb, os.environ["{HIGH_WATERMARK}"] > "0", "torch" in sys.modules)
    raise SystemExit
runner._execute = carry
runner._stay_awake = lambda: ""
ws = Workspace(Path({str(tmp_path)!r}))
runner.main(create_run(ws, make_spec(ws.root, TrainParams(max_memory_gb=2.0))).path)
"""
    environment = {
        key: value for key, value in os.environ.items() if key not in (HIGH_WATERMARK, LOW_WATERMARK)
    }
    process = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env=environment,
    )
    assert process.stdout.split() == ["2048.0", "True", "False"], process.stderr


@pytest.mark.parametrize(("flag_gb", "mb"), [(None, 3072), (1.5, 1536)])
def test_a_systemd_scope_is_limited_to_the_budget(tmp_path: Path, flag_gb: float | None, mb: int) -> None:
    ws = Workspace(tmp_path)
    ws.settings_file.parent.mkdir(parents=True)
    ws.settings_file.write_text("max_memory_gb = 3.0\n")
    command = launch._scope_command(create_run(ws, make_spec(ws.root, TrainParams(max_memory_gb=flag_gb))))
    assert f"--property=MemoryMax={mb << 20}" in command
