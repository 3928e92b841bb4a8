"""What the sheet for a new run says: what there is to train on, and what would come of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.core.config import load_settings
from engine.core.i18n import N_, _, n_
from engine.core.paths import Workspace
from engine.corpus.review.store import ReviewStore
from engine.memory.store import MemoryStore
from engine.models import registry
from engine.models.ollama.running import running_models
from engine.models.ollama.store import installed_tags
from engine.runs.kinds import RunKind, TrainMode
from engine.runs.rundir import training_run_id
from engine.validation.sequential import MIN_CLUSTERS, PRIOR_DEVIATION, alpha_for, detectable_gain

ENOUGH = 60
"""Conversations below which a verdict may not be possible (DESIGN 6)."""


@dataclass(frozen=True)
class RunMode:
    """One way to make a model. Words are marked for the catalogs."""

    mode: TrainMode | RunKind
    name: str
    does: str


MODES: tuple[RunMode, ...] = (
    RunMode(
        TrainMode.NATIVE,
        "native",
        N_("your conversations, on top of the model in use; validated before use"),
    ),
    RunMode(TrainMode.LORA, "lora", N_("your conversations, as an adapter on a model you have")),
    RunMode(RunKind.EVOLVE, "evolve", N_("cycles on the model in use: synthetic data, candidate, verdict")),
    RunMode(TrainMode.SCRATCH, "scratch", N_("a new base from text files; conversations continue it")),
)


@dataclass(frozen=True)
class TrainingInputs:
    """What the workspace holds to train on."""

    conversations: int
    """In memory, before the filters."""
    accepted: int
    """Of the corpus as built last, 0 without one."""
    kept_back: int
    """Of these, kept back to judge."""
    groups: int
    """Near-duplicate clusters among the kept back."""
    base: str
    """Name of the model in use, or ""."""
    texts: int
    text_bytes: int
    training: str
    """Id of the run that trains now, or ""."""
    bases: tuple[str, ...] = ()
    """What an adapter could stand on: the setting, adapters, Ollama's models; the likeliest first."""
    held: str = ""
    """Models that Ollama holds in memory now, with commas between."""
    held_mb: float = 0.0
    unload: bool = False
    """Whether the settings say that they are freed first."""


def read_inputs(workspace: Workspace) -> TrainingInputs:
    """Counts; reads the store and the folder of texts. Runs in a thread."""
    count = accepted = kept_back = groups = 0
    if workspace.memory_db.exists():
        with MemoryStore(workspace.memory_db, readonly=True) as store:
            count = store.count()
        with ReviewStore(workspace.memory_db, readonly=True) as review:
            funnel = review.funnel()
            accepted, kept_back = funnel.accepted, funnel.test
            groups = review.test_clusters()
    texts = [path for path in _texts(workspace) if path.is_file()]
    held, settings = running_models(), load_settings(workspace)
    return TrainingInputs(
        conversations=count,
        accepted=accepted,
        kept_back=kept_back,
        groups=groups,
        base=registry.in_use(workspace) or "",
        texts=len(texts),
        text_bytes=sum(path.stat().st_size for path in texts),
        training=training_run_id(workspace),
        bases=tuple(_bases(workspace, settings.lora_base)),
        held=", ".join(model.name for model in held),
        held_mb=sum(model.mb for model in held),
        unload=settings.unload_ollama,
    )


def _bases(workspace: Workspace, configured: str) -> list[str]:
    adapters = [card.name for card in registry.list_models(workspace) if card.base_path]
    return list(dict.fromkeys([*([configured] if configured else []), *adapters, *installed_tags()]))


def _texts(workspace: Workspace) -> list[Path]:
    for folder in (workspace.training_data, Path("data/training_data")):
        found = sorted(folder.glob("*.txt")) if folder.is_dir() else []
        if found:
            return found
    return []


