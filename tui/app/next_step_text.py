"""One line that says what follows: from figures of the workspace to a sentence with its keys. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.core.i18n import _, n_
from engine.runs.estimates import Estimate
from engine.runs.event_text import format_about

TAB_KEYS = {"train": "1", "corpus": "2", "validate": "3", "chat": "4"}


@dataclass(frozen=True)
class NextFacts:
    """What the line is made of."""

    in_memory: int = 0
    collected: int = 0
    """Conversations that the last corpus build read; 0 before the first one."""
    accepted: int = 0
    train: int = 0
    """Conversations in the training set."""
    unassigned: int = 0
    """Accepted since the last build, and in no data set yet."""
    trained: int = 0
    """Conversations that the newest finished training had; 0 without one."""
    trained_in_use: bool = False
    """The model in use came from that training."""
    in_use: str = ""
    estimate: Estimate | None = None
    """What a training on the corpus will take."""
    budget_mb: float = 0.0


@dataclass(frozen=True)
class Now:
    """What the app shows at the moment."""

    tab: str
    keys: Mapping[str, tuple[str, ...]]
    """The keys of every action by its id."""
    training: bool = False
    preparing: bool = False
    """Conversations are being imported or filtered."""
    arrow: str = "→"

    def key(self, action: str) -> str:
        """`n` in the tab of the action, `1 n` in another one."""
        tab = action.partition(".")[0]
        key = next(iter(self.keys.get(action, ())), "")
        return key if tab == self.tab or tab not in TAB_KEYS else f"{TAB_KEYS[tab]} {key}"


def next_step(facts: NextFacts, now: Now) -> str:
    """ "705 in memory → 667 in the corpus → n trains them (about 6 min, 0.6 of 4.0 GB)"."""
    steps = _preparing(facts, now) if now.preparing else _training() if now.training else _idle(facts, now)
    return f" {now.arrow} ".join(steps)


def _preparing(facts: NextFacts, now: Now) -> list[str]:
    first = _("{n} in memory").format(n=f"{facts.in_memory:,}")
    return [first, _("the corpus is being built"), _("then {key} trains").format(key=now.key("train.new"))]


def _training() -> list[str]:
    return [_("training"), _("the verdict follows by itself"), _("used only if it is better")]


def _idle(facts: NextFacts, now: Now) -> list[str]:
    if not facts.in_memory:
        return [
            _("{key} imports conversations").format(key=now.key("corpus.import")),
            _("the corpus is built from them"),
            _("{key} trains").format(key=now.key("train.new")),
        ]
    first = _("{n} in memory").format(n=f"{facts.in_memory:,}")
    build = _("{key} builds the corpus").format(key=now.key("corpus.build"))
    if facts.in_memory > facts.collected:
        return [first, build, _("{key} trains").format(key=now.key("train.new"))]
    accepted = _("{n} in the corpus").format(n=f"{facts.accepted:,}")
    if facts.unassigned:
        waiting = n_("{n} decision not built in yet", "{n} decisions not built in yet", facts.unassigned)
        return [first, accepted, waiting.format(n=f"{facts.unassigned:,}"), build]
    if not facts.train:
        return [first, accepted, _("{key} imports more").format(key=now.key("corpus.import"))]
    if facts.trained and facts.trained == facts.train:
        return _trained(facts, now)
    return [first, accepted, _trains(facts, now)]


def _trains(facts: NextFacts, now: Now) -> str:
    text = _("{key} trains them").format(key=now.key("train.new"))
    found = facts.estimate
    if found is None:
        return text
    figures = [_("about {time}").format(time=format_about(found.total_s))]
    if found.memory_mb and facts.budget_mb:
        used, budget = f"{found.memory_mb / 1024:.1f}", f"{facts.budget_mb / 1024:.1f}"
        figures.append(_("{used} of {budget} GB").format(used=used, budget=budget))
    return f"{text} ({_(', ').join(figures)})"


def _trained(facts: NextFacts, now: Now) -> list[str]:
    more = _("{key} imports more").format(key=now.key("corpus.import"))
    if facts.in_use and facts.trained_in_use and now.tab == "hive":
        used = _("{name} is in use").format(name=facts.in_use)
        return [used, _("{key} shares it").format(key=now.key("hive.upload"))]
    if facts.in_use and facts.trained_in_use:
        ask = "" if now.tab == "chat" else TAB_KEYS["chat"]
        return [
            _("{name} is in use").format(name=facts.in_use),
            _("{key} asks it").format(key=ask) if ask else _("ask it"),
            more,
        ]
    verdict = "" if now.tab == "validate" else TAB_KEYS["validate"]
    trained = _("{n} trained").format(n=f"{facts.trained:,}")
    return [trained, *([_("{key} shows the verdict").format(key=verdict)] if verdict else []), more]
