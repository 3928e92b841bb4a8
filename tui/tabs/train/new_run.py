"""The sheet that starts a training run: the modes, the available data, and the command line."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from engine.core.errors import H2QError
from engine.core.filenames import shell_word
from engine.core.i18n import _, language
from engine.core.paths import Workspace
from engine.runs.kinds import EvolveParams, RunKind, TrainMode, TrainParams
from engine.runs.spec import make_spec
from tui.host.launch import launch_uninterrupted
from tui.screens.fetch_model import FetchModel, offered_model
from tui.tabs.train.new_run_text import (
    EVOLVE_CYCLES,
    MODES,
    WITH_BASE,
    TrainingInputs,
    describe,
    read_inputs,
    served_problem,
)
from tui.tabs.train.preview import PreviewScreen
from tui.terminal.glyphs import Glyphs
from tui.terminal.text import cells, fit, safe

SHEET_WIDTH = 84
_KIND = {"": "", "success": "$text-success", "warning": "$text-warning", "error": "$text-error"}


class NewRun(ModalScreen["str | None"]):
    """Dismisses with the id of the run that was started, or None."""

    DEFAULT_CSS = """
    NewRun { align: center middle; background: transparent; }
    NewRun > Vertical { width: 84; max-width: 100%; height: auto; max-height: 100%; background: $surface;
        border: round $accent; padding: 0 1; }
    NewRun OptionList, NewRun OptionList:focus { height: auto; border: none; background: $surface; padding: 0; }
    NewRun Static { height: auto; background: $surface; padding: 0 0 0 2; }
    NewRun #new-about { margin: 1 0; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "back", show=False),
        Binding("p", "preview", show=False),
        Binding("b", "base", show=False),
        Binding("o", "unload", show=False),
        Binding("f", "fetch", show=False),
        Binding("j", "cursor(1)", show=False),
        Binding("k", "cursor(-1)", show=False),
    ]

    class InputsRead(Message):
        """The training inputs of the workspace, or why they cannot be read."""

        def __init__(self, inputs: TrainingInputs | None, problem: str = "") -> None:
            super().__init__()
            self.inputs = inputs
            self.problem = problem

    class RunLaunched(Message):
        """A run was started, or could not be."""

        def __init__(self, run_id: str, problem: str = "") -> None:
            super().__init__()
            self.run_id = run_id
            self.problem = problem

    def __init__(self, workspace: Workspace, glyphs: Glyphs) -> None:
        super().__init__()
        self.workspace = workspace
        self._glyphs = glyphs
        self._modes = OptionList(
            *(
                Option(self._row(number, chosen=number == 0), id=str(mode.mode))
                for number, mode in enumerate(MODES)
            ),
            markup=False,
        )
        self._about = Static(id="new-about")
        self._command_line = Static(id="new-command")
        self._inputs: TrainingInputs | None = None
        self._problem = ""
        self._starting = False
        self._base = 0
        self._fetched = ""
        """A base that was downloaded here, until it stands in the list."""
        self._unload: bool | None = None
        """Whether Ollama's models are unloaded first; None: as in the settings."""

    def compose(self) -> ComposeResult:
        with Vertical() as panel:
            panel.border_title = safe(_("New run"))
            panel.border_subtitle = safe(_("enter start   p preview   esc back"))
            yield self._modes
            yield self._about
            yield self._command_line

    def on_mount(self) -> None:
        self._modes.highlighted = 0
        self._read()

    @work(group="new-run:read", exclusive=True, exit_on_error=False)
    async def _read(self) -> None:
        try:
            message = self.InputsRead(await asyncio.to_thread(read_inputs, self.workspace))
        except (H2QError, OSError) as problem:
            message = self.InputsRead(None, str(problem))
        self.post_message(message)

    @on(InputsRead)
    def _inputs_read(self, message: InputsRead) -> None:
        self._inputs = message.inputs
        if message.inputs is not None and self._fetched in message.inputs.bases:
            self._base = message.inputs.bases.index(self._fetched)
            self._fetched = ""
        self._problem = message.problem
        self._show()

    @property
    def mode(self) -> TrainMode | RunKind:
        return MODES[self._modes.highlighted or 0].mode

    def on_option_list_option_highlighted(self, message: OptionList.OptionHighlighted) -> None:
        message.stop()
        self._draw_modes()
        self._show()

    def on_resize(self) -> None:
        self._draw_modes()

    def _draw_modes(self) -> None:
        for number in range(len(MODES)):
            width = self._modes.content_size.width or SHEET_WIDTH
            row = self._row(number, width, chosen=number == self._modes.highlighted)
            self._modes.replace_option_prompt_at_index(number, row)

    def _row(self, number: int, width: int = SHEET_WIDTH, *, chosen: bool) -> Content:
        """A mode and its description, wrapped in its column; the cursor glyph marks the chosen one."""
        mode = MODES[number]
        name = f"{self._glyphs.cursor if chosen else ' '} {fit(mode.name, 9)}"
        does = Content(_(mode.does)).wrap(max(16, width - cells(name)))
        return Content(name).append(Content("\n" + " " * cells(name)).join(does))

    def _show(self) -> None:
        lines = (
            [] if self._inputs is None else describe(self.mode, self._inputs, self.base, unload=self.unload)
        )
        if self._problem:
            lines.append((self._problem, "error"))
        words = [safe(text, _KIND[kind]) for text, kind in lines] or [
            safe(_("counting …"), "$foreground-muted")
        ]
        self._about.update(Content("\n").join(words))
        self._command_line.update(safe(self.command, "$foreground-muted"))

    @property
    def command(self) -> str:
        """The equivalent command line."""
        unload = " --unload-ollama" if self.unload else ""
        if self.mode is RunKind.EVOLVE:
            return f"h2q-tui evolve --cycles {EVOLVE_CYCLES}{unload} --detach"
        base = f" --model {shell_word(self.base)}" if self.mode in WITH_BASE and self.base else ""
        return f"h2q-tui train --mode {self.mode}{base}{unload} --detach"

    @property
    def base(self) -> str:
        """The base of an adapter or of a model with conversations before every chat; "" without any."""
        bases = self._inputs.bases if self._inputs is not None else ()
        return bases[self._base % len(bases)] if bases else ""

    @property
    def _refused(self) -> bool:
        """Whether the base is of a kind that is not trained."""
        listed = self._inputs.listed.get(self.base) if self._inputs is not None else None
        if self.mode is TrainMode.MESSAGE and self._inputs and served_problem(self._inputs, self.base):
            return True
        return listed is not None and bool(listed.problem)

    @property
    def unload(self) -> bool:
        """Whether models of Ollama are to be unloaded first."""
        inputs = self._inputs
        if inputs is None or not inputs.held:
            return False
        return inputs.unload if self._unload is None else self._unload

    def on_option_list_option_selected(self, _message: OptionList.OptionSelected) -> None:
        if self.mode in WITH_BASE and (not self.base or self._refused):
            self._show()  # it says what is missing, or why the base is refused
        elif not self._starting:
            self._starting = True
            self._start(self.mode, self.base if self.mode in WITH_BASE else None, self._unload)

    @work(group="new-run:start", exclusive=True, exit_on_error=False)
    async def _start(self, mode: TrainMode | RunKind, base: str | None, unload: bool | None) -> None:
        """The launcher forks and waits for the lock: in a thread, so that the screen stays responsive."""
        settings: dict[str, bool | int | float | str] = {} if unload is None else {"unload_ollama": unload}
        params = (
            TrainParams(mode=mode, model=base, settings=settings)
            if isinstance(mode, TrainMode)
            else EvolveParams(cycles=EVOLVE_CYCLES, settings=settings)
        )
        spec = make_spec(self.workspace.root, params, language=language())
        try:
            run = await asyncio.to_thread(launch_uninterrupted, self.workspace, spec)
        except (H2QError, OSError) as problem:
            self.post_message(self.RunLaunched("", str(problem)))
        else:
            self.post_message(self.RunLaunched(run.run_id))

    @on(RunLaunched)
    def _run_started(self, message: RunLaunched) -> None:
        if message.run_id:
            self.dismiss(message.run_id)
            return
        self._problem = message.problem
        self._starting = False
        self._show()

    def action_preview(self) -> None:
        """The exact training text with its loss mask."""
        self.app.push_screen(PreviewScreen(self.workspace))

    def action_base(self) -> None:
        """The next base for an adapter."""
        self._base += 1
        self._show()

    def action_fetch(self) -> None:
        """Downloads a base for an adapter."""
        model = offered_model(self.workspace)
        if self.mode in WITH_BASE and model is not None:
            self.app.push_screen(FetchModel(self.workspace, model), self._model_fetched)

    def _model_fetched(self, name: str | None) -> None:
        if name is not None:
            self._fetched = name
            self._read()

    def action_unload(self) -> None:
        """Toggles whether Ollama's models are unloaded first."""
        if self._inputs is not None and self._inputs.held:
            self._unload = not self.unload
            self._show()

    def action_back(self) -> None:
        self.dismiss(None)

    def action_cursor(self, by: int) -> None:
        options = self._modes
        if by > 0:
            options.action_cursor_down()
        else:
            options.action_cursor_up()
