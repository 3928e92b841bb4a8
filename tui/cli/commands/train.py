"""`h2q-tui train`: the whole loop for one model, in the foreground or detached."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from engine.core.i18n import _
from tui.cli import common

if TYPE_CHECKING:
    from engine.compat.h2q_config import Streaming
    from engine.core.paths import Workspace

MODES = ("auto", "native", "scratch", "lora")
RECIPES = ("fast", "quality", "h2q-local")


def register(app: typer.Typer) -> None:
    """Adds `train`."""

    @app.command(help=_("Train: corpus, model, verdict, and promotion when the new model is better."))
    def train(
        run_once: bool = typer.Option(
            False,
            "--run-once",
            help=_(
                "Stay in the foreground until the run ends (as without --detach); refuse when another run trains."
            ),
        ),
        mode: str = typer.Option(
            "auto",
            "--mode",
            help=_(
                "auto, native (the built-in model on your conversations), scratch (on plain text) or lora "
                "(an adapter on a Hugging Face model or an Ollama tag)."
            ),
        ),
        model: str = typer.Option(
            None,
            "--model",
            help=_(
                "Base to continue: a model's name, directory or Ollama tag; without it, the model in use."
            ),
        ),
        min_corpus: int = typer.Option(
            50, "--min-corpus", min=1, help=_("Accepted pairs below which the run is skipped (exit code 3).")
        ),
        data: list[str] = typer.Option(  # noqa: B008
            [],
            "--data",
            help=_("Text files or folders for scratch; Alpaca or ShareGPT files for lora."),  # noqa: B008
        ),
        config: str = typer.Option(
            None,
            "--config",
            help=_(
                "models.json to update instead of the workspace's, or a streaming configuration of H2Q-Evo."
            ),
        ),
        settings: list[str] = typer.Option(  # noqa: B008
            [],
            "--set",
            metavar="NAME=VALUE",
            help=_("A setting for this run alone, such as micro_batch_size=2; may be given several times."),  # noqa: B008
        ),
        wait: bool = typer.Option(False, "--wait", help=_("Wait when another run trains.")),
        output: str = typer.Option(None, "--output", help=_("Folder of the new model.")),
        training_dir: str = typer.Option(
            None,
            "--training-dir",
            help=_("Folder in which lora puts its adapter; scripts there are never run."),
        ),
        rank: int = typer.Option(16, "--rank", min=1, max=1024, help=_("Rank of the adapter.")),
        alpha: int = typer.Option(
            None, "--alpha", min=1, help=_("Scale of the adapter's update, times its rank; twice the rank.")
        ),
        target_modules: str = typer.Option(
            None,
            "--target-modules",
            help=_(
                "Layers that lora adapts, with commas between; without it, every linear one but the head."
            ),
        ),
        rslora: bool = typer.Option(False, "--rslora", help=_("Scale by the square root of the rank.")),
        packing: bool = typer.Option(
            True, "--packing/--no-packing", help=_("Short conversations share a row in lora.")
        ),
        no_4bit: bool = typer.Option(
            False, "--no-4bit", help=_("Do not load the base in 4 bits where bitsandbytes works.")
        ),
        recipe: str = typer.Option(
            "fast", "--recipe", help=_("fast, quality (larger, slower) or h2q-local (the H2Q-Evo preset).")
        ),
        epochs: int = typer.Option(None, "--epochs", min=1, help=_("Passes over the corpus.")),
        batch_size: int = typer.Option(
            None, "--batch-size", "--streaming-batch-size", min=1, help=_("Sequences per step.")
        ),
        accumulation: int = typer.Option(
            None,
            "--accumulation",
            "--gradient-accumulation-steps",
            min=1,
            help=_("Micro-batches added up before a step."),
        ),
        max_memory_gb: float = typer.Option(
            None, "--max-memory-gb", min=0.25, help=_("Memory that the run may take (4.0).")
        ),
        unload_ollama: bool = typer.Option(
            False, "--unload-ollama", help=_("Free the models that Ollama holds in memory first.")
        ),
        max_steps: int = typer.Option(None, "--max-steps", min=1, help=_("Optimizer steps at most.")),
        max_minutes: float = typer.Option(
            None, "--max-minutes", min=0.1, help=_("Minutes that the training may take.")
        ),
        lr: float = typer.Option(None, "--lr", min=0.0, help=_("Peak learning rate.")),
        clip: float = typer.Option(
            None, "--clip", min=0.0, help=_("Largest gradient norm; 0 turns clipping off.")
        ),
        context: int = typer.Option(
            None,
            "--context",
            min=64,
            max=4096,
            help=_("Bytes that the model sees at once; tokens with lora."),
        ),
        seed: int = typer.Option(0, "--seed", help=_("Seed of everything random.")),
        checkpoint_every: float = typer.Option(
            60.0, "--checkpoint-every", min=1.0, help=_("Seconds between checkpoints.")
        ),
        resume: str = typer.Option(None, "--resume", help=_("Continue a run from its newest checkpoint.")),
        no_promote: bool = typer.Option(False, "--no-promote", help=_("Judge only; keep the model in use.")),
        detach: bool = typer.Option(
            False, "--detach", help=_("Start the run and return; it goes on without the terminal.")
        ),
    ) -> None:
        from engine.core.errors import UsageProblem
        from engine.core.i18n import language
        from engine.runs.spec import TrainMode, TrainParams, make_spec

        if mode not in MODES:
            raise UsageProblem(
                _("--mode takes {choices}, not {value}").format(choices=", ".join(MODES), value=mode),
                hint="h2q-tui train --mode native",
            )
        if recipe not in RECIPES:
            raise UsageProblem(
                _("--recipe takes {choices}, not {value}").format(choices=", ".join(RECIPES), value=recipe),
                hint="h2q-tui train --recipe fast",
            )
        common.check_lr(lr)
        ws = common.workspace()
        streaming = _streaming(config)
        asked = _settings(ws, settings, streaming, unload_ollama=unload_ollama)
        params = TrainParams(
            mode=TrainMode(mode),
            model=_model(model),
            min_corpus=min_corpus,
            data=[str(common.resolve(path)) for path in data],
            output=str(common.resolve(output)) if output else None,
            training_dir=str(common.resolve(training_dir)) if training_dir else None,
            rank=rank,
            alpha=alpha,
            target_modules=[name.strip() for name in (target_modules or "").split(",") if name.strip()],
            rslora=rslora,
            packing=packing,
            four_bit=not no_4bit,
            config=_config(config) if streaming is None else None,
            recipe=recipe,
            epochs=epochs,
            batch_size=batch_size,
            accumulation=accumulation,
            max_memory_gb=max_memory_gb,
            settings=asked,
            max_steps=max_steps,
            time_budget_s=max_minutes * 60 if max_minutes else None,
            lr=lr,
            clip=clip,
            context=context or (streaming.context if streaming is not None else None),
            seed=seed,
            checkpoint_every_s=checkpoint_every,
            resume=resume,
            promote=not no_promote,
            wait=wait or not run_once,
            scheduled=os.environ.get("H2Q_SCHEDULED") == "1",
        )
        spec = make_spec(ws.root, params, language=language())
        from tui.cli.progress import run_command

        raise typer.Exit(run_command(ws, spec, detach=detach))


def _streaming(config: str | None) -> Streaming | None:
    """The streaming configuration of H2Q-Evo that `--config` names, None when it is a models.json."""
    from engine.compat.h2q_config import read_streaming

    found = read_streaming(common.resolve(config)) if config else None
    if found is not None and found.ignored:
        typer.echo(
            _("Nothing to set here: {names}").format(names=", ".join(found.ignored)),
            err=True,
        )
    return found


def _settings(
    ws: Workspace, given: list[str], streaming: Streaming | None, *, unload_ollama: bool
) -> dict[str, bool | int | float | str]:
    """Settings for this run alone, checked before it starts."""
    from engine.core.config import load_settings, with_overrides
    from engine.core.errors import UsageProblem
    from engine.machine.cpu_affinity import check_processors

    asked = dict(streaming.settings) if streaming is not None else {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageProblem(
                _("--set takes NAME=VALUE, not {value}").format(value=text),
                hint="h2q-tui train --set micro_batch_size=2",
            )
        asked[name.strip()] = value.strip()
    if unload_ollama:
        asked["unload_ollama"] = True
    settings = with_overrides(load_settings(ws), asked)
    check_processors(settings.cpu_affinity)
    return asked


def _config(config: str | None) -> str | None:
    """Made absolute; its folder is never made here, because a slip of the pen would promote into nowhere."""
    import shlex

    from engine.core.errors import BadInput

    if not config:
        return None
    path = common.resolve(config)
    if not path.parent.is_dir():
        raise BadInput(
            _("There is no such folder"), path=path.parent, hint=f"mkdir -p {shlex.quote(str(path.parent))}"
        )
    if path.is_dir():
        raise BadInput(_("--config takes a file, and this is a folder"), path=path, hint="h2q-tui paths")
    return str(path)


def _model(model: str | None) -> str | None:
    """A name as it is, a path made absolute."""
    if model is None or model.startswith("ollama:") or not ("/" in model or Path(model).exists()):
        return model
    if ":" in model and not common.resolve(model).exists() and not model.startswith(("/", ".", "~")):
        return model  # an Ollama tag with its namespace
    return str(common.resolve(model))
