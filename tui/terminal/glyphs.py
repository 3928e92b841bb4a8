"""The glyphs next to every colour, and their ASCII replacements for terminals that cannot draw them."""

from __future__ import annotations

import locale
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.runs.events import RunStatus


@dataclass(frozen=True)
class Glyphs:
    """One cell each in this terminal, except `done` and `accepted` in ASCII."""

    running: str = "●"
    paused: str = "‖"
    done: str = "✓"
    accepted: str = "✓"
    """Accepted by the user; by a filter it is `done`, or `dot` without colours."""
    failed: str = "✗"
    alert: str = "▲"
    kept: str = "="
    cursor: str = "▸"
    full: str = "█"
    empty: str = "░"
    bars: str = " ▁▂▃▄▅▆▇█"
    """Heights from nothing to full, for sparklines."""
    dot: str = "·"
    ascii: bool = False

    def status(self, status: RunStatus) -> str:
        """The glyph of a run's status."""
        names = {
            "queued": self.dot,
            "running": self.running,
            "paused": self.paused,
            "done": self.done,
            "skipped": self.kept,
            "stopped": self.kept,
            "failed": self.failed,
            "dead": self.failed,
        }
        return names.get(str(status), "?")

    def spark(self, share: float) -> str:
        """One character for a share of 0 to 1."""
        last = len(self.bars) - 1
        return self.bars[max(0, min(last, round(share * last)))]

    def bar(self, share: float, width: int) -> str:
        """A bar of `width` cells, `share` (0 to 1) of it full."""
        filled = max(0, min(width, round(share * width)))
        return self.full * filled + self.empty * (width - filled)


UNICODE = Glyphs()
ASCII = Glyphs(
    running="*",
    paused="|",
    done="ok",
    accepted="OK",
    failed="x",
    alert="!",
    kept="=",
    cursor=">",
    full="#",
    empty=".",
    bars=" .:-=+*#@",
    dot="-",
    ascii=True,
)

STATUS_STYLE = {
    "queued": "$foreground-muted",
    "running": "$text-accent",
    "paused": "$text-warning",
    "done": "$text-success",
    "skipped": "$foreground-muted",
    "stopped": "$foreground-muted",
    "failed": "$text-error",
    "dead": "$text-error",
}
"""Colour of a status; the glyph next to it works without colour."""


def choose_glyphs(setting: str = "auto", *, ambiguous_wide: bool = False) -> Glyphs:
    """The glyphs for this terminal: ASCII where requested, where ambiguous characters are drawn two cells wide, on the Linux console, or where the locale has no UTF-8."""
    if setting == "ascii":
        return ASCII
    if setting == "unicode":
        return UNICODE
    utf8 = "utf" in (locale.getpreferredencoding(False) or "").lower()
    poor = os.environ.get("TERM", "") in ("linux", "dumb", "vt100", "vt220")
    return ASCII if ambiguous_wide or poor or not utf8 else UNICODE
