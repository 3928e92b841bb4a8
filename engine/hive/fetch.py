"""Fetches a version of a server, or an adapter of a shared folder, into the workspace."""

from __future__ import annotations

import re
from pathlib import Path

from engine.core.errors import BadInput
from engine.core.files import check_free_space, locked_folder, make_dirs
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.hive.archives import unpack_adapter
from engine.hive.client import HiveClient, Progress
from engine.hive.incoming import ForeignAdapter, install
from engine.hive.protocol import LATEST, VersionInfo, VersionState
from engine.hive.shared_folder import SharedFolderEntry, copy_entry, find_entry
from engine.hive.shares import change_shares
from engine.hive.version_text import VERSION_NAME
from engine.models.card import ADAPTER_WEIGHTS


def fetch_version(
    ws: Workspace,
    client: HiveClient,
    wanted: str = LATEST,
    *,
    name: str = "",
    base: str = "",
    progress: Progress = lambda _done, _all: None,
) -> tuple[str, VersionInfo]:
    """(name in the workspace, the version). Raises BadInput for a version that there is not, or that fails a check."""
    version = find_version(client.versions(), wanted)
    if not VERSION_NAME.fullmatch(version.version) or not re.fullmatch("[0-9a-f]{64}", version.sha256):
        raise BadInput(_("the server names a version that cannot be one"))
    check_free_space(ws.adapters, 4 * version.bytes)
    with locked_folder(ws.adapters, ".hive.new.") as folder:
        archive = folder / "archive.zip"
        received = client.download(version, archive, progress)
        with change_shares(ws) as shares:
            shares.bytes_received += received
        unpack_adapter(archive, folder, version.bytes)
        archive.unlink()
        foreign = ForeignAdapter(
            version=version.version,
            place=client.address.url,
            sha256=version.sha256,
            base_model=version.base_model,
            base_fingerprint=version.base_fingerprint,
        )
        return install(ws, folder, foreign, name=name, base=base), version


def find_version(versions: list[VersionInfo], wanted: str) -> VersionInfo:
    """The version with this name; `LATEST`: the current one. Raises BadInput."""
    for version in versions:
        if version.version == wanted or (wanted == LATEST and version.state is VersionState.CURRENT):
            if version.state is VersionState.REJECTED:
                raise BadInput(
                    _("{version} was not published: {reason}").format(
                        version=wanted, reason=version.reason.rstrip(".") or _("the gate stopped it")
                    ),
                    hint="h2q-tui hive list",
                )
            return version
    if wanted == LATEST:
        raise BadInput(_("the hive has no version yet"), hint="h2q-tui hive status")
    raise BadInput(_("the hive has no version {version}").format(version=wanted), hint="h2q-tui hive list")


def fetch_from_folder(
    ws: Workspace, shared: Path, key: bytes, wanted: str, *, name: str = "", base: str = ""
) -> tuple[str, SharedFolderEntry]:
    """(name in the workspace, the entry). Raises BadInput for one that there is not, or that does not verify."""
    entry = find_entry(shared, key, wanted)
    assert entry.manifest is not None
    manifest = entry.manifest
    make_dirs(ws.adapters)
    check_free_space(ws.adapters, 3 * sum(file.bytes for file in manifest.files.values()))
    with locked_folder(ws.adapters, ".hive.new.") as folder:
        copy_entry(entry, folder)
        foreign = ForeignAdapter(
            version=entry.path.name,
            place=str(shared),
            sha256=manifest.files[ADAPTER_WEIGHTS].sha256,
            base_model=manifest.base_model,
            base_fingerprint=manifest.base_fingerprint,
        )
        return install(ws, folder, foreign, name=name, base=base), entry
