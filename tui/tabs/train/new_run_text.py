"""The text of the sheet for a new run: the available data and the expected result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.core.config import load_settings
from engine.core.i18n import N_, _, bracketed, n_
from engine.core.paths import Workspace
from engine.corpus.clusters import current_window
from engine.corpus.review.store import ReviewStore
from engine.memory.store import MemoryStore
from engine.models import registry
from engine.models.card import ModelCard
from engine.models.catalog import ListedModel, list_bases, origin_label
from engine.models.ollama.running import running_models
from engine.models.resolve import ModelKind, ModelOrigin
from engine.runs.estimates import MeasuredRun, RunHistory, Workload
from engine.runs.kinds import RunKind, TrainMode
from engine.runs.rundir import training_run_id
from engine.validation.gain_spread import gain_deviation
from engine.validation.report import newest_report
from engine.validation.sequential import MIN_CLUSTERS, PRIOR_DEVIATION, alpha_for, detectable_gain
from tui.screens.fetch_model import offered_model
from tui.tabs.train.run_estimate import estimate_line, evolution_line

WITH_BASE = (TrainMode.LORA, TrainMode.MESSAGE)
"""Modes for which a base is chosen."""
EVOLVE_CYCLES = 3
ENOUGH = 60
"""Conversations below which a verdict may be impossible (docs/ARCHITECTURE.md)."""


@dataclass(frozen=True)
class RunMode:
    """One way to train a model. Texts are marked for the catalogs."""

    mode: TrainMode | RunKind
    name: str
    does: str


MODES: tuple[RunMode, ...] = (
    RunMode(
        TrainMode.NATIVE,
        "native",
        N_("your conversations, on top of the model in use; then a verdict"),
    ),
    RunMode(TrainMode.LORA, "lora", N_("your conversations, as an adapter on a model you have")),
    RunMode(
        TrainMode.MESSAGE,
        "message",
        N_("your conversations before every chat of a model you have: prompting, no training"),
    ),
    RunMode(RunKind.EVOLVE, "evolve", N_("cycles on the model in use: synthetic data, candidate, verdict")),
    RunMode(TrainMode.SCRATCH, "scratch", N_("a new base from text files; conversations continue it")),
)


@dataclass(frozen=True)
class TrainingInputs:
    """The data in the workspace to train on."""

    conversations: int
    """In memory, before the filters."""
    accepted: int
    """Accepted in the last corpus build, 0 without one."""
    test_set: int
    """Of these, in the test set."""
    groups: int
    """Near-duplicate clusters in the test set."""
    base: str
    """Name of the model in use, or ""."""
    texts: int
    text_bytes: int
    training: str
    """Id of the run that is training, or ""."""
    bases: tuple[str, ...] = ()
    """Possible bases of an adapter by name: the setting, adapters, the workspace's, hub cache's and Ollama's models."""
    listed: Mapping[str, ListedModel] = field(default_factory=dict)
    """What is known of those that were not trained here."""
    fetchable: str = ""
    """Name and size of a base that can be downloaded; "" when there is none."""
    held: str = ""
    """Models that Ollama has loaded, separated by commas."""
    held_mb: float = 0.0
    unload: bool = False
    """Whether the settings unload them first."""
    characters: float = 0.0
    """Of a conversation on average."""
    look: int = 1
    """At the test set, which the verdict of the run will be."""
    deviation: float | None = None
    """Of the relative gain between the groups of the last validation; None without one."""
    roots: Mapping[str, str] = field(default_factory=dict)
    """For each adapter the name of the base that it was trained on."""
    runs: tuple[MeasuredRun, ...] = ()
    """Finished trainings, newest first: what a new one will take is estimated from them."""


