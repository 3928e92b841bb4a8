"""Figures for other programs: Prometheus, JSON lines, TensorBoard, and the dashboard of Grafana."""

from __future__ import annotations

import json
import re
import struct
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.core.errors import ServiceUnreachable, UsageProblem
from engine.core.paths import Workspace, shipped
from engine.machine.probes import MachineProbes
from engine.runs.events import Evaluated, Log, ModelSample, RunStatus
from engine.runs.kinds import TrainMode, TrainParams
from engine.runs.spec import make_spec
from engine.sinks.figure_lines import LineWriter
from engine.sinks.metrics import METRICS
from engine.sinks.prometheus import MetricsServer
from engine.sinks.tensorboard import TensorBoardWriter
from engine.workspace.open import open_workspace
from tests.cli import run_cli
from tests.tui.live_run import LiveRun, live_run

SECRET = "my private words"


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return open_workspace(Workspace(tmp_path / "workspace"))


@pytest.fixture
def run(ws: Workspace) -> Iterator[LiveRun]:
    """A live run with an evaluation, and with private text wherever a run holds text."""
    with live_run(ws, steps=200, done=20) as going:
        going.write(Evaluated(phase="native", step=20, name="held-out", loss=2.25))
        going.write(ModelSample(phase="native", step=20, prompt=SECRET, text=SECRET))
        going.write(Log(level="info", text=SECRET))
        yield going


