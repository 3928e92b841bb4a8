"""Training recipes: every hyperparameter of a phase, built from the run's parameters and the settings."""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha256

import msgspec

from engine.core.errors import UsageProblem
from engine.core.i18n import _
from engine.core.seeds import usable_seed
from engine.core.settings import Settings
from engine.runs.kinds import TrainParams
from engine.training.lr_schedule import Schedule

RECIPES = ("fast", "quality", "h2q-local")
"""Names of the recipes. "fast": 4 layers of width 128, best where minutes count. "quality": 4 layers of width
256, a lower loss when it trains over its text several times. "h2q-local": H2Q-Evo's preset."""


class Phase(StrEnum):
    SCRATCH = "scratch"
    NATIVE = "native"
    LORA = "lora"


class ModelSize(msgspec.Struct, frozen=True, kw_only=True):
    """Dimensions of a new model; the `native` phase takes those of its base."""

    dim: int = 128
    layers: int = 4
    heads: int = 4
    head_dim: int = 32
    ffn: int = 352
    """Width of the SwiGLU: 8/3 of `dim`, rounded up to a multiple of 32."""
    context: int = 2048
    """Context length of the finished model, in bytes."""


class CurriculumStage(msgspec.Struct, frozen=True, kw_only=True):
    """A stage of the length curriculum: part of a phase with windows of one length."""

    until: float
    """Share of the optimizer steps at which the stage ends; 1 for the last stage."""
    context: int
    """Bytes of a window."""
    batch: int
    """Windows per batch, before accumulation."""


class LoraSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a LoRA adapter (arXiv 2106.09685), in addition to those of `Recipe`."""

    rank: int = 16
    alpha: int = 32
    """The update is scaled by alpha / rank; with rsLoRA (arXiv 2312.03732) by alpha / sqrt(rank)."""
    dropout: float = 0.05
    targets: tuple[str, ...] = ()
    """Names of the modules to adapt. Empty: every linear layer except the output head."""
    rslora: bool = False
    packing: bool = True
    """Packs short conversations of a step into one sequence; they do not attend to each other."""
    four_bit: bool = True
    """Loads the base in 4 bits where bitsandbytes works."""
    hold: float = 0.0
    """Weight of the divergence from the base where nothing is answered; 0: it is not computed (docs/adr/0008)."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """Hyperparameters of one phase. Two runs with equal recipes, data and thread counts compute identical
    steps."""

    name: str
    """One of `RECIPES`."""
    phase: Phase
    size: ModelSize = ModelSize()
    adapter: LoraSettings = LoraSettings()
    """Used by the `lora` phase only."""
    curriculum: tuple[CurriculumStage, ...] = msgspec.field(name="stretches")
    """Stages from short to long windows: short ones learn the language quickly, the last one all positions."""
    accumulation: int = 1
    """BatchSource accumulated before an optimizer step."""
    micro_batch: int | None = None
    """Upper bound on the windows of a micro-batch. None: as many as memory allows."""
    epochs: int = 3
    """Passes over the text by bytes drawn (scratch), or over the answers (native, lora)."""
    max_steps: int | None = None
    """Upper bound on the optimizer steps. None: as many as the epochs take."""
    time_budget_s: float | None = None
    """Time budget of the phase in seconds; converted to steps by a measurement before the first one. None: no
    bound."""

    optimizer: str = "muon"
    """ "muon": Muon for matrices and AdamW for the rest; "adamw": AdamW for everything."""
    lr: float = 0.02
    """Peak learning rate: of the matrices with Muon, of all parameters with AdamW."""
    embed_lr: float = 0.08
    """Peak AdamW learning rate of the embedding, with Muon."""
    head_lr: float = 0.02
    """Peak AdamW learning rate of the output head, with Muon."""
    norm_lr: float = 0.01
    """Peak AdamW learning rate of the norms, with Muon."""
    betas: tuple[float, float] = (0.8, 0.95)
    eps: float = 1e-10
    weight_decay: float = 0.0
    schedule: Schedule = Schedule.LINEAR
    warmup: int = 10
    """Steps of linear warm-up to the peak rate."""
    clip: float = 0.0
    """Maximum gradient norm; 0: no clipping."""

    replay: float = 0.3
    """Share of scratch text in each native batch and its loss; without it the model forgets the text."""
    eval_every: float = 0.1
    """Share of the steps between two evaluations on the general set."""
    eval_bytes: int = 16_384
    """Bytes of the general set per evaluation: the same text each time, so that the values are comparable."""
    checkpoint_every_s: float = 60.0
    """Seconds between checkpoints: the most work that a crash can lose."""
    max_memory_gb: float | None = None
    """Memory limit of the run's parameters; None: the limit of the settings."""
    seed: int = 0
    nproc: int = 1
    """Processes that compute the gradients of a step together; the steps are the same up to rounding."""

    @property
    def tokens_per_step(self) -> int:
        """Bytes per optimizer step in the first stage."""
        first = self.curriculum[0]
        return first.context * first.batch * self.accumulation

    def stage_at(self, step: int, max_steps: int) -> CurriculumStage:
        """The curriculum stage of `step` (from 0) out of `max_steps`."""
        done = step / max(1, max_steps)
        return next((stage for stage in self.curriculum if done < stage.until), self.curriculum[-1])

    def digest(self) -> str:
        """sha256 of everything that determines the steps; limits and checkpoint intervals are excluded."""
        fields = msgspec.to_builtins(
            msgspec.structs.replace(
                self, max_steps=None, time_budget_s=None, checkpoint_every_s=0.0, max_memory_gb=None
            )
        )
        del fields["nproc"]
        if not self.adapter.hold:
            # Absent as in the checkpoints of trainings that could not hold to the base.
            del fields["adapter"]["hold"]
        return sha256(msgspec.json.encode(fields, order="sorted")).hexdigest()


