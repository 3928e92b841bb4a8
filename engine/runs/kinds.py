"""The kinds of run: for each its parameters, its entry point, and what it does to the workspace.

A new kind is a `RunKind`, a Struct with its parameters, a row in `KINDS` and the module of its entry point.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import msgspec

from engine.core.i18n import N_


class RunKind(StrEnum):
    """What the engine can do; `KINDS` describes each."""

    IMPORT = "import"
    CORPUS = "corpus"
    TRAIN = "train"
    VALIDATE = "validate"
    EVOLVE = "evolve"
    EXPORT = "export"
    DEMO = "demo"


class TrainMode(StrEnum):
    """How a model is trained."""

    AUTO = "auto"
    NATIVE = "native"
    SCRATCH = "scratch"
    LORA = "lora"
    MESSAGE = "message"
    """Nothing is trained: conversations stand before every chat of a served model."""


class ImportParams(msgspec.Struct, frozen=True, kw_only=True):
    """Import of conversations into the memory."""

    paths: list[str]
    format: str = "auto"
    """Name of an importer, or "auto" to detect the format of each file."""
    role_map: dict[str, str] = {}
    """Unknown roles of the file, mapped to `user`, `assistant`, `system` or `tool`."""
    again: bool = False
    """Also import conversations that the user deleted."""
    me: str = ""
    """Who of two people in a chat is the assistant; "": whom the file names as its owner."""
    silence_s: float = 3600.0
    """Seconds without a message that end a dialogue of two people."""


class CorpusParams(msgspec.Struct, frozen=True, kw_only=True):
    """Corpus build: collect, filter, split. It has no fields; the settings of the workspace apply."""


class TrainParams(msgspec.Struct, frozen=True, kw_only=True):
    """Corpus build, training, validation and promotion of one model.

    `None` means the value of the recipe or the settings. Errors about a field name the flag of the same name.
    """

    mode: TrainMode = TrainMode.AUTO
    model: str | None = None
    """Base model: a model of the registry or a directory. None: the model in use.

    For `lora` a Hugging Face directory, an Ollama tag or an adapter; for `message` a GGUF file, a tag or an adapter on
    one. None: `lora_base` of the settings."""
    min_corpus: int = 50
    """With fewer accepted pairs the run ends as `skipped`."""
    data: list[str] = []
    """Text files or folders for `scratch`; empty: `<data-dir>/training_data`, then `./data/training_data`.
    For `lora`, files of conversations instead of the corpus."""
    output: str | None = None
    """Folder of the new model; None: `models/<name>` in the workspace."""
    training_dir: str | None = None
    """Parent folder of the adapter that `lora` trains, `<training_dir>/<name>`."""
    rank: int | None = None
    """None: 16, or that of the adapter that is continued."""
    alpha: int | None = None
    """None: twice the rank, or that of the adapter that is continued."""
    target_modules: list[str] = []
    """Modules that `lora` adapts; empty: every linear layer except the head, or those of the adapter that is continued."""
    rslora: bool = False
    packing: bool = True
    four_bit: bool = True
    """`lora` loads its base in 4 bits if bitsandbytes works."""
    config: str | None = None
    """The models.json to read and update; None: the workspace's."""
    recipe: str = "fast"
    """"fast" (4 × 128, Muon and AdamW), "quality" (4 × 256) or "h2q-local" (the H2Q-Evo local training preset)."""
    epochs: int | None = None
    batch_size: int | None = None
    """Sequences per optimizer step before accumulation."""
    accumulation: int | None = None
    """Micro-batches accumulated for one optimizer step."""
    max_memory_gb: float | None = None
    settings: dict[str, bool | int | float | str] = {}
    """Settings (`engine.core.config.Settings`) that this run overrides, by name."""
    max_steps: int | None = None
    """Maximum optimizer steps of a phase."""
    lr: float | None = None
    """Peak learning rate of the matrices (Muon) or of all parameters (AdamW)."""
    clip: float | None = None
    """Maximum gradient norm; 0 disables clipping."""
    context: int | None = None
    """Context length in bytes; in tokens for `lora` and `message`."""
    time_budget_s: float | None = None
    """Time limit of a phase in seconds; the step count follows from the speed measured at its start."""
    seed: int = 0
    checkpoint_every_s: float = 60.0
    """Seconds between checkpoints: the most work that a crash can lose."""
    nproc: int = 1
    """Processes that train together, each on its part of every batch."""
    resume: str | None = None
    """Run to resume from its newest valid checkpoint."""
    promote: bool = True
    """Promote the new model if the verdict allows it."""
    wait: bool = True
    """Wait for another training run instead of failing."""
    scheduled: bool = False
    """Started by a schedule."""


class ValidateParams(msgspec.Struct, frozen=True, kw_only=True):
    """Validation of `new` against `base` on the test set; both are registry names or directories."""

    base: str
    new: str
    promote: bool = False