def read_inputs(workspace: Workspace) -> TrainingInputs:
    """Reads the store and the folder of texts. Call it in a thread."""
    count = accepted = test_set = groups = 0
    characters, look = 0.0, 1
    if workspace.memory_db.exists():
        with MemoryStore(workspace.memory_db, readonly=True) as store:
            count, characters = store.count(), store.mean_characters()
            if (window := current_window(store)) is not None:
                look = window.looks + 1
        with ReviewStore(workspace.memory_db, readonly=True) as review:
            funnel = review.funnel()
            accepted, test_set = funnel.accepted, funnel.test
            groups = review.test_clusters()
    texts = [path for path in _texts(workspace) if path.is_file()]
    held, settings = running_models(), load_settings(workspace)
    listed = {base.name: base for base in offered_bases(list_bases(workspace))}
    fetchable = offered_model(workspace)
    return TrainingInputs(
        conversations=count,
        accepted=accepted,
        test_set=test_set,
        groups=groups,
        base=registry.in_use(workspace) or "",
        texts=len(texts),
        text_bytes=sum(path.stat().st_size for path in texts),
        training=training_run_id(workspace),
        bases=tuple(_bases(workspace, settings.lora_base, listed)),
        listed=listed,
        fetchable=""
        if fetchable is None
        else bracketed(fetchable.full_name, f"{fetchable.download_bytes / 1e6:.0f} MB"),
        held=_(", ").join(model.name for model in held),
        held_mb=sum(model.mb for model in held),
        unload=settings.unload_ollama,
        characters=characters,
        look=look,
        deviation=None if (report := newest_report(workspace)) is None else gain_deviation(report),
        roots=_roots(workspace, listed),
        runs=tuple(RunHistory(workspace).runs()),
    )


def offered_bases(bases: Sequence[ListedModel]) -> list[ListedModel]:
    """Those to choose from, the ones that can be trained on first. What other programs have cached of other kinds is
    left out; a refused one of the workspace or of Ollama says why."""
    refused = [base for base in bases if base.problem and base.origin is not ModelOrigin.HUB]
    return [*(base for base in bases if not base.problem), *refused]


def _bases(workspace: Workspace, configured: str, listed: Iterable[str]) -> list[str]:
    adapters = [card.name for card in registry.list_models(workspace) if _is_adapter(card)]
    return list(dict.fromkeys([*([configured] if configured else []), *adapters, *listed]))


def _is_adapter(card: ModelCard) -> bool:
    return bool(card.base_path and not card.served)


def _roots(workspace: Workspace, listed: Mapping[str, ListedModel]) -> dict[str, str]:
    names = {base.path: name for name, base in listed.items()}
    adapters = {card.name: card.base_path for card in registry.list_models(workspace) if _is_adapter(card)}
    return {name: names[path] for name, path in adapters.items() if path in names}


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
    mode: TrainMode | RunKind, inputs: TrainingInputs, lora_base: str = "", *, unload: bool = False
) -> list[tuple[str, str]]:
    """The lines of the sheet about a mode: (text, severity).

    `lora_base` is the chosen base; `unload`: Ollama's models are unloaded first.
    """
    lines: list[tuple[str, str]] = []
    if inputs.texts:
        texts = n_("{n} text file, {size}", "{n} text files, {size}", inputs.texts).format(
            n=inputs.texts, size=size_words(inputs.text_bytes)
        )
    else:
        texts = _("no text file in training_data; h2q-tui sample writes some")
    if mode is TrainMode.SCRATCH:
        lines.append((texts, "" if inputs.texts else "error"))
        lines.append((_("It learns language from text files, not from you; it is not validated."), ""))
    elif mode is RunKind.EVOLVE:
        lines.append(
            (_("base: {name}").format(name=inputs.base), "")
            if inputs.base
            else (_("no model in use yet: train one first"), "error")
        )
        lines += _corpus(inputs)
        lines.append(
            (
                _(
                    "Three cycles; a candidate that is not shown to be better is deleted, only its record stays."
                ),
                "",
            )
        )
    elif mode is TrainMode.LORA:
        lines += _lora_lines(inputs, lora_base)
        lines += _corpus(inputs)
    elif mode is TrainMode.MESSAGE:
        lines += _lora_lines(inputs, lora_base)
        if problem := served_problem(inputs, lora_base):
            lines.append((problem, "error"))
        lines += _corpus(inputs)
        text = _(
            "The newest, best and most different ones that fit stand before every chat; its weights stay."
        )
        lines.append((text, ""))
    else:
        base = (
            _("base: {name}").format(name=inputs.base)
            if inputs.base
            else _("no base yet: one is trained from text first")
        )
        lines.append((base, "" if inputs.base or inputs.texts else "warning"))
        if not inputs.base:
            lines.append((texts, "" if inputs.texts else "error"))
        lines += _corpus(inputs)
    if isinstance(mode, TrainMode) and (load := _workload(mode, inputs, lora_base)) is not None:
        lines.append((estimate_line(load, inputs.runs), ""))
    elif mode is RunKind.EVOLVE and inputs.base:
        load = _workload(TrainMode.NATIVE, inputs, "")
        lines += [(evolution_line(load, EVOLVE_CYCLES, inputs.runs), "")] if load is not None else []
    if inputs.held:
        words = (
            _("Ollama's {names} ({mb} MB of memory) will be unloaded first; o keeps it")
            if unload
            else _("Ollama has {names} in memory ({mb} MB); o unloads it first")
        )
        lines.append(
            (
                words.format(names=inputs.held, mb=round(inputs.held_mb)),
                "success" if unload else "warning",
            )
        )
    if inputs.training:
        lines.append(
            (_("run {run} is training: this run waits for it").format(run=inputs.training[:9]), "warning")
        )
    return lines


