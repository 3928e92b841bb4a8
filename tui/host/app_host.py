"""The services of the app that tabs, screens and helper modules may use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from textual.screen import Screen

    from engine.core.paths import Workspace
    from engine.core.settings import Settings
    from tui.actions import AppAction
    from tui.host.machine_feed import MachineFeed
    from tui.host.run_follower import RunBoard
    from tui.terminal.capabilities import Terminal
    from tui.terminal.glyphs import Glyphs

T = TypeVar("T")


class AppHost(Protocol):
    """Implemented by the app. Every method may be called while the app closes; it then does nothing."""

    workspace: Workspace
    settings: Settings
    terminal: Terminal
    glyphs: Glyphs
    action_keys: Mapping[str, tuple[str, ...]]
    """The keys of every action by its id."""
    board: RunBoard
    preparing: bool
    """An import is under way that is followed by a build of the corpus."""
    interval: float
    """Seconds between two samples of the machine."""
    machine: MachineFeed
    """Samples of the machine since the start of the app."""
    read_only: bool
    """The app only looks: nothing in the workspace is changed and no run is started."""

    def show_message(self, text: str, severity: str = "") -> None:
        """One line in the footer; severity is "", "success", "warning" or "error"."""

    def clear_message(self) -> None:
        """Removes the message from the footer."""

    def refresh_footer(self) -> None:
        """Redraws the keys that are available now."""

    def refresh_next_step(self) -> None:
        """Reads again what follows, for the line above the footer."""

    def refresh_tab(self) -> None:
        """Redraws the tab on the screen."""

    def redraw(self) -> None:
        """Draws every cell of the terminal again."""

    async def show_tab(self, tab_id: str) -> None:
        """Brings a tab on the screen."""

    def is_offered(self, action: AppAction) -> bool:
        """Whether `action` can be performed now, in the tab on the screen or everywhere."""

    def apply_settings(self, settings: Settings) -> None:
        """Applies changed settings to the running app."""

    def open_import(self) -> None:
        """Asks for files, imports them and builds the corpus."""

    def import_sample(self) -> None:
        """Writes the sample into the workspace, imports its conversations and builds the corpus."""

    def open_demo(self) -> None:
        """Leaves the app for the demo, which has a workspace of its own."""

    def push_screen(self, screen: Screen[T], callback: Callable[[T | None], None] | None = None) -> object:
        """Shows a screen; `callback` gets its result."""

    def push_screen_wait(self, screen: Screen[T]) -> Awaitable[T]:
        """Shows a screen from a worker and waits for its result."""

    def copy_to_clipboard(self, text: str) -> None:
        """Copies to the clipboard of the terminal (OSC 52)."""

    def suspend(self) -> AbstractContextManager[None]:
        """Gives the terminal to another program. Raises SuspendNotSupported."""
