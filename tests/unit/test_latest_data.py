"""`/api/latest-data` for what reads the RL-Swarm monitor: its fields, its order, and readings only."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from engine.compat.latest_data import PERFORMANCE, REWARDS, RewardReader, performance_row, reward_row
from engine.core.paths import Workspace
from engine.machine.probes import MachineProbes, MachineSample
from engine.runs.events import Step
from engine.runs.kinds import CorpusParams
from engine.runs.spec import make_spec
from engine.workspace.open import open_workspace
from tests.tui.live_run import LiveRun, live_run
from tests.web_server import serving
from tui.web import latest_data
from tui.web.latest_data import LatestData

REWARD_FIELDS = {
    "timestamp",
    "round",
    "stage",
    "reward",
    "rank",
    "participants",
    "reward_cny",
    "reward_cny_formatted",
    "eth_rate",
}
PERFORMANCE_FIELDS = {"timestamp", "cpu_usage", "memory_usage", "memory_free", "training_active"}


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return open_workspace(Workspace(tmp_path))


def sample(**changes: Any) -> MachineSample:
    fields: dict[str, Any] = {
        "time": 1_750_822_897.0,
        "cpu_percent": [10.0, 40.0],
        "load": None,
        "memory_total": 1000,
        "memory_used": 520,
        "swap_total": None,
        "swap_used": None,
        "disk_free": None,
        "disk_total": None,
        "disk_full_in_s": None,
        "temperature_c": None,
    }
    return MachineSample(**(fields | changes))


def test_performance_is_in_percent_and_leaves_out_what_is_unknown() -> None:
    row = performance_row(sample(), training=True)
    assert row is not None and row.keys() == PERFORMANCE_FIELDS
    assert (row["cpu_usage"], row["memory_usage"], row["memory_free"]) == (25.0, 52, 48)
    assert row["training_active"] is True
    assert time.strptime(row["timestamp"], "%Y-%m-%d %H:%M:%S")
    assert performance_row(sample(cpu_percent=None), training=False) is None
    assert performance_row(sample(memory_used=None), training=False) is None


@pytest.mark.parametrize("loss", [None, float("nan"), float("inf")])
def test_a_step_without_a_finite_loss_has_no_reward(loss: float | None) -> None:
    step = Step(phase="p", step=1, max_steps=2, loss=loss, lr=0.1, tokens=1, tokens_per_s=1.0)
    assert reward_row(0.0, step, 0) is None


def test_rewards_are_the_newest_steps_of_the_newest_training_newest_first(ws: Workspace) -> None:
    old = LiveRun(ws, now=1_700_000_000.0)
    old.step(7)
    old.end()
    reader = RewardReader(ws)
    assert [row["round"] for row in reader.read()[0]] == [7]
    with live_run(ws, done=REWARDS + 10) as run:
        rows, training = reader.read()
        assert training
        assert [row["round"] for row in rows] == list(range(REWARDS + 10, 10, -1))
        run.step(REWARDS + 11)
        rows, training = reader.read()
        assert len(rows) == REWARDS and rows[0]["round"] == REWARDS + 11
        assert all(row.keys() == REWARD_FIELDS for row in rows)
        # What that monitor's page does with them: `latest.reward.toFixed(4)`.
        assert all(isinstance(row["reward"], float) and row["reward"] < 0 for row in rows)
    assert reader.read()[1] is False


def test_nothing_is_made_up(ws: Workspace) -> None:
    """No run that trains: no reward. With one, no rank among others and no money."""
    LiveRun(ws, spec=make_spec(ws.root, CorpusParams())).end()
    assert RewardReader(ws).read() == ([], False)
    with live_run(ws, done=1):
        (row,) = RewardReader(ws).read()[0]
    assert (row["rank"], row["participants"]) == (1, 1)
    assert (row["reward_cny"], row["reward_cny_formatted"], row["eth_rate"]) == (None, "", None)


def test_stages_count_the_phases(ws: Workspace) -> None:
    run = LiveRun(ws)
    for phase in ("scratch", "native"):
        run.write(Step(phase=phase, step=1, max_steps=2, loss=1.0, lr=0.1, tokens=1, tokens_per_s=1.0))
    run.end()
    assert [(row["stage"], row["round"]) for row in RewardReader(ws).read()[0]] == [(1, 1), (0, 1)]


async def test_samples_are_bounded_and_newest_first(ws: Workspace) -> None:
    data = LatestData(ws)
    for second in range(PERFORMANCE + 5):
        row = performance_row(sample(time=1_750_822_897.0 + second), training=False)
        assert row is not None
        data._rows.append(row)
    rows = (await data.read())["performance"]
    assert len(rows) == PERFORMANCE
    assert [row["timestamp"] for row in rows] == sorted((row["timestamp"] for row in rows), reverse=True)


async def test_the_server_answers_with_readings_of_this_machine(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latest_data, "FIRST_SAMPLE_S", 0.05)
    monkeypatch.setattr(latest_data, "SAMPLE_S", 0.05)
    total = MachineProbes(ws.root).sample().memory_total
    with live_run(ws, done=3):
        async with serving(ws.root) as address, aiohttp.ClientSession() as client:
            url = f"http://127.0.0.1:{address.port}/api/latest-data"
            answer: dict[str, Any] = {"performance": []}
            while not answer["performance"]:
                async with client.get(url, params={"token": address.token}) as response:
                    assert response.content_type == "application/json"
                    answer = await response.json()
    assert answer.keys() == {"rewards", "performance"}
    assert [row["round"] for row in answer["rewards"]] == [3, 2, 1]
    row = answer["performance"][0]
    assert row.keys() == PERFORMANCE_FIELDS and row["training_active"] is True
    assert total and 0 < row["memory_usage"] < 100 and row["memory_usage"] + row["memory_free"] == 100
    assert 0 <= row["cpu_usage"] <= 100
