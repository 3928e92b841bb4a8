"""Which adapters a hive takes. Each check is a pure function of what was sent and what is known; nothing is stored.

The checks of an adapter by itself (header, names, number formats, finite values) are those of `engine.hive.lora_file`
and `engine.hive.measure`; here it is compared with the base model, with the hive's limits and with the other users.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from engine.core.i18n import _
from engine.hive.lora_file import BadAdapter, LoraConfig, LoraModule
from engine.hive.names import same_base
from engine.hive.protocol import Rule

MAX_BYTES = 2 << 30
MAX_SAMPLES = 100_000
"""What a larger claim counts as."""
_ABSURD_SAMPLES = 10**9
_ABSURD_EPOCHS = 10**6
PEERS = 3
"""Other users' adapters that a comparison of norms needs."""
NORM_FACTOR = 10.0
"""An adapter may be so many times larger than the median of its peers."""
SMALL_FACTOR = 100.0
"""Or so many times smaller: what trained hardly at all is a smaller fault than what would outshout all."""
SHARE_FACTOR = 3.0
"""A claim of samples counts at most as so many times the median claim of the round."""


@dataclass(frozen=True)
class HiveBase:
    """The base model of a hive, as far as it is known."""

    name: str = ""
    fingerprint: str = ""
    layers: Mapping[str, tuple[int, int]] | None = None
    """`(out, in)` of every layer that can be adapted; None while no base was opened: what the first adapter
    says holds then."""
    known: Mapping[str, tuple[int, int]] | None = None
    """`(out, in)` of the modules of adapters that were taken, where `layers` is None."""


def check_size(size: int, limit: int) -> None:
    """Raises BadAdapter."""
    if not 0 < size <= limit:
        raise BadAdapter(
            Rule.SIZE,
            _("the adapter has {size:,} bytes; 1 to {limit:,} are taken").format(size=size, limit=limit),
        )


def check_claims(samples: int, epochs: int) -> None:
    """Raises BadAdapter for numbers that no training has; large ones are capped by `counted_samples` instead."""
    if not 0 <= samples <= _ABSURD_SAMPLES or not 0 <= epochs <= _ABSURD_EPOCHS:
        raise BadAdapter(
            Rule.SAMPLES,
            _("training_samples is from 0 to {samples:,}, epochs from 0 to {epochs:,}").format(
                samples=_ABSURD_SAMPLES, epochs=_ABSURD_EPOCHS
            ),
        )


def check_base(base: HiveBase, name: str, fingerprint: str) -> None:
    """Raises BadAdapter for an adapter of another base: by fingerprint where both are known, else by name."""
    if base.fingerprint and fingerprint:
        if base.fingerprint != fingerprint:
            raise _other_base(base.name, _("its base has another fingerprint"))
    elif base.name and not same_base(base.name, name):
        raise _other_base(base.name, _("it was made on {name}").format(name=ascii(name[:120])))


def check_targets(config: LoraConfig) -> None:
    """Raises BadAdapter for a configuration that names its modules by a pattern, or none."""
    _targets(config)
    _is_left_out("", config)


def check_modules(base: HiveBase, config: LoraConfig, modules: Mapping[str, LoraModule]) -> None:
    """Raises BadAdapter for other modules than the configuration names in the base, and for other shapes."""
    targets = _targets(config)
    for name in modules:
        if not targets.cover(name):
            raise BadAdapter(
                Rule.KEYS, _("the configuration does not name {module}").format(module=name[:200])
            )
    # Without an opened base, the layers of a kind of matrix are those in which the first adapter has it.
    known = base.layers if base.layers is not None else base.known or {}
    kinds = {_last_word(name) for name in known}
    expected = {name for name in known if targets.cover(name) and not _is_left_out(name, config)}
    if base.layers is None:
        expected |= {name for name in modules if _last_word(name) not in kinds}
    if odd := sorted(expected ^ modules.keys()):
        text = (
            _("{module} of the base is not in the adapter")
            if odd[0] in expected
            else _("{module} is not a layer of the base that the configuration names")
        )
        raise BadAdapter(Rule.KEYS, text.format(module=odd[0][:200]))
    for name, module in modules.items():
        wanted = known.get(name, module.shape)
        if tuple(wanted) != module.shape:
            raise BadAdapter(
                Rule.SHAPES,
                _("{module} is {have} in the adapter and {need} in the base").format(
                    module=name[:200], have=list(module.shape), need=list(wanted)
                ),
            )


def check_change(norm: float) -> None:
    """Raises BadAdapter for an adapter that changes nothing, as one has before it was trained."""
    if norm == 0.0:
        raise BadAdapter(Rule.UNCHANGED, _("the adapter changes nothing of the base: its matrices are zero"))


def check_norm(norm: float, peers: Sequence[float]) -> None:
    """Raises BadAdapter when it is out of the bounds that the norms of the other users' adapters set."""
    if len(peers) < PEERS:
        return
    middle = median(peers)
    if not middle / SMALL_FACTOR <= norm <= middle * NORM_FACTOR:
        raise BadAdapter(
            Rule.NORM,
            _(
                "the change has a norm of {norm:.3g}; {low:.3g} to {high:.3g} is taken, by the other adapters"
            ).format(norm=norm, low=middle / SMALL_FACTOR, high=middle * NORM_FACTOR),
        )


def counted_samples(claims: Sequence[int], limit: int = MAX_SAMPLES) -> list[float]:
    """What each claim of a round counts as: at most `limit` and three times the median claim. A claim of 0 says
    nothing and counts as the median; without any claim all count the same."""
    said = [min(claim, limit) for claim in claims if claim > 0]
    middle = float(median(said)) if said else 1.0
    return [min(float(min(claim, limit)), SHARE_FACTOR * middle) if claim > 0 else middle for claim in claims]


@dataclass(frozen=True)
class _Targets:
    names: frozenset[str]
    everything: bool

    def cover(self, module: str) -> bool:
        return self.everything or _ends_with_one(module, self.names)


def _targets(config: LoraConfig) -> _Targets:
    named = config.target_modules
    if named == "all-linear":
        return _Targets(frozenset(), True)
    if not isinstance(named, list) or not named:
        # A single text is a regular expression, and a stranger's may run for ever.
        raise BadAdapter(
            Rule.CONFIG,
            _("target_modules of the configuration must be a list of names, or all-linear"),
        )
    return _Targets(frozenset(named), False)


def _is_left_out(module: str, config: LoraConfig) -> bool:
    excluded = config.exclude_modules
    if isinstance(excluded, str):
        raise BadAdapter(Rule.CONFIG, _("exclude_modules of the configuration must be a list of names"))
    if excluded and _ends_with_one(module, frozenset(excluded)):
        return True
    chosen = config.layers_to_transform
    if chosen is None:
        return False
    layer = re.search(r"\.(\d+)\.", module)
    return layer is not None and int(layer[1]) not in ([chosen] if isinstance(chosen, int) else chosen)


def _last_word(module: str) -> str:
    return module.rpartition(".")[2]


def _ends_with_one(module: str, names: Iterable[str]) -> bool:
    """PEFT's rule: a name is a whole module path, or its end after a dot."""
    parts = module.split(".")
    return any(".".join(parts[first:]) in names for first in range(len(parts)))


def _other_base(name: str, reason: str) -> BadAdapter:
    return BadAdapter(
        Rule.BASE,
        _("the adapter is not for this hive's base model {base}: {reason}").format(base=name, reason=reason),
    )
