"""Models that Ollama holds in memory are told, and freed when the person agreed, against a real HTTP server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.models.ollama.running import RunningModel, running_models, unload_models
from engine.runs.events import Log
from engine.runs.kinds import TrainParams
from engine.training.setup import memory_budget
from tests.ollama_memory import Ollama, ollama_with_models
from tests.unit.training_run import events, new_run, tiny


@pytest.fixture
def ollama(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Ollama]]:
    with ollama_with_models(monkeypatch) as server:
        yield server


def test_running_models_are_listed_with_their_size_and_unloaded(ollama: type[Ollama]) -> None:
    held = running_models()
    assert held == [RunningModel("qwen3:0.6b", 1024.0), RunningModel("b", 50.0)]
    assert unload_models(held) == []
    assert running_models() == []


def test_models_that_stay_loaded_are_returned(ollama: type[Ollama]) -> None:
    ollama.stubborn = True
    assert unload_models(running_models(), wait_s=0.3) == [
        RunningModel("qwen3:0.6b", 1024.0),
        RunningModel("b", 50.0),
    ]


def test_a_remote_or_absent_ollama_has_no_running_models(monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("192.0.2.7:11434", "127.0.0.1:9", "127.0.0.1:port"):
        monkeypatch.setenv("OLLAMA_HOST", host)
        assert running_models() == []
        assert unload_models([RunningModel("a", 1.0)], wait_s=0.2) == []


@pytest.mark.parametrize("agreed", [False, True])
def test_a_run_unloads_models_only_with_the_users_consent(
    tmp_path: Path, ollama: type[Ollama], agreed: bool
) -> None:
    ctx = new_run(tmp_path, TrainParams(settings={"unload_ollama": agreed}))
    memory_budget(ctx, tiny())
    said = [event.text for event in events(ctx, Log) if "qwen3:0.6b" in event.text]
    assert len(said) == 1 and "1074" in said[0]
    assert ("--unload-ollama" in said[0]) is not agreed
    assert bool(ollama.loaded) is not agreed