class EvolveParams(msgspec.Struct, frozen=True, kw_only=True):
    """Evolution: cycles of synthetic data, a candidate model and a verdict, starting from the model in use."""

    cycles: int = 3
    real_share: float = 0.7
    """Share of real data in each dataset and batch, by trained bytes; at least 0.5."""
    answers: int = 24
    """Real questions that the model in use answers in each cycle; accepted answers become synthetic data."""
    min_corpus: int = 50
    """With fewer accepted pairs the run ends as `skipped`."""
    epochs: int = 1
    max_steps: int | None = None
    """Maximum optimizer steps of a cycle."""
    lr: float | None = None
    batch_size: int | None = None
    context: int | None = None
    max_memory_gb: float | None = None
    time_budget_s: float | None = None
    """Time limit of all cycles together, in seconds."""
    seed: int = 0
    checkpoint_every_s: float = 60.0
    resume: str | None = None
    """Evolution run to resume, from the cycle that it was in."""
    settings: dict[str, bool | int | float | str] = {}
    """Settings that this run overrides, as `TrainParams.settings`."""
    wait: bool = True
    """Wait for another training run instead of failing."""


class ExportParams(msgspec.Struct, frozen=True, kw_only=True):
    """Export of a model for other programs, with the NLL increase of the export."""

    name: str
    """A model or adapter of the workspace, a directory, a GGUF file or an Ollama tag."""
    to: Literal["hf", "gguf", "ollama"]
    quant: Literal["f32", "f16", "bf16", "q8_0", "q4_0"] | None = None
    """Type of the weights; None: f16 as GGUF, as stored in a Hugging Face directory."""
    output: str | None = None
    """Folder for the files; None: `exports` in the workspace."""
    adapter: bool = False
    """Only the adapter, a few megabytes, instead of the merged model."""
    prune: float = 0.0
    """Share of the smallest weights of each matrix to set to zero (magnitude pruning)."""
    measure: bool = True
    """Measure the NLL increase and compare with llama.cpp."""
    ollama_name: str | None = None
    """Name in Ollama; None: the model's name."""
    system: str = ""
    """System prompt of the model in Ollama."""


class DemoParams(msgspec.Struct, frozen=True, kw_only=True):
    """Demo: the complete pipeline on the shipped sample."""

    steps: int | None = None
    """Optimizer steps of each training phase; None: as many as fit into a few minutes."""
    base: str | None = None
    """"native" is the built-in model; else a base as for `lora`. None: a model that is fetched, where that is possible."""
    offline: bool = False
    """Fetch nothing."""


Params = ImportParams | CorpusParams | TrainParams | ValidateParams | EvolveParams | ExportParams | DemoParams


@dataclass(frozen=True)
class KindInfo:
    """One kind of run.

    Attributes:
        params: the Struct of its parameters.
        entry_point: "module:function", imported in the run's process only; takes a `RunContext` and returns
            a `RunResult`.
        title: name of the kind, marked for the catalogs.
        trains: it trains a model: one at a time in a workspace, with checkpoints and the status files.
        resumable: it can be resumed from its newest checkpoint.
        imports: it adds conversations to the memory.
        builds_corpus: it builds the corpus from the user's memory; the demo builds one from the sample.
        validates: it compares two models on the test set.
    """

    params: type[Params]
    entry_point: str
    title: str
    trains: bool = False
    resumable: bool = False
    imports: bool = False
    builds_corpus: bool = False
    validates: bool = False


KINDS: dict[RunKind, KindInfo] = {
    RunKind.IMPORT: KindInfo(ImportParams, "engine.pipeline.import_run:run", N_("import"), imports=True),
    RunKind.CORPUS: KindInfo(
        CorpusParams, "engine.pipeline.corpus:run_corpus", N_("corpus"), builds_corpus=True
    ),
    RunKind.TRAIN: KindInfo(
        TrainParams,
        "engine.pipeline.train:run_train",
        N_("train"),
        trains=True,
        resumable=True,
        builds_corpus=True,
        validates=True,
    ),
    RunKind.VALIDATE: KindInfo(
        ValidateParams, "engine.pipeline.validate:run_validate", N_("validate"), validates=True
    ),
    RunKind.EVOLVE: KindInfo(
        EvolveParams,
        "engine.pipeline.evolve:run",
        N_("evolve"),
        trains=True,
        resumable=True,
        builds_corpus=True,
        validates=True,
    ),
    RunKind.EXPORT: KindInfo(ExportParams, "engine.export.job:run", N_("export")),
    RunKind.DEMO: KindInfo(
        DemoParams,
        "engine.pipeline.demo:run",
        N_("demo"),
        trains=True,
        imports=True,
        validates=True,
    ),
}
