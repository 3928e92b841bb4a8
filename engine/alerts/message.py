"""The message of a notice: a subject, a text, and the same as HTML for mail.

A message says what, since when, which run and host, the figures, the last log lines, what to do and the command to type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path

from engine.alerts.alert_state import AlertPhase, AlertState, Notice, NoticeKind
from engine.alerts.readings import AlertLevel, MachineReading, RunReading
from engine.alerts.redact import redact
from engine.alerts.words import level_name, recovered_words, run_of, words_of
from engine.core.filenames import shell_command
from engine.core.i18n import _, bracketed, colon, n_, with_percent
from engine.core.local_time import local_time
from engine.runs.event_text import format_duration, format_figure, format_rate, status_name
from engine.runs.events import RunStatus

_GB = 1 << 30
COLOURS = {
    AlertLevel.CRITICAL: "#b02a37",
    AlertLevel.ERROR: "#c2570c",
    AlertLevel.WARNING: "#8a6d00",
    AlertLevel.INFO: "#0b6e99",
}
_DONE = "#1a7f37"
_MONO = "font-family:ui-monospace,Menlo,Consolas,monospace;font-size:13px"


@dataclass(frozen=True)
class MessagePlace:
    """Where the alert is: the host and the workspace, and what is known of both at the moment.

    Attributes:
        default: the workspace is the one that commands use without `--data-dir`.
    """

    host: str
    folder: Path
    default: bool = False
    machine: MachineReading | None = None
    runs: Mapping[str, RunReading] = field(default_factory=dict)


@dataclass(frozen=True)
class MessageSection:
    """A heading and its lines; `code` are lines of a log or a command, shown in a typewriter's letters."""

    heading: str
    lines: list[str]
    code: bool = False


@dataclass(frozen=True)
class AlertMessage:
    """What is sent. `level` and `title` are of one line; `short` is the text for an SMS."""

    level: AlertLevel
    title: str
    text: str
    html: str
    short: str


def compose(notice: Notice, place: MessagePlace, *, secrets: tuple[str, ...] = ()) -> AlertMessage:
    """The message of `notice`. What `secrets` names stands nowhere in it."""
    title = _one_line(redact(_title(notice, place), secrets))
    sections = [
        replace(section, lines=redact("\n".join(section.lines), secrets).splitlines())
        for section in _sections(notice, place)
    ]
    text = "\n\n".join("\n".join([one.heading, *(f"  {line}" for line in one.lines)]) for one in sections)
    done = notice.kind is NoticeKind.RECOVERY
    html = _html(title, sections, _DONE if done else COLOURS[notice.level])
    short = title if len(notice.states) != 1 else colon(title, _now_sentence(notice.states[0]))
    return AlertMessage(
        level=notice.level,
        title=title,
        text=text + "\n",
        html=html,
        short=_one_line(redact(short, secrets))[:300],
    )


def command_line(words: tuple[str, ...], place: MessagePlace) -> str:
    """The command to type, with the workspace where it is not the default one."""
    if words and words[0].startswith("$"):
        return shell_command(words[0][1:], *words[1:])
    data_dir = () if place.default else ("--data-dir", str(place.folder))
    return shell_command("h2q-tui", *words, *data_dir) if words else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _title(notice: Notice, place: MessagePlace) -> str:
    """`[error] mini: training failed: out of memory`."""
    head = _("[{level}] {host}").format(level=level_name(notice.level), host=place.host)
    if notice.kind is NoticeKind.TEST:
        return colon(head, _("test message of h2q-tui"))
    if notice.kind is NoticeKind.SUMMARY:
        n = len(notice.states)
        return colon(head, n_("{n} alert while it was quiet", "{n} alerts while it was quiet", n).format(n=n))
    state = notice.states[0]
    title = words_of(state).title
    if notice.kind is NoticeKind.RECOVERY:
        return _("[over] {host}: {title}").format(host=place.host, title=title)
    if notice.kind is NoticeKind.REPEAT:
        title = _("still: {title}").format(title=title)
    if notice.kind is NoticeKind.DIGEST:
        now = _("it is on now") if state.firing else _("it is over now")
        title = bracketed(title, _("changed {n} times, {now}").format(n=notice.changes, now=now))
    return colon(head, title)


def _now_sentence(state: AlertState) -> str:
    return (
        words_of(state).what if state.firing or state.phase is AlertPhase.HAPPENED else recovered_words(state)
    )


