"""Our themes: Textual's own, with an accent that is neither its green nor its yellow, and texts that can be read."""

from __future__ import annotations

from dataclasses import replace

from textual.theme import BUILTIN_THEMES, Theme

OWN = "h2q-"
"""Prefix of their names."""
_DARK = {
    "foreground-muted": "#9c9c9c",
    "text-error": "#ee93a6",
    "block-cursor-foreground": "#08141c",
}
_LIGHT = {
    "foreground-muted": "#565656",
    "text-success": "#1b6b35",
    "text-warning": "#864900",
    "text-error": "#a3172f",
    "panel-lighten-2": "#9a9a9a",
    "block-cursor-foreground": "#ffffff",
}
"""Colours of texts with a contrast of at least 4.5 on each background of their theme, and of frames."""


def themes() -> list[Theme]:
    """Dark, light, and one of the sixteen colours that every terminal has."""
    dark, light = BUILTIN_THEMES["textual-dark"], BUILTIN_THEMES["textual-light"]
    return [
        replace(
            dark,
            name="h2q-dark",
            primary="#4ea1d8",
            accent="#5fb7e5",
            variables=dark.variables | _DARK,
        ),
        replace(
            light,
            name="h2q-light",
            primary="#0b6aa8",
            accent="#0a5f97",
            background="#f4f4f4",
            surface="#fbfbfb",
            panel="#e2e2e2",
            variables=light.variables | _LIGHT,
        ),
        replace(BUILTIN_THEMES["ansi-dark"], name="h2q-ansi", accent="ansi_cyan", primary="ansi_cyan"),
        replace(BUILTIN_THEMES["ansi-light"], name="h2q-ansi-light", accent="ansi_blue", primary="ansi_blue"),
    ]
