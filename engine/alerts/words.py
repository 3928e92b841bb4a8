"""What an alert says in the language of the person: what happened, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engine.alerts import machine_words, run_words
from engine.alerts.alert_state import AlertState
from engine.alerts.readings import AlertLevel
from engine.core.i18n import N_, _


@dataclass(frozen=True)
class AlertWords:
    """The words about one alert.

    Attributes:
        title: a few words, for a list and a subject.
        what: one sentence with the figures.
        advice: what to do, one sentence.
        command: words of the command line behind `h2q-tui`; or of another program, when it begins with `$`.
    """

    title: str
    what: str
    advice: str = ""
    command: tuple[str, ...] = ()


Figures = Mapping[str, float | str]
_MAKERS: Mapping[str, Callable[[Figures, str], tuple[str, str, str, tuple[str, ...]]]] = {
    **machine_words.WORDS,
    **run_words.WORDS,
}

_LEVELS = {
    AlertLevel.CRITICAL: N_("critical"),
    AlertLevel.ERROR: N_("error"),
    AlertLevel.WARNING: N_("warning"),
    AlertLevel.INFO: N_("info"),
}


def level_name(level: AlertLevel) -> str:
    """Name of a level."""
    return _(_LEVELS[level])


def words_of(state: AlertState) -> AlertWords:
    """The words about `state`."""
    return AlertWords(*_MAKERS[state.rule](state.figures, run_of(state)))


def run_of(state: AlertState) -> str:
    """Id of the run that it is about; "" for the machine."""
    return state.subject.partition("@")[0]


def recovered_words(state: AlertState) -> str:
    """The sentence that an alert is over."""
    made = run_words.RECOVERED.get(state.rule) or machine_words.RECOVERED.get(state.rule)
    return made(state.figures) if made is not None else _("it is over")
