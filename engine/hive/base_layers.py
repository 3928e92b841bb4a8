"""The layers of a hive's base model, read by a process of its own: torch and transformers stay out of the server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from engine.core.errors import BadInput, H2QError, RunFailed
from engine.core.i18n import _, language, set_language
from engine.core.paths import Workspace
from engine.hive.outgoing import base_name
from engine.runs.own_process import engine_environment


class BaseLayers(msgspec.Struct, frozen=True, kw_only=True):
    """What adapters are compared with, or why the model cannot be a base."""

    name: str = ""
    """Without the folders of this machine."""
    fingerprint: str = ""
    layers: dict[str, tuple[int, int]] = {}
    """`(out, in)` of every layer that can be adapted."""
    problem: str = ""
    hint: str = ""


def read_base_layers(ws: Workspace, model: str) -> BaseLayers:
    """The layers of the model `model`; of an adapter those of its base. Takes seconds. Raises BadInput, RunFailed."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "engine.hive.base_layers", str(ws.root), model, language()],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=False,
        env=engine_environment(),
    )
    try:
        found = msgspec.json.decode(done.stdout, type=BaseLayers)
    except msgspec.DecodeError as problem:
        raise RunFailed(_("the base model could not be read: {model}").format(model=model)) from problem
    if found.problem:
        raise BadInput(found.problem, hint=found.hint)
    return found


def main() -> None:
    """Arguments: folder of the workspace, model, language."""
    from engine.models.base_models import find_base
    from engine.models.linear_shapes import linear_shapes

    root, model, language_ = sys.argv[1:]
    set_language(language_)
    try:
        base = find_base(Workspace(Path(root)), model)
        found = BaseLayers(name=base_name(base.source), fingerprint=base.sha256, layers=linear_shapes(base))
    except H2QError as problem:
        found = BaseLayers(problem=problem.message, hint=problem.hint)
    sys.stdout.buffer.write(msgspec.json.encode(found))


if __name__ == "__main__":
    main()
