"""Our three themes: Textual's own, with an accent that is neither its green nor its yellow."""

from __future__ import annotations

from dataclasses import replace

from textual.theme import BUILTIN_THEMES, Theme

OWN = "h2q-"
"""Prefix of their names."""


def themes() -> list[Theme]:
    """Dark, light, and one of the sixteen colours that every terminal has."""
    return [
        replace(BUILTIN_THEMES["textual-dark"], name="h2q-dark", primary="#4ea1d8", accent="#5fb7e5"),
        replace(BUILTIN_THEMES["textual-light"], name="h2q-light", primary="#0b6aa8", accent="#0b6aa8"),
        replace(BUILTIN_THEMES["ansi-dark"], name="h2q-ansi", accent="ansi_cyan", primary="ansi_cyan"),
        replace(BUILTIN_THEMES["ansi-light"], name="h2q-ansi-light", accent="ansi_blue", primary="ansi_blue"),
    ]
