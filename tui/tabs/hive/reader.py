"""What the Hive tab reads: the server that the person named, and what this workspace shared and fetched.

Every function blocks: call it in a thread.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from engine.core.config import load_settings, save_settings
from engine.core.errors import H2QError, error_text
from engine.core.paths import Workspace
from engine.core.settings import Settings
from engine.hive.address import HiveAddress, hive_address
from engine.hive.client import HiveClient, Progress, hive_token
from engine.hive.outgoing import OutgoingAdapter, outgoing_adapter, shareable_adapters
from engine.hive.protocol import (
    AdapterInfo,
    Admitted,
    Aggregated,
    AggregateRequest,
    Contributor,
    HiveStatus,
    RoundInfo,
    ServerInfo,
    VersionInfo,
)
from engine.hive.shares import FetchedAdapter, SharedAdapter, Shares, read_shares
from engine.models.card import ModelCard
from engine.models.registry import Promotion, in_use, promote, rollback
from engine.validation.stored_verdicts import StoredVerdict, VerdictFiles
from tui.host.hive_process import ServedHive, served_here
from tui.host.shutdown import uninterruptible


@dataclass(frozen=True)
class OwnAdapter:
    """An adapter of the workspace."""

    card: ModelCard
    shared: SharedAdapter | None = None
    """The last time that it was shared."""
    fetched: FetchedAdapter | None = None
    """Where it was fetched from."""
    decision: str = ""
    """Of its newest verdict; "" without one."""
    used_in: str = ""
    """The newest version that it was joined into."""

    @property
    def name(self) -> str:
        return self.card.name


@dataclass(frozen=True)
class HiveState:
    """Everything that the tab shows."""

    address: HiveAddress | None = None
    """None: no server is named."""
    problem: str = ""
    """Why the server cannot be shown; "" when it answered."""
    info: ServerInfo | None = None
    status: HiveStatus | None = None
    versions: tuple[VersionInfo, ...] = ()
    """Newest first."""
    adapters: tuple[AdapterInfo, ...] = ()
    rounds: tuple[RoundInfo, ...] = ()
    contributors: tuple[Contributor, ...] = ()
    own: tuple[OwnAdapter, ...] = ()
    """Newest first."""
    in_use: str = ""
    bytes_sent: int = 0
    bytes_received: int = 0
    served: ServedHive | None = None
    """The hive that this workspace serves."""

    @property
    def is_empty(self) -> bool:
        """Nobody has begun: no server is named or served here."""
        return self.address is None and self.served is None

    def adapter(self, name: str) -> OwnAdapter | None:
        return next((one for one in self.own if one.name == name), None)

    def fetched_as(self, version: str) -> OwnAdapter | None:
        """The adapter of the workspace that `version` was fetched as."""
        place = self.address.url if self.address is not None else ""
        return next(
            (
                one
                for one in self.own
                if one.fetched is not None and (one.fetched.version, one.fetched.place) == (version, place)
            ),
            None,
        )


def read_state(workspace: Workspace, settings: Settings, files: VerdictFiles) -> HiveState:
    """The state now. What the server does not say within seconds is missing, and `problem` says why."""
    try:
        shares, used = read_shares(workspace), in_use(workspace) or ""
    except H2QError as error:
        return HiveState(problem=error.message)
    served = served_here(workspace)
    address, problem = None, ""
    if settings.hive_server or served is not None:
        try:
            address = hive_address(settings, settings.hive_server or (served.url if served else ""))
        except H2QError as error:
            problem = str(error)
    answers: dict[str, object] = {}
    if address is not None:
        try:
            answers = _ask(workspace, address)
        except (H2QError, OSError) as error:
            problem = error_text(error)
    versions = answers.get("versions", ())
    own = _own_adapters(workspace, shares, files, versions)  # type: ignore[arg-type]
    return HiveState(
        address=address,
        problem=problem,
        own=own,
        in_use=used,
        bytes_sent=shares.bytes_sent,
        bytes_received=shares.bytes_received,
        served=served,
        **answers,  # type: ignore[arg-type]
    )


def _ask(workspace: Workspace, address: HiveAddress) -> dict[str, object]:
    """The answers of the server, by the fields of HiveState. Raises H2QError."""
    with HiveClient(address, hive_token(workspace), pauses=()) as client:
        return {
            "info": client.server(),
            "status": client.status(),
            "versions": tuple(client.versions()),
            "adapters": tuple(client.adapters()),
            "rounds": tuple(client.rounds()),
            "contributors": tuple(client.contributors()),
        }


def _own_adapters(
    workspace: Workspace, shares: Shares, files: VerdictFiles, versions: Sequence[VersionInfo]
) -> tuple[OwnAdapter, ...]:
    verdicts: tuple[StoredVerdict, ...] = ()
    with suppress(H2QError, OSError, sqlite3.Error):
        verdicts = files.read(workspace)
    decisions: dict[str, str] = {}
    for verdict in verdicts:
        decisions.setdefault(verdict.pair[1], verdict.report.verdict.decision)
    shared = {one.name: one for one in shares.shared}
    fetched = {one.name: one for one in shares.fetched}
    joined = {parent.adapter_id: one.version for one in reversed(versions) for parent in one.parents}
    return tuple(
        OwnAdapter(
            card=card,
            shared=shared.get(card.name),
            fetched=fetched.get(card.name),
            decision=decisions.get(card.name, ""),
            used_in=joined.get(shared[card.name].adapter_id, "") if card.name in shared else "",
        )
        for card in shareable_adapters(workspace)
    )


def check_address(workspace: Workspace, text: str) -> str:
    """Why `text` cannot be the server; "" when it can."""
    try:
        hive_address(load_settings(workspace), text)
    except H2QError as problem:
        return problem.message
    return ""


def keep_address(workspace: Workspace, text: str) -> Settings:
    """Writes the address of the server into the settings; returns them. Raises H2QError and OSError."""
    settings = load_settings(workspace)
    url = hive_address(settings, text).url
    with uninterruptible():
        save_settings(workspace, msgspec.structs.replace(settings, hive_server=url))
    return load_settings(workspace)


def what_leaves(workspace: Workspace, address: HiveAddress, name: str) -> tuple[OutgoingAdapter, ServerInfo]:
    """The adapter as it would be sent, and who asks for it. Raises H2QError and OSError."""
    outgoing = outgoing_adapter(workspace, name)
    with HiveClient(address, hive_token(workspace), pauses=(0.5,)) as client:
        return outgoing, client.server()


def share(
    workspace: Workspace, address: HiveAddress, outgoing: OutgoingAdapter, user: str, progress: Progress
) -> Admitted:
    """Sends an adapter. What `progress` raises ends it; the next time it continues. Raises H2QError and OSError."""
    with uninterruptible(), HiveClient(address, hive_token(workspace)) as client:
        return client.upload(workspace, outgoing, progress, user=user)


def join(workspace: Workspace, address: HiveAddress) -> Aggregated:
    """Has the server join what waits. Raises H2QError."""
    with uninterruptible(), HiveClient(address, hive_token(workspace)) as client:
        return client.aggregate(AggregateRequest())


def adopt(workspace: Workspace, name: str) -> Promotion:
    """Puts an adapter into use. Raises H2QError and OSError."""
    with uninterruptible():
        return promote(workspace, name)


def roll_back(workspace: Workspace, stamp: str) -> Promotion:
    """Restores the model that was in use before. Raises H2QError and OSError."""
    with uninterruptible():
        return rollback(workspace, stamp)


def fetched_name(document: bytes) -> str:
    """The name in what `hive download --json` prints."""
    return str(json.loads(document)["name"])
