"""The global options of the command line, and the workspace and the paths that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.core.paths import Workspace
    from engine.models.resolve import ModelPlace


@dataclass
class GlobalOptions:
    """Options that are accepted before and after any subcommand."""

    data_dir: str | None = None
    lang: str | None = None
    json: bool = False
    """One JSON document on stdout; everything for people goes to stderr."""
    json_printed: bool = False
    """The document is on stdout."""
    plain: bool = False
    """No colour and no redrawing: one line per event."""
    quiet: bool = False
    workspace_dir: str | None = None
    """`--workspace`: the folder against which relative paths resolve."""


options = GlobalOptions()
"""Set once by `tui.cli.main.main` before a command runs."""


def resolve(path: str) -> Path:
    """An absolute path; a relative one starts in `--workspace`, else in the current folder."""
    from engine.core.paths import resolve_path

    given = Path(path).expanduser()
    return resolve_path(given if given.is_absolute() else Path(options.workspace_dir or ".") / given)


def output_path(path: str) -> Path:
    """Like `resolve`, but a link that is named stays a link: it is never replaced by what is written."""
    given = Path(path).expanduser()
    absolute = given if given.is_absolute() else Path(options.workspace_dir or ".") / given
    return resolve(str(absolute.parent)) / absolute.name if absolute.name not in ("", "..") else resolve(path)


def workspace(*, create: bool = True) -> Workspace:
    """The workspace of `--data-dir`, opened. Raises BadInput (a newer workspace, MindX memory, the shipped data)."""
    from engine.workspace.open import open_workspace

    return open_workspace(locate_workspace(), create=create)


def model_place(ws: Workspace, name: str) -> ModelPlace:
    """The model `name`; a relative path starts as in `resolve`. Raises BadInput for an unknown one."""
    from engine.models.resolve import find_place

    return find_place(ws, name, Path(options.workspace_dir or ".").absolute())


def model_reference(ws: Workspace, name: str) -> str:
    """The model `name` as every process of the program finds it. Raises as `model_place` and `check_usable`."""
    from engine.models.catalog import check_usable

    place = model_place(ws, name)
    check_usable(place)
    return place.reference


def loadable_model(ws: Workspace, name: str) -> ModelPlace:
    """As `model_place`, of a model whose headers have all been read, so that a refusal leaves no run behind.

    Raises BadInput for a model of a kind that is not supported and for broken files, also of an adapter's base;
    ServiceUnreachable for a tag outside the local stores while Ollama does not answer.
    """
    from engine.models.base_models import find_base
    from engine.models.catalog import check_usable
    from engine.models.resolve import ModelKind

    place = model_place(ws, name)
    check_usable(place)
    if place.kind is not ModelKind.NATIVE:
        find_base(ws, place.reference)
    return place


def locate_workspace() -> Workspace:
    """The workspace of `--data-dir` without opening it, which would create and migrate folders."""
    from engine.core.paths import find_workspace

    base = Path(options.workspace_dir) if options.workspace_dir else None
    return find_workspace(options.data_dir, relative_to=base)


def complete(command: str) -> str:
    """An `h2q-tui` command with the `--data-dir` of this process, so that it works as printed."""
    if not options.data_dir or not f"{command} ".startswith("h2q-tui ") or "--data-dir" in command:
        return command
    if command.endswith("--help"):
        return command
    from engine.core.filenames import shell_word

    return f"{command} --data-dir {shell_word(options.data_dir)}"


def own_command(*words: str) -> str:
    """The command line `h2q-tui WORDS` that works as printed."""
    from engine.core.filenames import shell_command

    return complete(shell_command("h2q-tui", *words))
