"""The Hive tab: the server, the adapters of this workspace, the versions joined from everyone's, and who shared."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Static

from engine.core.errors import H2QError, error_text
from engine.core.i18n import N_, _, language
from engine.hive.protocol import Admitted
from engine.hive.version_text import VERSION_NAME
from engine.runs.kinds import RunKind, ValidateParams
from engine.runs.spec import make_spec
from engine.validation.stored_verdicts import VerdictFiles
from tui.actions import AppAction
from tui.host.cli_call import cli_json
from tui.host.hive_process import free_port, serve_url, start_hive, stop_hive
from tui.host.launch import launch_uninterrupted
from tui.screens.ask import Confirm, LinePrompt
from tui.tabs.base import Tab
from tui.tabs.hive import panels_text, reader
from tui.tabs.hive.messages import AddressKept, HiveStateRead, HiveWorkDone, PortFound, ReadyToShare
from tui.tabs.hive.reader import HiveState, OwnAdapter
from tui.tabs.hive.share_sheet import ShareSheet
from tui.terminal.text import safe
from tui.widgets.cell_lines import CellLines
from tui.widgets.virtual_list import GLYPH_COLUMN, VirtualList

if TYPE_CHECKING:
    from tui.host.app_host import AppHost

ASK_LOCAL_S, ASK_S = 3.0, 20.0
"""Seconds between two questions to a server on this machine, and to another one."""


class HiveTab(Tab):
    """Asks the server while it is on the screen; shares, fetches, joins, validates, adopts, and serves."""

    TAB_ID: ClassVar[str] = "hive"
    TITLE: ClassVar[str] = N_("Hive")
    FIRST_FOCUS: ClassVar[str] = "#hive-own"

    def __init__(self, host: AppHost) -> None:
        super().__init__(host)
        self.state = HiveState()
        self.is_loaded = False
        self._files = VerdictFiles()
        self._busy = ""
        """What an action does now; "" for nothing."""
        self._undo = ""
        """Stamp of the backup of the last adoption."""
        self._port = 0
        self._server = CellLines(id="hive-server")
        self.own = VirtualList((GLYPH_COLUMN, 0, 0), id="hive-own")
        self.versions = VirtualList((GLYPH_COLUMN, 0, 3, 6, 8), id="hive-versions")
        self._note = Static(id="hive-note", classes="note")
        self._own_note = Static(id="hive-own-note", classes="note")
        self._people = CellLines(id="hive-people")
        self._own_panel = Vertical(self.own, self._own_note, id="hive-own-panel", classes="panel")
        self._versions_panel = Vertical(self.versions, self._note, id="hive-versions-panel", classes="panel")
        self._people_panel = Vertical(self._people, id="hive-people-panel", classes="panel")
        self._lists = Horizontal(self._own_panel, self._versions_panel, id="hive-lists")
        self._empty = Static(id="hive-empty")

    def compose(self) -> ComposeResult:
        yield self._server
        yield self._lists
        yield self._people_panel
        yield self._empty

    def on_mount(self) -> None:
        self._own_panel.border_title = safe(_("My adapters"))
        self._versions_panel.border_title = safe(_("Versions"))
        self._versions_panel.border_subtitle = safe(_("adapters, energy kept, gain"))
        self._people_panel.border_title = safe(_("Rounds and contributors"))
        for part in (self._server, self._lists, self._people_panel):
            part.display = False

    def activate(self) -> None:
        self._watch()

    def deactivate(self) -> None:
        for worker in self.workers:
            if worker.node is self and worker.group == "hive:watch":
                worker.cancel()

    def runs_changed(self) -> None:
        self._watch()

    def restore_from(self, previous: Tab) -> None:
        if isinstance(previous, HiveTab):
            self.state, self.is_loaded = previous.state, previous.is_loaded

    async def wait_until_loaded(self) -> None:
        for _n in range(40):
            if self.is_loaded and not self._busy:
                return
            await asyncio.sleep(0.05)

    # Reading

    @work(group="hive:watch", exclusive=True, exit_on_error=False)
    async def _watch(self) -> None:
        while True:
            state = await asyncio.to_thread(
                reader.read_state, self.workspace, self.host.settings, self._files
            )
            self.post_message(HiveStateRead(state))
            local = state.address is None or state.address.local
            await asyncio.sleep(ASK_LOCAL_S if local else ASK_S)

    @on(HiveStateRead)
    def _state_read(self, message: HiveStateRead) -> None:
        changed = message.state != self.state or not self.is_loaded
        self.state, self.is_loaded = message.state, True
        if changed:
            self._draw()

    @on(VirtualList.Highlighted)
    def _highlighted(self, message: VirtualList.Highlighted) -> None:
        message.stop()
        self._draw_notes()
        self.host.refresh_footer()

    def on_descendant_focus(self) -> None:
        self.host.refresh_footer()

    # Drawing

    def _draw(self) -> None:
        state, glyphs = self.state, self.host.glyphs
        self._empty.display = state.is_empty
        for part in (self._server, self._lists, self._people_panel):
            part.display = not state.is_empty
        if state.is_empty:
            self._empty.update(panels_text.empty_text(state, serve_url(self._port or free_port())))
        else:
            self._server.set_lines(panels_text.server_lines(state, glyphs))
            own = [panels_text.own_row(one, state, glyphs) for one in state.own]
            self.own.set_ids([row.id for row in own])
            self.own.set_rows(own)
            versions = [panels_text.version_row(one, glyphs) for one in state.versions]
            self.versions.set_ids([row.id for row in versions])
            self.versions.set_rows(versions)
            self._people.set_lines(panels_text.people_lines(state))
            self._draw_notes()
        self.host.refresh_footer()

    def _draw_notes(self) -> None:
        version = next((one for one in self.state.versions if one.version == self.versions.cursor_id), None)
        own = self.state.adapter(self.own.cursor_id)
        self._own_note.display = own is not None
        if own is not None:
            self._own_note.update(panels_text.own_note(own))
        self._note.display = version is not None
        if version is not None:
            self._note.update(panels_text.version_note(version, self.state))

    # What the cursor means

    @property
    def _in_versions(self) -> bool:
        return self.versions.has_focus

    @property
    def _current_version(self) -> str:
        """The version under the cursor where that list has the focus, else the current one; "" for none."""
        if self._in_versions and self.versions.cursor_id:
            return self.versions.cursor_id
        status = self.state.status
        return (status.latest_aggregated_version or "") if status is not None else ""

    @property
    def _chosen(self) -> OwnAdapter | None:
        """The adapter to validate or adopt: the one under the cursor, of a version the one that it was fetched as."""
        if self._in_versions:
            return self.state.fetched_as(self.versions.cursor_id)
        return self.state.adapter(self.own.cursor_id)

    def is_enabled(self, action: AppAction) -> bool:
        state, chosen = self.state, self._chosen
        answers = state.info is not None
        status = state.status
        rules = {
            "serve": not self._busy,
            "upload": bool(state.own) and not self._busy,
            "download": answers and bool(self._current_version) and not self._busy,
            "aggregate": answers
            and not self._busy
            and status is not None
            and status.pending_for_aggregation >= (state.info.min_adapters if state.info else 1)
            and not status.aggregating,
            "validate": chosen is not None and not self._validating,
            "adopt": chosen is not None and chosen.name != state.in_use,
            "undo": bool(self._undo),
        }
        return rules.get(action.verb, True)

    @property
    def _validating(self) -> bool:
        return any(run.kind == RunKind.VALIDATE for run in self.host.board.live)

    def footer_label(self, action: AppAction) -> str:
        if action.verb == "serve" and self.state.served is not None:
            return _("close")
        return super().footer_label(action)

    # The server

    def action_refresh(self) -> None:
        self._watch()

    def action_serve(self) -> None:
        """Opens a hive here, after naming its address; closes the one that runs, after asking."""
        served = self.state.served
        if served is not None:
            question = _(
                "Close the hive at {url}? What it holds stays; nobody can share until it is open again."
            )
            self._ask(question.format(url=served.url), self._close)
        else:
            self._find_port()

    @work(group="hive:port", exclusive=True, exit_on_error=False)
    async def _find_port(self) -> None:
        self.post_message(PortFound(await asyncio.to_thread(free_port)))

    @on(PortFound)
    def _port_found(self, message: PortFound) -> None:
        self._port = message.port
        question = _("Open a hive at {url}? Only programs on this machine can reach it.")
        self._ask(question.format(url=serve_url(message.port)), lambda: self._open(message.port))

    @work(group="hive:serve", exclusive=True, exit_on_error=False)
    async def _open(self, port: int) -> None:
        self._set_busy(_("opening the hive …"))
        try:
            served = await asyncio.to_thread(start_hive, self.workspace, port)
            if not self.host.settings.hive_server:
                settings = await asyncio.to_thread(reader.keep_address, self.workspace, served.url)
                self.post_message(AddressKept(settings))
        except (H2QError, OSError) as problem:
            self._fail(problem)
            return
        self.post_message(
            HiveWorkDone(_("the hive is open at {url}; it stays open when you leave").format(url=served.url))
        )

    @work(group="hive:serve", exclusive=True, exit_on_error=False)
    async def _close(self) -> None:
        self._set_busy(_("closing the hive …"))
        try:
            await asyncio.to_thread(stop_hive, self.workspace)
        except (H2QError, OSError) as problem:
            self._fail(problem)
            return
        self.post_message(HiveWorkDone(_("the hive is closed")))

    def action_server(self) -> None:
        """Asks for the address of a server and keeps it."""
        prompt = LinePrompt(
            _("hive server:"),
            self.host.settings.hive_server or "https://",
            check=lambda text: reader.check_address(self.workspace, text),
        )
        self.app.push_screen(prompt, self._named)

    def _named(self, text: str | None) -> None:
        if text:
            self._keep_address(text)

    @work(group="hive:address", exclusive=True, exit_on_error=False)
    async def _keep_address(self, text: str) -> None:
        try:
            settings = await asyncio.to_thread(reader.keep_address, self.workspace, text)
        except (H2QError, OSError) as problem:
            self._fail(problem)
            return
        self.post_message(AddressKept(settings))

    @on(AddressKept)
    def _address_kept(self, message: AddressKept) -> None:
        self.host.apply_settings(message.settings)
        self._watch()

    # Adapters

    def action_upload(self) -> None:
        """Shows what leaves of the adapter under the cursor, and asks; without a server, asks for its address first."""
        adapter = self.state.adapter(self.own.cursor_id) or next(iter(self.state.own), None)
        if adapter is None:
            return
        if self.state.address is None:
            self.action_server()
        else:
            self._look_at(adapter.name)

    @work(group="hive:look", exclusive=True, exit_on_error=False)
    async def _look_at(self, name: str) -> None:
        address = self.state.address
        assert address is not None
        self._set_busy(_("looking at what would leave …"))
        try:
            outgoing, info = await asyncio.to_thread(reader.what_leaves, self.workspace, address, name)
        except (H2QError, OSError) as problem:
            self._fail(problem)
            return
        self.post_message(ReadyToShare(outgoing, info))

    @on(ReadyToShare)
    def _ready_to_share(self, message: ReadyToShare) -> None:
        self._set_busy("")
        address = self.state.address
        if address is not None:
            sheet = ShareSheet(
                self.workspace,
                address,
                message.outgoing,
                token_of=message.info.user,
                user=self.host.settings.hive_user,
            )
            self.app.push_screen(sheet, self._shared)

    def _shared(self, admitted: Admitted | None) -> None:
        if admitted is not None:
            text = _("shared as {id} in round {round}").format(id=admitted.adapter_id, round=admitted.round)
            self.show_message(text, "success")
        self._watch()

    @work(group="hive:fetch", exclusive=True, exit_on_error=False)
    async def action_download(self) -> None:
        """Fetches the version in a process of its own, which reads the base."""
        version = self._current_version
        if not VERSION_NAME.fullmatch(version):
            self.show_message(_("the server names a version that cannot be one"), "error")
            return
        self._set_busy(_("fetching {version} …").format(version=version))
        try:
            found = await cli_json(self.workspace, "hive", "download", version)
            name = reader.fetched_name(found)
        except (H2QError, OSError, ValueError, KeyError) as problem:
            self._fail(problem)
            return
        self.post_message(
            HiveWorkDone(
                _("{name} is in the workspace; v compares it with the model in use").format(name=name)
            )
        )

    def action_aggregate(self) -> None:
        """Has the server join what waits, after asking."""
        status = self.state.status
        if status is not None:
            question = _("Join the {n} adapters that wait into a new version?")
            self._ask(question.format(n=status.pending_for_aggregation), self._join)

    @work(group="hive:join", exclusive=True, exit_on_error=False)
    async def _join(self) -> None:
        address = self.state.address
        if address is None:
            return
        self._set_busy(_("the server joins the adapters …"))
        try:
            joined = await asyncio.to_thread(reader.join, self.workspace, address)
        except (H2QError, OSError) as problem:
            self._fail(problem)
            return
        text = (
            _("{version} is joined from {n} adapters") if joined.success else _("{version} is not published")
        )
        self.post_message(HiveWorkDone(text.format(version=joined.version, n=joined.num_adapters)))

    def action_validate(self) -> None:
        """Compares the adapter with the model in use, or with its base where none is."""
        chosen = self._chosen
        if chosen is None or self._validating:
            return
        used = self.state.in_use
        base = used if used and used != chosen.name else chosen.card.base_path
        if chosen.decision:
            question = _("{name} has a verdict. Judge again? It takes another look at the test set.")
            self._ask(question.format(name=chosen.name), lambda: self._launch(base, chosen.name))
        else:
            self._launch(base, chosen.name)

    @work(group="hive:validate", exclusive=True, exit_on_error=False)
    async def _launch(self, base: str, new: str) -> None:
        spec = make_spec(self.workspace.root, ValidateParams(base=base, new=new), language=language())
        try:
            await asyncio.to_thread(launch_uninterrupted, self.workspace, spec)
        except (H2QError, OSError) as problem:
            self._fail(problem)
            return
        text = _("validating {new} against {base}: run {run}").format(new=new, base=base, run=spec.run_id)
        self.post_message(HiveWorkDone(text))

    def action_adopt(self) -> None:
        """Puts the adapter into use, after asking; says where the verdict does not recommend it, or there is none."""
        chosen = self._chosen
        if chosen is None:
            return
        now = self.state.in_use or _("no model")
        question = {
            "promote": _("Promote {new} to replace {base}?"),
            "": _("Not validated yet. Promote {new} to replace {base}?"),
        }.get(chosen.decision, _("Not recommended. Promote {new} to replace {base}?"))
        self._ask(question.format(new=chosen.name, base=now), lambda: self._adopt(chosen.name))

    @work(group="hive:adopt", exclusive=True, exit_on_error=False)
    async def _adopt(self, name: str) -> None:
        try:
            done = await asyncio.to_thread(reader.adopt, self.workspace, name)
        except (H2QError, OSError) as problem:
            self._fail(problem)
            return
        text = _("In use now: {name}. u undoes it.").format(name=done.name)
        self.post_message(HiveWorkDone(text, done.backup.rpartition(".")[2]))

    @work(group="hive:adopt", exclusive=True, exit_on_error=False)
    async def action_undo(self) -> None:
        """Restores the model that was in use before the adapter was adopted."""
        try:
            done = await asyncio.to_thread(reader.roll_back, self.workspace, self._undo)
        except (H2QError, OSError) as problem:
            self._fail(problem)
            return
        self._undo = ""
        name = done.name or _("no model")
        self.post_message(HiveWorkDone(_("In use now: {name}.").format(name=name)))

    # Saying it

    def _ask(self, question: str, then: Callable[[], object]) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                then()

        self.app.push_screen(Confirm(question), answered)

    def _set_busy(self, text: str) -> None:
        self._busy = text
        if text:
            self.show_message(text)
        self.host.refresh_footer()

    def _fail(self, problem: Exception) -> None:
        self._set_busy("")
        self.show_message(error_text(problem), "error")

    @on(HiveWorkDone)
    def _work_done(self, message: HiveWorkDone) -> None:
        self._set_busy("")
        self._undo = message.undo or self._undo
        self.show_message(message.text, "success")
        self._watch()
