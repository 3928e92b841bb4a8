"""The settings sheet: language, theme, budget, review, private data, keys. Each change is saved and in force at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from textual import events, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from engine.core.config import Settings, save_settings
from engine.core.errors import H2QError, sentence_of
from engine.core.i18n import LANGUAGES, _
from engine.core.paths import Workspace
from tui.app.actions import ACTIONS, BY_ID, EVERYWHERE, key_label
from tui.app.shutdown import uninterruptible
from tui.app.text import safe
from tui.screens.ask import LinePrompt
from tui.screens.setting_choices import (
    CHOICES,
    EMBEDDER,
    TYPE_PREFIX,
    Choice,
    is_of_digits,
    key_conflict,
)
from tui.widgets.virtual_list import ListCell, ListRow, VirtualList

KEY_PREFIX = "key:"


class SettingsScreen(ModalScreen[None]):
    """A list of settings and keys. `apply` puts changed settings in force in the running app."""

    DEFAULT_CSS = """
    SettingsScreen { align: center middle; }
    SettingsScreen > Vertical { width: 90%; max-width: 100; height: 90%; border: round $accent; padding: 0 1; }
    SettingsScreen #settings-help { height: 2; color: $text-muted; }
    SettingsScreen #settings-keys { height: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,S,q", "close", show=False),
        Binding("right,l,space", "change(1)", show=False),
        Binding("enter", "enter", show=False),
        Binding("left,h", "change(-1)", show=False),
        Binding("backspace,delete", "default", show=False),
    ]

    def __init__(
        self,
        workspace: Workspace,
        settings: Settings,
        apply: Callable[[Settings], None],
        themes: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._workspace = workspace
        self.settings = settings
        self._apply = apply
        self._themes = ("auto", *sorted(themes))
        self._saving = threading.Lock()
        self._catching = ""
        """Id of the action whose new key is awaited."""

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = _("Settings")
            yield VirtualList((24, 0), id="settings-list")
            yield Static(id="settings-help")
            yield Static(id="settings-keys")

    def on_mount(self) -> None:
        ids = [choice.field for choice in CHOICES]
        ids += [KEY_PREFIX + row.id for row in ACTIONS if not is_of_digits(row)]
        self._table.set_ids(ids)
        self._fill()
        self._table.focus()

    @property
    def _table(self) -> VirtualList:
        return self.query_one(VirtualList)

    def _fill(self) -> None:
        rows = []
        for choice in CHOICES:
            inside = "  " if choice.field.startswith(TYPE_PREFIX) else ""
            rows.append(
                ListRow(choice.field, (ListCell(inside + _(choice.label)), ListCell(self._shown(choice))))
            )
        for action in ACTIONS:
            if is_of_digits(action):
                continue
            own = self.settings.keys.get(action.id)
            key = " ".join(key_label(one) for one in (own or action.key).split())
            where = _("everywhere") if action.tab == EVERYWHERE else action.tab
            label = _("key: {label}").format(label=_(action.label))
            kind = "success" if own else ""
            rows.append(
                ListRow(KEY_PREFIX + action.id, (ListCell(label), ListCell(f"{key:<12} {where}", kind)))
            )
        self._table.set_rows(rows)
        self._explain()

    def _shown(self, choice: Choice) -> str:
        value = self._value(choice.field)
        if choice.field == "language":
            text = LANGUAGES.get(value) or _("auto")
        elif choice.field == "theme" and value == "auto":
            text = _("auto")
        elif choice.words and value in choice.values:
            text = _(choice.words[choice.values.index(value)])
        else:
            text = f"{value:g}" if isinstance(value, float) else str(value)
        return f"‹ {text}{' ' + choice.unit if choice.unit else ''} ›"

    def _value(self, field: str) -> Any:
        if field.startswith(TYPE_PREFIX):
            return dict(self.settings.sensitive_types).get(field.removeprefix(TYPE_PREFIX), "")  # type: ignore[call-overload]
        return getattr(self.settings, field)

    def on_virtual_list_highlighted(self) -> None:
        self._catching = ""
        self._explain()

    def _explain(self, text: str = "", kind: str = "") -> None:
        """What the row under the cursor means, or `text`; and the keys that work on it."""
        row_id = self._table.cursor_id
        if row_id.startswith(KEY_PREFIX):
            action = BY_ID[row_id.removeprefix(KEY_PREFIX)]
            meaning = _(action.help) or _(action.label)
            keys = _("enter new key   backspace default   esc close")
            if self._catching:
                meaning, keys = (
                    _("Press the new key for “{label}”.").format(label=_(action.label)),
                    _("esc leave it"),
                )
        else:
            meaning = next((_(choice.help) for choice in CHOICES if choice.field == row_id), "")
            keys = _("← → change   backspace default   esc close")
        self.query_one("#settings-help", Static).update(safe(text or meaning, kind))
        self.query_one("#settings-keys", Static).update(safe(keys, "$foreground-muted"))

    # Changing

    def action_change(self, by: int) -> None:
        """The next value, or waiting for a key."""
        row_id = self._table.cursor_id
        if row_id.startswith(KEY_PREFIX):
            if by > 0:
                self._catching = row_id.removeprefix(KEY_PREFIX)
                self._explain()
            return
        choice = next(choice for choice in CHOICES if choice.field == row_id)
        values = self._themes if choice.field == "theme" else choice.values
        value = self._value(choice.field)
        if isinstance(value, float):
            values = tuple(sorted({*values, value}))
            place = max(0, min(len(values) - 1, values.index(value) + by))
        else:
            place = (values.index(value) + by) % len(values) if value in values else 0
        self._set(choice.field, values[place])

    def action_default(self) -> None:
        """Back to the default of the row under the cursor."""
        row_id = self._table.cursor_id
        if row_id.startswith(KEY_PREFIX):
            keys = dict(self.settings.keys)
            if keys.pop(row_id.removeprefix(KEY_PREFIX), None) is not None:
                self._set("keys", keys)
        else:
            self._set(row_id, "" if row_id.startswith(TYPE_PREFIX) else getattr(Settings(), row_id))

    def action_enter(self) -> None:
        """The next value; of the embedder, its name."""
        if self._table.cursor_id == EMBEDDER:
            self._ask_embedder()
        else:
            self.action_change(1)

    @work(group="settings:ask", exclusive=True, exit_on_error=False)
    async def _ask_embedder(self) -> None:
        given = self.settings.embedder
        asked = LinePrompt(
            _("Folder of the model, or ollama:TAG"), "" if given == "off" else given, check=self._no_embedder
        )
        answer = await self.app.push_screen_wait(asked)
        if answer is not None:
            self._set(EMBEDDER, answer.strip())

    def _no_embedder(self, answer: str) -> str:
        """What is wrong with the name of an embedder; `check` looks at it more closely."""
        name = answer.strip()
        if name in ("", "off") or name.startswith("ollama:"):
            return ""
        folder = self._workspace.root / Path(name).expanduser()
        return "" if (folder / "modules.json").is_file() else _("no sentence-transformers model is there")

    def on_key(self, event: events.Key) -> None:
        """While a key is awaited, every key but esc is it."""
        if not self._catching:
            return
        event.stop()
        event.prevent_default()
        action = BY_ID[self._catching]
        self._catching = ""
        if event.key == "escape":
            self._explain()
            return
        key = (
            event.character
            if event.is_printable and event.character and event.character != " "
            else event.key
        )
        if key.isdigit():
            self._explain(_("Digits are the tabs."), "$text-error")
            return
        other = key_conflict(action, key, self.settings.keys)
        if other is not None:
            text = _("{key} is “{label}” already; nothing was changed.").format(
                key=key_label(key), label=_(other.label)
            )
            self._explain(text, "$text-error")
            return
        keys = {**self.settings.keys, action.id: key}
        if key in action.key.split():
            keys.pop(action.id)
        self._set("keys", keys)

    def _set(self, field: str, value: Any) -> None:
        if field.startswith(TYPE_PREFIX):
            name = field.removeprefix(TYPE_PREFIX)
            own = {type_: what for type_, what in self.settings.sensitive_types.items() if type_ != name}
            field, value = "sensitive_types", own | ({name: value} if value else {})
        self.settings = msgspec.structs.replace(self.settings, **{field: value})
        self._apply(self.settings)
        self._fill()
        self.query_one(Vertical).border_title = _("Settings")
        self._save()

    @work(thread=True, group="settings:save", exit_on_error=False)
    def _save(self) -> None:
        try:
            # Saves what holds now: of two changes in a hurry the later one stays.
            with uninterruptible(), self._saving:
                save_settings(self._workspace, self.settings)
        except (H2QError, OSError) as problem:
            self.app.call_from_thread(self._explain, sentence_of(problem), "$text-error")

    def action_close(self) -> None:
        self.dismiss(None)
