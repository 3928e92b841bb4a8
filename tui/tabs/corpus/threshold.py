"""Changes the strictness of the filters and shows the effect before anything is saved."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, get_args

import msgspec
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Static

from engine.core.errors import H2QError
from engine.core.i18n import N_, _, bracketed
from engine.core.paths import Workspace
from engine.core.settings import PiiTypeName, Settings
from engine.corpus.enums import PII_LABELS
from engine.corpus.stats import SettingEffect
from tui.host.cli_call import cli_json
from tui.terminal.text import cells, fit, safe

COUNT_DELAY_S = 0.25
"""Seconds that a value stays before its effect is counted."""
MAX_TYPES = 6
"""PII types that have a row: the most frequent ones, and those that are set."""
HANDLING_NAMES = {"redact": N_("replace"), "drop": N_("leave out"), "keep": N_("keep")}


class FilterControl(NamedTuple):
    """One value that can be changed."""

    name: str
    """"near", "low_value", "ALL" or a PII type."""
    label: str
    values: Sequence[float | str]
    names: Mapping[str, str] = {}

    def shown(self, value: float | str) -> str:
        return _(self.names[str(value)]) if self.names else f"{float(value) * 100:.0f} %"

    def options(self, value: float | str) -> list[str]:
        """Arguments of `h2q-tui corpus threshold`."""
        if self.name == "near":
            return [f"{value:g}"]
        return (
            ["--low-value", f"{value:g}"]
            if self.name == "low_value"
            else ["--private", f"{self.name}={value}"]
        )


def _type_label(type_: str, count: int | None) -> str:
    label = _(PII_LABELS.get(type_, type_))
    return label if count is None else bracketed(label, f"{count:,}")


def filter_controls(settings: Settings, types: Mapping[str, int]) -> list[FilterControl]:
    """The controls for this corpus; `types` has the number of occurrences of each PII type."""
    given = [type_ for type_ in settings.sensitive_types if type_ not in types]
    return [
        FilterControl("near", _("near duplicates"), [round(0.3 + n * 0.05, 2) for n in range(15)]),
        FilterControl(
            "low_value", _("low value: small talk in a turn"), [round(0.5 + n * 0.05, 2) for n in range(11)]
        ),
        FilterControl("ALL", _("private data"), ["redact", "drop"], HANDLING_NAMES),
        *(
            FilterControl(
                type_,
                "  " + _type_label(type_, types.get(type_)),
                ["redact", "drop", "keep"],
                HANDLING_NAMES,
            )
            for type_ in [*list(types)[:MAX_TYPES], *given]
        ),
    ]


def value_of(settings: Settings, name: str) -> float | str:
    if name == "near":
        return settings.near_threshold
    if name == "low_value":
        return settings.low_value_from
    return next(
        (handling for type_, handling in settings.sensitive_types.items() if type_ == name),
        settings.sensitive,
    )


def with_value(settings: Settings, name: str, value: float | str) -> Settings:
    """The settings with one control at another value."""
    if name == "near":
        return msgspec.structs.replace(settings, near_threshold=value)
    if name == "low_value":
        return msgspec.structs.replace(settings, low_value_from=value)
    if name == "ALL":
        return msgspec.structs.replace(settings, sensitive=value)
    known = next(type_ for type_ in get_args(PiiTypeName) if type_ == name)
    return msgspec.structs.replace(settings, sensitive_types={**settings.sensitive_types, known: value})


class ThresholdScreen(ModalScreen[Settings | None]):
    """Returns the settings to save, or None."""

    DEFAULT_CSS = """
    ThresholdScreen { align: center middle; background: transparent; }
    ThresholdScreen > Vertical { width: 76; max-width: 100%; height: auto; max-height: 100%; background: $surface;
        border: round $accent; padding: 0 1; }
    ThresholdScreen Static { height: auto; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "leave", show=False),
        Binding("t", "leave", show=False, id="corpus.threshold"),
        Binding("enter", "accept", show=False),
        Binding("left,h,minus", "move(-1)", show=False),
        Binding("right,l,plus", "move(1)", show=False),
        Binding("up,k", "choose(-1)", show=False),
        Binding("down,j", "choose(1)", show=False),
    ]

    def __init__(
        self, workspace: Workspace, settings: Settings, types: Mapping[str, int], cursor: str
    ) -> None:
        """`cursor` is the sign before the chosen row."""
        super().__init__()
        self.workspace = workspace
        self.settings = self._saved = settings
        self._controls = filter_controls(settings, types)
        self._place = 0
        self._known: dict[tuple[str, float | str], SettingEffect] = {}
        self._problem = ""
        self._cursor = cursor
        self._text = Static(id="threshold-words")

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = safe(_("Filter strictness"))
            box.border_subtitle = safe(_("↑ ↓ filter   ← → move   enter save and build   esc back"))
            yield self._text

    def on_mount(self) -> None:
        self._draw()
        self._count()

    @property
    def _control(self) -> FilterControl:
        return self._controls[self._place]

    def _draw(self) -> None:
        wide = max(cells(control.label) for control in self._controls) + 2
        lines = []
        for place, control in enumerate(self._controls):
            value, before = value_of(self.settings, control.name), value_of(self._saved, control.name)
            text = f"{self._cursor if place == self._place else ' '} {fit(control.label, wide)}{control.shown(value)}"
            if value != before:
                text += "   " + _("now {value}").format(value=control.shown(before))
            lines.append(safe(text, "bold" if place == self._place else "$foreground-muted"))
        lines += [safe(""), safe(self._meaning())]
        lines += self._outcome_lines()
        self._text.update(Content("\n").join(lines))

    def _meaning(self) -> str:
        name, value = self._control.name, value_of(self.settings, self._control.name)
        if name == "near":
            return _("dropped when they have {share} % of their words in common").format(
                share=f"{float(value) * 100:.0f}"
            )
        if name == "low_value":
            return _("not trained on when {share} % of the turn is greeting or thanks").format(
                share=f"{float(value) * 100:.0f}"
            )
        return {
            "redact": _("a placeholder replaces it"),
            "drop": _("the whole conversation is dropped"),
            "keep": _("it is trained on unchanged"),
        }[str(value)]

    def _outcome_lines(self) -> list[Content]:
        if self._problem:
            return [safe(self._problem, "$text-error")]
        known = self._known.get((self._control.name, value_of(self.settings, self._control.name)))
        if known is None:
            return [safe(_("counting …"), "$foreground-muted")]
        lines = [
            safe(_("dropped: {now} now, {then} then").format(now=f"{known.now:,}", then=f"{known.then:,}"))
        ]
        if known.turns_now or known.turns_then:
            words = (
                _("turns not trained on: {now} now, {then} then")
                if self._control.name == "low_value"
                else _("turns with a redaction: {now} now, {then} then")
            )
            lines.append(safe(words.format(now=f"{known.turns_now:,}", then=f"{known.turns_then:,}")))
        if not known.leave and not known.back and known.turns_now == known.turns_then:
            lines.append(safe(_("no change"), "$foreground-muted"))
        room = max(2, (self.app.size.height - len(self._controls) - 11) // 2)
        for count, words, style, first in (
            (known.leave, _("{n} would be dropped:"), "$text-warning", known.leaving),
            (known.back, _("{n} would be restored:"), "$text-success", known.returning),
        ):
            if count:
                lines.append(safe(words.format(n=f"{count:,}"), style))
                lines += [safe("  " + fit(line, 68)) for line in first[: min(5, room)]]
        return lines

    class Counted(Message):
        """The effect of a value has been counted, or cannot be."""

        def __init__(
            self, key: tuple[str, float | str], effect: SettingEffect | None, problem: str = ""
        ) -> None:
            super().__init__()
            self.key = key
            self.effect = effect
            self.problem = problem

    @work(group="threshold:count", exclusive=True, exit_on_error=False)
    async def _count(self) -> None:
        control = self._control
        value = value_of(self.settings, control.name)
        if (control.name, value) in self._known:
            return
        await asyncio.sleep(COUNT_DELAY_S)
        key = (control.name, value)
        try:
            out = await cli_json(self.workspace, "corpus", "threshold", *control.options(value))
            message = self.Counted(key, msgspec.json.decode(out, type=SettingEffect))
        except (H2QError, OSError, msgspec.DecodeError) as problem:
            message = self.Counted(key, None, str(problem))
        self.post_message(message)

    @on(Counted)
    def _counted(self, message: Counted) -> None:
        if message.effect is not None:
            self._known[message.key] = message.effect
        self._problem = message.problem
        self._draw()

    def action_choose(self, by: int) -> None:
        self._place = (self._place + by) % len(self._controls)
        self._problem = ""
        self._draw()
        self._count()

    def action_move(self, by: int) -> None:
        control = self._control
        value = value_of(self.settings, control.name)
        if isinstance(value, str):
            place = control.values.index(value) + by if value in control.values else 0
        else:
            place = min(range(len(control.values)), key=lambda n: abs(float(control.values[n]) - value)) + by
        new = control.values[max(0, min(place, len(control.values) - 1))]
        self.settings = with_value(self.settings, control.name, new)
        self._problem = ""
        self._draw()
        self._count()

    def action_accept(self) -> None:
        self.dismiss(self.settings if self.settings != self._saved else None)

    def action_leave(self) -> None:
        self.dismiss(None)
