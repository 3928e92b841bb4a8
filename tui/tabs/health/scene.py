"""What the panels of the Health tab draw: the newest sample, the history behind it, and the range of time on show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine.core.i18n import N_, _
from engine.machine.history import DAY_S, HOUR_S, MachineHistory
from engine.machine.probes import MachineSample
from tui.terminal.glyphs import Glyphs

GB = 1024**3
RANGES = (300.0, 900.0, HOUR_S, 6 * HOUR_S, DAY_S)
"""Seconds that the graphs may reach back."""
_GROUPS = {"performance": N_("performance cores"), "efficiency": N_("efficiency cores")}


@dataclass(frozen=True)
class MachineScene:
    """Everything that a panel needs to draw itself.

    Attributes:
        sample: the newest sample.
        history: what came before.
        glyphs: what this terminal can draw.
        span: seconds that the graphs reach back.
        interval: seconds between two samples.
        colours: how many colours the terminal has; without them, the layers of a graph have textures.
    """

    sample: MachineSample
    history: MachineHistory
    glyphs: Glyphs
    span: float = RANGES[0]
    interval: float = 2.0
    colours: int = 1 << 24

    @property
    def fading(self) -> bool:
        """Whether the terminal has the colours for a graph that is weaker at its foot."""
        return self.colours >= 256

    def columns(self, series: str, width: int) -> list[float | None]:
        """The values of a series in `width` columns, the newest last.

        Where a column would be shorter than two samples, several show one value: a graph that moves with each sample is
        sent as a whole each time.
        """
        if width <= 0:
            return []
        wide = max(1, math.ceil(2 * self.interval * width / self.span))
        count = math.ceil(width / wide)
        values = self.history.columns(
            series,
            end=self.sample.time,
            span=self.span / width * wide * count,
            width=count,
            interval=self.interval,
        )
        return [value for value in values for _column in range(wide)][-width:]

    def shares(self, series: str, width: int, whole: float) -> list[float | None]:
        """The values as shares of `whole`."""
        return shares_of(self.columns(series, width), whole)


def shares_of(values: Sequence[float | None], whole: float) -> list[float | None]:
    """Values divided by `whole`; all None when that is 0."""
    return [None if value is None or whole <= 0 else value / whole for value in values]


def gb(size: float | None) -> str:
    """A size in GB (2^30 bytes); `–` for None."""
    return "–" if size is None else short(size / GB)


def short(value: float) -> str:
    """A figure with one digit after the point below 100, else without."""
    return f"{value:.0f}" if abs(value) >= 99.95 else f"{value:.1f}"


def level_style(share: float) -> str:
    """Colour of a share of 0 to 1; the figure next to it works without colour."""
    return "$text-error" if share > 0.95 else "$text-warning" if share > 0.85 else ""


def range_name(seconds: float) -> str:
    """`5 min`, `6 h`."""
    if seconds < HOUR_S:
        return _("{minutes} min").format(minutes=round(seconds / 60))
    return _("{hours} h").format(hours=round(seconds / HOUR_S))


def group_name(group_id: str) -> str:
    """What a group of cores is called; "" for all of them."""
    if group_id.startswith("node"):
        return _("NUMA node {n}").format(n=group_id[4:])
    return _(_GROUPS[group_id]) if group_id in _GROUPS else ""
