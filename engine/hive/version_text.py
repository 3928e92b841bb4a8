"""A version of a hive in words, for the command line and the app. Imports nothing heavy."""

from __future__ import annotations

import re

from engine.core.i18n import N_, _, n_, with_percent
from engine.hive.protocol import VersionInfo, VersionState

VERSION_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
"""What a version may be called: its name becomes that of a folder here, and a word of a command."""

_STATES = {
    VersionState.CURRENT: N_("current"),
    VersionState.PUBLISHED: N_("earlier"),
    VersionState.WITHDRAWN: N_("withdrawn"),
    VersionState.REJECTED: N_("not published"),
}


def state_text(state: VersionState) -> str:
    return _(_STATES[state])


def energy_text(energy: float | None) -> str:
    """The share of the joined change that was kept."""
    return "–" if energy is None else with_percent(f"{energy * 100:.0f}")


def gain_text(version: VersionInfo) -> str:
    """What the server measured on its held-out cases; "–" for a server without."""
    return "–" if version.gain is None else f"{version.gain:+.3f}"


def version_line(version: VersionInfo) -> str:
    """One line: name, state, adapters, method and rank, energy kept, gain, and why it was not published."""
    count = n_("{n} adapter", "{n} adapters", len(version.parents)).format(n=len(version.parents))
    parts = [
        version.version,
        state_text(version.state),
        count,
        _("{method}, rank {rank}").format(method=version.method, rank=version.rank),
        _("energy {share}").format(share=energy_text(version.energy)),
        _("gain {gain}").format(gain=gain_text(version)),
    ]
    if version.epsilon is not None:
        parts.append(f"ε {version.epsilon:.2g}")
    if version.state is VersionState.REJECTED and version.reason:
        parts.append(version.reason)
    return "  ".join(parts)
