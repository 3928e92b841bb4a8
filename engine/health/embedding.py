"""Checks of the embedder: that it is there, and that it knows the languages of the corpus. It is not loaded."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import NamedTuple

from engine.core.config import load_settings
from engine.core.errors import BadInput
from engine.core.i18n import _
from engine.core.paths import Workspace
from engine.health.grades import Judgement, NotKnown, passes, warns


class EmbedderReading(NamedTuple):
    described: str
    """The embedder and what it does, in a sentence."""
    problem: str = ""
    hint: str = ""


def read_embedder(ws: Workspace) -> EmbedderReading:
    from engine.corpus.embedding.embedder import describe_embedder
    from engine.corpus.embedding.measured import describe_effect

    setting = load_settings(ws).embedder
    try:
        parts = (describe_embedder(setting, ws.root), describe_effect(ws.memory_db, setting))
        return EmbedderReading(_("; ").join(filter(None, parts)))
    except BadInput as error:
        return EmbedderReading("", error.message, error.hint)


def judge_embedder(reading: EmbedderReading) -> Judgement:
    return warns(reading.problem, reading.hint) if reading.problem else passes(reading.described)


class LanguagesReading(NamedTuple):
    setting: str
    """The setting `embedder`."""
    corpus: Mapping[str, int]
    """Language → conversations of the last build."""
    groups: frozenset[str] | None = None
    """Languages in which the embedder was measured to group conversations; None: it has not been measured."""


ENGLISH_ONLY = (
    "all-minilm",
    "bge-large",
    "granite-embedding:30m",
    "mxbai-embed-large",
    "nomic-embed-text",
    "snowflake-arctic-embed",
)
"""Embedders of ollama.com that are made for English, by their names there."""
MULTILINGUAL = ("nomic-embed-text-v2", "snowflake-arctic-embed2")
"""Names that begin as one of `ENGLISH_ONLY`, of models for many languages."""
_NOTICED = 0.1
"""Share of the corpus from which a language counts."""


def read_languages(ws: Workspace) -> LanguagesReading:
    from engine.corpus.embedding.measured import measured_groups

    try:
        setting = load_settings(ws).embedder
    except BadInput as error:
        raise NotKnown(_("the settings cannot be read"), hint=error.hint) from None
    if not setting or setting == "off" or not ws.memory_db.exists():
        return LanguagesReading(setting, {})
    connection = sqlite3.connect(f"{ws.memory_db.resolve().as_uri()}?mode=ro", uri=True, timeout=1)
    try:
        query = "SELECT language, COUNT(*) FROM corpus WHERE language != '' GROUP BY language"
        corpus = {str(language): int(count) for language, count in connection.execute(query)}
    finally:
        connection.close()
    return LanguagesReading(setting, corpus, measured_groups(ws.memory_db, setting))


def judge_languages(reading: LanguagesReading) -> Judgement:
    if not reading.setting or reading.setting == "off":
        return passes(_("no embedder is set"))
    total = sum(reading.corpus.values())
    if not total:
        raise NotKnown(_("the corpus has not been built"), hint="h2q-tui corpus build")
    shares = {
        language: count / total for language, count in reading.corpus.items() if count / total >= _NOTICED
    }
    spoken = _(", ").join(
        f"{language} {share:.0%}" for language, share in sorted(shares.items(), key=lambda row: -row[1])
    )
    if reading.groups is not None:
        unknown = sorted(set(shares) - reading.groups)
        if unknown:
            text = _("{embedder} tells nothing apart in {languages}, and the corpus is {spoken}").format(
                embedder=reading.setting, languages=_(", ").join(unknown), spoken=spoken
            )
            return warns(text, "ollama pull bge-m3")
        return passes(_("measured in all of them: {spoken}").format(spoken=spoken))
    if is_english_only(reading.setting) and set(shares) - {"en"}:
        text = _("{embedder} is made for English, and the corpus is {spoken}")
        return warns(text.format(embedder=reading.setting, spoken=spoken), "ollama pull bge-m3")
    raise NotKnown(
        _("not measured yet in the languages of the corpus: {spoken}").format(spoken=spoken),
        hint="h2q-tui corpus build",
    )


def is_english_only(setting: str) -> bool:
    """Whether the name of an embedder says that it is made for English."""
    name = setting.removeprefix("ollama:").rpartition("/")[2].lower()
    if name.startswith(MULTILINGUAL):
        return False
    return name.startswith(ENGLISH_ONLY) or "-en" in name.removesuffix("-v1.5")
