"""Which models answer: the one in use, another one that was picked or named, or two side by side."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from engine.core.errors import H2QError, error_text
from engine.core.i18n import _, p_
from engine.inference.routing import Route, TopicProfile, choose_route
from engine.inference.topics import read_topics
from tui.screens.ask import LinePrompt
from tui.tabs.chat import reader
from tui.tabs.chat.pick_model import OTHER, PickModel
from tui.tabs.chat.reader import ChatModels
from tui.tabs.chat.transcript_text import model_label

if TYPE_CHECKING:
    from textual.app import App

    from engine.core.paths import Workspace
    from tui.host.app_host import AppHost


def route_name(route: Route) -> str:
    """The route in the language of the reader."""
    return {
        Route.PERSONAL: _("personal"),
        Route.GENERAL: _("general"),
        Route.BOTH: p_("route", "both"),
        Route.AUTO: p_("route", "auto"),
    }[route]


def _shuffled(models: list[str]) -> list[str]:
    """In a random order: no habit of reading may favour one of two."""
    return random.sample(models, len(models))


class ChoiceHost(Protocol):
    """The Chat tab, as the choice sees it."""

    host: AppHost
    workspace: Workspace

    @property
    def app(self) -> App[Any]: ...

    def model_chosen(self) -> None:
        """Other models answer."""

    def show_message(self, text: str, severity: str = "") -> None:
        """One line in the footer."""

    def run_worker(self, work: Coroutine[Any, Any, None], *, group: str, exit_on_error: bool) -> object:
        """Runs a coroutine beside the app."""


class ModelChoice:
    """The models of the chat on the screen."""

    def __init__(self, tab: ChoiceHost) -> None:
        self.tab = tab
        self.models = ChatModels()
        self.model = ""
        """The model that answers, "" when there is none."""
        self.other = ""
        """The second model of a comparison, "" when one model answers."""
        self.picked = False
        """The user chose the model; otherwise it is the one in use."""
        self.route: Route | None = None
        """How the model of each question is chosen; None: it is `model`."""
        self._topics: TopicProfile | None = None

    @property
    def in_use(self) -> bool:
        return bool(self.model) and self.model == self.models.in_use

    def take_over(self, previous: ModelChoice) -> None:
        """The choice of a tab that this one replaces."""
        self.model, self.other, self.picked = previous.model, previous.other, previous.picked
        self.route, self._topics = previous.route, previous._topics

    def models_read(self, models: ChatModels) -> None:
        """The models that there are now."""
        self.models = models
        if not self.picked:
            self.model = models.in_use or next(iter(models.names), "")

    def next_models(self, question: str) -> tuple[list[str], str]:
        """The models that answer a question, two of them in a random order, and why a rule chose them."""
        if self.route is not None:
            return self._routed(question, self.route)
        return _shuffled([self.model, self.other] if self.other else [self.model]), ""

    def _routed(self, question: str, setting: Route) -> tuple[list[str], str]:
        personal, general = self.models.in_use, self.models.general
        if not personal and not general:
            return [self.model], ""
        found = choose_route(
            question,
            self._topics or TopicProfile(),
            setting=setting,
            personal=bool(personal),
            general=bool(general),
        )
        models = {Route.PERSONAL: [personal], Route.GENERAL: [general]}.get(found.route, [personal, general])
        return _shuffled(models), f"{route_name(found.route)}: {found.why}"

    def next_route(self) -> None:
        """The model that was picked, or one by a rule: auto, the personal one, the general one, both."""
        order: list[Route | None] = [None, Route.AUTO, Route.PERSONAL, Route.GENERAL, Route.BOTH]
        if not (self.models.in_use and self.models.general):
            self.tab.show_message(
                _("There is nothing to choose between: it takes a model in use and a base."), "warning"
            )
            return
        self.set_route(order[(order.index(self.route) + 1) % len(order)])
        if self.route is None:
            self.tab.show_message(_("One model answers: {model}").format(model=model_label(self.model)))
        else:
            text = _("{route}: personal is {personal}, general is {general}")
            self.tab.show_message(
                text.format(
                    route=route_name(self.route), personal=self.models.in_use, general=self.models.general
                )
            )

    def set_route(self, route: Route | None) -> None:
        """How the model of each question is chosen from here on."""
        self.route = route
        if route is not None:
            self.other = ""
        if route is Route.AUTO and self._topics is None:
            self.tab.run_worker(self._read_topics(), group="chat:topics", exit_on_error=False)
        self.tab.model_chosen()

    async def _read_topics(self) -> None:
        self._topics = await asyncio.to_thread(read_topics, self.tab.workspace)

    def choose(self, name: str) -> None:
        """Another model answers."""
        self.model, self.picked, self.route = name, True, None
        self.other = "" if self.other == name else self.other
        self.tab.model_chosen()

    def pick(self) -> None:
        """Asks for another model."""
        self._ask(self.model, "", self.choose)

    def toggle_compare(self) -> None:
        """Two models side by side, or one again."""
        if self.other:
            self.other = ""
            self.tab.model_chosen()
            self.tab.show_message(_("One model answers: {model}").format(model=model_label(self.model)))
        else:
            self._ask("", _("Beside {model}").format(model=model_label(self.model)), self._compare_with)

    def _compare_with(self, name: str) -> None:
        if name == self.model:
            self.tab.show_message(_("That is the model that answers already: pick another one."), "warning")
            return
        self.other, self.route = name, None
        self.tab.model_chosen()
        self.tab.show_message(
            _("Each question goes to both; which is which is shown after your vote. A ends it.")
        )

    def _ask(self, current: str, title: str, chosen: Callable[[str], None]) -> None:
        models = self.models

        def typed(text: str | None) -> None:
            if text:
                self.tab.run_worker(self._find(text, chosen), group="chat:name", exit_on_error=False)

        def picked(name: str | None) -> None:
            if name == OTHER:
                question = _("Model (name, tag, path, or BASE + ADAPTER)")
                self.tab.app.push_screen(LinePrompt(question), typed)
            elif name:
                chosen(name)

        sheet = PickModel(
            models.cards, models.bases, models.tags, models.in_use, current, self.tab.host.glyphs, title
        )
        self.tab.app.push_screen(sheet, picked)

    async def _find(self, text: str, chosen: Callable[[str], None]) -> None:
        try:
            name = await asyncio.to_thread(reader.find_named_model, self.tab.workspace, text)
        except (H2QError, OSError) as problem:
            self.tab.show_message(error_text(problem), "error")
        else:
            chosen(name)
