"""The run kind `evolve`: kept and dropped candidates, written files, and resuming after a stop."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from engine.core.errors import Interrupted
from engine.core.files import write_json
from engine.core.paths import Workspace
from engine.corpus.clusters import current_window
from engine.corpus.dataset import dataset_path, read_dataset
from engine.evolution import canary, evaluation, self_answers
from engine.evolution.bookkeeping import EvolutionRecord
from engine.evolution.report import correction
from engine.evolution.stats import EvolutionStats
from engine.evolution.synthetic import is_synthetic
from engine.inference.language_model import LanguageModel, Sampling
from engine.memory.store import MemoryStore
from engine.models.card import Lineage, ModelCard
from engine.models.native_format import load_model, save_model
from engine.models.registry import in_use, promote
from engine.pipeline import evolve as evolve_module
from engine.pipeline import validate as validate_stage
from engine.pipeline.evolve import EvolutionRun
from engine.runs import launch
from engine.runs.events import CheckpointWritten, EvolutionCycle, RunStatus, Step
from engine.runs.journal import JournalReader
from engine.runs.kinds import EvolveParams
from engine.runs.rundir import RunDir, list_runs, load_view
from engine.runs.spec import make_spec
from engine.training.recipe import recipe_for
from engine.validation import answers, cases
from engine.validation.report import ValidationReport
from tests.corpus_store import distinct, memory
from tests.models import talk, write_tiny

PARAMS = EvolveParams(cycles=2, max_steps=3, answers=1, min_corpus=20, checkpoint_every_s=0.01)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with 46 conversations, 20 of them held out, and a small model in use."""
    root = tmp_path_factory.mktemp("evolve") / "ws"
    ws = Workspace(root)
    for folder in (ws.training, ws.models, ws.runs, ws.config):
        folder.mkdir(parents=True)
    with memory(root, [distinct(n, at=1_700_000_000.0 + n * 86_400) for n in range(46)]):
        pass
    text = ws.training_data / "text.txt"
    text.parent.mkdir()
    text.write_text(
        "".join(f"第{n}天早上下雨。中午天晴了。晚上起风。\n" for n in range(300)), encoding="utf-8"
    )
    talks = [talk(turns[0].text, turns[1].text) for turns in (distinct(n).turns for n in range(3))]
    write_tiny(ws.models / "native-1", talks, steps=40, lineage=Lineage(texts={str(text): "x"}))
    promote(ws, "native-1")
    return root