def size_words(size: int) -> str:
    """`1.1 MB`."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.0f} kB"


def describe(
    mode: TrainMode | RunKind, material: TrainingInputs, lora_base: str = "", *, unload: bool = False
) -> list[tuple[str, str]]:
    """What the sheet says about a mode: (sentence, kind), kind as of `say`.

    `lora_base` is the one chosen; `unload`: the person agrees that Ollama's models are freed first.
    """
    lines: list[tuple[str, str]] = []
    if material.texts:
        texts = n_("{n} text file, {size}", "{n} text files, {size}", material.texts).format(
            n=material.texts, size=size_words(material.text_bytes)
        )
    else:
        texts = _("no text file in training_data; h2q-tui sample writes some")
    if mode is TrainMode.SCRATCH:
        lines.append((texts, "" if material.texts else "error"))
        lines.append((_("It learns language from text files, not from you; it is not validated."), ""))
    elif mode is RunKind.EVOLVE:
        lines.append(
            (_("base: {name}").format(name=material.base), "")
            if material.base
            else (_("no model in use yet: train one first"), "error")
        )
        lines += _corpus(material)
        lines.append(
            (
                _(
                    "Three cycles; a candidate that is not shown to be better is deleted, only its record stays."
                ),
                "",
            )
        )
    elif mode is TrainMode.LORA:
        lines.append(_lora_line(material, lora_base))
        lines += _corpus(material)
    else:
        base = (
            _("base: {name}").format(name=material.base)
            if material.base
            else _("no base yet: one is trained from text first")
        )
        lines.append((base, "" if material.base or material.texts else "warning"))
        if not material.base:
            lines.append((texts, "" if material.texts else "error"))
        lines += _corpus(material)
    if material.held:
        words = (
            _("Ollama's {names} ({mb} MB of memory) will be unloaded first; o keeps it")
            if unload
            else _("Ollama has {names} in memory ({mb} MB); o unloads it first")
        )
        lines.append(
            (
                words.format(names=material.held, mb=round(material.held_mb)),
                "success" if unload else "warning",
            )
        )
    if material.training:
        lines.append(
            (_("run {run} is training: this run waits for it").format(run=material.training[:9]), "warning")
        )
    return lines


def _lora_line(material: TrainingInputs, base: str) -> tuple[str, str]:
    if not base:
        return _("no base: set lora_base in the settings, or give --model DIR or an Ollama tag"), "error"
    if len(material.bases) < 2:
        return _("base: {name}").format(name=base), ""
    place = material.bases.index(base) + 1
    return _("base: {name} ({place} of {count}, b: the next)").format(
        name=base, place=place, count=len(material.bases)
    ), ""


def _corpus(material: TrainingInputs) -> list[tuple[str, str]]:
    """What would be trained on and judged with, and how small a gain would be seen."""
    count = material.conversations
    if count == 0:
        return [(_("no conversation yet: i on the Corpus tab, or h2q-tui memory import PATH"), "error")]
    if not material.accepted:
        words = n_(
            "{n} conversation in memory; the run starts with the filters",
            "{n} conversations in memory; the run starts with the filters",
            count,
        ).format(n=f"{count:,}")
        few = _("at least {n} more are needed for a reliable verdict").format(n=ENOUGH - count)
        return [(words, "")] + ([(few, "warning")] if count < ENOUGH else [])
    lines = [
        (
            n_(
                "{n} conversation, {back} in the test set",
                "{n} conversations, {back} in the test set",
                material.accepted,
            ).format(n=f"{material.accepted:,}", back=f"{material.kept_back:,}"),
            "",
        )
    ]
    if material.groups >= MIN_CLUSTERS:
        gain = detectable_gain(PRIOR_DEVIATION, material.groups, alpha_for(1))
        seen = _("in {groups} groups: a gain of {gain} % is detectable").format(
            groups=material.groups, gain=f"{100 * gain:.1f}"
        )
        return [*lines, (seen, "success")]
    missing = _("test set: {have} groups, {needed} are needed: there will be no verdict").format(
        have=material.groups, needed=MIN_CLUSTERS
    )
    return [*lines, (missing, "warning")]
