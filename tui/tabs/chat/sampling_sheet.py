"""The sheet of a chat's sampling and system prompt."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static, TextArea

from engine.core.errors import H2QError
from engine.core.i18n import _, p_
from engine.core.seeds import usable_seed
from engine.inference.language_model import Sampling
from tui.screens.ask import input_drained
from tui.terminal.text import safe


class ChatSettings(NamedTuple):
    """What the sheet returns."""

    sampling: Sampling
    system: str


class SamplingSheet(ModalScreen[ChatSettings | None]):
    """Temperature, top-p, the largest answer, the seed, the system prompt. `enter` in a line saves, `esc` leaves."""

    DEFAULT_CSS = """
    SamplingSheet { align: center middle; }
    SamplingSheet > VerticalScroll { width: 76; max-width: 96%; height: auto; max-height: 95%; border: round $accent;
        padding: 0 1; background: $surface; }
    SamplingSheet Horizontal { height: 1; }
    SamplingSheet .name { width: 20; }
    SamplingSheet Input { width: 14; background: $surface; }
    SamplingSheet Input:focus { background: $boost; }
    SamplingSheet .note { width: 1fr; color: $foreground-muted; padding: 0 0 0 2; }
    SamplingSheet TextArea { height: 5; border: none; padding: 0; background: $surface; }
    SamplingSheet TextArea:focus { border: none; background: $boost; }
    SamplingSheet #sampling-problem { color: $text-error; height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", show=False, priority=True),
        Binding("ctrl+s", "save", show=False, priority=True),
        Binding("down", "app.focus_next", show=False),
        Binding("up", "app.focus_previous", show=False),
    ]

    def __init__(self, settings: ChatSettings) -> None:
        super().__init__()
        sampling = settings.sampling
        self._stop = sampling.stop
        self._max_bytes = sampling.max_bytes
        self._values = {
            "temperature": f"{sampling.temperature:g}",
            "top-p": f"{sampling.top_p:g}",
            "most": "" if sampling.max_tokens is None else str(sampling.max_tokens),
            "seed": "" if sampling.seed is None else str(sampling.seed),
        }
        self._system = settings.system

    def compose(self) -> ComposeResult:
        rows = (
            ("temperature", p_("sampling", "temperature"), _("0 to 5; 0: the likeliest")),
            ("top-p", _("top-p"), _("0 to 1; 1: all tokens")),
            ("most", _("longest answer"), _("tokens; empty: what the model allows")),
            ("seed", _("seed"), _("empty: another one for each answer")),
        )
        with VerticalScroll(can_focus=False) as box:
            box.border_title = safe(_("Answers of this chat"))
            for key, name, note in rows:
                with Horizontal():
                    yield Static(safe(name), classes="name")
                    yield Input(self._values[key], id=f"sampling-{key}", compact=True)
                    yield Static(safe(note), classes="note")
            yield Static(safe(_("system prompt")))
            yield TextArea(self._system, id="sampling-system", compact=True, show_line_numbers=False)
            yield Static(id="sampling-problem")
            yield Static(safe(_("enter save   tab next field   ctrl+s save   esc back"), "$foreground-muted"))

    def on_mount(self) -> None:
        self.query_one("#sampling-temperature", Input).focus()

    @on(Input.Submitted)
    async def _submitted(self) -> None:
        await self.action_save()

    async def action_save(self) -> None:
        """Checks the values; a wrong one stays with a sentence below."""
        focused = self.focused
        if focused is not None:
            await input_drained(focused)
        try:
            self.dismiss(self._read())
        except ValueError as problem:
            self.query_one("#sampling-problem", Static).update(safe(str(problem)))

    def _read(self) -> ChatSettings:
        """Raises ValueError with a sentence."""
        seed = self._text("seed")
        try:
            usable = usable_seed(int(seed)) if seed else None
        except (ValueError, H2QError):
            raise ValueError(_("seed: a whole number, or nothing")) from None
        most = self._text("most")
        if most and not (most.isascii() and most.isdigit() and int(most[:9]) > 0):
            raise ValueError(_("longest answer: a whole number above 0, or nothing"))
        sampling = Sampling(
            temperature=self._number("temperature", 5.0, _("temperature: a number from 0 to 5")),
            top_p=self._number("top-p", 1.0, _("top-p: a number from 0 to 1")),
            max_bytes=self._max_bytes,
            max_tokens=int(most[:9]) if most else None,
            seed=usable,
            stop=self._stop,
        )
        return ChatSettings(sampling, self.query_one(TextArea).text.strip())

    def _text(self, key: str) -> str:
        return self.query_one(f"#sampling-{key}", Input).value.strip()

    def _number(self, key: str, most: float, sentence: str) -> float:
        try:
            value = float(self._text(key).replace(",", "."))
        except ValueError:
            raise ValueError(sentence) from None
        if not math.isfinite(value) or not 0 <= value <= most:
            raise ValueError(sentence)
        return value

    def action_leave(self) -> None:
        self.dismiss(None)
