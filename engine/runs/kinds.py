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
    """How a model is made. Only modes that are built are listed."""

    AUTO = "auto"
    NATIVE = "native"
    SCRATCH = "scratch"
    LORA = "lora"


class ImportParams(msgspec.Struct, frozen=True, kw_only=True):
    """Conversations into memory."""

    paths: list[str]
    format: str = "auto"
    """Name of an importer, or "auto" to recognise each file."""
    role_map: dict[str, str] = {}
    """Roles of the file that are not known, to `user`, `assistant`, `system` or `tool`."""
    again: bool = False
    """Take conversations, too, that the person made memory forget."""


class CorpusParams(msgspec.Struct, frozen=True, kw_only=True):
    """Memory into a corpus: collect, filters, split. No field: the settings of the workspace decide."""


class TrainParams(msgspec.Struct, frozen=True, kw_only=True):
    """The whole loop for one model: corpus, training, validation, promotion.

    `None` means "as the recipe or the settings say". Errors about a field name the flag of the same name.
    """

    mode: TrainMode = TrainMode.AUTO
    model: str | None = None
    """Base to continue: a model of the registry or a directory. None: the model in use.

    For `lora` a Hugging Face directory, an Ollama tag, or an adapter; None: `lora_base` of the settings."""
    min_corpus: int = 50
    """Accepted pairs below which the run ends as `skipped`."""
    data: list[str] = []
    """Text files or folders for `scratch`; empty: `<data-dir>/training_data`, then `./data/training_data`.
    For `lora` files of conversations instead of the corpus."""
    output: str | None = None
    """Folder of the new model; None: `models/<name>` in the workspace."""
    training_dir: str | None = None
    """Folder that receives what `lora` makes, as `<name>` in it."""
    rank: int = 16
    alpha: int | None = None
    """None: twice the rank."""
    target_modules: list[str] = []
    """Names of the modules that `lora` adapts; empty: every linear layer but the head."""
    rslora: bool = False
    packing: bool = True
    four_bit: bool = True
    """`lora` loads its base in 4 bits where bitsandbytes works."""
    config: str | None = None
    """The models.json to read and update; None: the workspace's."""
    recipe: str = "fast"
    """"fast" (4 × 128, Muon and AdamW), "quality" (4 × 256) or "h2q-local" (the H2Q-Evo local training preset)."""
    epochs: int | None = None
    batch_size: int | None = None
    """Sequences per optimizer step before accumulation."""
    accumulation: int | None = None
    """Micro-batches added up before an optimizer step."""
    max_memory_gb: float | None = None
    settings: dict[str, bool | int | float | str] = {}
    """Settings (engine/config.py) by name that this run takes instead of those of the workspace."""
    max_steps: int | None = None
    """Optimizer steps of the phase at most; also bounds each phase of the demo."""
    lr: float | None = None
    """Peak learning rate of the matrices (Muon) or of everything (AdamW)."""
    clip: float | None = None
    """Largest gradient norm; 0 turns clipping off."""
    context: int | None = None
    """Bytes a model sees at once."""
    time_budget_s: float | None = None
    """Seconds that a phase may take: the step count is set from the speed measured at its start."""
    seed: int = 0
    checkpoint_every_s: float = 60.0
    """Seconds between checkpoints: the most that a crash can cost."""
    resume: str | None = None
    """Run whose newest valid checkpoint is continued."""
    promote: bool = True
    """Put the new model to use when the verdict says so."""
    wait: bool = True
    """Queue behind another training run instead of refusing."""
    scheduled: bool = False
    """Nobody sat before it: a schedule started it."""


class ValidateParams(msgspec.Struct, frozen=True, kw_only=True):
    """Judge `new` against `base` on the held-out conversations; both are registry names or directories."""

    base: str
    new: str
    promote: bool = False


class EvolveParams(msgspec.Struct, frozen=True, kw_only=True):
    """Cycles of new material, a candidate and a verdict, from the model in use on."""

    cycles: int = 3
    real_share: float = 0.7
    """Share of real data in each dataset and batch, by trained bytes; 0.5 at least."""
    answers: int = 24
    """Real questions that the champion answers in each cycle; sound answers become material."""
    min_corpus: int = 50
    """Accepted pairs below which the run ends as `skipped`."""
    epochs: int = 1
    max_steps: int | None = None
    """Optimizer steps of each cycle at most."""
    lr: float | None = None
    batch_size: int | None = None
    context: int | None = None
    max_memory_gb: float | None = None
    time_budget_s: float | None = None
    """Seconds that all cycles together may take."""
    seed: int = 0
    checkpoint_every_s: float = 60.0
    resume: str | None = None
    """Run of this kind that goes on with the cycle it was in."""
    settings: dict[str, bool | int | float | str] = {}
    """Settings of the workspace that this run alone takes otherwise, as `TrainParams.settings`."""
    wait: bool = True
    """Queue behind another training run instead of refusing."""


class ExportParams(msgspec.Struct, frozen=True, kw_only=True):
    """A model as files that other programs load, with what the export costs in NLL."""

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
    """Share of the smallest weights of each matrix that become zero."""
    measure: bool = True
    """Measure the cost in NLL and compare with llama.cpp."""
    ollama_name: str | None = None
    """What Ollama calls it; None: the model's name."""
    system: str = ""
    """The system text that Ollama puts before every conversation."""


class DemoParams(msgspec.Struct, frozen=True, kw_only=True):
    """The whole loop on the shipped sample."""

    steps: int | None = None
    """Optimizer steps of each training phase; None: as many as fit in four minutes on two cores."""


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