def recipe_for(
    params: TrainParams,
    phase: Phase | str,
    *,
    time_budget_s: float | None = None,
    settings: Settings | None = None,
) -> Recipe:
    """The recipe for `params`; missing values come from `settings`, then from the named recipe.

    Raises UsageProblem that names the flag.
    """
    phase = Phase(phase)
    _check(params)
    settings = settings or Settings()
    params = msgspec.structs.replace(
        params,
        batch_size=params.batch_size or settings.streaming_batch_size or None,
        accumulation=params.accumulation or settings.gradient_accumulation_steps or None,
    )
    if phase is Phase.LORA:
        recipe = _lora(params, settings.lora_hold)
    elif params.recipe == "h2q-local":
        recipe = _h2q_local(params, phase)
    else:
        recipe = _fast_scratch(params) if phase is Phase.SCRATCH else _fast_native(params)
    rates = {}
    if params.lr is not None:
        # The other parameter groups keep their ratio to the matrices.
        ratio = params.lr / recipe.lr
        rates = {
            "lr": params.lr,
            "embed_lr": recipe.embed_lr * ratio,
            "head_lr": recipe.head_lr * ratio,
            "norm_lr": recipe.norm_lr * ratio,
        }
    return msgspec.structs.replace(
        recipe,
        accumulation=params.accumulation or 1,
        micro_batch=settings.micro_batch_size or None,
        epochs=params.epochs or recipe.epochs,
        max_steps=params.max_steps,
        time_budget_s=params.time_budget_s if time_budget_s is None else time_budget_s,
        max_memory_gb=params.max_memory_gb,
        clip=recipe.clip if params.clip is None else params.clip,
        checkpoint_every_s=params.checkpoint_every_s,
        seed=usable_seed(params.seed),
        nproc=params.nproc,
        **rates,
    )


def _fast_scratch(params: TrainParams) -> Recipe:
    context = params.context or ModelSize().context
    # Steps of about equal bytes, so that one learning rate suits all stages.
    batch = params.batch_size or 24
    plan = [(0.75, 128), (0.92, 512), (1.0, context)]
    curriculum = [
        CurriculumStage(until=until, context=length, batch=max(1, round(batch * 128 / length)))
        for until, length in plan
        if length < context
    ]
    last = CurriculumStage(until=1.0, context=context, batch=max(1, round(batch * 128 / context)))
    size = ModelSize(context=context)
    if params.recipe == "quality":
        size = ModelSize(dim=256, heads=8, ffn=704, context=context)
    return Recipe(name=params.recipe, phase=Phase.SCRATCH, size=size, curriculum=(*curriculum, last))


def _fast_native(params: TrainParams) -> Recipe:
    # The base limits the window; `batch` counts windows of full length, shorter ones share their bytes.
    last = CurriculumStage(
        until=1.0, context=params.context or ModelSize().context, batch=params.batch_size or 2
    )
    return Recipe(
        name=params.recipe,
        phase=Phase.NATIVE,
        curriculum=(last,),
        lr=0.005,
        embed_lr=0.01,
        head_lr=0.005,
        norm_lr=0.0025,
        # At twice the rate and 0.3 of text the demo's model loses 6 % of its own text, at these 2 %.
        replay=0.5,
    )


