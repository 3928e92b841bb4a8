"""Every command with an output refuses what is not its own before any work begins, and leaves it alone.

The parser says which options and arguments take a path; each is an output in the table below, or an input.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from tests.cli import run_cli
from tests.unit.test_outputs import contents, documents
from tui.cli.main import build

SCRATCH = ("train", "--mode", "scratch", "--max-steps", "1")
NATIVE = ("train", "--mode", "native", "--max-steps", "1")
LORA = ("train", "--mode", "lora", "--max-steps", "1", "--model", "{ws}/none")


def a_letter(place: Path) -> None:
    place.write_text("a letter")


def a_device(place: Path) -> None:
    os.mknod(place, 0o600 | stat.S_IFCHR, os.makedev(1, 3))


def a_socket(place: Path) -> None:
    os.mknod(place, 0o600 | stat.S_IFSOCK)


def a_link_to_a_file(place: Path) -> None:
    place.with_name("real.txt").write_text("a letter")
    place.symlink_to(place.with_name("real.txt"))


def a_link_to_a_folder(place: Path) -> None:
    documents(place.with_name("real"))
    place.symlink_to(place.with_name("real"))


def a_dangling_link(place: Path) -> None:
    place.symlink_to(place.with_name("nowhere"))


def a_circle(place: Path) -> None:
    place.symlink_to(place)


def below_a_file(place: Path) -> None:
    """The parent is no folder; the command names a place below it."""
    a_letter(place)


NO_FILE = (os.mkfifo, a_device, a_socket, a_circle)
LINKS = (a_link_to_a_file, a_link_to_a_folder, a_dangling_link)
REPLACED_FOLDER = (documents, a_letter, *NO_FILE, *LINKS, below_a_file)
"""What may stand where a folder is replaced as a whole."""
REPLACED_FILE = (documents, a_letter, *NO_FILE, *LINKS, below_a_file)
APPENDED_FILE = (documents, *NO_FILE, *LINKS, below_a_file)
"""What may stand where lines are added to a file."""
FILLED_FOLDER = (a_letter, *NO_FILE, a_link_to_a_file, a_dangling_link, below_a_file)
"""What may stand where new files are put into a folder: its own files are left alone, a linked folder is fine."""
WRITTEN_THROUGH = (documents, *NO_FILE, a_link_to_a_folder, below_a_file)
"""A configuration file, which is written through links."""


@dataclass(frozen=True)
class Output:
    """An option, or an argument ("" before its value), that names a place to write to."""

    command: tuple[str, ...]
    option: str
    refused: tuple[Callable[[Path], None], ...]


OUTPUTS = {
    ("train", "output"): [Output(words, "--output", REPLACED_FOLDER) for words in (SCRATCH, NATIVE, LORA)],
    ("train", "training_dir"): [Output(LORA, "--training-dir", FILLED_FOLDER)],
    ("train", "config"): [Output(NATIVE, "--config", WRITTEN_THROUGH)],
    ("promote", "config"): [Output(("promote", "none"), "--config", WRITTEN_THROUGH)],
    ("rollback", "config"): [Output(("rollback",), "--config", WRITTEN_THROUGH)],
    ("export", "output"): [
        Output(("export", "{ws}/models/tiny", "--to", to), "--output", FILLED_FOLDER) for to in ("hf", "gguf")
    ],
    ("corpus export", "file"): [Output(("corpus", "export"), "--output", REPLACED_FILE)],
    ("sample", "folder"): [Output(("sample",), "", FILLED_FOLDER)],
    ("verdicts export", "output_"): [Output(("verdicts", "export"), "--output", REPLACED_FOLDER)],
    ("hive aggregate", "output_"): [
        Output(("hive", "aggregate", "{ws}/adapters/none"), "--output", REPLACED_FOLDER)
    ],
    ("hive upload", "folder"): [
        Output(("hive", "upload", "none", "--user-id", "ann", "--yes"), "--folder", FILLED_FOLDER)
    ],
    ("monitor", "jsonl"): [Output(("monitor", "--count", "1"), "--jsonl", APPENDED_FILE)],
    ("monitor", "tensorboard"): [Output(("monitor", "--count", "1"), "--tensorboard", REPLACED_FOLDER)],
}
INPUTS = {
    ("train", "model"), ("train", "data"), ("validate", "base"), ("validate", "new"), ("validate", "scores"),
    ("chat", "model"), ("chat", "adapter"), ("models add", "path"), ("models add", "name"), ("export", "name"), ("backup restore", "stamp"), ("memory import", "paths"),
    ("memory import", "format_"), ("memory import", "silence"), ("corpus scan", "file"), ("schedule weekly", "flags"), ("schedule daily", "flags"),
    ("hive serve", "certificate"), ("hive serve", "certificate_key"), ("hive serve", "held_out"),
    ("ollama serve", "key_file"), ("notify import", "file"), ("hive aggregate", "folders"),
    ("hive aggregate", "folder"), ("hive aggregate", "key_file"), ("hive list", "folder"), ("hive list", "key_file"),
    ("hive download", "folder"), ("hive download", "key_file"), ("hive upload", "key_file"),
    ("hive upload", "name"), ("hive upload", "user_id"), ("hive upload", "adapter"), ("hive download", "version"),
}  # fmt: skip
_PATH_WORDS = re.compile(r"output|\bdir|folder|file|path|config|save|write")


def path_parameters() -> Iterator[tuple[str, str]]:
    """Command and parameter of everything whose name or help speaks of files."""

    def walk(command: object, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, (*names, name))
        if hasattr(command, "commands"):
            return
        for parameter in command.params:  # type: ignore[attr-defined]
            words = (
                parameter.name,
                *parameter.opts,
                parameter.metavar or "",
                getattr(parameter, "help", "") or "",
            )
            if not getattr(parameter, "is_flag", False) and _PATH_WORDS.search(" ".join(words).lower()):
                yield " ".join(names), parameter.name

    return walk(typer.main.get_command(build()), ())


def test_every_parameter_with_a_path_is_an_output_or_an_input() -> None:
    found = set(path_parameters())
    assert OUTPUTS.keys() - found == set() and INPUTS - found == set()
    assert found - OUTPUTS.keys() - INPUTS == set(), "a new parameter: is it an output?"


CASES = [
    pytest.param(output, make, id=f"{' '.join(output.command[:3])} {output.option} {make.__name__}")
    for outputs in OUTPUTS.values()
    for output in outputs
    for make in output.refused
]


@pytest.fixture
def ws(tmp_path: Path) -> Path:
    """A workspace with one conversation and a model."""
    from tests.models import talk, write_tiny

    root = tmp_path / "ws"
    pair = ("--user", "What is tea?", "--assistant", "Leaves in hot water.")
    assert run_cli("memory", "add", *pair, "--data-dir", str(root)).code == 0
    write_tiny(root / "models" / "tiny", [talk("a", "b")], steps=1)
    return root


@pytest.mark.parametrize(("output", "make"), CASES)
def test_a_command_leaves_a_foreign_output_alone(
    tmp_path: Path, ws: Path, output: Output, make: Callable[[Path], None]
) -> None:
    room = tmp_path / "room"
    room.mkdir()
    place = room / "place"
    try:
        make(place)
    except PermissionError:
        pytest.skip("only root makes devices")
    before = contents(room)
    named = place / "below" if make is below_a_file else place
    words = [word.format(ws=ws) for word in output.command]
    refused = run_cli(*words, *([output.option] if output.option else []), str(named), "--data-dir", str(ws))
    text = " ".join((refused.out + refused.err).split())
    assert refused.code == 2, text
    assert "place" in text, "refused for another reason"
    assert contents(room) == before


def test_a_link_to_a_folder_is_a_place_for_new_files(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "place").symlink_to(tmp_path / "disk")
    assert run_cli("sample", str(tmp_path / "place"), "--data-dir", str(tmp_path / "ws")).code == 0
    assert (tmp_path / "disk" / "memory").is_dir()
