"""`h2q-tui hive serve` and `hive token`: the server of a hive, and who may use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from engine.core.i18n import _
from engine.core.local_time import local_time
from tui.cli import output, session

if TYPE_CHECKING:
    from engine.hive.hivemind_import import TakenOver
    from engine.hive.registry import Registry
    from engine.hive.server.serve import Announcement


def register(group: typer.Typer) -> None:
    """Add the commands of the server to the group `hive`."""
    _register_serve(group)
    token = typer.Typer(
        name="token",
        help=_("Who may use the hive that this workspace serves."),
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.add_typer(token)
    _register_token(token)


def _register_serve(group: typer.Typer) -> None:
    @group.command(
        help=_("Serve a hive: adapters of several people arrive, and one joined from them is given out.")
    )
    def serve(
        host: str = typer.Option(
            "127.0.0.1", "--host", help=_("Address to listen on; another than this machine's needs tokens.")
        ),
        port: int | None = typer.Option(
            None, "--port", min=0, max=65535, help=_("Port. Default: 8000, or the next free one; 0: any free one.")
        ),
        base: str = typer.Option(
            "", "--base", metavar="MODEL", help=_("Base model that adapters must fit. Default: that of the first adapter.")
        ),
        certificate: str | None = typer.Option(
            None, "--certificate", metavar="FILE", help=_("Certificate in PEM, for TLS.")
        ),
        certificate_key: str | None = typer.Option(
            None, "--certificate-key", metavar="FILE", help=_("Private key of the certificate in PEM.")
        ),
        max_mb: int = typer.Option(2048, "--max-mb", min=1, max=1 << 20, help=_("Largest adapter that is taken, in MB.")),
        min_adapters: int = typer.Option(
            2, "--min-adapters", min=1, max=10_000, help=_("Adapters that a round needs before they are joined.")
        ),
        rate: float | None = typer.Option(
            None, "--rate", min=0.0, help=_("Requests a minute of one user or address; 0: no limit. Default: 600 for other machines.")
        ),
        method: str = typer.Option("clip", "--method", help=_("How a round is joined, as in `hive aggregate`.")),
        rank: int | None = typer.Option(None, "--rank", min=1, max=4096, help=_("Rank of the joined adapter.")),
        held_out: str | None = typer.Option(
            None, "--held-out", metavar="FILE",
            help=_("Conversations that nobody trains on: a version must be better on them to be published."),
        ),
    ) -> None:  # fmt: skip
        from engine.core.errors import UsageProblem
        from engine.hive.aggregation.terms import JoinMethod
        from engine.hive.intake import HiveLimits
        from engine.hive.rounds import RoundOptions
        from engine.hive.server.serve import ServeOptions
        from engine.hive.server.serve import serve as run_server

        if method not in list(JoinMethod):
            raise UsageProblem(
                _("--method: {text} is none of {names}").format(text=method, names=", ".join(JoinMethod)),
                hint="h2q-tui hive serve --method clip",
            )
        ws = session.workspace()
        run_server(
            ws,
            ServeOptions(
                host=host,
                port=port,
                base=session.model_reference(ws, base) if base else "",
                certificate=session.resolve(certificate) if certificate is not None else None,
                certificate_key=session.resolve(certificate_key) if certificate_key is not None else None,
                rate=rate,
                held_out=session.resolve(held_out) if held_out is not None else None,
                limits=HiveLimits(max_bytes=max_mb << 20, min_adapters=min_adapters),
                rounds=RoundOptions(method=JoinMethod(method), rank=rank),
            ),
            lambda where: _announce(where, port, encrypted=certificate is not None),
            _say_ready,
        )


def _announce(where: Announcement, wanted: int | None, *, encrypted: bool) -> None:
    from engine.hive.protocol import DEFAULT_PORT

    if session.options.json:
        output.echo_json({"address": where.address, "port": where.port, "needs_token": where.needs_token})
        return
    output.echo(_("the hive is served at {address} (Ctrl+C stops)").format(address=where.address))
    if wanted is None and where.port != DEFAULT_PORT:
        output.echo(_("port {port} is in use by another program").format(port=DEFAULT_PORT), error=True)
    if where.needs_token and not encrypted:
        output.echo(_("without --certificate, tokens and adapters travel unencrypted"), error=True)


def _say_ready(base: str, taken_over: TakenOver) -> None:
    if base:
        output.echo(_("base model: {name}").format(name=base))
    if taken_over.adapters:
        output.echo(_("adapters taken over from HiveMind: {n}").format(n=taken_over.adapters))
    for reason in taken_over.refused:
        output.echo(_("not taken over: {reason}").format(reason=reason), error=True)


def _register_token(token: typer.Typer) -> None:
    @token.command(help=_("Make a token for a user; it is shown once."))
    def create(
        name: str = typer.Argument(..., help=_("Name of the user.")),
        may_aggregate: bool = typer.Option(
            False, "--may-aggregate", help=_("It may also join the adapters of a round, and roll back.")
        ),
    ) -> None:
        from engine.hive.tokens import create_token

        made = create_token(_registry(), name, may_aggregate=may_aggregate)
        if session.options.json:
            output.echo_json({"name": name, "token": made, "may_aggregate": may_aggregate})
            return
        output.echo(made)
        output.echo(
            _("give it to {name}: it is not shown again, and only its hash is stored").format(name=name),
            error=True,
        )

    @token.command("list", help=_("Users with tokens."))
    def list_() -> None:
        from engine.hive.tokens import list_tokens

        tokens = list_tokens(_registry())
        if session.options.json:
            output.echo_json({"tokens": tokens})
            return
        if not tokens:
            output.echo(_("There is no token yet → h2q-tui hive token create NAME"))
        for one in tokens:
            words = [local_time("%Y-%m-%d", one.created_at)]
            if one.may_aggregate:
                words.append(_("may aggregate"))
            if one.revoked_at is not None:
                words.append(_("revoked {date}").format(date=local_time("%Y-%m-%d", one.revoked_at)))
            output.echo(f"{one.name}  {'  '.join(words)}")

    @token.command(help=_("End a token; adapters of its user that wait are withdrawn."))
    def revoke(name: str = typer.Argument(..., help=_("Name of the user."))) -> None:
        from engine.hive.tokens import revoke_token

        withdrawn = revoke_token(_registry(), name)
        if session.options.json:
            output.echo_json({"name": name, "withdrawn": withdrawn})
            return
        output.echo(
            _("the token of {name} is revoked; adapters withdrawn: {n}").format(name=name, n=withdrawn)
        )


def _registry() -> Registry:
    from engine.hive.registry import Registry
    from engine.hive.server.serve import hive_folder

    return Registry(hive_folder(session.workspace()))
