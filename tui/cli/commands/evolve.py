"""`h2q-tui evolve`: cycles of new material, a candidate and a verdict, from the model in use on."""

from __future__ import annotations

import typer

from engine.core.i18n import _
from tui.cli import common


def register(app: typer.Typer) -> None:
    """Adds `evolve`."""

    @app.command(
        help=_("Evolve: let the model in use learn from new material; keep what is shown to be better.")
    )
    def evolve(
        cycles: int = typer.Option(3, "--cycles", min=1, help=_("Candidates to train and judge.")),
        max_steps: int = typer.Option(
            None, "--max-steps", min=1, help=_("Optimizer steps of each cycle at most.")
        ),
        max_minutes: float = typer.Option(
            None, "--max-minutes", min=0.1, help=_("Minutes that all cycles together may take.")
        ),
        epochs: int = typer.Option(1, "--epochs", min=1, help=_("Passes over each cycle's dataset.")),
        real_share: float = typer.Option(
            0.7, "--real-share", help=_("Share of real data in each dataset and batch; 0.5 at least.")
        ),
        answers: int = typer.Option(
            24,
            "--answers",
            min=0,
            help=_("Questions that the model in use answers for each cycle's material."),
        ),
        min_corpus: int = typer.Option(
            50, "--min-corpus", min=1, help=_("Accepted pairs below which the run is skipped (exit code 3).")
        ),
        max_memory_gb: float = typer.Option(
            None, "--max-memory-gb", min=0.25, help=_("Memory that the run may take (4.0).")
        ),
        unload_ollama: bool = typer.Option(
            False, "--unload-ollama", help=_("Free the models that Ollama holds in memory first.")
        ),
        batch_size: int = typer.Option(None, "--batch-size", min=1, help=_("Sequences per step.")),
        context: int = typer.Option(
            None, "--context", min=64, max=4096, help=_("Bytes that the model sees at once.")
        ),
        lr: float = typer.Option(None, "--lr", min=0.0, help=_("Peak learning rate.")),
        seed: int = typer.Option(0, "--seed", help=_("Seed of everything random.")),
        checkpoint_every: float = typer.Option(
            60.0, "--checkpoint-every", min=1.0, help=_("Seconds between checkpoints.")
        ),
        run_once: bool = typer.Option(False, "--run-once", help=_("Refuse when another run trains.")),
        resume: str = typer.Option(None, "--resume", help=_("Go on with the cycle that a run was in.")),
        detach: bool = typer.Option(
            False, "--detach", help=_("Start the run and return; it goes on without the terminal.")
        ),
    ) -> None:
        from engine.core.i18n import language
        from engine.runs.spec import EvolveParams, make_spec
        from tui.cli.progress import run_command

        common.check_lr(lr)
        ws = common.workspace()
        params = EvolveParams(
            cycles=cycles,
            real_share=real_share,
            answers=answers,
            min_corpus=min_corpus,
            epochs=epochs,
            max_steps=max_steps,
            lr=lr,
            batch_size=batch_size,
            context=context,
            max_memory_gb=max_memory_gb,
            time_budget_s=max_minutes * 60 if max_minutes else None,
            seed=seed,
            checkpoint_every_s=checkpoint_every,
            resume=resume,
            settings={"unload_ollama": True} if unload_ollama else {},
            wait=not run_once,
        )
        raise typer.Exit(run_command(ws, make_spec(ws.root, params, language=language()), detach=detach))
