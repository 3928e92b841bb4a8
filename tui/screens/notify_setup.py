"""The dialogue that sets up where alerts are sent: choose a kind of channel, fill its fields, and see a test message sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from engine.alerts.channels import KINDS, ChannelField, ChannelKind
from engine.alerts.desk import add_channel, send_tests
from engine.core.config import load_settings
from engine.core.errors import H2QError, error_text
from engine.core.i18n import _, bracketed
from engine.core.paths import Workspace
from engine.core.settings import Settings
from tui.host.shutdown import uninterruptible
from tui.terminal.text import safe
from tui.widgets.virtual_list import ListCell, ListRow, VirtualList

_NAME = "channel name"
"""Key of the field with the name of the channel; no field of a kind has a blank."""


def channel_name(kind_id: str, taken: Settings) -> str:
    """A name for a new channel of this kind that no other has: `mail`, `mail-2`."""
    name, number = kind_id, 1
    while name in taken.alert_channels:
        number += 1
        name = f"{kind_id}-{number}"
    return name


class NotifySetup(ModalScreen[None]):
    """Asks what `h2q-tui notify setup` asks; `apply` applies the changed settings to the running app.

    A channel is saved before its test, and stays when that fails: what is wrong can be changed and tried again.
    """

    DEFAULT_CSS = """
    NotifySetup { align: center middle; background: transparent; }
    NotifySetup > Vertical { width: 90%; max-width: 84; height: 90%; max-height: 30; background: $surface;
        border: round $accent; padding: 0 1; }
    NotifySetup VerticalScroll { height: 1fr; }
    NotifySetup VirtualList { height: 1fr; }
    NotifySetup Static { height: auto; }
    NotifySetup Input { background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", show=False),
        Binding("enter", "choose", show=False),
        Binding("down", "field(1)", show=False),
        Binding("up", "field(-1)", show=False),
    ]

    class Saved(Message):
        """The channel is in the settings."""

        def __init__(self, settings: Settings) -> None:
            super().__init__()
            self.settings = settings

    class Tested(Message):
        """The test message was sent, or `problem` says why not."""

        def __init__(self, problem: str = "") -> None:
            super().__init__()
            self.problem = problem

    def __init__(self, workspace: Workspace, apply: Callable[[Settings], None]) -> None:
        super().__init__()
        self._workspace = workspace
        self._apply = apply
        self._kind: ChannelKind | None = None
        self._inputs: dict[str, Input] = {}
        self._list = VirtualList((0, 12), id="notify-kinds")
        self._form = VerticalScroll(id="notify-form", can_focus=False)
        self._said = Static(id="notify-said")
        self._keys = Static(id="notify-keys")

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = safe(_("Where alerts are sent"))
            yield self._list
            yield self._form
            yield self._said
            yield self._keys

    def on_mount(self) -> None:
        self._list.set_ids(list(KINDS))
        self._list.set_rows(
            ListRow(kind.id, (ListCell(_(kind.title)), ListCell(kind.id, "dim"))) for kind in KINDS.values()
        )
        self._show_list()

    def _show_list(self) -> None:
        self._kind = None
        self._list.display, self._form.display = True, False
        self._list.focus()
        self._say(_("messages go through a service of your own; nothing is sent before you filled it in"))
        self._show_keys(_("enter choose   esc back"))

    def _say(self, text: str, style: str = "$foreground-muted") -> None:
        self._said.update(safe(text, style))

    def _show_keys(self, text: str) -> None:
        command = "h2q-tui notify setup" + (f" {self._kind.id}" if self._kind is not None else "")
        self._keys.update(Content("\n").join([safe(text), safe(command, "$foreground-muted")]))

    # Choosing a kind

    async def action_choose(self) -> None:
        """On the list; in a field, `enter` submits it."""
        if self._kind is None and self._list.cursor_id:
            await self._choose(KINDS[self._list.cursor_id])

    async def on_click(self) -> None:
        if self._kind is None and self._list.has_focus:
            await self.action_choose()

    async def _choose(self, kind: ChannelKind) -> None:
        self._kind = kind
        await self._form.remove_children()
        settings = await asyncio.to_thread(load_settings, self._workspace)
        widgets: list[Static | Input] = []
        if kind.help:
            widgets.append(Static(safe(_(kind.help), "$foreground-muted")))
        self._inputs = {_NAME: Input(channel_name(kind.id, settings), compact=True)}
        widgets += [Static(safe(_("name of the channel"))), self._inputs[_NAME]]
        for one in kind.fields:
            self._inputs[one.name] = _input_for(one)
            widgets += [Static(safe(field_title(one))), self._inputs[one.name]]
        await self._form.mount(*widgets)
        self._list.display, self._form.display = False, True
        self._inputs[kind.fields[0].name].focus()
        self._say(_(kind.title))
        self._show_keys(_("enter next field; on the last one: save and send a test   esc back"))

    # The form

    def action_field(self, step: int) -> None:
        """The field before or after the one with the focus."""
        fields = list(self._inputs.values())
        at = next((place for place, field in enumerate(fields) if field.has_focus), None)
        if at is not None and 0 <= at + step < len(fields):
            fields[at + step].focus()

    @on(Input.Submitted)
    def _submitted(self, message: Input.Submitted) -> None:
        message.stop()
        if message.input is not list(self._inputs.values())[-1]:
            self.action_field(1)
        elif self._kind is not None:
            values = {name: field.value.strip() for name, field in self._inputs.items()}
            self._say(_("sending a test message …"))
            self._save_and_test(values.pop(_NAME), self._kind.id, values)

    @work(group="notify", exclusive=True, exit_on_error=False)
    async def _save_and_test(self, name: str, kind: str, values: dict[str, str]) -> None:
        try:
            settings = await asyncio.to_thread(self._save, name, kind, values)
            self.post_message(self.Saved(settings))
            results = await asyncio.to_thread(send_tests, self._workspace, [name])
        except (H2QError, OSError) as problem:
            self.post_message(self.Tested(error_text(problem)))
        else:
            error = results[name]
            self.post_message(self.Tested(_("not sent: {error}").format(error=error) if error else ""))

    def _save(self, name: str, kind: str, values: dict[str, str]) -> Settings:
        with uninterruptible():
            add_channel(self._workspace, name, kind, values)
        return load_settings(self._workspace)

    @on(Saved)
    def _saved(self, message: Saved) -> None:
        self._apply(message.settings)

    @on(Tested)
    def _tested(self, message: Tested) -> None:
        if message.problem:
            self._say(message.problem, "$text-error")
        else:
            self._say(_("sent: look whether it has arrived"), "$text-success")
            self._show_keys(_("enter sends it again   esc back"))

    def action_back(self) -> None:
        if self._kind is None:
            self.dismiss(None)
        else:
            self._show_list()


def field_title(one: ChannelField) -> str:
    """What a field asks for, with its choices and whether it may stay empty."""
    title = _(one.title) if one.needed else bracketed(_(one.title), _("optional"))
    return f"{title}: {_(', ').join(one.choices)}" if one.choices else title


def _input_for(one: ChannelField) -> Input:
    return Input(one.default, password=one.secret, compact=True)