@pytest.fixture
def ws(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A copy of the template, with short answers because generation is slow."""
    short = Sampling(temperature=0.8, max_bytes=8, seed=0)
    for module in (canary, evaluation, answers):
        monkeypatch.setattr(module, "SAMPLING", short)
    monkeypatch.setattr(self_answers, "MAX_ANSWER_BYTES", 8)
    monkeypatch.setattr(cases, "GENERAL_BLOCKS", 2)
    monkeypatch.setattr("engine.training.devices.physical_cores", lambda: 1)
    real = recipe_for
    monkeypatch.setattr(
        evolve_module, "recipe_for", lambda *given: msgspec.structs.replace(real(*given), eval_bytes=256)
    )
    root = tmp_path / "ws"
    shutil.copytree(template, root)
    return Workspace(root)


def evolve(ws: Workspace, params: EvolveParams = PARAMS) -> tuple[int, RunDir, dict[str, Any]]:
    """Runs it in this process; returns exit code, run and result."""
    runs: list[RunDir] = []
    code = launch.run_in_foreground(ws, make_spec(ws.root, params), on_start=runs.append)
    finished = load_view(runs[0]).finished
    assert finished is not None
    result = json.loads(bytes(finished.result))
    assert result or code, (runs[0].log_path.read_text(), finished.error)
    return code, runs[0], result


def events(run: RunDir, type_: type[Any]) -> list[Any]:
    return [
        record.event for record in JournalReader(run.events_path).poll() if isinstance(record.event, type_)
    ]


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates are their champion with a little noise, for tests that do not depend on training."""

    def train(
        ctx: Any, recipe: Any, base: Path, dataset: Any, *_texts: Any, name: str, out: Path, **_rest: Any
    ) -> ModelCard:
        model, card = load_model(base)
        with torch.no_grad():
            model.lm_head.weight.add_(0.001 * torch.randn_like(model.lm_head.weight))
        write_json(ctx.workspace.root / "training_log.json", [{"epoch": 1, "train_loss": 1.0}])
        fresh = msgspec.structs.replace(card, name=name, base=card.name, lineage=dataset.lineage, loss=1.0)
        return save_model(out, model, fresh)

    monkeypatch.setattr(evolve_module, "train_native", train)


def force_decisions(monkeypatch: pytest.MonkeyPatch, *decisions: str) -> None:
    """Sets the decisions of the next verdicts; all measurements stay."""
    real, queue = validate_stage.validate_candidate, list(decisions)

    def validate_candidate(*arguments: Any, **keywords: Any) -> ValidationReport:
        report = real(*arguments, **keywords)
        verdict = msgspec.structs.replace(report.verdict, decision=queue.pop(0))
        return msgspec.structs.replace(report, verdict=verdict)

    monkeypatch.setattr(evolve_module, "validate_candidate", validate_candidate)


def test_two_cycles_one_kept_and_one_dropped(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    force_decisions(monkeypatch, "promote", "keep")
    code, run, report = evolve(ws)
    assert code == 0 and report["status"] == "promoted"
    first, second = report["cycles"]
    kept, dropped = first["candidate"], second["candidate"]
    assert first["kept"] and not second["kept"] and second["champion"] == kept == report["new_model"]

    # The promoted model, and the removed candidate.
    assert in_use(ws) == kept
    assert {folder.name for folder in ws.models.iterdir()} == {"native-1", kept}
    assert [path.name for path in ws.training.glob("*.jsonl")] == [f"train_data_{kept}.jsonl"]
    assert not list((run.path / "checkpoints").iterdir())
    assert not list(ws.models.glob(f".{dropped}*"))

    # The files of other systems.
    stats = json.loads((ws.root / "evolution_stats.json").read_text(encoding="utf-8"))
    assert (stats["total_evolutions"], stats["successful_evolutions"], stats["failed_evolutions"]) == (
        2,
        1,
        1,
    )
    assert stats["average_improvement"] == pytest.approx((first["improvement"] + second["improvement"]) / 2)
    assert [row["candidate"] for row in stats["cycles"]] == [kept, dropped]
    log = json.loads((ws.root / "training_log.json").read_text(encoding="utf-8"))
    assert [row["cycle"] for row in log] == [1, 2]
    assert {"epoch", "train_loss", "eval_loss", "perplexity", "epoch_time", "total_time"} <= log[0].keys()
    assert log[0]["held_out_perplexity"] == first["perplexity_after"]
    assert set(log[1]["generation_quality"]) >= {"consistency", "relevance", "repetition"}

    # The share of real data and the overlap with held-out text.
    for row in (first, second):
        assert row["material"]["real_share"] >= 0.7 - 0.02
        assert row["material"]["least_batch_share"] >= 0.5
        assert row["material"]["overlap_exact"] == row["material"]["overlap_near"] == 0
        assert sum(row["material"]["made"].values()) > 0
    assert (first["look"], second["look"]) == (1, 2)
    assert first["alpha"] == pytest.approx(0.0425) and "k (k - 1)" in report["correction"]
    assert correction(4, 1).endswith("this run makes look 5, which requires p < 0.000375")
    assert correction(1, 2).endswith("looks 2 to 3, which require p < 0.00375 to 0.00125")
    assert [(c.cycle, c.state) for c in events(run, EvolutionCycle)] == [
        (1, "began"), (1, "kept"), (2, "began"), (2, "dropped"),
    ]  # fmt: skip
    status = json.loads((ws.status / "mac_mini_streaming_status.json").read_text())
    assert status["run_id"] == run.run_id and status["current_step"] == 3

    # A later run compares with the canary of the model that evolution started from.
    assert stats["canary_of"] == "native-1"


@pytest.mark.usefixtures("untrained")
def test_no_synthetic_row_has_a_held_out_source(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    force_decisions(monkeypatch, "promote")
    _code, _run, report = evolve(ws, msgspec.structs.replace(PARAMS, cycles=1))
    with MemoryStore(ws.memory_db, readonly=True) as store:
        window = current_window(store)
    assert window is not None
    held = set(window.conversations)
    rows = list(read_dataset(ws.training / f"train_data_{report['new_model']}.jsonl"))
    raw = [json.loads(line) for line in (ws.training / f"train_data_{report['new_model']}.jsonl").open()]
    assert any(is_synthetic(row.id) for row in rows) and not held & {row.id for row in rows}
    assert not held & {source for row in raw for source in row.get("made_from", [])}


@pytest.mark.usefixtures("untrained")
def test_a_collapsing_candidate_is_dropped_and_ends_the_evolution(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    force_decisions(monkeypatch, "promote", "promote")
    real = evaluation.measure_model

    def measure(model: LanguageModel, *arguments: Any, **named: Any) -> Any:
        found = real(model, *arguments, **named)
        if model.name.endswith("c1"):
            poor = msgspec.structs.replace(found.canary, distinct_2=0.01, repetition=0.99, entropy=0.1)
            found = dataclasses.replace(found, canary=poor)
        return found

    monkeypatch.setattr(evolve_module, "measure_model", measure)
    code, run, report = evolve(ws)
    assert code == 0 and report["status"] == "collapsed" and len(report["cycles"]) == 1
    assert "more repetition" in report["stopped"]
    assert in_use(ws) == "native-1" and {folder.name for folder in ws.models.iterdir()} == {"native-1"}
    assert events(run, EvolutionCycle)[-1].state == "collapsed"


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize("at", ["train", "validate", "close"])
def test_a_stopped_run_resumes_with_its_open_cycle(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    force_decisions(monkeypatch, *["promote"] * 4)

    def stop(*_arguments: Any, **_named: Any) -> Any:
        raise Interrupted("stopped here")

    owner: type[Any] = EvolutionRecord if at == "close" else EvolutionRun
    with monkeypatch.context() as once:
        once.setattr(owner, at, stop)
        runs: list[RunDir] = []
        assert launch.run_in_foreground(ws, make_spec(ws.root, PARAMS), on_start=runs.append) == 130
    state = json.loads((runs[0].path / "evolution.json").read_text())
    candidate = state["open"]["candidate"]
    dataset = Path(state["open"]["dataset"])
    written = dataset.read_bytes()
    source = dataset_path(ws, runs[0].run_id)
    source.write_text("left by a run that was killed")
    code, _run, report = evolve(ws, msgspec.structs.replace(PARAMS, resume=runs[0].run_id))
    assert code == 0 and [row["cycle"] for row in report["cycles"]] == [1, 2]
    assert report["cycles"][0]["candidate"] == candidate and report["base_model"] == "native-1"
    assert dataset.read_bytes() == written and not source.exists()
    stats = msgspec.json.decode((ws.root / "evolution_stats.json").read_bytes(), type=EvolutionStats)
    assert stats.total_evolutions == 2 and in_use(ws) == report["cycles"][1]["candidate"]
    assert {folder.name for folder in ws.models.iterdir() if not folder.name.startswith(".")} == {
        "native-1", *(row["candidate"] for row in report["cycles"]),
    }  # fmt: skip


def test_the_training_of_a_stopped_cycle_resumes_from_its_checkpoint(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    force_decisions(monkeypatch, *["keep"] * 2)
    params = msgspec.structs.replace(PARAMS, cycles=1, max_steps=8, epochs=8)
    with monkeypatch.context() as once:
        once.setattr("engine.training.loop.handle_commands", lambda job, _saver: job.state.step >= 2)
        runs: list[RunDir] = []
        assert launch.run_in_foreground(ws, make_spec(ws.root, params), on_start=runs.append) == 130
    assert events(runs[0], CheckpointWritten)
    _code, run, _report = evolve(ws, msgspec.structs.replace(params, resume=runs[0].run_id))
    assert min(step.step for step in events(run, Step)) == 3
    assert not list((runs[0].path / "checkpoints").iterdir()), "nothing of a candidate that lost stays"


@pytest.mark.usefixtures("untrained")
def test_the_time_budget_ends_a_run_between_cycles(ws: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    force_decisions(monkeypatch, "keep")
    code, _run, report = evolve(ws, msgspec.structs.replace(PARAMS, cycles=50, time_budget_s=0.5))
    assert code == 0 and len(report["cycles"]) == 1 and "the time budget ended" in report["stopped"]


@pytest.mark.parametrize(
    ("params", "code", "sentence"),
    [
        (EvolveParams(real_share=0.4), 2, "at least half of the training data is real"),
        (EvolveParams(cycles=0), 2, "--cycles must be 1 or more"),
        (EvolveParams(resume="nothing"), 2, "nothing"),
        (EvolveParams(min_corpus=1000), 3, "1000 needed"),
    ],
)
def test_invalid_parameters_fail_with_one_sentence(
    ws: Workspace, params: EvolveParams, code: int, sentence: str
) -> None:
    runs: list[RunDir] = []
    assert launch.run_in_foreground(ws, make_spec(ws.root, params), on_start=runs.append) == code
    finished = load_view(runs[0]).finished
    assert finished is not None and sentence in finished.error
    assert "Traceback" not in finished.error and len(list_runs(ws)) == 1


def test_a_run_without_a_model_in_use_is_skipped(ws: Workspace) -> None:
    ws.models_json.unlink()
    runs: list[RunDir] = []
    assert launch.run_in_foreground(ws, make_spec(ws.root, EvolveParams()), on_start=runs.append) == 3
    view = load_view(runs[0])
    assert (
        view.status is RunStatus.SKIPPED
        and view.finished is not None
        and "h2q-tui train" in view.finished.error
    )
