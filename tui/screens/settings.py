"""The settings sheet: a row for each setting of `engine.core.config` and each key. A change is applied and saved immediately."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Static

from engine.alerts.silence import parse_quiet_hours
from engine.core.config import save_settings
from engine.core.errors import H2QError, UsageProblem, error_text
from engine.core.i18n import LANGUAGES, N_, _, bracketed
from engine.core.paths import Workspace
from engine.core.pii_types import PII_TYPES
from engine.core.settings import SettingInfo, Settings, setting_infos
from tui.actions import (
    ACTIONS,
    BY_ID,
    EVERYWHERE,
    TAB_TITLES,
    AppAction,
    is_digit_action,
    key_label,
    key_labels,
    keys_in_use,
)
from tui.host.shutdown import uninterruptible
from tui.screens.ask import LinePrompt
from tui.terminal.glyphs import UNICODE
from tui.terminal.text import cells, fit, safe
from tui.widgets.virtual_list import GLYPH_COLUMN, ListCell, ListRow, VirtualList

KEY_PREFIX = "key:"
HEAD_PREFIX = "heading:"
TYPE_PREFIX = "sensitive_types:"
EMBEDDER, QUESTION, QUIET_HOURS = "embedder", "sample_question", "quiet_hours"
MAX_QUESTION = 200
_TEXT_CELLS = 32
"""Cells of a text that is shown as a value."""
_UNITS = {"%": N_("{n} %"), "°C": N_("{n} °C"), "s": N_("{n} s")}
"""Values with the units that a language may write in its own way."""


@dataclass(frozen=True)
class SettingRow:
    """A row of the sheet: a setting, or with TYPE_PREFIX the handling of one type of PII."""

    id: str
    title: str
    info: SettingInfo
    group: str
    """The heading under which it stands."""


def setting_rows() -> list[SettingRow]:
    """The rows of all settings, in their order in `Settings`."""
    rows, group = [], ""
    for name, info in setting_infos().items():
        group = info.group or group
        if name == "sensitive_types":
            rows += [
                SettingRow(TYPE_PREFIX + type_, names.title, info, group)
                for type_, names in PII_TYPES.items()
            ]
        elif info.title:
            rows.append(SettingRow(name, info.title, info, group))
    return rows


def key_conflict(action: AppAction, key: str, own: dict[str, str]) -> AppAction | None:
    """Another action bound to `key` where `action` is available; None if the key is free.

    Global keys conflict with those of every tab. Digits belong to the tabs and are refused by the caller.
    """
    keys = keys_in_use(own)
    for row in ACTIONS:
        if row.id == action.id or not {row.tab, action.tab} & {
            EVERYWHERE,
            row.tab if row.tab == action.tab else "",
        }:
            continue
        if key in keys[row.id]:
            return row
    return None


class SettingsScreen(ModalScreen[None]):
    """A list of settings and keys. `apply` applies changed settings to the running app."""

    DEFAULT_CSS = """
    SettingsScreen { align: center middle; background: transparent; }
    SettingsScreen > Vertical { width: 90%; max-width: 100; height: 90%; border: round $accent; padding: 0 1;
        background: $surface; }
    SettingsScreen #settings-help { height: 2; color: $text-muted; }
    SettingsScreen #settings-keys { height: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", show=False),
        Binding("q", "close", show=False),
        Binding("S", "close", show=False, id="settings"),
        Binding("right,l,space", "change(1)", show=False),
        Binding("enter", "enter", show=False),
        Binding("left,h", "change(-1)", show=False),
        Binding("backspace,delete", "default", show=False),
        Binding("slash", "search", show=False, id="filter"),
    ]

    class NotSaved(Message):
        """The settings cannot be saved, because of `reason`."""

        def __init__(self, reason: str) -> None:
            super().__init__()
            self.reason = reason

    def __init__(
        self,
        workspace: Workspace,
        settings: Settings,
        apply: Callable[[Settings], None],
        themes: Sequence[str] = (),
        row: str = "",
    ) -> None:
        """`row` is the id of the row under the cursor at first, "" for the first one."""
        super().__init__()
        self._workspace = workspace
        self.settings = settings
        self._apply = apply
        self._themes = ("auto", *sorted(themes))
        self._saving = threading.Lock()
        self._first_row = row
        self._rows = {row.id: row for row in setting_rows()}
        self._search = ""
        """Only rows that have this text are shown; "" for all."""
        self._awaiting_key_for = ""
        """Id of the action that the next key press is bound to."""

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = _("Settings")
            yield VirtualList((24, GLYPH_COLUMN, 0), id="settings-list")
            yield Static(id="settings-help")
            yield Static(id="settings-keys")

    def on_mount(self) -> None:
        self._fill()
        self._table.move_to_id(self._first_row)
        self._table.focus()

    @property
    def _table(self) -> VirtualList:
        return self.query_one(VirtualList)

    def _fill(self) -> None:
        """The rows that have the searched text, each group below its heading."""
        rows: list[ListRow] = []
        group = ""
        for heading, row in [*self._setting_rows(), *self._key_rows()]:
            if not self._matches(row):
                continue
            if heading != group:
                group = heading
                rows.append(ListRow(HEAD_PREFIX + heading, (ListCell(heading, "heading"),)))
            rows.append(row)
        self._table.headings = frozenset(row.id for row in rows if row.id.startswith(HEAD_PREFIX))
        self._table.set_rows(rows)
        self._table.set_ids([row.id for row in rows])
        box = self.query_one(Vertical)
        box.border_title = safe(_("Settings") + (f"  /{self._search}" if self._search else ""))
        self._explain()

    def _matches(self, row: ListRow) -> bool:
        """Whether a row has all words of the search, in what is shown, in its help or in its id."""
        help_text = _(self._rows[row.id].info.help) if row.id in self._rows else ""
        text = " ".join([*(cell.text for cell in row.cells), help_text, row.id]).casefold()
        return all(word in text for word in self._search.casefold().split())

    def _setting_rows(self) -> Iterator[tuple[str, ListRow]]:
        """Heading and row of each setting; what is not as the program comes is marked."""
        for setting in self._rows.values():
            indent = "  " if setting.id.startswith(TYPE_PREFIX) else ""
            changed = self._value(setting.id) != self._default(setting.id)
            value = ListCell(self._value_text(setting, self._value(setting.id)), "accent" if changed else "")
            title = ListCell(indent + _(setting.title))
            yield _(setting.group), ListRow(setting.id, (title, self._mark(changed=changed), value))

    def _key_rows(self) -> Iterator[tuple[str, ListRow]]:
        keys = keys_in_use(self.settings.keys)
        for action in ACTIONS:
            if is_digit_action(action):
                continue
            changed = action.id in self.settings.keys
            key = " ".join(key_labels(keys[action.id]))
            where = _("everywhere") if action.tab == EVERYWHERE else _(TAB_TITLES[action.tab])
            value = ListCell(key, "accent" if changed else "")
            row = ListRow(
                KEY_PREFIX + action.id, (ListCell(_(action.label)), self._mark(changed=changed), value)
            )
            yield _("Keys: {tab}").format(tab=where), row

    def _mark(self, *, changed: bool) -> ListCell:
        glyphs = getattr(self.app, "glyphs", UNICODE)
        return ListCell(glyphs.running if changed else "", "accent")

    def _default(self, row_id: str) -> Any:
        return "" if row_id.startswith(TYPE_PREFIX) else getattr(Settings(), row_id)

    def _value_text(self, row: SettingRow, value: Any) -> str:
        info = row.info
        if row.id == "language":
            text = LANGUAGES.get(value) or _("auto")
        elif row.id == "theme" and value == "auto":
            text = _("auto")
        elif info.labels and value in info.values:
            text = _(info.labels[info.values.index(value)])
        else:
            text = f"{value:g}" if isinstance(value, float) else str(value)
            text = fit(text, min(cells(text), _TEXT_CELLS)) if isinstance(value, str) else text
        unit = _UNITS.get(info.unit, f"{{n}} {info.unit}") if info.unit else "{n}"
        return f"‹ {_(unit).format(n=text)} ›"

    def _value(self, row_id: str) -> Any:
        if row_id.startswith(TYPE_PREFIX):
            return dict(self.settings.sensitive_types).get(row_id.removeprefix(TYPE_PREFIX), "")  # type: ignore[call-overload]
        return getattr(self.settings, row_id)

    def on_virtual_list_highlighted(self) -> None:
        self._awaiting_key_for = ""
        self._explain()

    def _explain(self, text: str = "", kind: str = "") -> None:
        """Show `text`, else the help of the row under the cursor, and the keys for it."""
        row_id = self._table.cursor_id
        if row_id.startswith(KEY_PREFIX):
            action = BY_ID[row_id.removeprefix(KEY_PREFIX)]
            help_text = _(action.help) or _(action.label)
            keys = _("enter new key   backspace default   esc close")
            if self._awaiting_key_for:
                help_text, keys = (
                    _("Press the new key for “{label}”.").format(label=_(action.label)),
                    _("esc cancel"),
                )
        else:
            nothing = _("Nothing under /{filter}.").format(filter=self._search) if self._search else ""
            help_text = _(self._rows[row_id].info.help) if row_id in self._rows else nothing
            keys = _("← → change   backspace default   / search   esc close")
            if row_id in self._rows and self._value(row_id) != self._default(row_id):
                default = self._value_text(self._rows[row_id], self._default(row_id)).strip("‹› ")
                help_text = bracketed(help_text, _("default: {value}").format(value=default))
        self.query_one("#settings-help", Static).update(safe(text or help_text, kind))
        self.query_one("#settings-keys", Static).update(safe(keys, "$foreground-muted"))

    # Changing

    def action_change(self, by: int) -> None:
        """Set the next (`by` 1) or previous value; on a key row, wait for the new key."""
        row_id = self._table.cursor_id
        if row_id.startswith(KEY_PREFIX):
            if by > 0:
                self._awaiting_key_for = row_id.removeprefix(KEY_PREFIX)
                self._explain()
            return
        if not row_id:
            return
        values = self._themes if row_id == "theme" else self._rows[row_id].info.values
        value = self._value(row_id)
        if isinstance(value, float):
            values = tuple(sorted({*values, value}))
            place = max(0, min(len(values) - 1, values.index(value) + by))
        else:
            place = (values.index(value) + by) % len(values) if value in values else 0
        self._set(row_id, values[place])

    def action_default(self) -> None:
        """Restore the default of the row under the cursor."""
        row_id = self._table.cursor_id
        if row_id.startswith(KEY_PREFIX):
            keys = dict(self.settings.keys)
            if keys.pop(row_id.removeprefix(KEY_PREFIX), None) is not None:
                self._set("keys", keys)
        elif row_id:
            self._set(row_id, self._default(row_id))

    def action_enter(self) -> None:
        """Set the next value; ask for one that is a text."""
        if self._table.cursor_id == EMBEDDER:
            self._ask_embedder()
        elif self._table.cursor_id == QUESTION:
            self._ask_question()
        elif self._table.cursor_id == QUIET_HOURS:
            self._ask_quiet_hours()
        else:
            self.action_change(1)

    @work(group="settings:ask", exclusive=True, exit_on_error=False)
    async def _ask_embedder(self) -> None:
        embedder = self.settings.embedder
        dialog = LinePrompt(
            _("Folder of the model, or ollama:TAG"),
            "" if embedder == "off" else embedder,
            check=self._embedder_error,
        )
        answer = await self.app.push_screen_wait(dialog)
        if answer is not None:
            self._set(EMBEDDER, answer.strip())

    @work(group="settings:ask", exclusive=True, exit_on_error=False)
    async def _ask_question(self) -> None:
        dialog = LinePrompt(_("Question for the model in training"), self.settings.sample_question)
        answer = await self.app.push_screen_wait(dialog)
        if answer is not None:
            self._set(QUESTION, answer.strip()[:MAX_QUESTION])

    @work(group="settings:ask", exclusive=True, exit_on_error=False)
    async def _ask_quiet_hours(self) -> None:
        dialog = LinePrompt(
            _("Quiet hours, such as 22:00-07:00"), self.settings.quiet_hours, check=_quiet_hours_error
        )
        answer = await self.app.push_screen_wait(dialog)
        if answer is not None:
            self._set(QUIET_HOURS, answer.strip())

    def _embedder_error(self, answer: str) -> str:
        """Why `answer` is no embedder, "" if it may be one; `h2q-tui check` loads it."""
        name = answer.strip()
        if name in ("", "off") or name.startswith("ollama:"):
            return ""
        folder = self._workspace.root / Path(name).expanduser()
        return (
            "" if (folder / "modules.json").is_file() else _("this folder has no sentence-transformers model")
        )

    def on_key(self, event: events.Key) -> None:
        """While waiting for a key, bind it to the action; esc cancels."""
        if not self._awaiting_key_for:
            return
        event.stop()
        event.prevent_default()
        action = BY_ID[self._awaiting_key_for]
        self._awaiting_key_for = ""
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
                key=key_label((key,)), label=_(other.label)
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
            own = {
                type_: handling for type_, handling in self.settings.sensitive_types.items() if type_ != name
            }
            field, value = "sensitive_types", own | ({name: value} if value else {})
        self.settings = msgspec.structs.replace(self.settings, **{field: value})
        self._apply(self.settings)
        self._fill()
        self._save()

    @work(group="settings:save", exit_on_error=False)
    async def _save(self) -> None:
        try:
            await asyncio.to_thread(self._save_current)
        except (H2QError, OSError) as problem:
            self.post_message(self.NotSaved(error_text(problem)))

    def _save_current(self) -> None:
        # Saves the current settings, so that of two quick changes the later one is kept.
        with uninterruptible(), self._saving:
            save_settings(self._workspace, self.settings)

    @on(NotSaved)
    def _not_saved(self, message: NotSaved) -> None:
        self._explain(message.reason, "$text-error")

    def action_search(self) -> None:
        """Shows only the rows that have a text; esc shows all again."""

        def answered(text: str | None) -> None:
            if text is not None:
                self._search = text
                self._fill()

        self.app.push_screen(LinePrompt(_("Search the settings"), self._search, select=True), answered)

    def action_back(self) -> None:
        """Esc: all rows again, else out."""
        if self._search:
            self._search = ""
            self._fill()
        else:
            self.action_close()

    def action_close(self) -> None:
        self.dismiss(None)


def _quiet_hours_error(answer: str) -> str:
    """Why `answer` is no span of quiet hours; "" if it is one, or empty."""
    try:
        parse_quiet_hours(answer)
    except UsageProblem as problem:
        return problem.message
    return ""
