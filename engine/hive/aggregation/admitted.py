"""Adapters that can be joined: each readable, finite and not zero, all of one base and of one shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from engine.core.i18n import _
from engine.hive.aggregation.low_rank import squared_norm
from engine.hive.aggregation.tensor_io import Matrix, read_matrix
from engine.hive.aggregation.terms import Contribution, RefusedAdapter
from engine.hive.lora_file import BadAdapter, LoraFile, open_regular, read_lora
from engine.hive.names import base_word
from engine.hive.protocol import Rule
from engine.models.card import read_card


@dataclass(frozen=True)
class Adapter:
    """A contribution that was read."""

    contribution: Contribution
    lora: LoraFile
    a_digest: str
    """Hash of all its A."""
    base: str
    """`base_word` of its base model; "" when it does not say."""
    base_sha256: str
    """Fingerprint of its base, from its card; "" without one."""

    def factors(self, module: str) -> tuple[Matrix, Matrix] | None:
        """(scale * b, a) of one matrix; None where the adapter changes nothing. Raises BadAdapter."""
        found = self.lora.modules.get(module)
        if found is None:
            return None
        with open_regular(self.lora.weights) as fd:
            a, b = (read_matrix(fd, entry, self.lora.weights) for entry in (found.a, found.b))
        return b * found.scale, a


def admit(
    contributions: Sequence[Contribution], *, frozen_a: bool = False
) -> tuple[list[Adapter], list[RefusedAdapter]]:
    """Those that can be joined, and why the others cannot. What most of them have in common decides."""
    adapters: list[Adapter] = []
    refused: list[RefusedAdapter] = []
    for contribution in contributions:
        try:
            adapters.append(_read(contribution))
        except BadAdapter as problem:
            refused.append(_refusal(contribution, problem.rule, problem.reason))
    for keep, rule, reason in (
        (_of_base_name, Rule.BASE, _("it was trained on another base model than most of the others")),
        (_of_base_sha, Rule.BASE, _("its base model has other weights than that of most of the others")),
        (_of_shapes, Rule.SHAPES, _("its matrices have other shapes than those of most of the others")),
        *([(_of_a, Rule.CONFIG, _("its A is not the one that the others share"))] if frozen_a else []),
    ):
        kept = keep(adapters)
        refused += [_refusal(one.contribution, rule, reason) for one in adapters if one not in kept]
        adapters = kept
    return adapters, refused


def _read(contribution: Contribution) -> Adapter:
    """Raises BadAdapter also for values that are not finite, and when the update is zero."""
    lora = read_lora(contribution.folder)
    digest, size = sha256(), 0.0
    with open_regular(lora.weights) as fd:
        for module in lora.modules.values():
            a, b = (read_matrix(fd, entry, lora.weights) for entry in (module.a, module.b))
            digest.update(a.tobytes())
            size += squared_norm(b * module.scale, a)
    if not size > 0:
        raise BadAdapter(Rule.UNCHANGED, _("it changes nothing: its update is zero"), path=lora.weights)
    name = base_word(lora.config.base_model_name_or_path or "")
    try:
        sha = read_card(contribution.folder).base_sha256
    except (OSError, msgspec.DecodeError):
        sha = ""
    return Adapter(contribution, lora, digest.hexdigest(), name, sha)


def _refusal(contribution: Contribution, rule: Rule, reason: str) -> RefusedAdapter:
    return RefusedAdapter(adapter=contribution.name, rule=rule.value, reason=reason)


def _of_base_name(adapters: Sequence[Adapter]) -> list[Adapter]:
    most = _most(one.base for one in adapters if one.base)
    return [one for one in adapters if one.base in ("", most)]


def _of_base_sha(adapters: Sequence[Adapter]) -> list[Adapter]:
    most = _most(one.base_sha256 for one in adapters if one.base_sha256)
    return [one for one in adapters if one.base_sha256 in ("", most)]


def _of_shapes(adapters: Sequence[Adapter]) -> list[Adapter]:
    votes: dict[str, list[tuple[int, int]]] = {}
    for adapter in adapters:
        for name, module in adapter.lora.modules.items():
            votes.setdefault(name, []).append(module.shape)
    shapes = {name: Counter(found).most_common(1)[0][0] for name, found in votes.items()}
    return [
        one
        for one in adapters
        if all(module.shape == shapes[name] for name, module in one.lora.modules.items())
    ]


def _of_a(adapters: Sequence[Adapter]) -> list[Adapter]:
    most = _most(one.a_digest for one in adapters)
    return [one for one in adapters if one.a_digest == most]


def _most(values: Iterable[str]) -> str:
    """The most frequent value, the first one of several; "" without any."""
    counted = Counter(values).most_common(1)
    return counted[0][0] if counted else ""
