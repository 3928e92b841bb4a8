"""The sheet that starts a training run: what there is to train, what would come of it, and its command line."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from engine.config import load_settings
from engine.corpus.review import ReviewStore
from engine.errors import H2QError
from engine.i18n import N_, _, language, n_
from engine.memory.store import MemoryStore
from engine.models import registry
from engine.models.ollama_store import installed_tags
from engine.paths import Workspace
from engine.runs.launch import launch
from engine.runs.rundir import training_run
from engine.runs.spec import EvolveParams, RunKind, TrainMode, TrainParams, make_spec
from engine.validation.power import MIN_CLUSTERS, PRIOR_DEVIATION, alpha_for, gain_seen
from tui.screens.preview import PreviewScreen
from tui.text import fit, safe

ENOUGH = 60
"""Conversations below which a verdict may not be possible (DESIGN §6)."""


@dataclass(frozen=True)
class Mode:
    """One way to make a model. Words are marked for the catalogs."""

    mode: TrainMode | RunKind
    name: str
    does: str


MODES: tuple[Mode, ...] = (
    Mode(
        TrainMode.NATIVE,
        "native",
        N_("your conversations, on top of the model in use; judged first"),
    ),
    Mode(TrainMode.LORA, "lora", N_("your conversations, as an adapter on a model you have")),
    Mode(RunKind.EVOLVE, "evolve", N_("cycles on the model in use: new material, candidate, verdict")),
    Mode(TrainMode.SCRATCH, "scratch", N_("a new base from text files; conversations continue it")),
)


@dataclass(frozen=True)
class Material:
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


def look(workspace: Workspace) -> Material:
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
    return Material(
        conversations=count,
        accepted=accepted,
        kept_back=kept_back,
        groups=groups,
        base=registry.in_use(workspace) or "",
        texts=len(texts),
        text_bytes=sum(path.stat().st_size for path in texts),
        training=training_run(workspace),
        bases=tuple(_bases(workspace)),
    )


def _bases(workspace: Workspace) -> list[str]:
    configured = load_settings(workspace).lora_base
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


def describe(mode: TrainMode | RunKind, material: Material, lora_base: str = "") -> list[tuple[str, str]]:
    """What the sheet says about a mode: (sentence, kind), kind as of `say`; `lora_base` is the one chosen."""
    lines: list[tuple[str, str]] = []
    if material.texts:
        texts = n_("{n} text file, {size}", "{n} text files, {size}", material.texts).format(
            n=material.texts, size=size_words(material.text_bytes)
        )
    else:
        texts = _("no text file in training_data; h2q-tui sample writes some")
    if mode is TrainMode.SCRATCH:
        lines.append((texts, "" if material.texts else "act"))
        lines.append((_("It learns bytes and words, not you; nothing is judged."), ""))
    elif mode is RunKind.EVOLVE:
        lines.append(
            (_("base: {name}").format(name=material.base), "")
            if material.base
            else (_("no model in use yet: train one first"), "act")
        )
        lines += _corpus(material)
        lines.append((_("Three cycles; what is not shown to be better leaves nothing but its record."), ""))
    elif mode is TrainMode.LORA:
        lines.append(_lora_line(material, lora_base))
        lines += _corpus(material)
    else:
        base = (
            _("base: {name}").format(name=material.base)
            if material.base
            else _("no base yet: one is made from text first")
        )
        lines.append((base, "" if material.base or material.texts else "watch"))
        if not material.base:
            lines.append((texts, "" if material.texts else "act"))
        lines += _corpus(material)
    if material.training:
        lines.append(
            (_("run {run} trains now: this one waits for it").format(run=material.training[:9]), "watch")
        )
    return lines


def _lora_line(material: Material, base: str) -> tuple[str, str]:
    if not base:
        return _("no base: set lora_base in the settings, or give --model DIR or an Ollama tag"), "act"
    if len(material.bases) < 2:
        return _("base: {name}").format(name=base), ""
    place = material.bases.index(base) + 1
    return _("base: {name} ({place} of {count}, b: the next)").format(
        name=base, place=place, count=len(material.bases)
    ), ""


def _corpus(material: Material) -> list[tuple[str, str]]:
    """What would be trained on and judged with, and how small a gain would be seen."""
    count = material.conversations
    if count == 0:
        return [(_("no conversation yet: i on the Corpus tab, or h2q-tui memory import PATH"), "act")]
    if not material.accepted:
        words = n_(
            "{n} conversation in memory; the run begins with the filters",
            "{n} conversations in memory; the run begins with the filters",
            count,
        ).format(n=f"{count:,}")
        few = _("at least {n} more are needed to be sure of a verdict").format(n=ENOUGH - count)
        return [(words, "")] + ([(few, "watch")] if count < ENOUGH else [])
    lines = [
        (
            n_(
                "{n} conversation, {back} kept back to judge",
                "{n} conversations, {back} kept back to judge",
                material.accepted,
            ).format(n=f"{material.accepted:,}", back=f"{material.kept_back:,}"),
            "",
        )
    ]
    if material.groups >= MIN_CLUSTERS:
        gain = gain_seen(PRIOR_DEVIATION, material.groups, alpha_for(1))
        seen = _("in {groups} groups: a gain of {gain} % would be seen").format(
            groups=material.groups, gain=f"{100 * gain:.1f}"
        )
        return [*lines, (seen, "good")]
    missing = _("{have} groups are kept back and {needed} are needed: there will be no verdict").format(
        have=material.groups, needed=MIN_CLUSTERS
    )
    return [*lines, (missing, "watch")]


_KIND = {"": "", "good": "$text-success", "watch": "$text-warning", "act": "$text-error"}


class NewRun(ModalScreen["str | None"]):
    """Dismisses with the id of the run that was started, or None."""

    DEFAULT_CSS = """
    NewRun { align: center middle; background: transparent; }
    NewRun > Vertical { width: 84; max-width: 100%; height: auto; max-height: 100%; background: $surface;
        border: round $accent; padding: 0 1; }
    NewRun OptionList, NewRun OptionList:focus { height: auto; border: none; background: $surface; padding: 0; }
    NewRun Static { height: auto; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "back", show=False),
        Binding("p", "preview", show=False),
        Binding("b", "base", show=False),
        Binding("j", "cursor(1)", show=False),
        Binding("k", "cursor(-1)", show=False),
    ]

    def __init__(self, workspace: Workspace) -> None:
        super().__init__()
        self.workspace = workspace
        self._material: Material | None = None
        self._problem = ""
        self._starting = False
        self._base = 0

    def compose(self) -> ComposeResult:
        with Vertical() as panel:
            panel.border_title = safe(_("New run"))
            panel.border_subtitle = safe(_("enter start   p preview   esc back"))
            yield OptionList(
                *(
                    Option(self._row(number, chosen=number == 0), id=str(mode.mode))
                    for number, mode in enumerate(MODES)
                ),
                markup=False,
            )
            yield Static(id="new-about")
            yield Static(id="new-command")

    def on_mount(self) -> None:
        self.query_one(OptionList).highlighted = 0
        self._look()

    @work(thread=True, group="new-run", exclusive=True, exit_on_error=False)
    def _look(self) -> None:
        try:
            material = look(self.workspace)
        except (H2QError, OSError) as problem:
            self.app.call_from_thread(self._fail, str(problem))
        else:
            self.app.call_from_thread(self._take, material)

    def _take(self, material: Material) -> None:
        self._material = material
        self._show()

    def _fail(self, problem: str) -> None:
        self._problem = problem
        self._starting = False
        self._show()

    @property
    def mode(self) -> TrainMode | RunKind:
        return MODES[self.query_one(OptionList).highlighted or 0].mode

    def on_option_list_option_highlighted(self, message: OptionList.OptionHighlighted) -> None:
        for number in range(len(MODES)):
            row = self._row(number, chosen=number == message.option_index)
            message.option_list.replace_option_prompt_at_index(number, row)
        self._show()

    def _row(self, number: int, *, chosen: bool) -> Content:
        """A mode and what it does; a sign beside the colour says which one is chosen."""
        mode = MODES[number]
        signs = getattr(self.app, "signs", None)
        cursor = signs.cursor if signs is not None else "▸"
        return Content(f"{cursor if chosen else ' '} {fit(mode.name, 9)}{_(mode.does)}")

    def _show(self) -> None:
        lines = [] if self._material is None else describe(self.mode, self._material, self.base)
        if self._problem:
            lines.append((self._problem, "act"))
        words = [safe("  " + text, _KIND[kind]) for text, kind in lines] or [
            safe(_("  counting …"), "$foreground-muted")
        ]
        self.query_one("#new-about", Static).update(Content("\n").join([Content(""), *words, Content("")]))
        command = f"  {self.command}"
        self.query_one("#new-command", Static).update(safe(command, "$foreground-muted"))

    @property
    def command(self) -> str:
        """The same on the command line."""
        if self.mode is RunKind.EVOLVE:
            return "h2q-tui evolve --cycles 3 --detach"
        base = f" --model {shlex.quote(self.base)}" if self.mode is TrainMode.LORA and self.base else ""
        return f"h2q-tui train --mode {self.mode}{base} --detach"

    @property
    def base(self) -> str:
        """What an adapter would stand on; "" without any."""
        bases = self._material.bases if self._material is not None else ()
        return bases[self._base % len(bases)] if bases else ""

    def on_option_list_option_selected(self, _message: OptionList.OptionSelected) -> None:
        if self.mode is TrainMode.LORA and not self.base:
            self._show()  # it says what is missing
        elif not self._starting:
            self._starting = True
            self._start(self.mode, self.base if self.mode is TrainMode.LORA else None)

    @work(thread=True, group="new-run", exclusive=True, exit_on_error=False)
    def _start(self, mode: TrainMode | RunKind, base: str | None) -> None:
        """The launcher forks and waits for the lock: a thread, so that the screen stays alive."""
        params = TrainParams(mode=mode, model=base) if isinstance(mode, TrainMode) else EvolveParams(cycles=3)
        spec = make_spec(self.workspace.root, params, language=language())
        try:
            run = launch(self.workspace, spec)
        except (H2QError, OSError) as problem:
            self.app.call_from_thread(self._fail, str(problem))
        else:
            self.app.call_from_thread(self.dismiss, run.run_id)

    def action_preview(self) -> None:
        """The exact text with its loss mask, before anything is trained."""
        self.app.push_screen(PreviewScreen(self.workspace))

    def action_base(self) -> None:
        """The next base for an adapter."""
        self._base += 1
        self._show()

    def action_back(self) -> None:
        self.dismiss(None)

    def action_cursor(self, by: int) -> None:
        options = self.query_one(OptionList)
        if by > 0:
            options.action_cursor_down()
        else:
            options.action_cursor_up()
