"""The address of the Ollama on this machine."""

from __future__ import annotations

import pytest

from engine.core.errors import UsageProblem
from engine.models.ollama.client import local_host


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "http://127.0.0.1:11434"),
        ("localhost", "http://localhost:11434"),
        ("127.0.0.1:9999", "http://127.0.0.1:9999"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("0.0.0.0:11434", "http://127.0.0.1:11434"),
    ],
)
def test_local_addresses_are_normalised(
    given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    assert local_host(given) == expected


@pytest.mark.parametrize("given", ["example.org", "http://192.168.1.5:11434", "10.0.0.1", "::ffff:8.8.8.8"])
def test_addresses_of_other_machines_are_rejected(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", given)
    with pytest.raises(UsageProblem):
        local_host()