def scrape(server: MetricsServer, **headers: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Values by metric and labels."""
    request = urllib.request.Request(server.url, headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read().decode()
    assert SECRET not in text
    return {
        family.name: {tuple(sorted(sample.labels.items())): sample.value for sample in family.samples}
        for family in text_string_to_metric_families(text)
    }


def test_prometheus_gets_the_figures_of_machine_and_run(ws: Workspace, run: LiveRun) -> None:
    with closing(MetricsServer(ws, 0)) as server:
        assert server.url.startswith("http://127.0.0.1:")
        found = scrape(server)
    labels = (("kind", "train"), ("run", run.dir.run_id))
    phase = (*labels[:1], ("phase", "native"), *labels[1:])
    assert found["h2q_run_alive"] == {labels: 1.0}
    assert found["h2q_run_step"] == {phase: 20.0}
    assert found["h2q_run_max_steps"] == {phase: 200.0}
    assert found["h2q_run_memory_bytes"] == {labels: 2100.0 * 1024 * 1024}
    assert found["h2q_run_eval_loss"][tuple(sorted([*phase, ("name", "held-out")]))] == 2.25
    status = {dict(key)["status"]: value for key, value in found["h2q_run_status"].items()}
    assert {name for name, value in status.items() if value} == {"running"}
    assert found["h2q_memory_total_bytes"][()] >= found["h2q_memory_used_bytes"][()] > 0


def test_only_figures_of_the_table_are_exported(ws: Workspace, run: LiveRun) -> None:
    """No figure of the exporter's own process, as a default registry would add."""
    with closing(MetricsServer(ws, 0)) as server:
        found = scrape(server)
    table = {metric.name: metric for metric in METRICS}
    assert found.keys() <= table.keys()
    for name, samples in found.items():
        assert {label for key in samples for label, _value in key} <= set(table[name].labels)


def test_a_run_that_ends_is_told_once_more(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.sinks.prometheus.FRESH_S", 0.0)
    params = TrainParams(mode=TrainMode.NATIVE, model=SECRET, output=SECRET, data=[SECRET])
    run = LiveRun(ws, spec=make_spec(ws.root, params))
    with closing(MetricsServer(ws, 0)) as server:
        assert set(scrape(server)["h2q_run_alive"].values()) == {1.0}
        run.step(1)
        run.end(RunStatus.DONE)
        found = scrape(server)
    assert set(found["h2q_run_alive"].values()) == {0.0}
    assert {dict(key)["status"] for key, value in found["h2q_run_status"].items() if value} == {"done"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:9108"}, 403),
        ({"Host": "127.0.0.1.nip.io"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_pages_of_a_browser_are_refused(ws: Workspace, headers: dict[str, str], status: int) -> None:
    with closing(MetricsServer(ws, 0)) as server:
        try:
            scrape(server, **headers)
            got = 200
        except urllib.error.HTTPError as problem:
            got = problem.code
    assert got == status


def test_a_port_that_is_taken_is_one_sentence(ws: Workspace) -> None:
    with closing(MetricsServer(ws, 0)) as server:
        port = int(server.url.split(":")[2].split("/")[0])
        with pytest.raises(ServiceUnreachable, match=str(port)):
            MetricsServer(ws, port)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_json_lines_hold_what_happens_from_now_on(ws: Workspace, run: LiveRun, tmp_path: Path) -> None:
    path = tmp_path / "figures.jsonl"
    path.write_text('{"kind": "mine"}\n', encoding="utf-8")
    with closing(LineWriter(ws, path, since=time.time())) as writer:
        sample = MachineProbes(ws.root).sample()
        assert writer.write(sample) == 1
        run.step(21)
        run.write(Log(level="info", text=SECRET))
        run.write(Evaluated(phase="native", step=21, name="held-out", loss=None, finite=False))
        assert writer.write(sample) == 3
    rows = lines_of(path)
    assert [row["kind"] for row in rows] == ["mine", "machine", "machine", "step", "evaluated"]
    assert rows[3]["step"] == 21 and rows[3]["run"] == run.dir.run_id and rows[3]["loss"] > 0
    assert rows[4]["loss"] is None
    assert SECRET not in path.read_text(encoding="utf-8")


def test_a_link_is_not_written_through(ws: Workspace, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("as it was", encoding="utf-8")
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(UsageProblem):
        LineWriter(ws, tmp_path / "link", since=0.0)
    assert target.read_text(encoding="utf-8") == "as it was"


def scalars_in(folder: Path) -> list[tuple[str, int, float]]:
    """(tag, step, value) of the event files in a folder, by TensorBoard's format: TFRecords of Event messages."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in sorted(folder.glob("events.out.tfevents.*")):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            data = data[16 + length :]
    return found


def test_tensorboard_gets_every_training_from_its_first_step(ws: Workspace, tmp_path: Path) -> None:
    earlier = LiveRun(ws, now=1_700_000_000.0)
    earlier.step(1)
    earlier.end()
    folder = tmp_path / "curves"
    with live_run(ws, done=3) as run, closing(TensorBoardWriter(ws, folder)) as writer:
        writer.write()
        run.step(4)
        run.write(Evaluated(phase="native", step=4, name="held-out", loss=2.25))
        run.write(Evaluated(phase="native", step=4, name="general", loss=None, finite=False))
        writer.write()
    assert {path.name for path in folder.iterdir()} == {earlier.dir.run_id, run.dir.run_id}
    found = scalars_in(folder / run.dir.run_id)
    assert [step for tag, step, _value in found if tag == "native/loss"] == [1, 2, 3, 4]
    assert [(step, value) for tag, step, value in found if tag == "native/eval/held-out"] == [(4, 2.25)]
    assert not [tag for tag, _step, _value in found if "general" in tag]
    assert [step for tag, step, _value in scalars_in(folder / earlier.dir.run_id) if tag == "native/lr"] == [
        1
    ]


def test_a_folder_that_holds_anything_stays_as_it_is(ws: Workspace, tmp_path: Path) -> None:
    (tmp_path / "curves").mkdir()
    (tmp_path / "curves" / "mine.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UsageProblem, match=r"mine\.txt"):
        TensorBoardWriter(ws, tmp_path / "curves")
    assert [path.name for path in (tmp_path / "curves").iterdir()] == ["mine.txt"]


def test_without_tensorboardx_one_sentence_says_what_to_install(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    done = run_cli("--data-dir", str(ws.root), "monitor", "--tensorboard", str(tmp_path / "curves"))
    assert done.code == 2
    assert "tensorboardX" in done.err and "pip install tensorboardX" in done.err
    assert not (tmp_path / "curves").exists()


def test_the_command_exports_to_all_three(ws: Workspace, run: LiveRun, tmp_path: Path) -> None:
    places = [str(tmp_path / "figures.jsonl"), str(tmp_path / "curves")]
    flags = ["--export-port", "0", "--jsonl", places[0], "--tensorboard", places[1]]
    done = run_cli(
        "--data-dir", str(ws.root), "--json", "monitor", *flags, "--interval", "0.2", "--count", "2"
    )
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["jsonl"] == places[0] and said["tensorboard"] == places[1]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", said["prometheus"])
    assert [row["kind"] for row in lines_of(Path(places[0]))] == ["machine", "machine"]
    assert scalars_in(Path(places[1]) / run.dir.run_id)


DASHBOARD = json.loads((shipped("data") / "grafana" / "h2q-tui.json").read_text(encoding="utf-8"))
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
QUERIES += [
    variable["definition"] for variable in DASHBOARD["templating"]["list"] if "definition" in variable
]


@pytest.mark.parametrize("query", QUERIES)
def test_the_dashboard_asks_for_metrics_and_labels_that_exist(query: str) -> None:
    table = {metric.name: metric for metric in METRICS}
    names = re.findall(r"\bh2q_\w+", query)
    assert names and set(names) <= table.keys()
    asked = re.findall(r"(\w+)=~?\"", query) + re.findall(r"label_values\(\w+, (\w+)\)", query)
    assert all(set(asked) <= set(table[name].labels) for name in names)


def test_legends_of_the_dashboard_name_labels_of_their_metric() -> None:
    table = {metric.name: metric for metric in METRICS}
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            (name,) = re.findall(r"\bh2q_\w+", target["expr"])
            labels = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert labels <= set(table[name].labels), panel["title"]


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        own = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not own & cells and at["x"] + at["w"] <= 24
        cells |= own
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_metrics_are_named_by_the_rules_of_prometheus_and_once() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"h2q_[a-z][a-z0-9_]*", name) for name in names)
