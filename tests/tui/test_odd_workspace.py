"""Any value in a journal, and any content of a file of the workspace, lets the app open and show every tab."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from engine.core.paths import Workspace
from engine.runs.kinds import TrainParams
from engine.runs.launch import create_run
from engine.runs.spec import make_spec
from tests.tui.helpers import until
from tui.app.app import H2QApp

STEP = {
    "phase": "native",
    "step": 5,
    "max_steps": 10,
    "loss": 2.0,
    "lr": 0.1,
    "tokens": 1,
    "tokens_per_s": 1.0,
}
HUGE = (1e18, -1e18, 1e300, 1.7e12)
EXTREMES = (1e308, -1e308, 1e-320, 0, -1, 2**62)


def record(kind: str, data: dict[str, object], *, t: float = 1.7e9) -> dict[str, object]:
    return {"v": 1, "kind": kind, "t": t, "data": data}


def odd_records() -> dict[str, list[dict[str, object]]]:
    """Records of each kind with times and figures that no engine writes."""
    verdicts: list[object] = [{"x": 1}, None, [], "x"]
    odd: dict[str, list[dict[str, object]]] = {
        "times": [record("log", {"level": "info", "text": f"at {t}"}, t=t) for t in HUGE]
        + [record("stage", {"name": "native", "state": "started"}, t=t) for t in HUGE],
        "progress": [
            record("progress", {"stage": "native", "done": done, "total": total, "eta_s": eta})
            for done in EXTREMES
            for total in EXTREMES
            for eta in (1e308, -1e300)
        ],
        "memory": [
            record("memory", {"used_mb": x, "peak_mb": x, "budget_mb": y}) for x in EXTREMES for y in EXTREMES
        ],
        "epoch": [
            record(
                "epoch",
                {"phase": "native", "epoch": 1, "epochs": 1, "train_loss": x, "seconds": x, "lr": 1},
            )
            for x in EXTREMES
        ],
        "verdict": [
            record(
                "verdict", {"base": "a", "new": "b", "decision": "zz", "sentence": "x", "verdict": verdict}
            )
            for verdict in verdicts
        ],
        "checkpoint": [
            record("checkpoint", {"phase": "native", "step": 1, "path": "x", "seconds": x, "bytes": 2**62})
            for x in EXTREMES
        ],
        "cycle": [record("cycle", {"cycle": -1, "cycles": 0, "state": "zz", "champion": "x"})],
        "finished": [record("finished", {"status": "done", "exit_code": 0}, t=1e300)],
    }
    for field in ("loss", "lr", "tokens_per_s", "eta_s", "grad_norm", "step", "max_steps"):
        odd[f"step {field}"] = [
            record("step", {**STEP, field: int(x) if field in ("step", "max_steps") else x})
            for x in EXTREMES
            if abs(x) < 2**63 or field not in ("step", "max_steps")
        ]
    return odd


async def test_runs_with_odd_records_are_shown(tmp_path: Path) -> None:
    ws = Workspace(tmp_path)
    odd = odd_records()
    for name in odd:
        run = create_run(ws, make_spec(ws.root, TrainParams()))
        lines = [record("started", {"pid": 1, "program": name}), record("step", dict(STEP)), *odd[name]]
        run.events_path.write_text(
            "".join(json.dumps({**line, "seq": seq}) + "\n" for seq, line in enumerate(lines)), "utf-8"
        )
    app = H2QApp(ws)
    shown = set()
    async with app.run_test(size=(110, 35)) as pilot:
        await until(pilot, lambda: len(app.board.runs) == len(odd))
        for run_entry in list(app.board.runs):
            await until(pilot, lambda id_=run_entry.run_id: app.board.view(id_) is not None)  # type: ignore[misc]
            shown.add(run_entry.run_id)
            for key in ("v", "Y", "o", "o", "]"):
                await pilot.press(key)
                await pilot.pause()
    assert len(shown) == len(odd)


ODD_FILES = {
    "config/models.json": ["[]", "{", "[" * 100_000, '{"default_model": 5, "brain_models": []}'],
    "config/h2q.toml": ["x = [", "max_memory_gb = 'a'", "\x00\x01"],
    "config/last_seen.json": ['{"at": 1e300}', "[" * 100_000],
    "config/schedule.json": ["{}", "["],
    "models/a/h2q.json": ["", "{", "[" * 100_000, '{"name": "a", "created_at": 1e300}'],
    "training/report_x.json": ["[" * 100_000, "[1,2]"],
    "memory/memory.db": ["", "garbage" * 1000],
    "runs/x": ["y"],
}


@pytest.mark.parametrize("round_", range(4))
async def test_a_workspace_with_odd_files_is_opened(tmp_path: Path, round_: int) -> None:
    ws = Workspace(tmp_path)
    for name, contents in ODD_FILES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(contents[round_ % len(contents)], "utf-8")
    broken = create_run(ws, make_spec(ws.root, TrainParams()))
    if round_ % 2:
        broken.events_path.mkdir()
    else:
        broken.events_path.write_bytes(os.urandom(20_000))
    app = H2QApp(ws)
    async with app.run_test(size=(110, 35)) as pilot:
        for key in ("1", "2", "3", "4", "5", "1"):
            await pilot.press(key)
            await pilot.pause(0.05)
        assert app.is_running
