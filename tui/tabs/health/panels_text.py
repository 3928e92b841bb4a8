"""The panels of the Health tab: pure functions from a sample to Content."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content

from engine.core.i18n import N_, _, with_percent
from engine.health.limits import Limits
from engine.inference.protocol import ServiceStatus
from engine.machine.probes import MachineSample
from engine.runs.event_text import budget_reason_text, format_duration, format_figure, format_rate
from engine.runs.view import RunView
from tui.tabs.health.graph import area, scaled
from tui.terminal.capabilities import Terminal
from tui.terminal.glyphs import STATUS_STYLE, Glyphs
from tui.terminal.text import one_line

GB = 1024**3
DAY = 86400.0


def unknown() -> Content:
    """The text for a figure that this system does not report."""
    return Content.styled(_("unknown"), "$foreground-muted")


def gb(size: float | None) -> str:
    return "–" if size is None else f"{size / GB:.1f}"


def level(share: float) -> str:
    """Colour of a share of 0 to 1; the figure next to it works without colour."""
    return "$text-error" if share > 0.95 else "$text-warning" if share > 0.85 else ""


def cpu(
    snapshot: MachineSample,
    history: Sequence[Sequence[float]],
    glyphs: Glyphs,
    width: int,
    graph_rows: int = 0,
) -> list[Content]:
    """With `graph_rows` an area graph of all cores together, else a line of bars for each core; then load and temperature."""
    lines: list[Content] = []
    if snapshot.cpu_percent is None:
        lines.append(unknown())
    elif graph_rows > 0:
        means = [sum(values) / len(values) / 100 for values in history if values]
        lines += graph_lines(means, glyphs, width, graph_rows, "$text-accent")
        shares = " ".join(f"{share:.0f}" for share in snapshot.cpu_percent[:16])
        lines.append(Content(_("cores {shares}").format(shares=with_percent(shares))))
    else:
        room = max(4, min(60, width - 10))
        for core, share in enumerate(snapshot.cpu_percent):
            past = [values[core] for values in history if core < len(values)][-room:]
            bars = "".join(glyphs.spark(value / 100) for value in past).rjust(room)
            lines.append(
                Content.assemble(f"{core:2d} ", (bars, "$text-accent"), " " + with_percent(f"{share:3.0f}"))
            )
    lines.append(Content(_("load {load}").format(load=_load(snapshot)) + "  ").append(_heat(snapshot)))
    return lines


def graph_lines(
    values: Sequence[float | None], glyphs: Glyphs, width: int, rows: int, style: str
) -> list[Content]:
    """An area graph as Content, two cells narrower than the panel."""
    return [Content.styled(line, style) for line in area(values, width - 2, rows, glyphs)]


def _load(snapshot: MachineSample) -> str:
    return "–" if snapshot.load is None else "  ".join(f"{value:.1f}" for value in snapshot.load)


def _heat(snapshot: MachineSample) -> Content:
    if snapshot.temperature_c is None:
        return Content.styled("– °C", "$foreground-muted")
    heat = snapshot.temperature_c
    style = "$text-error" if heat >= 95 else "$text-warning" if heat >= 85 else ""
    return Content.styled(_("{heat:.0f} °C").format(heat=heat), style)


def memory(
    snapshot: MachineSample,
    glyphs: Glyphs,
    width: int,
    history: Sequence[float | None] = (),
    graph_rows: int = 0,
) -> list[Content]:
    """With `graph_rows` an area graph of the shares in `history`; used of total with a bar, and the swap."""
    lines = graph_lines(history, glyphs, width, graph_rows, "$text-success")
    if snapshot.memory_used is None or not snapshot.memory_total:
        lines.append(unknown())
    else:
        share = snapshot.memory_used / snapshot.memory_total
        lines.append(
            Content(
                _("used {used} of {total} GB").format(
                    used=gb(snapshot.memory_used), total=gb(snapshot.memory_total)
                )
            )
        )
        lines.append(Content.styled(glyphs.bar(share, max(4, width - 6)), level(share) or "$text-success"))
    if snapshot.swap_total is None:
        lines.append(Content(_("swap")).append(" ").append(unknown()))
    elif snapshot.swap_total == 0:
        lines.append(Content.styled(_("no swap"), "$foreground-muted"))
    else:
        text = _("swap {used} of {total} GB").format(
            used=gb(snapshot.swap_used), total=gb(snapshot.swap_total)
        )
        lines.append(Content.styled(text, level((snapshot.swap_used or 0) / snapshot.swap_total)))
    return lines


def disk(snapshot: MachineSample) -> list[Content]:
    """Free of total, and when the disk is full at the present rate."""
    if snapshot.disk_free is None or not snapshot.disk_total:
        return [unknown()]
    share = 1 - snapshot.disk_free / snapshot.disk_total
    free = _("free {free} of {total} GB").format(free=gb(snapshot.disk_free), total=gb(snapshot.disk_total))
    lines = [Content.styled(free, level(share))]
    if snapshot.disk_full_in_s is not None:
        left = snapshot.disk_full_in_s
        when = _("{days:.0f} days").format(days=left / DAY) if left > 2 * DAY else format_duration(left)
        lines.append(
            Content.styled(_("full in {when}").format(when=when), "$text-warning" if left < DAY else "")
        )
    return lines


def training(
    view: RunView | None,
    run_id: str,
    snapshot: MachineSample,
    glyphs: Glyphs,
    *,
    now: float,
    speeds: Sequence[float | None] = (),
    width: int = 0,
    graph_rows: int = 0,
) -> list[Content]:
    """The run in progress, its own memory measured here, and the time since its last event; with `graph_rows` its speed."""
    if view is None:
        return [
            Content.styled(_("nothing running"), "$foreground-muted"),
            Content.styled(_("n on Train starts a run"), "$foreground-muted"),
        ]
    head = Content.assemble(
        (glyphs.status(view.status), STATUS_STYLE[view.status]), f" {one_line(run_id[:9])}  "
    )
    if view.phase:
        head = head.append(_("step {step} of {steps}").format(step=view.step, steps=view.max_steps))
    lines = [*graph_lines(scaled(speeds), glyphs, width, graph_rows, "$text-warning"), head]
    if view.phase:
        speed = "–" if view.tokens_per_s is None else format_rate(view.tokens_per_s)
        lines.append(
            Content(_("loss {loss}  {speed} tok/s").format(loss=format_figure(view.loss), speed=speed))
        )
    own = "–" if snapshot.run_memory is None else f"{snapshot.run_memory / GB:.1f}"
    peak = "–" if view.peak_memory_mb is None else f"{view.peak_memory_mb / 1024:.1f}"
    budget = "–" if view.memory is None else f"{view.memory.budget_mb / 1024:.1f}"
    lines.append(
        Content(_("memory {own}, peak {peak} of {budget} GB").format(own=own, peak=peak, budget=budget))
    )
    if view.updated_at is not None:
        silent = max(0.0, now - view.updated_at)
        style = "$text-warning" if silent > 60 else "$foreground-muted"
        lines.append(Content.styled(_("last event {ago} ago").format(ago=format_duration(silent)), style))
    return lines


def limits(found: Limits, terminal: Terminal, glyphs: Glyphs, scope: str) -> list[Content]:
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


_KEEPERS = {
    "systemd scope": N_("engine in a systemd scope"),
    "caffeinate": N_("engine under caffeinate"),
}


def service(status: ServiceStatus | None) -> list[Content]:
    """The inference service and its loaded models."""
    if status is None:
        return [Content.styled(_("not started; Chat starts it"), "$foreground-muted")]
    head = _("up {time}, {gb:.1f} GB").format(
        time=format_duration(status.uptime_s), gb=status.memory_mb / 1024
    )
    names = _(", ").join(one_line(model.name) for model in status.models) or _("no model loaded")
    return [Content(head), Content(names)]
