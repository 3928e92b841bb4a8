"""What a person does with alerts in the Health tab: see, mute, test a channel, set one up."""

from __future__ import annotations

import asyncio
import sqlite3

from textual import work

from engine.alerts.desk import acknowledge_alerts, mute_alerts, send_tests
from engine.core.errors import H2QError
from engine.core.i18n import _, colon, n_
from engine.core.local_time import local_time
from tui.screens.notify_setup import NotifySetup
from tui.tabs.base import Tab
from tui.tabs.health.alerts_text import AlertBoard

MUTE_S = 8 * 3600.0


class AlertActions(Tab):
    """The actions on alerts; the tab itself has the board and reads it again."""

    alerts: AlertBoard

    def read_again(self) -> None:
        """Reads the alerts now."""

    @work(group="alerts", exclusive=True, exit_on_error=False)
    async def action_ack(self) -> None:
        try:
            seen = await asyncio.to_thread(acknowledge_alerts, self.workspace, "all")
        except (H2QError, sqlite3.Error, OSError) as error:
            self.show_message(str(error), "error")
            return
        n = len(seen)
        self.show_message(n_("{n} alert acknowledged.", "{n} alerts acknowledged.", n).format(n=n), "success")
        self.read_again()

    @work(group="alerts", exclusive=True, exit_on_error=False)
    async def action_mute(self) -> None:
        """Mutes everything for eight hours; ends that mute when it is in force."""
        seconds = MUTE_S if self.alerts.muted_until is None else 0.0
        try:
            until = await asyncio.to_thread(mute_alerts, self.workspace, "all", seconds)
        except (sqlite3.Error, OSError) as error:
            self.show_message(str(error), "error")
            return
        clock = local_time("%H:%M", until)
        self.show_message(
            _("only critical alerts are sent until {time}").format(time=clock)
            if until
            else _("No longer muted.")
        )
        self.read_again()

    @work(group="alerts", exclusive=True, exit_on_error=False)
    async def action_test(self) -> None:
        self.show_message(_("sending a test message …"))
        try:
            results = await asyncio.to_thread(send_tests, self.workspace)
        except H2QError as error:
            self.show_message(str(error), "error")
            return
        failed = {name: error for name, error in results.items() if error}
        text = _(", ").join(
            colon(name, _("sent") if not error else _("not sent: {error}").format(error=error))
            for name, error in (failed or results).items()
        )
        self.show_message(text, "error" if failed else "success")

    def action_channel(self) -> None:
        """The dialogue that adds a channel and sends a test message."""
        self.host.push_screen(NotifySetup(self.workspace, self.host.apply_settings))
