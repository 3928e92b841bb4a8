from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from engine.core.errors import BadInput, Interrupted
from engine.models.card import Lineage, ModelCard
from engine.models.native_format import load_model
from engine.runs.events import Evaluated, Log, Step
from engine.training.native import train_native
from engine.training.recipe import Phase
from engine.training.scratch import train_scratch
from tests.unit.test_chat_batches import dataset, many
from tests.unit.test_training_loop import commanded
from tests.unit.training_run import DatasetFile, events, new_run, text_file, tiny


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.metrics.MIN_EVENT_GAP_S", 0.0)
    monkeypatch.setattr("engine.training.devices.physical_cores", lambda: 1)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    text = text_file(tmp_path)
    train_scratch(new_run(tmp_path / "base"), tiny(), [text], name="first", out=tmp_path / "first")
    return tmp_path / "first"


def rows(folder: Path) -> DatasetFile:
    lineage = Lineage(
        conversations=["c0", "c1"], clusters=["k0"], dataset="d", dataset_sha256="h", newest_conversation=5.0
    )
    return DatasetFile(dataset(folder, *many()), lineage)


def train(root: Path, base: Path, data: DatasetFile, resume: Path | None = None, steps: int = 6) -> ModelCard:
    recipe = msgspec.structs.replace(tiny(Phase.NATIVE), max_steps=steps, epochs=50)
    ctx = new_run(root)
    return train_native(
        ctx, recipe, base, data, [base.parent / "a.txt"], name="mine", out=root / "mine", resume=resume
    )


def test_the_continued_model_learns_the_answers_and_has_its_lineage(tmp_path: Path, base: Path) -> None:
    recipe = msgspec.structs.replace(tiny(Phase.NATIVE), max_steps=40, epochs=50)
    ctx = new_run(tmp_path / "n")
    data = rows(tmp_path)
    card = train_native(ctx, recipe, base, data, [tmp_path / "a.txt"], name="mine", out=tmp_path / "mine")
    recorded = events(ctx, Step)
    assert recorded[-1].step == 40
    assert recorded[0].loss is not None
    assert recorded[-1].loss is not None
    assert recorded[-1].loss < recorded[0].loss - 1
    first = load_model(base)[1]
    assert (card.mode, card.base, card.context) == ("native", "first", 64)
    assert card.lineage.conversations == ["c0", "c1"]
    assert card.lineage.texts == first.lineage.texts
    assert card.lineage.newest_conversation == 5.0
    assert card.train_bytes > first.train_bytes
    assert load_model(tmp_path / "mine")[1] == card
    assert events(ctx, Evaluated)[0].loss == pytest.approx(first_evaluation(tmp_path), abs=0.2)


def first_evaluation(root: Path) -> float:
    run = next((root / "base" / "runs").iterdir())
    from engine.runs.journal import JournalReader

    found = [r.event for r in JournalReader(run / "events.jsonl").poll() if isinstance(r.event, Evaluated)]
    assert found[-1].loss is not None
    return found[-1].loss


def test_lineages_are_merged_over_generations(tmp_path: Path, base: Path) -> None:
    train(tmp_path / "one", base, rows(tmp_path))
    (tmp_path / "one" / "a.txt").symlink_to(tmp_path / "a.txt")
    later = DatasetFile(
        dataset(tmp_path, *many(5)), Lineage(conversations=["c1", "c9"], newest_conversation=3.0)
    )
    card = train(tmp_path / "two", tmp_path / "one" / "mine", later)
    assert card.lineage.conversations == ["c0", "c1", "c9"]
    assert card.lineage.newest_conversation == 5.0
    assert (card.base, card.first) == ("mine", "first")


def test_a_stopped_phase_resumes_exactly(tmp_path: Path, base: Path) -> None:
    data = rows(tmp_path)
    whole = train(tmp_path / "whole", base, data)
    stopping = commanded(tmp_path / "stopped", (4, "stop", ""))
    recipe = msgspec.structs.replace(tiny(Phase.NATIVE), max_steps=6, epochs=50)
    with pytest.raises(Interrupted):
        train_native(stopping, recipe, base, data, [tmp_path / "a.txt"], name="mine", out=tmp_path / "x")
    resumed = train(tmp_path / "resumed", base, data, resume=stopping.run_dir.path)
    assert resumed.weights_sha256 == whole.weights_sha256


def test_a_run_that_began_with_the_former_defaults_ends_with_them(tmp_path: Path, base: Path) -> None:
    data = rows(tmp_path)
    usual = msgspec.structs.replace(tiny(Phase.NATIVE), max_steps=6, epochs=50)
    former = msgspec.structs.replace(
        usual,
        replay=0.3,
        **{name: 2 * getattr(usual, name) for name in ("lr", "embed_lr", "head_lr", "norm_lr")},
    )
    texts = [tmp_path / "a.txt"]
    whole = train_native(
        new_run(tmp_path / "whole"), former, base, data, texts, name="mine", out=tmp_path / "w"
    )
    stopping = commanded(tmp_path / "stopped", (4, "stop", ""))
    with pytest.raises(Interrupted):
        train_native(stopping, former, base, data, texts, name="mine", out=tmp_path / "x")
    resumed = train(tmp_path / "resumed", base, data, resume=stopping.run_dir.path)
    assert resumed.weights_sha256 == whole.weights_sha256


def test_a_run_stopped_before_this_phase_starts_it(tmp_path: Path, base: Path) -> None:
    data = rows(tmp_path)
    whole = train(tmp_path / "whole", base, data)
    scratch_only = next((tmp_path / "base" / "runs").iterdir())
    assert train(tmp_path / "r", base, data, resume=scratch_only).weights_sha256 == whole.weights_sha256


def test_missing_replay_text_is_logged_as_a_warning(tmp_path: Path, base: Path) -> None:
    ctx = new_run(tmp_path / "n")
    train_native(ctx, tiny(Phase.NATIVE), base, rows(tmp_path), [], name="m", out=tmp_path / "m")
    assert any("forget" in event.text for event in events(ctx, Log) if event.level == "warning")
    assert events(ctx, Evaluated) == []


def test_a_missing_replay_text_and_a_missing_base_are_reported(tmp_path: Path, base: Path) -> None:
    with pytest.raises(BadInput, match=r"gone\.txt"):
        train_native(
            new_run(tmp_path / "n"),
            tiny(Phase.NATIVE),
            base,
            rows(tmp_path),
            [tmp_path / "gone.txt"],
            name="m",
            out=tmp_path / "m",
        )
    with pytest.raises(BadInput, match="no model here"):
        train(tmp_path / "o", tmp_path / "nothing", rows(tmp_path))