def as_begun(recipe: Recipe, settings_sha256: str) -> Recipe:
    """The recipe of a checkpoint: `recipe`, or what the same parameters meant when it had other defaults."""
    if recipe.phase is Phase.LORA:
        free = msgspec.structs.replace(recipe, adapter=msgspec.structs.replace(recipe.adapter, hold=0.0))
        return free if free.digest() == settings_sha256 else recipe
    less_replay = msgspec.structs.replace(recipe, replay=0.3)
    faster = msgspec.structs.replace(
        less_replay,
        lr=2 * recipe.lr,
        embed_lr=2 * recipe.embed_lr,
        head_lr=2 * recipe.head_lr,
        norm_lr=2 * recipe.norm_lr,
    )
    forms = (recipe, less_replay, faster)
    return next((form for form in forms if form.digest() == settings_sha256), recipe)


LORA_CONTEXT = 1024
"""Tokens of a window, where base and memory allow it."""


def _lora(params: TrainParams, hold: float) -> Recipe:
    last = CurriculumStage(until=1.0, context=params.context or LORA_CONTEXT, batch=params.batch_size or 4)
    rank = params.rank or LoraSettings().rank
    return Recipe(
        name=params.recipe,
        phase=Phase.LORA,
        adapter=LoraSettings(
            rank=rank,
            alpha=params.alpha or 2 * rank,
            targets=tuple(params.target_modules),
            rslora=params.rslora,
            packing=params.packing,
            four_bit=params.four_bit,
            hold=hold,
        ),
        curriculum=(last,),
        optimizer="adamw",
        lr=2e-4,
        betas=(0.9, 0.999),
        eps=1e-8,
        warmup=5,
        clip=1.0,
        eval_every=0.25,
        eval_bytes=4096,
    )


def _h2q_local(params: TrainParams, phase: Phase) -> Recipe:
    """H2Q-Evo's local trainer: 6 layers of width 256, 8 heads, windows of 512, AdamW at 1e-4 with cosine,
    clipping at 1."""
    context = params.context or 512
    return Recipe(
        name="h2q-local",
        phase=phase,
        # A SwiGLU of 1,376 has as many parameters as the preset's feed-forward of 2,048.
        size=ModelSize(dim=256, layers=6, heads=8, head_dim=32, ffn=1376, context=context),
        curriculum=(CurriculumStage(until=1.0, context=context, batch=params.batch_size or 8),),
        epochs=10,
        optimizer="adamw",
        lr=1e-4,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.01,
        schedule=Schedule.COSINE,
        warmup=0,
        clip=1.0,
    )


def _check(params: TrainParams) -> None:
    if params.recipe not in RECIPES:
        raise UsageProblem(
            _("--recipe must be one of {names}, not {value}").format(
                names=_(", ").join(RECIPES), value=params.recipe
            ),
            hint="h2q-tui train --recipe fast",
        )
    for flag, value in (
        ("--epochs", params.epochs),
        ("--batch-size", params.batch_size),
        ("--accumulation", params.accumulation),
        ("--max-steps", params.max_steps),
        ("--rank", params.rank),
        ("--alpha", params.alpha),
        ("--nproc", params.nproc),
    ):
        if value is not None and value < 1:
            raise UsageProblem(_("{flag} must be 1 or more, not {value}").format(flag=flag, value=value))
    if params.context is not None and not 32 <= params.context <= 4096:
        raise UsageProblem(_("--context must be 32 to 4096 bytes, not {value}").format(value=params.context))
    if params.lr is not None and not 0 < params.lr <= 10:
        raise UsageProblem(_("--lr must be more than 0 and at most 10, not {value}").format(value=params.lr))
    if params.clip is not None and not params.clip >= 0:
        raise UsageProblem(_("--clip must be 0 (off) or more, not {value}").format(value=params.clip))
    if params.time_budget_s is not None and not params.time_budget_s > 0:
        raise UsageProblem(_("a time budget must be more than 0 seconds"))
    if params.max_memory_gb is not None and not params.max_memory_gb > 0:
        raise UsageProblem(
            _("--max-memory-gb must be more than 0, not {value}").format(value=params.max_memory_gb)
        )
    if not params.checkpoint_every_s > 0:
        raise UsageProblem(_("the checkpoint interval must be more than 0 seconds"))
