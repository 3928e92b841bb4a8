"""`h2q-tui ollama`: the server that speaks Ollama's and OpenAI's APIs."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from engine.core.i18n import _
from tui.cli import output, session


def register(app: typer.Typer) -> None:
    """Add the group `ollama`."""
    group = typer.Typer(
        name="ollama",
        help=_("A server for programs made for Ollama or OpenAI."),
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.add_typer(group)

    # A callback keeps the group a group while it has one command.
    @group.callback()
    def ollama() -> None:
        pass

    @group.command(help=_("Serve the models of the workspace over HTTP, on this machine alone."))
    def serve(
        host: str = typer.Option(
            "127.0.0.1", "--host", help=_("Address to listen on; another than this machine's needs a key.")
        ),
        port: int | None = typer.Option(
            None,
            "--port",
            min=0,
            max=65535,
            help=_("Port. Default: 11434, or the next free one; 0: any free one."),
        ),
        key_file: str | None = typer.Option(
            None, "--key-file", help=_("File with the key that clients must send (also $H2Q_SERVER_KEY).")
        ),
        origins: str = typer.Option(
            "",
            "--origins",
            help=_(
                "Web pages that may use the server, separated by commas, e.g. app://obsidian.md (also $OLLAMA_ORIGINS)."
            ),
        ),
    ) -> None:
        from engine.http.listening import read_key
        from engine.serving.server import KEY_VARIABLE
        from engine.serving.server import serve as run_server

        ws = session.workspace()
        key = read_key(session.resolve(key_file) if key_file is not None else None, KEY_VARIABLE)
        named = f"{origins},{os.environ.get('OLLAMA_ORIGINS', '')}".split(",")
        run_server(
            ws,
            host=host,
            port=port,
            key=key,
            origins=[text.strip() for text in named if text.strip()],
            announce=lambda bound, number: _announce(ws.root, bound, number, port, key=bool(key)),
        )


def _announce(root: Path, host: str, port: int, wanted: int | None, *, key: bool) -> None:
    """Say where the server listens, and why not at Ollama's port."""
    from engine.serving.server import DEFAULT_PORT

    name = f"[{host}]" if ":" in host else host
    address = f"http://{name}:{port}"
    if session.options.json:
        output.echo_json({"address": address, "port": port, "key": key, "workspace": str(root)})
        return
    if wanted is None and port != DEFAULT_PORT:
        output.echo(_("port {port} is in use by another program").format(port=DEFAULT_PORT), error=True)
    output.echo(_("serving {root} at {address} (Ctrl+C stops)").format(root=root, address=address))
    output.echo(
        _("for Ollama's programs: OLLAMA_HOST={address}; for OpenAI's: {address}/v1").format(address=address)
    )
