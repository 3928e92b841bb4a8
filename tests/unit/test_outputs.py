"""Nothing that is not ours is replaced: every command with an output, on everything that may stand in its place."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.core.errors import UsageProblem
from engine.core.files import atomic_file, write_bytes
from engine.core.outputs import (
    ADAPTER_FOLDER,
    MODEL_FOLDER,
    check_output_file,
    check_output_folder,
    new_folder,
)
from tests.cli import run_cli


def documents(place: Path) -> None:
    (place / "taxes").mkdir(parents=True)
    (place / "taxes" / "2025.txt").write_text("precious")
    (place / "novel.txt").write_text("my novel")


def model_with_notes(place: Path) -> None:
    place.mkdir()
    for name in ("h2q.json", "config.json", "model.safetensors", "adapter_config.json", "notes.md"):
        (place / name).write_text("{}")


def project(place: Path) -> None:
    """Another program's folder, with names that a model has too."""
    place.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (place / name).write_text("{}")


def link_to_documents(place: Path) -> None:
    documents(place.with_name("real"))
    place.symlink_to(place.with_name("real"))


def a_file(place: Path) -> None:
    place.write_text("a letter")


FOREIGN = [documents, model_with_notes, project, link_to_documents, a_file, os.mkfifo]


def contents(root: Path) -> dict[str, tuple[int, str]]:
    """Every entry below `root` with its kind and, of files, its text."""
    return {
        str(path.relative_to(root)): (
            stat.S_IFMT(path.lstat().st_mode),
            path.read_text() if stat.S_ISREG(path.lstat().st_mode) else "",
        )
        for path in sorted(root.rglob("*"))
    }


@pytest.mark.parametrize("owned", [MODEL_FOLDER, ADAPTER_FOLDER], ids=["model", "adapter"])
@pytest.mark.parametrize("make", FOREIGN, ids=lambda make: make.__name__)
def test_a_folder_that_holds_something_foreign_is_refused_and_stays(
    tmp_path: Path, make: Callable[[Path], None], owned: object
) -> None:
    place = tmp_path / "place"
    make(place)
    before = contents(tmp_path)
    kind = MODEL_FOLDER if owned is MODEL_FOLDER else ADAPTER_FOLDER
    with pytest.raises(UsageProblem, match="place"):
        check_output_folder(place, kind)
    with pytest.raises(UsageProblem), new_folder(place, kind):
        raise AssertionError("the work must not begin")
    assert contents(tmp_path) == before


def test_what_arrives_while_the_work_goes_on_is_kept(tmp_path: Path) -> None:
    place = tmp_path / "place"
    with pytest.raises(UsageProblem), new_folder(place, MODEL_FOLDER) as new:
        (new / "h2q.json").write_text("{}")
        documents(place)
    assert (place / "novel.txt").read_text() == "my novel"
    assert list(tmp_path.iterdir()) == [place]


def test_our_own_folder_is_replaced_and_an_empty_or_missing_one_is_taken(tmp_path: Path) -> None:
    place = tmp_path / "place"
    for text in ("first", "second"):
        with new_folder(place, MODEL_FOLDER) as new:
            (new / "h2q.json").write_text(text)
        assert (place / "h2q.json").read_text() == text
    (tmp_path / "empty").mkdir()
    check_output_folder(tmp_path / "empty", ADAPTER_FOLDER)
    check_output_folder(tmp_path / "missing" / "deep", ADAPTER_FOLDER)
    with pytest.raises(UsageProblem):
        check_output_folder(place / "h2q.json" / "below", MODEL_FOLDER)


@pytest.mark.parametrize("path", ["/dev/null", "/dev/stdout", "/dev"])
def test_devices_links_and_folders_are_no_output_files(path: str) -> None:
    with pytest.raises(UsageProblem, match=path):
        check_output_file(Path(path))


def test_a_write_goes_through_a_link_and_never_replaces_a_fifo(tmp_path: Path) -> None:
    target, link, pipe = tmp_path / "dotfiles.toml", tmp_path / "h2q.toml", tmp_path / "pipe"
    target.write_text("old")
    link.symlink_to(target)
    os.mkfifo(pipe)
    write_bytes(link, b"new")
    assert link.is_symlink() and target.read_text() == "new"
    with atomic_file(link) as temporary:
        temporary.write_text("newer")
    assert link.is_symlink() and target.read_text() == "newer"
    with pytest.raises(FileExistsError):
        write_bytes(pipe, b"lost")
    with pytest.raises(FileExistsError), atomic_file(pipe):
        pass
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


TRAINING = ("train", "--max-steps", "2")
COMMANDS_WITH_OUTPUT = {
    "scratch": (*TRAINING, "--mode", "scratch", "--output"),
    "native": (*TRAINING, "--mode", "native", "--output"),
    "lora": (*TRAINING, "--mode", "lora", "--output"),
    "auto": (*TRAINING, "--output"),
}


@pytest.mark.parametrize("command", COMMANDS_WITH_OUTPUT)
@pytest.mark.parametrize("make", FOREIGN, ids=lambda make: make.__name__)
def test_a_command_refuses_its_output_before_a_run_starts(
    tmp_path: Path, make: Callable[[Path], None], command: str
) -> None:
    place, root = tmp_path / "out" / "place", tmp_path / "ws"
    place.parent.mkdir()
    make(place)
    before = contents(place.parent)
    done = run_cli(*COMMANDS_WITH_OUTPUT[command], str(place), "--json", "--data-dir", str(root))
    assert done.code == 2
    hint = json.loads(done.out)["hint"]
    assert f"--data-dir {root}" in hint and "--output NEW-FOLDER" in hint
    assert not list(root.glob("runs/*"))
    assert contents(place.parent) == before


def test_an_export_of_a_model_is_refused_before_a_run_starts(tmp_path: Path) -> None:
    root = tmp_path / "ws"
    (root / "models").mkdir(parents=True)
    (tmp_path / "file").write_text("mine")
    done = run_cli(
        "export", "missing", "--to", "gguf", "--output", str(tmp_path / "file"), "--data-dir", str(root)
    )
    assert done.code != 0
    assert not list(root.glob("runs/*"))
    assert (tmp_path / "file").read_text() == "mine"


def test_the_hint_of_a_corpus_export_keeps_the_options(tmp_path: Path) -> None:
    place, root = tmp_path / "mine.json", tmp_path / "ws"
    place.write_text("[]")
    memory = ("memory", "add", "--user", "What is a comet?", "--assistant", "A ball of ice.")
    assert run_cli(*memory, "--data-dir", str(root)).code == 0
    options = ("--format", "alpaca", "--split", "train")
    done = run_cli("corpus", "export", *options, "--output", str(place), "--json", "--data-dir", str(root))
    assert done.code == 2
    hint = json.loads(done.out)["hint"]
    assert "--format alpaca --split train --output NEW-FILE" in hint and str(root) in hint
