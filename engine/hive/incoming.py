"""Brings an adapter from a server or a folder into the workspace: checked like one that is sent, unpacked as a PEFT directory
with a card, so that it is listed, validated and promoted like any other model."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.core.errors import BadInput, H2QError
from engine.core.files import check_free_space, file_sha256, fsync_dir, make_dirs, write_bytes
from engine.core.i18n import _
from engine.core.outputs import ADAPTER_FOLDER, new_folder
from engine.core.paths import Workspace
from engine.export.gguf_writer import write_gguf_copy
from engine.hive.lora_file import BadAdapter, LoraFile, open_regular, plain_config, read_lora
from engine.hive.measure import change_norm
from engine.hive.outgoing import base_name
from engine.hive.protocol import Rule
from engine.hive.shares import FetchedAdapter, Shares, change_shares, read_shares
from engine.models.base_models import BaseModel, find_base
from engine.models.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CARD_FILE, Lineage, ModelCard, encode_card
from engine.models.catalog import list_bases
from engine.models.fetch import FETCHABLE
from engine.models.registry import NAME, list_models, workspace_entry


@dataclass(frozen=True)
class ForeignAdapter:
    """What was said about an adapter before it came."""

    version: str
    """Of a server, or the name of an adapter in a folder."""
    place: str
    """Address of the server, or the folder."""
    sha256: str
    """Of the weights."""
    base_model: str
    base_fingerprint: str
    """"" when unknown: the name decides then."""


def install(ws: Workspace, source: Path, foreign: ForeignAdapter, *, name: str = "", base: str = "") -> str:
    """Puts the adapter in `source` into the workspace, checked; returns its name here.

    Args:
        name: its name here; "": `hive-VERSION`.
        base: the model that it is put on; "": the one with its fingerprint.

    What is there already, with the same weights, is left alone. Raises BadAdapter and BadInput for one that is not
    what was said or breaks a rule of admission, or whose base is not here; OSError.
    """
    lora = check_adapter(source, foreign.sha256)
    model = _base(ws, foreign, base)
    name = _free_name(ws, name or f"hive-{foreign.version}", foreign.sha256)
    target = ws.adapters / name
    if target.exists():
        return name
    shares = read_shares(ws)
    size = (source / ADAPTER_WEIGHTS).stat().st_size
    make_dirs(ws.adapters)
    check_free_space(ws.adapters, 2 * size)
    with new_folder(target, ADAPTER_FOLDER) as folder:
        shutil.copyfile(source / ADAPTER_WEIGHTS, folder / ADAPTER_WEIGHTS)
        write_bytes(folder / ADAPTER_CONFIG, plain_config(lora, model.source))
        card = ModelCard(
            name=name,
            mode="lora",
            base=model.name,
            base_path=model.source,
            base_sha256=model.sha256,
            created_at=time.time(),
            parameters=sum(
                math.prod(entry.shape) for module in lora.modules.values() for entry in (module.a, module.b)
            ),
            context=_context(ws, model),
            weights_sha256=foreign.sha256,
            lineage=own_part(ws, shares, foreign.place),
        )
        write_bytes(folder / CARD_FILE, encode_card(card))
        if model.is_gguf and model.lora is None:
            write_gguf_copy(folder, base=model.path, name=name)
    fsync_dir(ws.adapters)
    with change_shares(ws) as shares:
        shares.fetched.append(
            FetchedAdapter(
                name=name,
                version=foreign.version,
                place=foreign.place,
                sha256=foreign.sha256,
                bytes=size,
                at=time.time(),
            )
        )
    return name


def check_adapter(folder: Path, digest: str) -> LoraFile:
    """The adapter in `folder`, whose weights have the hash `digest`, hold finite numbers and change the base.

    Raises BadAdapter and BadInput.
    """
    lora = read_lora(folder)
    if file_sha256(lora.weights) != digest:
        raise BadInput(
            _("these are not the weights that were announced (their hash differs)"), path=lora.weights
        )
    with open_regular(lora.weights) as fd:
        norm = change_norm(fd, dict(lora.modules), lora.weights)
    if not norm > 0:
        raise BadAdapter(Rule.UNCHANGED, _("the adapter changes nothing"), path=folder)
    return lora


def own_part(ws: Workspace, shares: Shares, place: str) -> Lineage:
    """What this workspace contributed to the adapters of `place`: the conversations of every adapter that it shared there.

    A verdict on a joined model must not use them, so an adapter that another one was joined from counts too.
    """
    names = {one.name for one in shares.shared if one.place == place}
    names |= {one.name for one in shares.fetched if one.place == place}
    cards = [card for card in list_models(ws) if card.name in names]
    newest = [card.lineage.newest_conversation for card in cards]
    stored = [one for one in shares.shared if one.place == place]
    return Lineage(
        conversations=_union(
            [*(c.lineage.conversations for c in cards), *(one.conversations for one in stored)]
        ),
        clusters=_union([*(c.lineage.clusters for c in cards), *(one.clusters for one in stored)]),
        newest_conversation=max((time_ for time_ in newest if time_ is not None), default=None),
    )


def _union(lists: Iterable[list[str]]) -> list[str]:
    return list(dict.fromkeys(item for one in lists for item in one))


def _base(ws: Workspace, foreign: ForeignAdapter, named: str) -> BaseModel:
    """The model here that the adapter was trained on. Raises BadInput."""
    if named:
        model = find_base(ws, named)
        if foreign.base_fingerprint and model.sha256 != foreign.base_fingerprint:
            raise BadInput(
                _("{version} was trained on another base than {name}").format(
                    version=foreign.version, name=named
                )
            )
        return model
    for candidate in _candidates(ws, foreign):
        with suppress(H2QError):
            model = find_base(ws, candidate)
            same_name = base_name(model.source).lower() == foreign.base_model.lower()
            if model.sha256 == foreign.base_fingerprint or (not foreign.base_fingerprint and same_name):
                return model
    known = next((one for one in FETCHABLE if foreign.base_model.lower() in one.aliases), None)
    hint = f"h2q-tui models fetch {known.name}" if known is not None else "h2q-tui models add PATH"
    raise BadInput(
        _("{version} was trained on {base}, which is not here").format(
            version=foreign.version, base=foreign.base_model or _("an unknown base")
        ),
        hint=hint,
    )


def _candidates(ws: Workspace, foreign: ForeignAdapter) -> Iterator[str]:
    """Names of bases, the likeliest first."""
    wanted = foreign.base_model.lower()
    for card in list_models(ws):
        same_name = base_name(card.base_path).lower() == wanted
        same = card.base_sha256 == foreign.base_fingerprint if foreign.base_fingerprint else same_name
        if card.base_path and same:
            yield card.base_path
    bases = [base for base in list_bases(ws) if not base.problem]
    for base in sorted(bases, key=lambda one: base_name(one.name).lower() != wanted):
        yield base.name


def _context(ws: Workspace, base: BaseModel) -> int:
    """The window that adapters on this base are trained with here, else that of the base."""
    for card in list_models(ws):
        if card.base_sha256 == base.sha256:
            return card.context
    return min(base.dimensions.context, 2048)


def _free_name(ws: Workspace, wanted: str, digest: str) -> str:
    """`wanted`, or with a number where another model has that name; the same where it is this very adapter."""
    if not NAME.fullmatch(wanted):
        raise BadInput(_("{name} is not a valid name: use letters, digits, _ . and -").format(name=wanted))
    cards = {card.name: card for card in list_models(ws)}
    for number in range(1, 10_000):
        name = wanted if number == 1 else f"{wanted}-{number}"
        if name in cards and cards[name].weights_sha256 == digest:
            return name
        if workspace_entry(ws, name) is None:
            return name
    raise BadInput(_("there is a model named {name} already").format(name=wanted))
