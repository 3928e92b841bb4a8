"""From a file that has arrived to an adapter of the open round: every check of admission, then the store."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from engine.core.i18n import _
from engine.hive.admission import (
    MAX_BYTES,
    MAX_SAMPLES,
    HiveBase,
    check_base,
    check_change,
    check_claims,
    check_modules,
    check_norm,
    check_size,
    check_targets,
)
from engine.hive.lora_file import (
    BadAdapter,
    LoraConfig,
    LoraFile,
    open_regular,
    pair_tensors,
    parse_config,
    plain_config,
    read_header,
)
from engine.hive.measure import change_norm, hash_file
from engine.hive.outgoing import base_name
from engine.hive.protocol import AdapterInfo, Rule
from engine.hive.store import AdapterStore, already_voted

Shapes = dict[str, tuple[int, int]]
_BASE, _FINGERPRINT, _LAYERS, _KNOWN = "base_model", "base_fingerprint", "layers", "known_modules"


@dataclass(frozen=True)
class HiveLimits:
    """What a hive takes."""

    max_bytes: int = MAX_BYTES
    """Of an adapter's weights."""
    max_samples: int = MAX_SAMPLES
    min_adapters: int = 2
    """Adapters that an aggregation needs."""
    open_uploads: int = 8
    """Uploads of one user that have not arrived in full."""


@dataclass(frozen=True)
class Announced:
    """What a client says of an adapter."""

    user: str
    config: bytes
    """`adapter_config.json`."""
    base_model: str = ""
    base_fingerprint: str = ""
    sha256: str = ""
    """"" where the client's protocol has none."""
    training_samples: int = 0
    epochs: int = 0


class Intake:
    """Admission to one store. Methods may be called from any thread."""

    def __init__(self, store: AdapterStore, limits: HiveLimits) -> None:
        self.store = store
        self.limits = limits
        self._last_step = threading.Lock()

    def base(self) -> HiveBase:
        """The base model of the hive, as far as it is known."""
        registry = self.store.registry
        layers, known = registry.fact(_LAYERS), registry.fact(_KNOWN)
        return HiveBase(
            name=registry.fact(_BASE),
            fingerprint=registry.fact(_FINGERPRINT),
            layers=msgspec.json.decode(layers, type=Shapes) if layers else None,
            known=msgspec.json.decode(known, type=Shapes) if known else None,
        )

    def set_base(self, name: str, fingerprint: str, layers: Shapes) -> None:
        """Makes an opened model the base of the hive."""
        facts = {_BASE: name, _FINGERPRINT: fingerprint, _LAYERS: msgspec.json.encode(layers).decode()}
        self.store.registry.set_facts(**facts)

    def check_announced(self, announced: Announced) -> LoraConfig:
        """All that can be said before the weights are there. Raises BadAdapter."""
        config = parse_config(announced.config)
        check_targets(config)
        check_claims(announced.training_samples, announced.epochs)
        check_base(self.base(), named_base(announced, config), announced.base_fingerprint)
        vote = self.store.vote_of(announced.user, announced.sha256)
        if vote is not None and not _is_again(vote, announced):
            raise already_voted(announced.user, same_user=vote.user_id == announced.user)
        return config

    def take(self, announced: Announced, weights: Path, *, upload_id: str = "") -> AdapterInfo:
        """Checks an adapter and stores it; one that its user has sent before in this round is not stored twice.

        Reads the file in small parts. Raises BadAdapter, OSError, sqlite3.Error; nothing is stored then.
        """
        config = self.check_announced(announced)
        with open_regular(weights) as fd:
            size = os.fstat(fd).st_size
            check_size(size, self.limits.max_bytes)
            modules = pair_tensors(read_header(fd, weights), config)
            check_modules(self.base(), config, modules)
            digest = hash_file(fd)
            if announced.sha256 and digest != announced.sha256:
                raise BadAdapter(Rule.HASH, _("the bytes that arrived are not those that were announced"))
            norm = change_norm(fd, modules)
        check_change(norm)
        check_norm(norm, self.store.peer_norms(announced.user))
        adapter = AdapterInfo(
            id="",
            user_id=announced.user,
            base_model=named_base(announced, config),
            base_fingerprint=announced.base_fingerprint,
            uploaded_at=time.time(),
            round=0,
            sha256=digest,
            bytes=size,
            norm=norm,
            rank=max(module.rank for module in modules.values()),
            training_samples=announced.training_samples,
            samples_counted=min(announced.training_samples, self.limits.max_samples),
            epochs=announced.epochs,
        )
        with self._last_step:
            # Another adapter may have been taken meanwhile.
            vote = self.store.vote_of(announced.user, digest)
            if vote is not None and vote.user_id == announced.user and vote.sha256 == digest:
                return vote
            base = self.base()
            check_base(base, adapter.base_model, adapter.base_fingerprint)
            check_modules(base, config, modules)
            lora = LoraFile(weights.parent, config, modules)
            # All say the name that the hive gives the base: those that were taken by its fingerprint join too.
            stored_config = plain_config(lora, base.name or adapter.base_model)
            stored = self.store.add(weights, stored_config, adapter, upload_id=upload_id)
            self._learn_base(base, adapter, {name: module.shape for name, module in modules.items()})
        return stored

    def _learn_base(self, base: HiveBase, adapter: AdapterInfo, shapes: Shapes) -> None:
        """What the first adapters say holds for the later ones, where no base was opened."""
        if base.layers is not None:
            return
        known = {**(base.known or {}), **shapes}
        facts = {_KNOWN: msgspec.json.encode(known).decode(), _BASE: base.name or adapter.base_model}
        facts[_FINGERPRINT] = base.fingerprint or adapter.base_fingerprint
        self.store.registry.set_facts(**facts)


def named_base(announced: Announced, config: LoraConfig) -> str:
    """The base as the adapter names it, without folders of its machine. HiveMind's clients name one model beside it,
    whichever was used."""
    return base_name(config.base_model_name_or_path or announced.base_model)


def _is_again(vote: AdapterInfo, announced: Announced) -> bool:
    """Whether the same adapter may be sent again: an answer was lost, or the client has not said what it sends."""
    return vote.user_id == announced.user and announced.sha256 in ("", vote.sha256)
