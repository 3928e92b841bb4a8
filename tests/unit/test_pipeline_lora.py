"""`train --mode lora` as a run: base, corpus or files, verdict, promotion, report."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import msgspec
import pytest

from engine.core.errors import BadInput, UsageProblem
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.memory.records import Conversation
from engine.models.base_models import find_base
from engine.models.registry import in_use
from engine.pipeline import lora, train
from engine.pipeline.report import TrainReport
from engine.runs.context import RunContext, RunResult
from engine.runs.events import Log, StageChanged
from engine.runs.journal import JournalWriter
from engine.runs.kinds import TrainMode, TrainParams
from engine.runs.rundir import RunDir
from engine.runs.spec import encode_spec, make_spec
from tests.corpus_store import conversation, memory
from tests.export_models import write_gguf
from tests.unit.training_run import events

SHORT = TrainParams(
    mode=TrainMode.LORA,
    context=96,
    rank=8,
    lr=2e-2,
    epochs=2,
    min_corpus=20,
    time_budget_s=None,
    max_steps=24,
)
DAY = 86_400.0


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.devices.physical_cores", lambda: 1)
    monkeypatch.setattr("engine.validation.answers.QUESTIONS", 1)
    monkeypatch.setattr(
        "engine.validation.validate.shipped_texts", lambda: {"en": b"Boil it in some water. " * 300}
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, knowing_hf: Path) -> Path:
    return Path(shutil.copytree(knowing_hf, tmp_path_factory.mktemp("hf") / "tiny"))


def run(ws: Workspace, params: TrainParams) -> tuple[RunResult, RunContext]:
    spec = make_spec(ws.root, params)
    spec.folder.mkdir(parents=True)
    (spec.folder / "spec.json").write_bytes(encode_spec(spec))
    run_dir = RunDir(spec.folder)
    ctx = RunContext(run_dir, JournalWriter(run_dir.events_path))
    return train.run_train(ctx), ctx


def report_of(outcome: RunResult) -> TrainReport:
    assert outcome.report is not None
    return msgspec.json.decode(outcome.report.read_bytes(), type=TrainReport)


def conversations(count: int, first: int = 0) -> list[Conversation]:
    """Dissimilar conversations, a day apart; all answers have the same end, so that there is something to learn."""
    result = []
    for number in range(first, first + count):
        word = hashlib.sha256(str(number).encode()).hexdigest()[:16]
        result.append(
            conversation(
                f"c{number:03d}", f"Where is the key {word}?", f"Boil {word} in some water.", at=number * DAY
            )
        )
    return result


def test_the_corpus_trains_an_adapter_that_is_validated_and_promoted(tmp_path: Path, model: Path) -> None:
    ws = Workspace(tmp_path)
    memory(tmp_path, conversations(90)).close()
    outcome, ctx = run(ws, msgspec.structs.replace(SHORT, model=str(model)))
    report = report_of(outcome)
    assert report.mode == "lora" and report.base_model == "tiny" and report.new_model.startswith("lora-")
    assert report.status == "promoted", report.verdict
    assert report.verdict is not None and report.verdict.n_groups >= 20
    assert report.verdict.base.name == "tiny" and report.verdict.new.name == report.new_model
    assert report.pairs.train > report.pairs.test >= 20
    assert in_use(ws) == report.new_model
    assert (ws.adapters / report.new_model / "adapter_config.json").is_file()
    assert report.forgetting is None and report.replayed == 0
    names = [event.name for event in events(ctx, StageChanged) if event.state == "done"]
    assert names == ["corpus", "lora", "validate", "promote"]

    # The next run continues the adapter in use, replays its conversations and measures forgetting.
    memory(tmp_path, conversations(40, first=200)).close()
    outcome, ctx = run(ws, SHORT)
    again = report_of(outcome)
    assert again.base_model == report.new_model
    assert again.replayed > 0 and again.forgetting is not None
    assert again.forgetting.conversations == min(40, again.replayed)
    assert any("replay:" in event.text for event in events(ctx, Log))
    assert any("forgetting:" in event.text for event in events(ctx, Log))
    assert again.validation is not None and "older" in [one.name for one in again.validation.measures]


def test_files_are_trained_on_with_a_held_out_part_instead_of_a_verdict(tmp_path: Path, model: Path) -> None:
    file = tmp_path / "alpaca.json"
    rows = [
        {"instruction": f"Where is {number}?", "input": "", "output": f"Boil {number} in water."}
        for number in range(40)
    ]
    file.write_text(json.dumps([*rows, {"instruction": "x", "output": ""}]), encoding="utf-8")
    ws = Workspace(tmp_path / "ws")
    params = msgspec.structs.replace(
        SHORT, model=str(model), data=[str(file)], training_dir=str(tmp_path / "training")
    )
    outcome, ctx = run(ws, params)
    report = report_of(outcome)
    assert report.status == "trained" and report.verdict is None
    assert (report.pairs.train, report.pairs.test) == (36, 4)
    assert report.held_out is not None and report.held_out.conversations == 4
    assert report.held_out.after < report.held_out.before
    assert (tmp_path / "training" / report.new_model / "adapter_model.safetensors").is_file()
    assert any("no verdict" in event.text for event in events(ctx, Log))
    assert any("1 row skipped" in event.detail for event in events(ctx, StageChanged))
    assert in_use(ws) is None


def test_sharegpt_is_read_and_other_formats_are_refused(tmp_path: Path) -> None:
    from engine.training.lora.files import read_files

    file = tmp_path / "sharegpt.jsonl"
    rows = [
        {
            "conversations": [
                {"from": "human", "value": f"hi {n}"},
                {"from": "gpt", "value": f"<|im_end|> {n}"},
            ]
        }
        for n in range(12)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = read_files([file], tmp_path, "x")
    assert (data.train_answers, len(data.held_out)) == (11, 1)
    assert read_files([file], tmp_path, "y").sha256 == data.sha256
    other = tmp_path / "other.json"
    other.write_text('[{"a": 1}]', encoding="utf-8")
    with pytest.raises(BadInput, match="neither Alpaca nor ShareGPT"):
        read_files([other], tmp_path, "z")


def test_auto_chooses_lora_if_the_configured_base_fits(tmp_path: Path, model: Path) -> None:
    ws = Workspace(tmp_path)
    spec = make_spec(ws.root, TrainParams())
    spec.folder.mkdir(parents=True)
    (spec.folder / "spec.json").write_bytes(encode_spec(spec))
    ctx = RunContext(RunDir(spec.folder), JournalWriter(spec.folder / "events.jsonl"))
    assert train.choose_mode(ctx, TrainParams())[0] is TrainMode.NATIVE
    ctx.settings = Settings(lora_base=str(model))
    mode, reason = train.choose_mode(ctx, TrainParams())
    assert mode is TrainMode.LORA and "tiny" in reason and "fits" in reason
    mode, reason = train.choose_mode(ctx, TrainParams(max_memory_gb=0.3))
    assert mode is TrainMode.NATIVE and "budget" in reason
    ctx.settings = Settings(lora_base=str(tmp_path / "gone"))
    assert train.choose_mode(ctx, TrainParams())[0] is TrainMode.NATIVE
    with pytest.raises(UsageProblem, match="needs a base"):
        lora.choose_base(ws, TrainParams(), "")


def ollama_store(root: Path, gguf: Path, tag: str = "latest") -> None:
    """A model store with the layout of Ollama."""
    data = gguf.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    (root / "blobs").mkdir(parents=True)
    (root / "blobs" / f"sha256-{digest}").write_bytes(data)
    config = b"{}"
    other = hashlib.sha256(config).hexdigest()
    (root / "blobs" / f"sha256-{other}").write_bytes(config)
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": f"sha256:{other}",
            "size": len(config),
        },
        "layers": [
            {
                "mediaType": "application/vnd.ollama.image.model",
                "digest": f"sha256:{digest}",
                "size": len(data),
            }
        ],
    }
    folder = root / "manifests" / "registry.ollama.ai" / "library" / "tinyq"
    folder.mkdir(parents=True)
    (folder / tag).write_text(json.dumps(manifest), encoding="utf-8")


def test_an_ollama_tag_is_a_base_and_its_adapter_is_also_a_gguf(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_gguf(tmp_path / "m.gguf", model)
    ollama_store(tmp_path / "ollama", tmp_path / "m.gguf", "0.1b")
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    file = tmp_path / "alpaca.json"
    rows = [{"instruction": f"Where is {n}?", "output": f"Boil {n} in water."} for n in range(30)]
    file.write_text(json.dumps(rows), encoding="utf-8")
    ws = Workspace(tmp_path / "ws")
    params = msgspec.structs.replace(SHORT, model="tinyq:0.1b", data=[str(file)])
    outcome, _ctx = run(ws, params)
    report = report_of(outcome)
    assert report.base_model == "tinyq:0.1b"
    assert report.held_out is not None and report.held_out.after < report.held_out.before
    folder = ws.adapters / report.new_model
    assert (folder / "adapter.gguf").read_bytes()[:4] == b"GGUF"
    stored = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert stored["base_model_name_or_path"] == "ollama:tinyq:0.1b"
    assert find_base(ws, report.new_model).ollama_tag == "tinyq:0.1b"
    # On its tag for the built-in server, which answers as it was trained; the base is a link to the file of the tag.
    assert report.served is not None and report.served.tag.startswith("tinyq-0.1b-personal-")
    check = report.served.check
    assert check.passed and check.served.same_prompts == 20 and check.adapter_applied, check
    served = find_base(ws, report.served.tag)
    assert served.path.samefile(find_base(ws, "tinyq:0.1b").path)
    assert served.lora is not None and served.lora.read_bytes() == (folder / "adapter.gguf").read_bytes()
