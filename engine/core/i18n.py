"""Translations. English is the source language; `data/locale` holds the gettext catalogs."""

from __future__ import annotations

import gettext
import locale
import os

from engine.core.paths import shipped

DOMAIN = "h2q-tui"
LANGUAGES = {"en": "English", "zh": "中文"}

_current = "en"
_catalog: gettext.NullTranslations = gettext.NullTranslations()


def set_language(language: str) -> None:
    """Sets the language of `_()`: "en" or "zh"; an unknown one means English."""
    global _current, _catalog
    _current = language if language in LANGUAGES else "en"
    _catalog = gettext.translation(DOMAIN, shipped("data") / "locale", languages=[_current], fallback=True)


def language() -> str:
    """The current language: "en" or "zh"."""
    return _current


def system_language() -> str:
    """Language of the environment: LC_ALL, LC_MESSAGES, LANG, in the order of POSIX.

    LANGUAGE, a list such as `zh_CN:en`, goes before them where they name a locale (gettext's manual, 2.3.3).
    """
    locale_name = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    if locale_name and locale_name not in ("C", "POSIX"):
        wanted = [*os.environ.get("LANGUAGE", "").split(":"), locale_name]
        return next((found for found in (name.lower()[:2] for name in wanted) if found in LANGUAGES), "en")
    if locale_name:
        return "en"
    return "zh" if (locale.getlocale()[0] or "").lower().startswith(("zh", "chinese")) else "en"


def _(text: str) -> str:
    """`text` in the current language."""
    return _catalog.gettext(text) if text else ""


def in_every_language(text: str) -> tuple[str, ...]:
    """`text` in each language of the app, English first."""
    folder = shipped("data") / "locale"
    return tuple(
        gettext.translation(DOMAIN, folder, languages=[code], fallback=True).gettext(text)
        for code in LANGUAGES
    )


def p_(context: str, text: str) -> str:
    """`text` where one English word has two senses; `context` tells them apart (gettext's msgctxt)."""
    return _catalog.pgettext(context, text)


def colon(head: str, tail: str) -> str:
    """`head: tail`, with the colon of the current language."""
    return _("{head}: {tail}").format(head=head, tail=tail)


def bracketed(text: str, detail: str) -> str:
    """`text (detail)`, with the brackets of the language in use."""
    return _("{text} ({detail})").format(text=text, detail=detail)


def with_percent(number: str) -> str:
    """`number %`, with the blank or without it as the language in use has it."""
    return _("{n} %").format(n=number)


def n_(one: str, many: str, count: int) -> str:
    """The plural form for `count`; format it with `.format(n=count)`."""
    return _catalog.ngettext(one, many, count)


def N_(text: str) -> str:
    """Marks a string in a table for the catalogs; `_()` translates it where it is shown."""
    return text
