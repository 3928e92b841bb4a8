"""`h2q-tui evolve`: cycles of synthetic data, a candidate and a verdict, starting from the model in use."""

from __future__ import annotations

import typer

from engine.core.i18n import _
from tui.cli import session
from tui.cli.options import EVOLVE_OPTIONS, Values, add_command, run_params


def register(app: typer.Typer) -> None:
    """Add `evolve`."""
    text = _("Evolve: train the model in use on new material; keep what is shown to be better.")
    add_command(app, "evolve", EVOLVE_OPTIONS, _evolve, help=text)


def _evolve(values: Values) -> None:
    import msgspec

    from engine.core.i18n import language
    from engine.runs.kinds import EvolveParams
    from engine.runs.spec import make_spec
    from tui.cli.run_output import run_command

    ws = session.workspace()
    params = run_params(EVOLVE_OPTIONS, values) | {
        "settings": {"unload_ollama": True} if values["unload_ollama"] else {},
        "wait": not values["run_once"],
    }
    spec = make_spec(ws.root, msgspec.convert(params, EvolveParams), language=language())
    raise typer.Exit(run_command(ws, spec, detach=values["detach"]))
