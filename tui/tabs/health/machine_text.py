"""The panels about the machine: processor, memory, devices. Pure functions from a scene to Content."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content

from engine.core.i18n import _, with_percent
from engine.machine.accelerators import GpuSample
from engine.machine.probes import MachineSample
from engine.machine.recording import group_shares
from engine.runs.event_text import format_duration
from engine.sinks.peers import PeerReading
from tui.tabs.health.scene import GB, MachineScene, gb, group_name, level_style, shares_of, short
from tui.tabs.health.system_text import peer_lines
from tui.terminal.text import cells, one_line
from tui.widgets.area_graph import area, captioned, layer_signs, stacked

DAY = 86400.0
SWAP_WINDOW_S = 600.0
_MUTED = "$foreground-muted"
_LAYERS = ("$text-accent", "$foreground-muted", "$panel-lighten-2")
"""This run, other programs, cached files."""
_LEAST_GRAPH = 2


def unknown() -> Content:
    """The text for a figure that this system does not report."""
    return Content.styled(_("unknown"), _MUTED)


# Processor


def cpu_lines(scene: MachineScene, width: int, height: int) -> list[Content]:
    """A graph for each group of cores, the cores one by one, load, heat and power."""
    sample = scene.sample
    if sample.cpu_percent is None:
        return [unknown(), _load_line(sample)]
    figures = [_load_line(sample)]
    if height >= 6:
        figures.insert(0, _cores_line(scene, width))
    shares = group_shares(sample)
    groups = sample.core_groups
    rows = height - len(figures)
    if len(shares) > 1 and rows < _LEAST_GRAPH * len(shares):
        # Too low for a graph of each: all cores together.
        count = len(sample.cpu_percent)
        mean = [
            None if any(value is None for value in column) else sum(value or 0 for value in column)
            for column in zip(
                *(
                    shares_of(scene.columns(f"cpu_{n}", width), 100 * count / len(group.cores))
                    for n, group in enumerate(groups, 1)
                ),
                strict=True,
            )
        ]
        caption = with_percent(f"{sum(sample.cpu_percent) / count:.0f}")
        return [
            *captioned(
                area(mean, width, max(0, rows), scene.glyphs), caption, "$text-accent", fading=scene.fading
            ),
            *figures,
        ]
    lines: list[Content] = []
    for number, share in enumerate(shares, 1):
        part = rows // len(shares) + (number <= rows % len(shares))
        name = group_name(groups[number - 1].id) if number <= len(groups) else ""
        caption = f"{name} {with_percent(f'{share:.0f}')}".strip()
        graph = area(scene.shares(f"cpu_{number}", width, 100), width, part, scene.glyphs)
        lines += captioned(graph, caption, "$text-accent", fading=scene.fading)
    return lines + figures


def _cores_line(scene: MachineScene, width: int) -> Content:
    """Each core as its share where there is room, else as one bar."""
    shares = scene.sample.cpu_percent or []
    words = _("cores {shares}").format(shares=with_percent(" ".join(f"{share:.0f}" for share in shares)))
    if len(words) <= width:
        return Content(words)
    bars = "".join(scene.glyphs.spark(share / 100) for share in shares)
    return Content(_("cores {shares}").format(shares=bars))


def _load_line(sample: MachineSample) -> Content:
    load = "–" if sample.load is None else "  ".join(f"{value:.1f}" for value in sample.load)
    line = Content(_("load {load}").format(load=load) + "  ").append(heat(sample.temperature_c))
    return line if sample.power_w is None else line.append(f"  {watts(sample.power_w)}")


def heat(celsius: float | None) -> Content:
    """`62 °C`, in colour when it is hot; `– °C` for None."""
    if celsius is None:
        return Content.styled("– °C", _MUTED)
    style = "$text-error" if celsius >= 95 else "$text-warning" if celsius >= 85 else ""
    return Content.styled(_("{heat:.0f} °C").format(heat=celsius), style)


def watts(power: float) -> str:
    """`15 W`."""
    return _("{power} W").format(power=f"{power:.1f}" if power < 10 else f"{power:.0f}")


# Memory


def memory_lines(
    scene: MachineScene, width: int, height: int, *, run: float | None = None, budget: float | None = None
) -> list[Content]:
    """This run, other programs and cached files on each other with the budget as a line; then their figures and the swap.

    `run` and `budget` are bytes of the run in progress; None without one.
    """
    sample = scene.sample
    total = sample.memory_total
    figures = [_used_line(sample, budget), _swap_line(scene)]
    rows = height - len(figures) - 1
    if total is None or sample.memory_used is None or rows < _LEAST_GRAPH:
        return figures
    own = [value or 0.0 for value in scene.columns("memory_run", width)]
    used = scene.columns("memory_used", width)
    others = [None if one is None else max(0.0, one - mine) for one, mine in zip(used, own, strict=True)]
    own_known: list[float | None] = [
        None if one is None else mine for one, mine in zip(used, own, strict=True)
    ]
    graph = stacked(
        [
            shares_of(own_known, total),
            shares_of(others, total),
            scene.shares("memory_cached", width, total),
        ],
        _LAYERS,
        width,
        rows,
        scene.glyphs,
        textures=not scene.colours,
        line_at=None if budget is None else budget / total,
        line_style="$text-warning",
    )
    signs = layer_signs(3, scene.glyphs) if not scene.colours or scene.glyphs.ascii else 3 * scene.glyphs.full
    names = (
        _("run {size}").format(size=gb(run)),
        _("others {size}").format(size=gb(max(0.0, sample.memory_used - (run or 0.0)))),
        _("cache {size}").format(size=gb(sample.memory_cached)),
    )
    legend = Content("")
    for sign, style, name in zip(signs, _LAYERS, names, strict=True):
        entry = Content.assemble((sign, style), f" {name} ")
        if legend.cell_length + entry.cell_length <= width + 1:
            legend = legend.append(entry)
    return [*graph, legend, *figures]


def _used_line(sample: MachineSample, budget: float | None) -> Content:
    if sample.memory_used is None or not sample.memory_total:
        return unknown()
    share = sample.memory_used / sample.memory_total
    text = _("used {used} of {total} GB").format(used=gb(sample.memory_used), total=gb(sample.memory_total))
    if budget is not None:
        text += _(", budget {gb}").format(gb=gb(budget))
    line = Content.styled(text, level_style(share))
    limit = sample.memory_limit
    if limit is not None and limit < sample.memory_total:
        line = line.append(_(", limit {gb}").format(gb=gb(limit)))
    return line


def _swap_line(scene: MachineScene) -> Content:
    """The swap, and how much it grew lately."""
    sample = scene.sample
    if sample.swap_total is None:
        return Content(_("swap")).append(" ").append(unknown())
    if sample.swap_total == 0:
        return Content.styled(_("no swap"), _MUTED)
    text = _("swap {used} of {total} GB").format(used=gb(sample.swap_used), total=gb(sample.swap_total))
    line = Content.styled(text, level_style((sample.swap_used or 0) / sample.swap_total))
    grown = scene.history.growth("swap_used", SWAP_WINDOW_S)
    if grown is not None and grown >= GB / 20:
        line = line.append(Content.styled(_(", +{size} in 10 min").format(size=gb(grown)), "$text-warning"))
    return line


# Devices


def device_lines(
    scene: MachineScene, width: int, height: int, peers: Sequence[PeerReading] = ()
) -> list[Content]:
    """The disk with its rate and the time until it is full, pressure, each graphics processor and each other machine; a
    graph where there is room."""
    sample = scene.sample
    lines = [_disk_line(sample), _traffic_line(sample), _pressure_line(sample, width)]
    lines += [_gpu_line(gpu) for gpu in sample.gpus]
    lines += peer_lines(peers, scene.glyphs)
    rows = height - len(lines)
    if rows >= 3:
        lines = _device_graph(scene, width, rows) + lines
    return lines


def _device_graph(scene: MachineScene, width: int, rows: int) -> list[Content]:
    """What of graphics, heat and pressure this machine reports, the first of them."""
    choices = (
        ("gpu_busy", _("graphics"), 100.0),
        ("temperature", _("heat"), 110.0),
        ("memory_stalled", _("waiting for memory"), 100.0),
        ("cpu_stalled", _("waiting for the CPU"), 100.0),
    )
    last = scene.history.last
    for series, caption, whole in choices:
        value = last.value(series) if last is not None else None
        if value is not None:
            if series == "memory_stalled" and not any(
                one and one >= 1 for one in scene.columns(series, width)
            ):
                continue  # nobody waited for memory in all the time on show
            graph = area(scene.shares(series, width, whole), width, rows, scene.glyphs)
            unit = (
                _("{heat:.0f} °C").format(heat=value)
                if series == "temperature"
                else with_percent(f"{value:.0f}")
            )
            return captioned(graph, f"{caption} {unit}", "$text-success", fading=scene.fading)
    return []


def _disk_line(sample: MachineSample) -> Content:
    if sample.disk_free is None or not sample.disk_total:
        return Content(_("disk")).append(" ").append(unknown())
    share = 1 - sample.disk_free / sample.disk_total
    free = _("free {free} of {total} GB").format(free=gb(sample.disk_free), total=gb(sample.disk_total))
    line = Content.styled(free, level_style(share))
    if sample.disk_full_in_s is not None and sample.disk_full_in_s < 366 * DAY:
        left = sample.disk_full_in_s
        when = _("{days:.0f} days").format(days=left / DAY) if left > 2 * DAY else _soon(left)
        style = "$text-warning" if left < DAY else ""
        line = line.append(", ").append(Content.styled(_("full in {when}").format(when=when), style))
    return line


def _soon(seconds: float) -> str:
    return (
        format_duration(seconds) if seconds < 2 * 3600 else _("{hours} h").format(hours=round(seconds / 3600))
    )


def _traffic_line(sample: MachineSample) -> Content:
    """What the disks read and write, and how fast the free space shrinks or grows."""
    if sample.disk_read_rate is None or sample.disk_write_rate is None:
        return Content.styled(_("disk traffic unknown"), _MUTED)
    text = _("read {read}, write {write} MB/s").format(
        read=short(sample.disk_read_rate / 1e6), write=short(sample.disk_write_rate / 1e6)
    )
    rate = sample.disk_fill_rate
    if rate is not None and abs(rate) * 3600 >= GB / 20:
        text += _(", {rate} GB/h").format(rate=f"{-rate * 3600 / GB:+.1f}".replace("-", "−"))
    return Content(text)


def _pressure_line(sample: MachineSample, width: int) -> Content:
    """How much programs wait for processor, memory and disk."""
    if sample.pressure_level is not None:
        words = {1: _("normal"), 2: _("warning"), 4: _("critical")}
        text = _("memory pressure {level}").format(level=words.get(sample.pressure_level, "–"))
        return Content.styled(text, "$text-warning" if sample.pressure_level > 1 else "")
    if sample.memory_stalled_percent is None:
        return Content.styled(_("pressure unknown"), _MUTED)
    parts = [
        _("cpu {n}").format(n=_whole(sample.cpu_stalled_percent)),
        _("memory {n}").format(n=_whole(sample.memory_stalled_percent)),
        _("disk {n}").format(n=_whole(sample.io_stalled_percent)),
    ]
    texts = [_("waiting: {parts}").format(parts=with_percent(gap.join(parts))) for gap in (_(", "), " ")]
    text = texts[0] if cells(texts[0]) <= width else texts[1]
    return Content.styled(text, "$text-warning" if sample.memory_stalled_percent >= 10 else "")


def _whole(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _gpu_line(gpu: GpuSample) -> Content:
    parts = [one_line(gpu.name)]
    if gpu.busy_percent is not None:
        parts.append(with_percent(f"{gpu.busy_percent:.0f}"))
    if gpu.memory_used is not None and gpu.memory_total is not None:
        parts.append(_("{used} of {total} GB").format(used=gb(gpu.memory_used), total=gb(gpu.memory_total)))
    line = Content("  ".join(parts))
    if gpu.temperature_c is not None:
        line = line.append("  ").append(heat(gpu.temperature_c))
    return line if gpu.power_w is None else line.append(f"  {watts(gpu.power_w)}")
