"""Flags that several commands share and those of `train` and `evolve`, each declared once.

An option has its flag, type, default, bounds, help, and the run parameter that it sets. `add_command` renders options
as the flags of a command, `run_params` their values as the parameters of its run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import typer

from engine.core.i18n import N_, _

Values = dict[str, Any]
"""The value of each option by its name, as parsed from the command line."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """A flag, and the run parameter that it sets.

    Attributes:
        name: of the value; the flag is the same with dashes unless `flags` gives others.
        help: marked for the catalogs.
        field: of the run's parameters in `engine.runs.spec`; "": the same as `name`; None: not one of them.
        convert: from the flag's value to that of the field.
        choices: all allowed values.
        example: one of the choices, for the hint of an error.
        above: with `up_to` the half-open interval of allowed values, checked after parsing.
    """

    name: str
    type: Any
    default: Any = None
    help: str
    field: str | None = ""
    convert: Callable[[Any], Any] | None = None
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    example: str = ""
    above: float | None = None
    up_to: float | None = None

    @property
    def flag(self) -> str:
        return self.flags[0] if self.flags else f"--{self.name.replace('_', '-')}"

    @property
    def field_name(self) -> str | None:
        return self.name if self.field == "" else self.field

    def render(self) -> Any:
        """The option for typer, in the language in use."""
        return typer.Option(
            self.default,
            *(self.flags or (self.flag,)),
            help=_(self.help),
            metavar=self.metavar,
            min=self.least,
            max=self.most,
        )

    def check(self, value: Any, command: str) -> None:
        """Raises UsageProblem for a value that is not allowed."""
        from engine.core.errors import UsageProblem

        if self.choices and value not in self.choices:
            raise UsageProblem(
                _("{option} takes {choices}, not {value}").format(
                    option=self.flag, choices=_(", ").join(self.choices), value=value
                ),
                hint=f"h2q-tui {command} {self.flag} {self.example}",
            )
        if self.above is not None and value is not None and not self.above < value <= (self.up_to or 0):
            raise UsageProblem(
                _("{option} takes more than {above:g} and up to {up_to:g}, not {value}").format(
                    option=self.flag, above=self.above, up_to=self.up_to, value=value
                )
            )


def add_command(
    app: typer.Typer, name: str, options: Sequence[Option], function: Callable[[Values], None], *, help: str
) -> None:
    """Add a command with `options`; it checks their values and calls `function` with them."""

    def command(**values: Any) -> None:
        for option in options:
            option.check(values[option.name], name)
        function(values)

    parameters = [
        inspect.Parameter(
            option.name, inspect.Parameter.KEYWORD_ONLY, default=option.render(), annotation=option.type
        )
        for option in options
    ]
    # typer reads the flags from the signature.
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    app.command(name, help=help)(command)


def run_params(options: Sequence[Option], values: Values) -> dict[str, Any]:
    """The run parameters that the options set, by their field names; an option without a value is left out."""
    params = {}
    for option in options:
        value, field = values[option.name], option.field_name
        if value is not None and field is not None:
            params[field] = option.convert(value) if option.convert else value
    return params


def _opposite(value: bool) -> bool:
    return not value


def _output(value: str) -> str | None:
    from tui.cli.session import output_path

    return str(output_path(value)) if value else None


def _paths(values: list[str]) -> list[str]:
    from tui.cli.session import resolve

    return [str(resolve(value)) for value in values]


def _names(value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]


def _seed(value: int) -> int:
    from engine.core.seeds import usable_seed

    return usable_seed(value)


def _seconds(minutes: float) -> float:
    return minutes * 60


MAX_MEMORY_GB = Option(
    name="max_memory_gb", type=float, least=0.25, help=N_("Memory budget of the run in GB (4.0).")
)
UNLOAD_OLLAMA = Option(
    name="unload_ollama",
    type=bool,
    default=False,
    field=None,
    help=N_("Unload the models that Ollama has in memory first."),
)
YES = Option(name="yes", type=bool, default=False, field=None, help=N_("Do not ask for confirmation."))
MIN_CORPUS = Option(
    name="min_corpus",
    type=int,
    default=50,
    least=1,
    help=N_("Accepted pairs below which the run is skipped (exit code 3)."),
)
BATCH_SIZE = Option(name="batch_size", type=int, least=1, help=N_("Batch size: sequences per step."))
LR = Option(name="lr", type=float, least=0.0, above=0, up_to=10, help=N_("Peak learning rate."))
SEED = Option(name="seed", type=int, default=0, convert=_seed, help=N_("Random seed."))
CHECKPOINT_EVERY = Option(
    name="checkpoint_every",
    type=float,
    default=60.0,
    least=1.0,
    field="checkpoint_every_s",
    help=N_("Seconds between checkpoints."),
)
NPROC = Option(
    name="nproc",
    type=int,
    default=1,
    least=1,
    help=N_("Processes that train together, each on its part of every batch; torchrun sets it itself."),
)
DETACH = Option(
    name="detach",
    type=bool,
    default=False,
    field=None,
    help=N_("Start the run in the background and return; it does not need the terminal."),
)

TRAIN_OPTIONS: tuple[Option, ...] = (
    Option(
        name="run_once",
        type=bool,
        default=False,
        field=None,
        help=N_(
            "Stay in the foreground until the run ends (as without --detach); fail if another run is training."
        ),
    ),
    Option(
        name="mode",
        type=str,
        default="auto",
        choices=("auto", "native", "scratch", "lora", "message"),
        example="native",
        help=N_(
            "auto, native (the built-in model on your conversations), scratch (on plain text), lora "
            "(an adapter on a Hugging Face model or an Ollama tag) or message (your conversations before every "
            "chat of a GGUF model: prompting, not training)."
        ),
    ),
    Option(
        name="model",
        type=str,
        help=N_("Base model to continue: name, directory or Ollama tag. Default: the model in use."),
    ),
    MIN_CORPUS,
    Option(
        name="data",
        type=list[str],
        default=[],
        convert=_paths,
        help=N_("Text files or folders for scratch; Alpaca or ShareGPT files for lora."),
    ),
    Option(
        name="config",
        type=str,
        help=N_("models.json to update instead of the workspace's, or a streaming configuration of H2Q-Evo."),
    ),
    Option(
        name="set",
        type=list[str],
        default=[],
        field=None,
        metavar="NAME=VALUE",
        help=N_("Setting for this run only, e.g. micro_batch_size=2; may be repeated."),
    ),
    Option(name="wait", type=bool, default=False, field=None, help=N_("Wait if another run is training.")),
    Option(name="output", type=str, convert=_output, help=N_("Folder of the new model.")),
    Option(
        name="training_dir",
        type=str,
        convert=_output,
        help=N_("Folder for the adapter of lora; scripts in it are never run."),
    ),
    Option(name="rank", type=int, least=1, most=1024, help=N_("LoRA rank (16).")),
    Option(
        name="alpha",
        type=int,
        least=1,
        help=N_("LoRA alpha; the update is scaled by alpha / rank. Default: twice the rank."),
    ),
    Option(
        name="target_modules",
        type=str,
        convert=_names,
        help=N_("Layers that lora adapts, separated by commas. Default: all linear layers except the head."),
    ),
    Option(
        name="rslora",
        type=bool,
        default=False,
        help=N_("Rank-stabilised LoRA: scale by the square root of the rank."),
    ),
    Option(
        name="packing",
        type=bool,
        default=True,
        flags=("--packing/--no-packing",),
        help=N_("Pack several short conversations into one training sequence (lora)."),
    ),
    Option(
        name="no_4bit",
        type=bool,
        default=False,
        field="four_bit",
        convert=_opposite,
        help=N_("Do not load the base in 4 bits where bitsandbytes works."),
    ),
    Option(
        name="recipe",
        type=str,
        default="fast",
        choices=("fast", "quality", "h2q-local"),
        example="fast",
        help=N_("fast, quality (larger, slower) or h2q-local (the H2Q-Evo preset)."),
    ),
    Option(name="epochs", type=int, least=1, help=N_("Epochs over the corpus.")),
    Option(
        name=BATCH_SIZE.name,
        type=int,
        flags=("--batch-size", "--streaming-batch-size"),
        least=1,
        help=BATCH_SIZE.help,
    ),
    Option(
        name="accumulation",
        type=int,
        flags=("--accumulation", "--gradient-accumulation-steps"),
        least=1,
        help=N_("Gradient accumulation: micro-batches per step."),
    ),
    MAX_MEMORY_GB,
    UNLOAD_OLLAMA,
    Option(name="max_steps", type=int, least=1, help=N_("Largest number of optimizer steps.")),
    Option(
        name="max_minutes",
        type=float,
        least=0.1,
        field="time_budget_s",
        convert=_seconds,
        help=N_("Time limit of the training in minutes."),
    ),
    NPROC,
    LR,
    Option(name="clip", type=float, least=0.0, help=N_("Largest gradient norm; 0 turns clipping off.")),
    Option(
        name="context",
        type=int,
        least=64,
        most=4096,
        help=N_("Context length in bytes; in tokens with lora and message."),
    ),
    SEED,
    CHECKPOINT_EVERY,
    Option(name="resume", type=str, help=N_("Resume a run from its newest checkpoint.")),
    Option(
        name="no_promote",
        type=bool,
        default=False,
        field="promote",
        convert=_opposite,
        help=N_("Validate only; keep the model in use."),
    ),
    DETACH,
)

EVOLVE_OPTIONS: tuple[Option, ...] = (
    Option(name="cycles", type=int, default=3, least=1, help=N_("Candidates to train and validate.")),
    Option(name="max_steps", type=int, least=1, help=N_("Largest number of optimizer steps in each cycle.")),
    Option(
        name="max_minutes",
        type=float,
        least=0.1,
        field="time_budget_s",
        convert=_seconds,
        help=N_("Time limit of all cycles together in minutes."),
    ),
    Option(name="epochs", type=int, default=1, least=1, help=N_("Epochs over each cycle's dataset.")),
    Option(
        name="real_share",
        type=float,
        default=0.7,
        help=N_("Share of real data in each dataset and batch; 0.5 at least."),
    ),
    Option(
        name="answers",
        type=int,
        default=24,
        least=0,
        help=N_("Questions that the model in use answers in each cycle, as synthetic data."),
    ),
    MIN_CORPUS,
    MAX_MEMORY_GB,
    UNLOAD_OLLAMA,
    BATCH_SIZE,
    Option(name="context", type=int, least=64, most=4096, help=N_("Context length in bytes.")),
    LR,
    SEED,
    CHECKPOINT_EVERY,
    Option(
        name="run_once", type=bool, default=False, field=None, help=N_("Fail if another run is training.")
    ),
    Option(name="resume", type=str, help=N_("Resume the cycle of an interrupted run.")),
    DETACH,
)
