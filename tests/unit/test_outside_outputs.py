"""What a killed process leaves beside an output outside the workspace is gone when the workspace is opened again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.core.files import atomic_file
from engine.core.outputs import MODEL_FOLDER, new_folder
from engine.core.paths import Workspace
from engine.workspace.leftovers import sweep_leftovers
from engine.workspace.open import open_workspace
from engine.workspace.outside import outside_output


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "ws")
    open_workspace(workspace)
    return workspace


def killed(action: Callable[[], None]) -> None:
    """Runs `action` in a process that ends by kill -9 inside it."""
    child = os.fork()
    if child == 0:
        action()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def begin_a_folder(place: Path) -> None:
    with new_folder(place, MODEL_FOLDER) as new:
        (new / "model.safetensors").write_bytes(b"half")
        die()


def die_after_the_first_rename(place: Path) -> None:
    rename = Path.rename

    def once(self: Path, target: Path) -> Path:
        moved = rename(self, target)
        die()
        return moved

    Path.rename = once  # type: ignore[method-assign,assignment]
    with new_folder(place, MODEL_FOLDER) as new:
        (new / "h2q.json").write_text("new")


def die_after_the_second_rename(place: Path) -> None:
    rename, count = Path.rename, []

    def twice(self: Path, target: Path) -> Path:
        moved = rename(self, target)
        count.append(1)
        if len(count) == 2:
            die()
        return moved

    Path.rename = twice  # type: ignore[method-assign,assignment]
    with new_folder(place, MODEL_FOLDER) as new:
        (new / "h2q.json").write_text("new")


def begin_a_file(place: Path) -> None:
    with atomic_file(place) as temporary:
        temporary.write_bytes(b"half")
        die()


MOMENTS = {
    "a new folder": (begin_a_folder, None, []),
    "a replaced folder, being written": (begin_a_folder, "old", ["m[1]"]),
    "a replaced folder, moved away": (die_after_the_first_rename, "old", ["m[1]"]),
    "a replaced folder, in its place": (die_after_the_second_rename, "new", ["m[1]"]),
    "a file": (begin_a_file, None, []),
}


@pytest.mark.parametrize("moment", list(MOMENTS))
def test_nothing_of_a_killed_process_stays_beside_its_output(
    ws: Workspace, tmp_path: Path, moment: str
) -> None:
    action, content, left = MOMENTS[moment]
    outside = tmp_path / "outside"
    outside.mkdir()
    # A name with signs of a pattern.
    place = outside / "m[1]"
    if content is not None:
        place.mkdir()
        (place / "h2q.json").write_text("old")
    mine = [".m[1].new.mine", ".m[1].old", ".other.new.abcdefgh"]
    for name in mine:
        (outside / name).mkdir()
        (outside / name / "letter").write_text("dear")

    def write() -> None:
        with outside_output(ws, place):
            action(place)

    killed(write)
    assert len(names(outside)) > len(mine) + len(left) or moment == "a replaced folder, in its place"
    open_workspace(ws)
    assert names(outside) == sorted([*mine, *left])
    if content is not None:
        assert (place / "h2q.json").read_text() == content
    assert not [name for name in names(ws.root) if name.startswith(".output.")]


def test_an_output_that_is_being_written_is_left_alone(ws: Workspace, tmp_path: Path) -> None:
    place = tmp_path / "outside" / "m"
    with outside_output(ws, place), new_folder(place, MODEL_FOLDER) as new:
        assert sweep_leftovers(ws, everywhere=True) == 0
        (new / "h2q.json").write_text("new")
    assert names(place.parent) == ["m"]
    assert sweep_leftovers(ws) == 0 and names(place.parent) == ["m"]


def test_nothing_is_noted_for_an_output_inside(ws: Workspace) -> None:
    with outside_output(ws, ws.exports / "m"):
        assert not list(ws.root.glob(".output.*"))