def _sections(notice: Notice, place: MessagePlace) -> Iterator[MessageSection]:
    if notice.kind is NoticeKind.TEST:
        yield MessageSection(_("What"), [_("A test: messages of this kind arrive here.")])
        yield MessageSection(_("Where"), _where(place))
        return
    if len(notice.states) > 1:
        yield MessageSection(_("What"), [_listed(state) for state in notice.states])
        yield MessageSection(_("Where"), _where(place))
        yield MessageSection(_("Command"), [command_line(("notify", "list"), place)], code=True)
        return
    state = notice.states[0]
    words, run = words_of(state), place.runs.get(run_of(state))
    over = not state.firing and state.phase is not AlertPhase.HAPPENED
    what = [words.title, words.what, recovered_words(state) if over else ""]
    yield MessageSection(_("What"), list(filter(None, what)))
    yield MessageSection(_("Since"), [_time_line(notice, state)])
    yield MessageSection(_("Where"), [*_where(place), *_run_lines(run, run_of(state))])
    figures = [*_run_figures(run), *_machine_figures(place.machine)]
    if figures:
        yield MessageSection(_("Figures"), figures)
    if over:
        return
    if run is not None and run.log_tail and state.phase is not AlertPhase.HAPPENED:
        yield MessageSection(_("Last log lines"), list(run.log_tail), code=True)
    if words.advice:
        yield MessageSection(_("What to do"), [words.advice])
    if words.command:
        yield MessageSection(_("Command"), [command_line(words.command, place)], code=True)


def _listed(state: AlertState) -> str:
    title, began = words_of(state).title, _clock(state.bad_since)
    if state.phase is AlertPhase.HAPPENED:
        return f"{began}  {colon(level_name(state.level), title)}"
    end = _("still on") if state.firing else _("over at {time}").format(time=_clock(state.ended_at))
    return f"{began}  {colon(level_name(state.level), title)}  ({end})"


def _clock(t: float | None) -> str:
    return "–" if t is None else local_time("%H:%M", t)


def _time_line(notice: Notice, state: AlertState) -> str:
    began = state.bad_since if state.bad_since is not None else notice.at
    stamp = local_time("%Y-%m-%d %H:%M:%S", began)
    if state.phase is AlertPhase.HAPPENED:
        return stamp
    if state.firing:
        return bracketed(stamp, _("for {time}").format(time=format_duration(notice.at - began)))
    end = state.ended_at if state.ended_at is not None else notice.at
    return _("{begin} until {end}").format(begin=stamp, end=local_time("%H:%M:%S", end))


def _where(place: MessagePlace) -> list[str]:
    return [_("host {host}").format(host=place.host), _("data folder {folder}").format(folder=place.folder)]


def _run_lines(run: RunReading | None, run_id: str) -> list[str]:
    if not run_id:
        return []
    if run is None:
        return [_("run {run}").format(run=run_id)]
    name = " ".join(filter(None, [run.run_id, run.kind, run.label]))
    status = run.status if run.alive or run.over else RunStatus.DEAD
    return [bracketed(_("run {run}").format(run=name), status_name(status))]


def _run_figures(run: RunReading | None) -> list[str]:
    if run is None or not run.max_steps:
        return []
    parts = [_("step {step} of {steps}").format(step=run.step, steps=run.max_steps)]
    if run.loss is not None:
        parts.append(
            _("loss {loss}, best {best}").format(
                loss=format_figure(run.loss), best=format_figure(run.best_loss)
            )
        )
    if run.tokens_per_s is not None:
        parts.append(_("{speed} tok/s").format(speed=format_rate(run.tokens_per_s)))
    if run.used_mb is not None:
        parts.append(
            _("memory of the run {used} of {budget} GB").format(
                used=f"{run.used_mb / 1024:.1f}", budget=f"{(run.budget_mb or 0) / 1024:.1f}"
            )
        )
    return [_(", ").join(parts)]


def _machine_figures(machine: MachineReading | None) -> list[str]:
    if machine is None:
        return []
    parts = []
    if machine.cpu_percent is not None:
        parts.append(_("CPU {share}").format(share=with_percent(f"{machine.cpu_percent:.0f}")))
    if machine.memory_percent is not None:
        parts.append(_("memory {share}").format(share=with_percent(f"{machine.memory_percent:.0f}")))
    if machine.disk_free is not None:
        parts.append(_("disk {free} GB free").format(free=f"{machine.disk_free / _GB:.1f}"))
    if machine.temperature_c is not None:
        parts.append(_("{heat:.0f} °C").format(heat=machine.temperature_c))
    return [_(", ").join(parts)] if parts else []


def _html(title: str, sections: list[MessageSection], colour: str) -> str:
    """A page that mail programs without styles of their own read too: every text is escaped, nothing is loaded."""
    rows = []
    for section in sections:
        if section.code:
            body = "\n".join(map(escape, section.lines))
            body = f'<pre style="{_MONO};margin:0;white-space:pre-wrap">{body}</pre>'
        else:
            body = "<br>".join(map(escape, section.lines))
        rows.append(
            f'<tr><td style="padding:6px 12px;vertical-align:top;color:#666;white-space:nowrap">{escape(section.heading)}</td>'
            f'<td style="padding:6px 12px">{body}</td></tr>'
        )
    return (
        f'<div style="max-width:640px;border:1px solid #ddd;border-top:4px solid {colour};font-family:sans-serif;font-size:14px">'
        f'<h2 style="margin:0;padding:12px;font-size:17px;color:{colour}">{escape(title)}</h2>'
        f'<table style="border-collapse:collapse">{"".join(rows)}</table></div>'
    )