def _workload(mode: TrainMode, inputs: TrainingInputs, lora_base: str) -> Workload | None:
    """What the run would train on; None where something is missing."""
    if mode is TrainMode.SCRATCH:
        return Workload(mode, text_bytes=inputs.text_bytes) if inputs.texts else None
    conversations = max(0, inputs.accepted - inputs.test_set) or inputs.conversations
    if not conversations or (mode in WITH_BASE and not lora_base):
        return None
    new_base = mode is TrainMode.NATIVE and not inputs.base
    # An adapter that is continued takes as long as one on its base, unless it was measured itself.
    measured = {run.params.model for run in inputs.runs}
    base = lora_base if lora_base in measured else inputs.roots.get(lora_base, lora_base)
    return Workload(
        mode,
        conversations=conversations,
        test=inputs.test_set,
        text_bytes=inputs.text_bytes if new_base else 0,
        base=base if mode in WITH_BASE else "",
        base_parameters=listed.parameters if (listed := inputs.listed.get(base)) is not None else 0,
        characters=inputs.characters,
    )


def served_problem(inputs: TrainingInputs, base: str) -> str:
    """Why conversations cannot be put before the chats of `base`; "" if they can, as far as the list shows it."""
    listed = inputs.listed.get(inputs.roots.get(base, base))
    if listed is None or listed.kind is ModelKind.GGUF:
        return ""
    return _("message needs a GGUF file or a tag, and {name} is another kind of model").format(name=base)


def _lora_lines(inputs: TrainingInputs, base: str) -> list[tuple[str, str]]:
    """The chosen base, its figures or why it is refused, and what can be downloaded."""
    offer = (
        [(_("f: download {model}, a base to begin with").format(model=inputs.fetchable), "")]
        if inputs.fetchable
        else []
    )
    if not base:
        missing = _("no base: set lora_base in the settings, or h2q-tui models add PATH")
        return [(missing, "error"), *offer]
    lines = [(_("base: {name}").format(name=base), "")]
    if len(inputs.bases) > 1:
        text = _("base: {name} ({place} of {count}, b: the next)")
        place = inputs.bases.index(base) + 1
        lines = [(text.format(name=base, place=place, count=len(inputs.bases)), "")]
    listed = inputs.listed.get(base)
    if listed is None:
        return lines
    if listed.problem:
        return [*lines, (_("not to be trained on: {reason}").format(reason=listed.problem), "error"), *offer]
    return [*lines, (base_figures(listed), "")]


def base_figures(base: ListedModel) -> str:
    """Size, architecture, weight format, context and place of a base, as far as they are known."""
    parts = [
        size_words(base.bytes) if base.bytes else "",
        base.architecture,
        base.weight_format,
        _("{n} tokens").format(n=f"{base.context:,}") if base.context else "",
        origin_label(base.origin),
    ]
    return _(", ").join(part for part in parts if part)


def _corpus(inputs: TrainingInputs) -> list[tuple[str, str]]:
    """Training and test set, and the smallest detectable gain."""
    count = inputs.conversations
    if count == 0:
        return [(_("no conversation yet: i on the Corpus tab, or h2q-tui memory import PATH"), "error")]
    if not inputs.accepted:
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
                inputs.accepted,
            ).format(n=f"{inputs.accepted:,}", back=f"{inputs.test_set:,}"),
            "",
        )
    ]
    if inputs.groups >= MIN_CLUSTERS:
        spread = PRIOR_DEVIATION if inputs.deviation is None else inputs.deviation
        gain = detectable_gain(spread, inputs.groups, alpha_for(inputs.look))
        seen = _("in {groups} groups: a gain of {gain} % is detectable").format(
            groups=inputs.groups, gain=f"{100 * gain:.1f}"
        )
        return [*lines, (seen, "success")]
    missing = _("test set: {have} groups, {needed} are needed: there will be no verdict").format(
        have=inputs.groups, needed=MIN_CLUSTERS
    )
    return [*lines, (missing, "warning")]
