"""`h2q-tui hive`: share adapters with others, and join them, without sharing a conversation."""

from __future__ import annotations

import typer

from engine.core.i18n import _
from tui.cli.commands import hive_aggregate, hive_serve, hive_share


def register(app: typer.Typer) -> None:
    """Add the group `hive`."""
    group = typer.Typer(
        name="hive",
        help=_("Join the adapters of several people; no conversation leaves its machine."),
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.add_typer(group)

    # A callback keeps the group a group while it has one command.
    @group.callback()
    def hive() -> None:
        pass

    hive_serve.register(group)
    hive_aggregate.register(group)
    hive_share.register(group)
