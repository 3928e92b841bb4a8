"""`h2q-tui hive upload`, `status`, `list` and `download`: the side of those who share an adapter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from engine.core.i18n import _, n_
from engine.core.local_time import local_time
from tui.cli import output, session
from tui.cli.hive_connection import (
    connected,
    drawn_progress,
    folder_option,
    http_option,
    key_option,
    key_place,
    server_option,
)
from tui.cli.options import YES

if TYPE_CHECKING:
    from engine.core.paths import Workspace
    from engine.hive.address import HiveAddress
    from engine.hive.outgoing import OutgoingAdapter
    from engine.hive.protocol import AdapterInfo, VersionInfo
    from engine.hive.shared_folder import SharedFolderEntry


def register(group: typer.Typer) -> None:
    """Add the commands to the group `hive`."""
    group.command("upload", help=_("Share an adapter: shows what leaves, and asks."))(_upload_command())
    group.command("status", help=_("The hive server, and what was shared from here."))(_status_command())
    group.command("list", help=_("Versions, adapters, rounds and contributors of a hive."))(_list_command())
    group.command("download", help=_("Fetch a version into the workspace, checked."))(_download_command())


def _upload_command() -> Callable[..., None]:
    def upload(
        name: str = typer.Argument(
            "", metavar="[ADAPTER]", help=_("Name or directory. Default: the newest adapter.")
        ),
        adapter: str = typer.Option("", "--adapter", metavar="DIR", help=_("The same as ADAPTER.")),
        server: str = server_option(),
        user_id: str = typer.Option(
            "",
            "--user-id",
            metavar="NAME",
            help=_(
                "Your name in a shared folder, and on a server without tokens. Default: hive_user in the settings."
            ),
        ),
        samples: int | None = typer.Option(
            None,
            "--samples",
            min=1,
            help=_("Conversations that it was trained on, if its card does not say."),
        ),
        folder: str = folder_option(),
        key_file: str = key_option(),
        allow_http: bool = http_option(),
        yes: bool = YES.render(),
    ) -> None:
        from engine.core.outputs import check_output_parent
        from engine.hive.outgoing import outgoing_adapter

        ws = session.workspace()
        if folder:
            check_output_parent(session.output_path(folder))
        outgoing = outgoing_adapter(ws, _adapter_name(ws, name or adapter), samples=samples)
        if folder:
            _share_in_folder(ws, outgoing, session.resolve(folder), user_id, key_file, yes)
        else:
            _share_with_server(ws, outgoing, server, user_id, allow_http, yes)

    return upload


def _status_command() -> Callable[..., None]:
    def status(server: str = server_option(), allow_http: bool = http_option()) -> None:
        from engine.hive.shares import read_shares
        from engine.hive.sharing_text import size_text

        ws = session.workspace()
        with connected(ws, server, allow_http) as client:
            info, figures = client.server(), client.status()
        shares = read_shares(ws)
        for line in _server_lines(client.address, info.user):
            output.echo(line)
        output.echo(
            _("round {round}: {waiting} of {needed} adapters wait to be joined").format(
                round=info.round, waiting=figures.pending_for_aggregation, needed=info.min_adapters
            )
        )
        output.echo(
            n_(
                "{n} adapter in all; newest version: {version}",
                "{n} adapters in all; newest version: {version}",
                figures.total_adapters,
            ).format(
                n=figures.total_adapters,
                version=figures.latest_aggregated_version or _("none yet"),
            )
        )
        output.echo(_("base: {name}").format(name=info.base_model or _("not known before the first adapter")))
        output.echo(
            n_(
                "shared from here: {n} adapter, {sent} sent, {received} received",
                "shared from here: {n} adapters, {sent} sent, {received} received",
                len(shares.shared),
            ).format(
                n=len(shares.shared),
                sent=size_text(shares.bytes_sent),
                received=size_text(shares.bytes_received),
            )
        )
        if session.options.json:
            output.echo_json(
                {
                    "server": client.address.url,
                    "info": info,
                    "status": figures,
                    "shared": [_shared(one) for one in shares.shared],
                    "fetched": shares.fetched,
                    "bytes_sent": shares.bytes_sent,
                    "bytes_received": shares.bytes_received,
                }
            )

    return status


def _list_command() -> Callable[..., None]:
    def list_(
        server: str = server_option(),
        user_id: str = typer.Option(
            "", "--user-id", metavar="NAME", help=_("Adapters of this person alone.")
        ),
        folder: str = folder_option(),
        key_file: str = key_option(),
        allow_http: bool = http_option(),
    ) -> None:
        ws = session.workspace()
        if folder:
            _list_folder(ws, session.resolve(folder), key_file)
            return
        with connected(ws, server, allow_http) as client:
            versions, adapters = client.versions(), client.adapters(user_id)
            rounds, contributors = client.rounds(), client.contributors()
        for line in _version_lines(versions):
            output.echo(line)
        output.echo(_("adapters:") if adapters else _("no adapter yet") + " → h2q-tui hive upload")
        closed = {one.number for one in rounds if one.closed_at is not None}
        for one in adapters:
            output.echo("  " + _adapter_line(one, waits=one.round not in closed))
        if contributors:
            output.echo(_("contributors:"))
        for person in contributors:
            output.echo(
                "  "
                + n_(
                    "{user}: {n} adapter, {samples} conversations, {refused} refused",
                    "{user}: {n} adapters, {samples} conversations, {refused} refused",
                    person.adapters,
                ).format(
                    user=person.user_id,
                    n=person.adapters,
                    samples=person.samples_counted,
                    refused=person.refused,
                )
            )
        if session.options.json:
            output.echo_json(
                {
                    "server": client.address.url,
                    "versions": versions,
                    "adapters": adapters,
                    "rounds": rounds,
                    "contributors": contributors,
                }
            )

    return list_


def _download_command() -> Callable[..., None]:
    def download(
        version: str = typer.Argument(
            "latest",
            metavar="[VERSION]",
            help=_("A version of the server, or an adapter of the folder. Default: the current one."),
        ),
        name: str = typer.Option("", "--name", help=_("Name in the workspace. Default: hive-VERSION.")),
        base: str = typer.Option(
            "", "--base", help=_("The model that it is put on. Default: the one that it was trained on.")
        ),
        validate: bool = typer.Option(
            False,
            "--validate",
            help=_("Compare it with the model in use, or its base, on your own test set."),
        ),
        server: str = server_option(),
        folder: str = folder_option(),
        key_file: str = key_option(),
        allow_http: bool = http_option(),
    ) -> None:
        ws = session.workspace()
        base = session.model_reference(ws, base) if base else ""
        if folder:
            installed, facts = _from_folder(ws, session.resolve(folder), key_file, version, name, base)
        else:
            installed, facts = _from_server(ws, server, allow_http, version, name, base)
        path = ws.adapters / installed
        output.echo(_("{name} is in the workspace: {path}").format(name=installed, path=path))
        if validate:
            raise typer.Exit(_validate(ws, installed))
        command = session.own_command(
            "validate", "--base", _base_to_compare(ws, installed), "--new", installed
        )
        output.echo(_("compare it before you use it: {command}").format(command=command))
        output.echo(_("use it: {command}").format(command=session.own_command("promote", installed)))
        if session.options.json:
            output.echo_json({"name": installed, "path": str(path), **facts})

    return download


# Sharing


def _adapter_name(ws: Workspace, name: str) -> str:
    """The adapter that is named, else the newest. Raises BadInput without any."""
    from engine.core.errors import BadInput
    from engine.hive.outgoing import shareable_adapters

    if name:
        return str(session.resolve(name)) if "/" in name else name
    cards = shareable_adapters(ws)
    if not cards:
        raise BadInput(_("there is no adapter to share"), hint="h2q-tui train --mode lora --model NAME")
    return cards[0].name


def _share_with_server(
    ws: Workspace, outgoing: OutgoingAdapter, server: str, user_id: str, allow_http: bool, yes: bool
) -> None:
    from engine.core.config import load_settings
    from engine.hive.sharing_text import leaving_lines, share_question

    with connected(ws, server, allow_http) as client:
        info = client.server()
        # A token names the sender; another name is sent only when it was typed, for the server to refuse.
        user = user_id or ("" if info.user else load_settings(ws).hive_user)
        for line in leaving_lines(outgoing, _place(client.address), sender=user or info.user):
            output.echo(line)
        named = ("--user-id", user_id) if user_id else ()
        hint = session.own_command(
            "hive", "upload", outgoing.name, "--server", client.address.url, *named, "--yes"
        )
        output.confirm(share_question(outgoing, client.address.url), yes, hint=hint)
        with drawn_progress() as progress:
            admitted = client.upload(ws, outgoing, progress, user=user)
    output.echo(
        _("shared as {id} in round {round}; {n} conversations count").format(
            id=admitted.adapter_id, round=admitted.round, n=admitted.samples_counted
        )
    )
    if session.options.json:
        output.echo_json(
            {
                "adapter": outgoing.name,
                "server": client.address.url,
                "adapter_id": admitted.adapter_id,
                "round": admitted.round,
                "samples": outgoing.samples,
                "samples_counted": admitted.samples_counted,
                "base_model": outgoing.base_model,
                "base_fingerprint": outgoing.base_fingerprint,
                "files": _file_facts(outgoing),
            }
        )


def _share_in_folder(
    ws: Workspace, outgoing: OutgoingAdapter, folder: Path, user_id: str, key_file: str, yes: bool
) -> None:
    from engine.core.config import load_settings
    from engine.hive.shared_folder import check_member, make_key, put_adapter, read_key
    from engine.hive.sharing_text import leaving_lines, share_question

    member = user_id or load_settings(ws).hive_user
    check_member(member)
    for line in leaving_lines(outgoing, str(folder), sender=member):
        output.echo(line)
    hint = session.own_command(
        "hive", "upload", outgoing.name, "--folder", str(folder), "--user-id", member, "--yes"
    )
    output.confirm(share_question(outgoing, str(folder)), yes, hint=hint)
    file = key_place(key_file)
    if not file.exists():
        make_key(file)
        output.echo(
            _(
                "a new key is in {file}; give it to the others by a way that you trust, not in the folder"
            ).format(file=file)
        )
    entry = put_adapter(ws, outgoing, folder, member, read_key(file))
    output.echo(_("shared as {id}, signed (HMAC-SHA256 with the key of the members)").format(id=entry))
    if session.options.json:
        output.echo_json(
            {
                "adapter": outgoing.name,
                "folder": str(folder),
                "adapter_id": entry,
                "member": member,
                "samples": outgoing.samples,
                "base_model": outgoing.base_model,
                "base_fingerprint": outgoing.base_fingerprint,
                "key_file": str(file),
                "files": _file_facts(outgoing),
            }
        )


def _file_facts(outgoing: OutgoingAdapter) -> list[dict[str, Any]]:
    return [{"name": file.name, "bytes": file.bytes, "sha256": file.sha256} for file in outgoing.files]


# Fetching


def _from_server(
    ws: Workspace, server: str, allow_http: bool, version: str, name: str, base: str
) -> tuple[str, dict[str, Any]]:
    """(name in the workspace, what is known of the version)."""
    from engine.hive.fetch import fetch_version

    with connected(ws, server, allow_http) as client, drawn_progress() as progress:
        installed, info = fetch_version(ws, client, version, name=name, base=base, progress=progress)
    for line in _version_lines([info]):
        output.echo(line)
    return installed, {"server": client.address.url, "version": info}


def _from_folder(
    ws: Workspace, folder: Path, key_file: str, wanted: str, name: str, base: str
) -> tuple[str, dict[str, Any]]:
    from engine.hive.fetch import fetch_from_folder
    from engine.hive.shared_folder import read_key

    key = read_key(key_place(key_file))
    installed, entry = fetch_from_folder(ws, folder, key, wanted, name=name, base=base)
    return installed, {"folder": str(folder), "adapter_id": entry.id, "manifest": entry.manifest}


def _base_to_compare(ws: Workspace, name: str) -> str:
    """The model in use, or the base of the adapter where none is."""
    from engine.models.card import read_card
    from engine.models.registry import in_use

    return in_use(ws) or read_card(ws.adapters / name).base_path


def _validate(ws: Workspace, name: str) -> int:
    from tui.cli.commands.validate import compare_models

    return compare_models(ws, _base_to_compare(ws, name), name, promote=False)


# Lists


def _list_folder(ws: Workspace, folder: Path, key_file: str) -> None:
    from engine.hive.shared_folder import folder_entries, read_key

    entries = folder_entries(folder, read_key(key_place(key_file)))
    for entry in entries:
        output.echo(_entry_line(entry))
    if not entries:
        output.echo(_("no adapter yet") + " → h2q-tui hive upload")
    if session.options.json:
        output.echo_json(
            {
                "folder": str(folder),
                "adapters": [
                    {"id": one.id, "path": str(one.path), "manifest": one.manifest}
                    for one in entries
                    if not one.problem
                ],
                "refused": [{"adapter": one.id, "reason": one.problem} for one in entries if one.problem],
            }
        )


def _entry_line(entry: SharedFolderEntry) -> str:
    from engine.hive.sharing_text import size_text

    manifest = entry.manifest
    if manifest is None:
        return "x " + _("{id} is refused: {reason}").format(id=entry.id, reason=entry.problem)
    count = n_("{n} conversation", "{n} conversations", manifest.samples).format(n=manifest.samples)
    size = size_text(sum(file.bytes for file in manifest.files.values()))
    when = local_time("%Y-%m-%d %H:%M", manifest.created_at)
    return f"  {entry.id}  {when}  {manifest.base_model}  {count}  {size}"


def _version_lines(versions: list[VersionInfo]) -> list[str]:
    from engine.hive.version_text import version_line

    if not versions:
        return [_("no version yet: two or more adapters are joined into one") + " → h2q-tui hive status"]
    return [version_line(one) for one in versions]


def _adapter_line(one: AdapterInfo, *, waits: bool) -> str:
    from engine.hive.sharing_text import size_text

    count = n_("{n} conversation", "{n} conversations", one.samples_counted).format(n=one.samples_counted)
    state = _("waits")
    if one.used_in:
        state = _("in {version}").format(version=one.used_in)
    elif one.withdrawn:
        state = _("withdrawn")
    elif not waits:
        state = _("not used in round {round}").format(round=one.round)
    return f"{one.id}  {one.user_id}  {one.base_model}  {count}  {size_text(one.bytes)}  {state}"


def _server_lines(address: HiveAddress, user: str) -> list[str]:
    known = _("you are {user}").format(user=user) if user else _("no token is sent")
    return [f"{_place(address)}: {known}"]


def _place(address: HiveAddress) -> str:
    return f"{address.url} ({_('this machine')})" if address.local else address.url


def _shared(one: Any) -> dict[str, Any]:
    """A shared adapter without the ids of its conversations."""
    return {
        name: getattr(one, name) for name in ("name", "sha256", "place", "adapter_id", "round", "bytes", "at")
    }
