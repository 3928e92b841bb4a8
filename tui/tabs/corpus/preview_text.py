"""The figures of the dataset that would be trained on, in words, for the sheet and the command line."""

from __future__ import annotations

from engine.core.i18n import _, n_
from engine.core.paths import Workspace
from engine.corpus.preview import CONTEXT, Outlook
from engine.models.registry import in_use, list_models


def context_of(workspace: Workspace) -> int:
    """Tokens of a window: those of the model in use, at most those of a new one."""
    used = in_use(workspace)
    return min([CONTEXT, *(card.context for card in list_models(workspace) if card.name == used)])


def figure_lines(figures: Outlook) -> list[tuple[str, str]]:
    """The dataset in three lines: (sentence, style)."""
    lengths = _("tokens: half up to {p50}, 90 % up to {p90}, 99 % up to {p99}, longest {longest}").format(
        p50=f"{figures.p50:,}", p90=f"{figures.p90:,}", p99=f"{figures.p99:,}", longest=f"{figures.longest:,}"
    )
    windowed = n_(
        "{n} is longer than the window of {context}",
        "{n} are longer than the window of {context}",
        figures.windowed,
    )
    cut = n_("{n} loses {tokens} tokens of an answer", "{n} lose {tokens} tokens of answers", figures.cut)
    second = windowed.format(n=f"{figures.windowed:,}", context=f"{figures.context:,}")
    if figures.cut:
        second += ", " + cut.format(n=f"{figures.cut:,}", tokens=f"{figures.cut_tokens:,}")
    replaced, left = sum(figures.replaced.values()), sum(figures.left.values())
    third = _("private text replaced: {n}").format(n=f"{replaced:,}")
    third += "   " + _("left in it: {n}").format(n=f"{left:,}")
    if figures.left:
        third += " (" + ", ".join(f"{type_} {count}" for type_, count in figures.left.items()) + ")"
    return [
        (lengths, ""),
        (second, "$text-warning" if figures.cut else ""),
        (third, "$text-error" if left else "$text-success"),
    ]
