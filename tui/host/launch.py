"""Starts engine runs from the app. Every function blocks for some milliseconds: call it in a thread."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from engine.core.filenames import path_to_text
from engine.core.i18n import language
from engine.runs.kinds import CorpusParams, ImportParams
from engine.runs.spec import make_spec
from tui.host.shutdown import uninterruptible

if TYPE_CHECKING:
    from engine.core.paths import Workspace
    from engine.runs.rundir import RunDir
    from engine.runs.spec import RunSpec


def launch_uninterrupted(workspace: Workspace, spec: RunSpec) -> RunDir:
    """`launch`, finished even when the user leaves the app meanwhile. Raises H2QError and OSError."""
    from engine.runs.launch import launch

    with uninterruptible():
        return launch(workspace, spec)


def start_import(workspace: Workspace, paths: list[str]) -> RunDir:
    """Launches an import run. Raises H2QError and OSError."""
    params = ImportParams(paths=[path_to_text(Path(path)) for path in paths])
    return launch_uninterrupted(workspace, make_spec(workspace.root, params, language=language()))


def start_build(workspace: Workspace) -> RunDir:
    """Launches a run that builds the corpus. Raises H2QError and OSError."""
    return launch_uninterrupted(workspace, make_spec(workspace.root, CorpusParams(), language=language()))
