"""The options that the commands of the hive share, the connection to its server, and the progress of a transfer."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from engine.core.i18n import _
from tui.cli import output, session

if TYPE_CHECKING:
    from engine.core.paths import Workspace
    from engine.hive.client import HiveClient

_REDRAW_S = 0.1


def server_option() -> Any:
    """`--server`."""
    return typer.Option(
        "",
        "--server",
        metavar="URL",
        help=_(
            "Address of the hive server. Default: hive_server in the settings; kept there the first time."
        ),
    )


def http_option() -> Any:
    """`--allow-http`."""
    return typer.Option(
        False, "--allow-http", help=_("Speak to another machine without TLS, for everyone to read.")
    )


def folder_option() -> Any:
    """`--folder`."""
    return typer.Option(
        "", "--folder", metavar="DIR", help=_("A folder shared with others in place of a server.")
    )


def key_option() -> Any:
    """`--key-file`."""
    return typer.Option(
        "",
        "--key-file",
        metavar="FILE",
        help=_("Key that the members of the folder share. Default: config/hive.key in the workspace."),
    )


@contextmanager
def connected(ws: Workspace, server: str, allow_http: bool) -> Iterator[HiveClient]:
    """A client of the server that is named, else of the one of the settings. The first one that answers is kept there."""
    import msgspec

    from engine.core.config import load_settings, save_settings
    from engine.hive.address import hive_address
    from engine.hive.client import HiveClient, hive_token

    settings = load_settings(ws)
    address = hive_address(settings, server, allow_http=allow_http)
    with HiveClient(address, hive_token(ws), on_wait=_say_wait) as client:
        yield client
    if not settings.hive_server:
        save_settings(ws, msgspec.structs.replace(load_settings(ws), hive_server=address.url))
        output.echo(_("{server} is the hive of this workspace now (hive_server)").format(server=address.url))


def _say_wait(seconds: float, reason: str) -> None:
    output.echo(_("{reason}; again in {seconds:g} s").format(reason=reason, seconds=seconds), error=True)


def key_place(named: str) -> Path:
    """The file of `--key-file`, else the one of the workspace."""
    from engine.hive.shared_folder import key_file

    return session.resolve(named) if named else key_file(session.locate_workspace())


@contextmanager
def drawn_progress() -> Iterator[Callable[[int, int], None]]:
    """A line with the megabytes done, redrawn on a terminal; elsewhere nothing."""
    from engine.hive.sharing_text import size_text

    if not sys.stderr.isatty() or session.options.plain or session.options.quiet:
        yield lambda _done, _all: None
        return
    drawn = 0.0

    def draw(done: int, whole: int) -> None:
        nonlocal drawn
        if time.monotonic() - drawn >= _REDRAW_S or done == whole:
            drawn = time.monotonic()
            sys.stderr.write(f"\r  {size_text(done) + ' / ' + size_text(whole):<30}")
            sys.stderr.flush()

    try:
        yield draw
    finally:
        if drawn:
            sys.stderr.write("\r" + " " * 32 + "\r")
            sys.stderr.flush()
