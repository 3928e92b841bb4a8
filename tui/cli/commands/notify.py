"""`h2q-tui notify`: channels, alerts and what waits to be sent."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import typer

from engine.core.i18n import _, bracketed, colon, n_
from engine.core.local_time import local_time
from tui.cli import output, session

if TYPE_CHECKING:
    from engine.alerts.channels import ChannelField, ChannelKind
    from engine.core.paths import Workspace

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_UNITS = {"s": 1.0, "m": 60.0, "": 60.0, "h": 3600.0, "d": 86_400.0}


def register(app: typer.Typer) -> None:
    """Add the group `notify`."""
    group = typer.Typer(
        name="notify",
        help=_("Alerts: where they are sent, what was told, what waits."),
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.add_typer(group)
    _register_channels(group)
    _register_alerts(group)


def _register_channels(group: typer.Typer) -> None:
    field_help = _("NAME=VALUE of a field that is no secret; repeat it.")

    @group.command(help=_("Add a channel, guided, and send a test message to it."))
    def setup(
        kind: str = typer.Argument(
            None, help=_("126, 163, qq, mail, wecom, dingtalk, feishu, ntfy, bark, …")
        ),
        name: str = typer.Option(None, "--name", help=_("Name of the channel. Default: its kind.")),
        field: list[str] = typer.Option(None, "--field", help=field_help),  # noqa: B008
        quick: bool = typer.Option(
            False, "--quick", help=_("Mail to yourself: asks for an address and its code only.")
        ),
        test: bool = typer.Option(True, "--test/--no-test", help=_("Send a test message afterwards.")),
    ) -> None:
        _setup(kind, name, field or [], quick, test)

    @group.command(help=_("Send a test message to every channel, or to one."))
    def test(
        name: str = typer.Argument(None, help=_("Name of a channel.")),
        quick: bool = typer.Option(False, "--quick", help=_("Only the first channel.")),
    ) -> None:
        from engine.core.config import load_settings

        ws = session.workspace(create=False)
        names = [name] if name else list(load_settings(ws).alert_channels)
        if not names:
            from engine.core.errors import UsageProblem

            raise UsageProblem(_("there is no channel yet"), hint="h2q-tui notify setup")
        _send_tests(ws, names[:1] if quick else names)

    @group.command(help=_("The channels."))
    def channels() -> None:
        from engine.core.config import load_settings

        found = load_settings(session.workspace(create=False)).alert_channels
        if session.options.json:
            output.echo_json({"channels": found})
            return
        if not found:
            output.echo(_("There is no channel yet") + " → h2q-tui notify setup")
        for name, fields in found.items():
            rest = "  ".join(f"{key}={value}" for key, value in fields.items() if key != "kind")
            output.echo(f"{name:12}  {fields.get('kind', ''):10}  {rest}".rstrip())

    @group.command(help=_("Delete a channel and its secrets."))
    def remove(name: str = typer.Argument(..., help=_("Name of a channel."))) -> None:
        from engine.alerts.desk import remove_channel

        remove_channel(session.workspace(create=False), name)
        output.echo(_("Deleted: {name}").format(name=name))
        if session.options.json:
            output.echo_json({"removed": name})

    @group.command(
        "import", help=_("Take over the channels of a notification_config.json of the RL-Swarm monitor.")
    )
    def import_(file: str = typer.Argument(..., help=_("The file."))) -> None:
        from engine.alerts.desk import add_channel
        from engine.compat.notification_config import read_notification_config

        found = read_notification_config(session.resolve(file))
        ws = session.workspace()
        for one in found.channels:
            add_channel(ws, one.name, one.kind, one.fields)
            output.echo(_("Added: {name}").format(name=bracketed(one.name, one.kind)))
        for sentence in found.left_out:
            output.echo(_("Left out: {sentence}").format(sentence=sentence))
        if found.channels:
            output.echo(_("Try it") + " → h2q-tui notify test")
        if session.options.json:
            added = [{"name": one.name, "kind": one.kind} for one in found.channels]
            output.echo_json({"added": added, "left_out": found.left_out})


def _register_alerts(group: typer.Typer) -> None:
    @group.command("list", help=_("Alerts in force, and what was told lately."))
    def list_(
        limit: int = typer.Option(20, "--limit", min=1, max=500, help=_("Number of messages to show.")),
        text: bool = typer.Option(False, "--text", help=_("With the whole text of each message.")),
    ) -> None:
        _list(limit, text)

    @group.command(help=_("Mark alerts as seen: they are not repeated."))
    def ack(
        alert: str = typer.Argument("all", help=_("An alert of the list, the id of a run, or all.")),
    ) -> None:
        from engine.alerts.desk import acknowledge_alerts

        seen = acknowledge_alerts(session.workspace(create=False), alert)
        output.echo(n_("{n} alert acknowledged.", "{n} alerts acknowledged.", len(seen)).format(n=len(seen)))
        if session.options.json:
            output.echo_json({"acknowledged": [state.fingerprint for state in seen]})

    @group.command(help=_("Hold alerts back for a while; critical ones are still sent."))
    def mute(
        alert: str = typer.Argument(
            "all", help=_("An alert of the list, a pattern such as 'machine.*', or all.")
        ),
        for_: str = typer.Option("8h", "--for", help=_("How long: 30m, 8h, 2d; 0 ends it.")),
    ) -> None:
        from engine.alerts.desk import mute_alerts

        until = mute_alerts(session.workspace(create=False), alert, _seconds(for_))
        clock = local_time("%Y-%m-%d %H:%M", until)
        output.echo(
            _("Muted until {time}: {alert}").format(time=clock, alert=alert)
            if until
            else _("No longer muted.")
        )
        if session.options.json:
            output.echo_json({"pattern": alert, "until": until or None})

    @group.command(help=_("Messages that wait to be sent, and why."))
    def outbox(
        send: bool = typer.Option(False, "--send", help=_("Try to send them now.")),
        all_: bool = typer.Option(False, "--all", help=_("Also those that were sent.")),
    ) -> None:
        _outbox(send, all_)


def _seconds(text: str) -> float:
    from engine.core.errors import UsageProblem

    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageProblem(
            _("--for takes a time such as 30m, 8h or 2d, not {value}").format(value=text),
            hint="h2q-tui notify mute --for 8h",
        )
    return float(match[1]) * _UNITS[match[2]]


def _list(limit: int, text: bool) -> None:
    from engine.alerts.desk import open_alerts, told_notices
    from engine.alerts.words import level_name, words_of

    ws = session.workspace(create=False)
    states, notices = open_alerts(ws), told_notices(ws, limit)
    if session.options.json:
        output.echo_json({"open": states, "told": notices})
        return
    if not states:
        output.echo(_("No alert is in force."))
    for state in states:
        words = words_of(state)
        since = local_time("%m-%d %H:%M", state.bad_since or 0.0)
        seen = _("seen") if state.acknowledged_at is not None else ""
        output.echo(
            f"{since}  {level_name(state.level)}  {words.title}  {state.fingerprint}  {seen}".rstrip()
        )
        output.echo(f"    {words.what}")
    for notice in notices:
        output.echo(f"{local_time('%m-%d %H:%M', notice.at)}  {notice.title}")
        if text:
            output.echo("\n".join(f"    {line}" for line in notice.text.splitlines()))


def _outbox(send: bool, all_: bool) -> None:
    import time

    from engine.alerts.store import AlertStore

    ws = session.workspace(create=False)
    if not AlertStore.exists(ws):
        rows = []
    else:
        if send:
            from engine.alerts.delivery import deliver

            with AlertStore(ws) as store:
                store.try_again(time.time())
            deliver(ws)
        with AlertStore(ws) as store:
            rows = store.outbox(unsent=not all_)
    if session.options.json:
        output.echo_json({"messages": rows})
        return
    if not rows:
        output.echo(_("Nothing waits to be sent."))
    for row in rows:
        if row.sent_at is not None:
            state = _("sent at {time}").format(time=local_time("%m-%d %H:%M", row.sent_at))
        elif row.given_up_at is not None:
            state = _("given up")
        else:
            state = _("next attempt at {time}").format(time=local_time("%H:%M:%S", row.next_at))
        output.echo(f"{local_time('%m-%d %H:%M', row.created_at)}  {row.channel}  {row.title}  {state}")
        if row.error:
            output.echo(f"    {row.error}")


# The guided setup


def _setup(kind_id: str | None, name: str | None, given: list[str], quick: bool, test: bool) -> None:
    from engine.alerts.channels import KINDS
    from engine.alerts.desk import add_channel
    from engine.core.errors import UsageProblem

    ws = session.workspace()
    fields = dict(_pair(text) for text in given)
    if quick and kind_id is None:
        kind_id, fields = _quick_fields(fields)
    kind = KINDS.get(kind_id) if kind_id else _choose_kind()
    if kind is None:
        raise UsageProblem(
            _("there is no kind of channel {kind}; there are {kinds}").format(
                kind=kind_id, kinds=_(", ").join(KINDS)
            ),
            hint="h2q-tui notify setup",
        )
    name = name or kind.id
    secrets = [one.name for one in kind.fields if one.secret]
    if shown := [field for field in fields if field in secrets]:
        # What stands on a command line stands in the history of the shell and in the list of processes.
        raise UsageProblem(
            _("{field} is a secret: leave it out and type it when asked, or set {variable}").format(
                field=shown[0], variable=_variable(name, shown[0])
            )
        )
    _ask_fields(kind, name, fields)
    add_channel(ws, name, kind.id, fields)
    output.echo(_("Added: {name}").format(name=bracketed(name, _(kind.title))))
    if test:
        _send_tests(ws, [name])
    elif session.options.json:
        output.echo_json({"name": name, "kind": kind.id})


def _variable(channel: str, field: str) -> str:
    from engine.core.credentials import variable

    return variable(channel, field)


def _pair(text: str) -> tuple[str, str]:
    from engine.core.errors import UsageProblem

    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageProblem(_("--field takes NAME=VALUE, not {value}").format(value=text))
    return name.strip(), value.strip()


def _quick_fields(fields: dict[str, str]) -> tuple[str, dict[str, str]]:
    """The kind that an address tells; messages go to the address itself."""
    from engine.alerts.channels import MAIL_DOMAINS
    from engine.core.errors import UsageProblem

    address = fields.get("user") or _prompt(_("your mail address (126.com, 163.com, qq.com)"))
    kind = MAIL_DOMAINS.get(address.rpartition("@")[2].lower())
    if kind is None:
        raise UsageProblem(
            _("the server of {address} is not known").format(address=address),
            hint="h2q-tui notify setup mail",
        )
    return kind, {**fields, "user": address, "to": fields.get("to") or address}


def _choose_kind() -> ChannelKind:
    from engine.alerts.channels import KINDS

    kinds = list(KINDS.values())
    for number, kind in enumerate(kinds, 1):
        output.echo(f"{number:3}  {_(kind.title)}  ({kind.id})")
    while True:
        answer = _prompt(_("number or name"))
        if answer in KINDS:
            return KINDS[answer]
        if answer.isdecimal() and 1 <= int(answer) <= len(kinds):
            return kinds[int(answer) - 1]


def _ask_fields(kind: ChannelKind, name: str, fields: dict[str, str]) -> None:
    """Asks for what is missing. A secret that stands in the environment is left there."""
    import os

    if kind.help and sys.stdin.isatty():
        output.echo(_(kind.help))
    for one in kind.fields:
        if one.name in fields or (one.secret and os.environ.get(_variable(name, one.name))):
            continue
        if not sys.stdin.isatty() and (not one.needed or one.default):
            continue
        fields[one.name] = _ask(kind, name, one)


def _ask(kind: ChannelKind, name: str, one: ChannelField) -> str:
    from engine.core.errors import UsageProblem

    if not sys.stdin.isatty():
        title = _(one.title)
        if one.secret:
            text = _("{title} is missing: set {variable}").format(
                title=title, variable=_variable(name, one.name)
            )
        else:
            text = _("{title} is missing: --field {field}=…").format(title=title, field=one.name)
        raise UsageProblem(text, hint=f"h2q-tui notify setup {kind.id}")
    return _prompt(
        _(one.title) if one.needed else bracketed(_(one.title), _("optional")),
        default="" if not one.needed and not one.default else one.default or None,
        hidden=one.secret,
    )


def _prompt(text: str, *, default: str | None = None, hidden: bool = False) -> str:
    """Asks on the terminal. Raises UsageProblem where there is none."""
    from engine.core.errors import UsageProblem

    if not sys.stdin.isatty():
        raise UsageProblem(
            _("this asks on a terminal: {question}").format(question=text), hint="h2q-tui notify setup --help"
        )
    shown = default if default else None
    answer = typer.prompt(text, default=default, hide_input=hidden, show_default=bool(shown), err=True)
    return str(answer).strip()


def _send_tests(ws: Workspace, names: list[str]) -> None:
    """Sends a test message to each channel and prints what became of it. Ends with exit code 4 when one failed."""
    from engine.alerts.desk import send_tests
    from engine.core.errors import ServiceUnreachable

    results = send_tests(ws, names)
    for name, error in results.items():
        output.echo(colon(name, _("sent") if not error else _("not sent: {error}").format(error=error)))
    failed = {name: error for name, error in results.items() if error}
    if session.options.json:
        document: dict[str, Any] = {"sent": {name: name not in failed for name in results}, "errors": results}
        if failed:
            name, error = next(iter(failed.items()))
            document |= {"error": colon(name, error), "exit_code": ServiceUnreachable.exit_code}
        output.echo_json(document)
    if failed:
        raise typer.Exit(ServiceUnreachable.exit_code)
