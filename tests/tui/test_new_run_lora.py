"""The new-run sheet offers an adapter and lets the person choose what it stands on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from engine.core.config import save_settings
from engine.core.errors import Busy
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.models.catalog import ListedModel
from engine.models.resolve import ModelKind, ModelOrigin
from engine.runs.kinds import TrainMode, TrainParams
from engine.runs.spec import RunSpec
from tests.export_models import write_arch, write_gguf
from tests.ollama_memory import ollama_with_models
from tests.tui.helpers import text_of, until
from tui.app.app import H2QApp
from tui.tabs.train.new_run import NewRun
from tui.tabs.train.new_run_text import MODES, TrainingInputs, describe, read_inputs, served_problem

NOTHING = TrainingInputs(
    conversations=0, accepted=0, test_set=0, groups=0, base="", texts=0, text_bytes=0, training=""
)


def test_lora_is_offered() -> None:
    assert TrainMode.LORA in [mode.mode for mode in MODES]


def test_without_a_base_the_sheet_shows_how_to_set_one() -> None:
    words, kind = describe(TrainMode.LORA, NOTHING)[0]
    assert "lora_base" in words and kind == "error"


def test_the_base_and_the_key_for_the_next_one_are_shown() -> None:
    several = replace(NOTHING, bases=("tiny", "qwen3:0.6b"))
    assert "qwen3:0.6b (2 of 2, b" in describe(TrainMode.LORA, several, "qwen3:0.6b")[0][0]
    assert describe(TrainMode.LORA, replace(NOTHING, bases=("tiny",)), "tiny")[0] == ("base: tiny", "")


def test_the_configured_base_comes_before_those_of_ollama(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = tmp_path / "ollama" / "manifests" / "registry.ollama.ai" / "library" / "qwen3" / "0.6b"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}", encoding="utf-8")
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    ws = Workspace(tmp_path / "ws")
    ws.config.mkdir(parents=True)
    assert read_inputs(ws).bases == ("qwen3:0.6b",)
    save_settings(ws, Settings(lora_base="/models/tiny"))
    assert read_inputs(ws).bases == ("/models/tiny", "qwen3:0.6b")


@pytest.mark.parametrize("configured", [False, True])
async def test_loaded_ollama_models_are_shown_and_unloaded_only_with_consent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configured: bool
) -> None:
    ws = Workspace(tmp_path)
    ws.config.mkdir(parents=True)
    save_settings(ws, Settings(first_start_done=True, unload_ollama=configured))
    started: list[RunSpec] = []

    def launched(_workspace: Workspace, spec: RunSpec) -> None:
        started.append(spec)
        raise Busy("busy")

    monkeypatch.setattr("tui.tabs.train.new_run.launch_uninterrupted", launched)
    with ollama_with_models(monkeypatch):
        app = H2QApp(ws)
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.press("n")
            await until(pilot, lambda: isinstance(app.screen, NewRun) and "qwen3:0.6b, b" in text_of(app))
            assert ("--unload-ollama" in text_of(app)) is configured
            await pilot.press("o")
            await until(pilot, lambda: ("--unload-ollama" in text_of(app)) is not configured)
            await pilot.press("enter")
            await until(pilot, lambda: bool(started))
    params = msgspec.json.decode(started[0].params, type=TrainParams)
    assert params.settings == {"unload_ollama": not configured}


def test_message_is_offered_as_prompting_and_refuses_a_base_that_is_not_served() -> None:
    (mode,) = [mode for mode in MODES if mode.mode is TrainMode.MESSAGE]
    assert "prompting" in mode.does
    rows = {
        kind: ListedModel(kind, ModelKind(kind), ModelOrigin.WORKSPACE, "/x", 1, "llama", "Q4_1", 512, "")
        for kind in ("gguf", "hf")
    }
    inputs = replace(NOTHING, conversations=90, bases=("gguf", "hf"), listed=rows)
    assert not [line for line in describe(TrainMode.MESSAGE, inputs, "gguf") if line[1] == "error"]
    refused = [line for line in describe(TrainMode.MESSAGE, inputs, "hf") if line[1] == "error"]
    assert len(refused) == 1 and "GGUF" in refused[0][0]
    assert served_problem(inputs, "gguf") == "" and served_problem(inputs, "hf")


async def test_the_sheet_starts_a_message_run_on_the_chosen_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws = Workspace(tmp_path)
    ws.config.mkdir(parents=True)
    save_settings(ws, Settings(first_start_done=True))
    ws.models.mkdir()
    write_gguf(ws.models / "tiny.gguf", write_arch(tmp_path / "hf", "llama"))
    started: list[RunSpec] = []

    def launched(_workspace: Workspace, spec: RunSpec) -> None:
        started.append(spec)
        raise Busy("busy")

    monkeypatch.setattr("tui.tabs.train.new_run.launch_uninterrupted", launched)
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    app = H2QApp(ws)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, NewRun))
        await pilot.press("j", "j")
        await until(pilot, lambda: "--mode message --model tiny" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: bool(started))
    params = msgspec.json.decode(started[0].params, type=TrainParams)
    assert (params.mode, params.model) == (TrainMode.MESSAGE, "tiny")
