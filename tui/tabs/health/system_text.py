"""The panel of the system: inference service, limits; and the lines of other machines. Pure functions to Content."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content

from engine.core.i18n import N_, _, with_percent
from engine.health.limits import Limits
from engine.inference.protocol import ServiceStatus
from engine.runs.event_text import budget_reason_text, format_duration, format_figure
from engine.sinks.peers import PeerReading
from tui.terminal.capabilities import Terminal
from tui.terminal.glyphs import Glyphs
from tui.terminal.text import one_line

_MUTED = "$foreground-muted"
_KEEPERS = {
    "systemd scope": N_("engine in a systemd scope"),
    "caffeinate": N_("engine under caffeinate"),
}
_ERRORS = {
    "silent": N_("no answer"),
    "refused": N_("refused: the address lacks the token"),
    "unknown": N_("its answer is not understood"),
}


def system_lines(
    service: ServiceStatus | None,
    found: Limits | None,
    terminal: Terminal,
    glyphs: Glyphs,
    scope: str,
) -> list[Content]:
    """The most telling first: what does not fit is cut at the bottom."""
    lines = service_lines(service)
    return lines if found is None else lines + limit_lines(found, terminal, glyphs, scope)


def service_lines(status: ServiceStatus | None) -> list[Content]:
    """The inference service and its loaded models."""
    if status is None:
        return [Content.styled(_("inference service not started; Chat starts it"), _MUTED)]
    head = _("inference service up {time}, {gb:.1f} GB").format(
        time=format_duration(status.uptime_s), gb=status.memory_mb / 1024
    )
    names = _(", ").join(one_line(model.name) for model in status.models) or _("no model loaded")
    return [Content(head), Content(names)]


def peer_lines(peers: Sequence[PeerReading], glyphs: Glyphs) -> list[Content]:
    """One line for each other machine."""
    lines = []
    for peer in peers:
        name = one_line(peer.name)
        if peer.error:
            text = f"{glyphs.alert} {name}  {_(_ERRORS[peer.error])}"
            lines.append(Content.styled(text, "$text-warning"))
            continue
        sign = glyphs.running if peer.training else glyphs.dot
        parts = [f"{sign} {name}"]
        if peer.cpu_percent is not None:
            parts.append(_("cpu {n}").format(n=with_percent(f"{peer.cpu_percent:.0f}")))
        if peer.memory_percent is not None:
            parts.append(_("memory {n}").format(n=with_percent(f"{peer.memory_percent:.0f}")))
        if peer.loss is not None and peer.training:
            parts.append(_("loss {loss}").format(loss=format_figure(peer.loss)))
        lines.append(Content("  ".join(parts)))
    return lines


def limit_lines(found: Limits, terminal: Terminal, glyphs: Glyphs, scope: str) -> list[Content]:
    """Limits and environment: budget, cores, how the engine survives the app, colours, keys."""
    reason = budget_reason_text(found.budget_reason)
    colours = {0: _("no colour"), 1 << 24: _("16 million colours")}.get(
        terminal.colours, _("{n} colours").format(n=terminal.colours)
    )
    keeper = scope or found.keeper
    alive = _(_KEEPERS.get(keeper, keeper)) if keeper else _("engine in its own session")
    way = [one_line(terminal.term) or _("unknown terminal"), colours]
    if glyphs.ascii:
        way.append(_("ASCII signs"))
    if terminal.multiplexer:
        way.append(terminal.multiplexer)
    if terminal.over_ssh:
        way.append("ssh")
    return [
        Content(_("budget {gb:.1f} GB: {reason}").format(gb=found.budget_mb / 1024, reason=reason)),
        Content(
            _("{cores} cores, at most {files} open files").format(
                cores=found.cores, files=found.open_files or "–"
            )
        ),
        Content(alive),
        Content(_(", ").join(way)),
        Content(_("esc waits {ms} ms for the rest of a key sequence").format(ms=terminal.escape_ms)),
    ]
