"""`h2q-tui export`: a model as files for other programs, or into Ollama, with the cost in NLL."""

from __future__ import annotations

from typing import Literal, cast

import typer

from engine.core.i18n import _
from tui.cli import session
from tui.cli.options import DETACH

TARGETS = ("hf", "gguf", "ollama")
QUANTS = ("f32", "f16", "bf16", "q8_0", "q4_0")


def register(app: typer.Typer) -> None:
    """Add `export`."""

    @app.command(
        help=_("Write a model for other programs: a Hugging Face directory, a GGUF file, or into Ollama.")
    )
    def export(
        name: str = typer.Argument(
            metavar="NAME",
            help=_("A model or adapter: its name or directory, a GGUF file, or an Ollama tag."),
        ),
        to: str = typer.Option(..., "--to", help=_("hf, gguf or ollama.")),
        quant: str = typer.Option(
            None,
            "--quant",
            help=_("Type of the weights: f16 (default), f32, q8_0, q4_0; with hf f32, f16 or bf16."),
        ),
        output: str = typer.Option(
            None, "--output", help=_("Folder for the files (exports in the workspace).")
        ),
        adapter: bool = typer.Option(
            False, "--adapter", help=_("Only the adapter, a few megabytes, instead of the merged model.")
        ),
        prune: float = typer.Option(
            0.0, "--prune", help=_("Share of the smallest weights of each matrix that become zero, e.g. 0.3.")
        ),
        no_measure: bool = typer.Option(
            False, "--no-measure", help=_("Skip the cost in NLL and the comparison with llama.cpp.")
        ),
        ollama_name: str = typer.Option(None, "--ollama-name", help=_("Name of the model in Ollama.")),
        system: str = typer.Option("", "--system", help=_("System prompt for Ollama.")),
        detach: bool = DETACH.render(),
    ) -> None:
        from engine.core.errors import UsageProblem
        from engine.core.i18n import language
        from engine.export.plan import plan_export
        from engine.runs.kinds import ExportParams
        from engine.runs.spec import make_spec
        from tui.cli.run_output import run_command

        for option, value, choices in (("--to", to, TARGETS), ("--quant", quant, QUANTS)):
            if value is not None and value not in choices:
                raise UsageProblem(
                    _("{option} takes {choices}, not {value}").format(
                        option=option, choices=_(", ").join(choices), value=value
                    ),
                    hint=f"h2q-tui export {name} --to gguf --quant f16",
                )
        ws = session.workspace()
        params = ExportParams(
            name=session.model_reference(ws, name),
            to=cast(Literal["hf", "gguf", "ollama"], to),
            quant=cast(Literal["f32", "f16", "bf16", "q8_0", "q4_0"] | None, quant),
            output=str(session.output_path(output)) if output else None,
            adapter=adapter,
            prune=prune,
            measure=not no_measure,
            ollama_name=ollama_name,
            system=system,
        )
        # Before the run starts, so that a refusal leaves no run behind.
        plan_export(ws, params)
        raise typer.Exit(run_command(ws, make_spec(ws.root, params, language=language()), detach=detach))
