"""The exchanges of a chat as styled lines: who speaks, versions, two answers side by side, how an answer ended."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from engine.chats.record import EDITED, STOPPED, ChatAnswer, ChatExchange
from engine.core.i18n import _, n_
from engine.models.fetch import FetchableModel
from engine.models.resolve import ON_BASE
from engine.workspace.demo import outline
from tui.terminal.glyphs import Glyphs
from tui.terminal.text import fit, one_line, plain
from tui.widgets.conversation import StyledSpan, wrap
from tui.widgets.markdown_lines import (
    ASCII_SIGNS,
    MarkdownDocument,
    MarkdownSigns,
    StyledLine,
    wrapped,
)

MARGIN = 2
"""Cells before each line; the mark of the selected exchange stands there."""
SIDE_BY_SIDE = 60
"""Cells from which two answers stand beside each other; below, one is above the other."""
LONGEST_QUESTION = 60_000
"""Characters of a question that are drawn."""


def signs_of(glyphs: Glyphs) -> MarkdownSigns:
    """What Markdown draws with, in this terminal."""
    return ASCII_SIGNS if glyphs.ascii else MarkdownSigns()


def grouped(number: int) -> str:
    """1,234"""
    return f"{number:,}"


def model_label(name: str) -> str:
    """The name of a model on one line; of a path the last part."""
    parts = (
        part.rstrip("/").rpartition("/")[2] if part.startswith("/") else part for part in name.split(ON_BASE)
    )
    return one_line(ON_BASE.join(parts))


class ExchangeLayout:
    """An exchange laid out for one width. The answer that is generated grows by `append`."""

    def __init__(self, exchange: ChatExchange, width: int, glyphs: Glyphs) -> None:
        self.exchange = exchange
        self._width = max(width, 20)
        self._glyphs = glyphs
        self._versions = self._shown_versions()
        self._beside = len(self._versions) == 2 and width >= SIDE_BY_SIDE
        self._column = (self._width - MARGIN - 3) // 2 if self._beside else self._width - MARGIN
        self._documents: list[MarkdownDocument] = []
        for version in self._versions:
            document = MarkdownDocument(self._column, signs_of(glyphs))
            document.append(exchange.answers[version].text)
            if exchange.answers[version].finish:
                document.finish()
            self._documents.append(document)
        self._question = self._question_lines()
        self.lines: list[StyledLine] = []
        self._compose()

    def _shown_versions(self) -> list[int]:
        exchange = self.exchange
        if exchange.pair is not None:
            return list(exchange.pair)
        return [exchange.shown] if exchange.answer is not None else []

    def append(self, version: int, text: str) -> int:
        """Text that has come for a version; returns the number of the first line that changed."""
        if version not in self._versions:
            return len(self.lines)
        place = self._versions.index(version)
        changed = self._documents[place].append(text)
        before = self.lines
        if len(self._versions) == 1:
            start = len(self._question) + 1
            self.lines = [*before[: start + changed], *self._indented(self._documents[0].lines[changed:]), ()]
            return start + changed
        self._compose()
        return next(
            (i for i, (a, b) in enumerate(zip(before, self.lines, strict=False)) if a != b), len(before) - 1
        )

    def _compose(self) -> None:
        lines = list(self._question)
        if self._beside:
            lines += self._columns()
        else:
            for place, version in enumerate(self._versions):
                answer = self.exchange.answers[version]
                lines.append(self._indent(self._head(place)))
                lines += self._indented([*self._documents[place].lines, *self._foot(answer, self._column)])
                if place + 1 < len(self._versions):
                    lines.append(())
        self.lines = [*lines, ()]

    def _columns(self) -> list[StyledLine]:
        """Two answers beside each other."""
        left, right = (
            [
                self._head(place),
                *self._documents[place].lines,
                *self._foot(self.exchange.answers[version], self._column),
            ]
            for place, version in enumerate(self._versions)
        )
        bar = StyledSpan(f" {signs_of(self._glyphs).bar} ", "dim")
        height = max(len(left), len(right))
        rows = zip(left + [()] * (height - len(left)), right + [()] * (height - len(right)), strict=True)
        return [self._indent((*_filled(one, self._column), bar, *other)) for one, other in rows]

    def _question_lines(self) -> list[StyledLine]:
        bar = StyledSpan(f"{signs_of(self._glyphs).bar} ", "you")
        text = self.exchange.question[:LONGEST_QUESTION]
        left_out = len(self.exchange.question) - len(text)
        shown = plain(text.replace("\r\n", "\n").replace("\r", "\n")) + (
            f" … +{left_out:,}" if left_out else ""
        )
        width = self._width - MARGIN - 2
        lines: list[StyledLine] = [(bar, StyledSpan(shown[begin:end])) for begin, end in wrap(shown, width)]
        head = [StyledSpan(_("you"), "you strong")]
        if self.exchange.is_kept:
            head.append(StyledSpan(f"   {self._glyphs.kept} {_('in memory')}", "success"))
        if len(self._versions) == 2 and (reason := self.exchange.answers[self._versions[0]].reason):
            lines += wrapped([StyledSpan(one_line(reason), "dim")], self._width - MARGIN)
        return [self._indent(tuple(head)), *map(self._indent, lines)]

    def _head(self, place: int) -> StyledLine:
        """The line above an answer: its model, or a side while the vote is open; its version; how it ended."""
        exchange, version = self.exchange, self._versions[place]
        answer = exchange.answers[version]
        room = self._column
        if exchange.is_blind:
            return (StyledSpan((_("left"), _("right"))[place], "model strong"),)
        name = model_label(answer.model) or _("corrected by you")
        if exchange.pair is not None:
            best = exchange.best_of_pair == version
            mark = f"   {self._glyphs.done} {_('better')}" if best else ""
            return (
                StyledSpan(_cut(name, room - cell_len(mark)), "model strong"),
                StyledSpan(mark, "success"),
            )
        more = ""
        if len(exchange.answers) > 1:
            arrows = ("<", ">") if self._glyphs.ascii else ("‹", "›")
            more = f"   {arrows[0]} {version + 1}/{len(exchange.answers)} {arrows[1]}"
        why = f"   {one_line(answer.reason)}" if answer.reason else ""
        note = why + more
        return (
            StyledSpan(_cut(name, max(8, room - cell_len(note))), "model strong"),
            StyledSpan(_cut(note, room), "dim"),
        )

    def _foot(self, answer: ChatAnswer, width: int) -> list[StyledLine]:
        """Why there is no answer, or only a part; what the model did not read."""
        if answer.problem:
            return wrapped([StyledSpan(f"{self._glyphs.failed} {plain(answer.problem)}", "error")], width)
        notes = []
        if answer.finish == STOPPED:
            notes.append(_("(stopped)"))
        elif answer.finish and not answer.text:
            notes.append(_("(no answer)"))
        elif answer.is_cut:
            notes.append(_("(cut at the maximum answer length)"))
        if answer.cut_question:
            notes.append(_("(the question is longer than the context: the model read only its end)"))
        elif answer.dropped_turns:
            notes.append(_("(the oldest {n} turns did not fit)").format(n=answer.dropped_turns))
        return [line for note in notes for line in wrapped([StyledSpan(note, "dim")], width)]

    @staticmethod
    def _indent(line: StyledLine) -> StyledLine:
        return (StyledSpan(" " * MARGIN), *line)

    def _indented(self, lines: Sequence[StyledLine]) -> list[StyledLine]:
        return [self._indent(line) for line in lines]


def _cut(text: str, width: int) -> str:
    return fit(text, width).rstrip() if cell_len(text) > width else text


def _filled(line: StyledLine, width: int) -> StyledLine:
    used = sum(cell_len(span.text) for span in line)
    return (*line, StyledSpan(" " * max(0, width - used)))


def ending(answer: ChatAnswer) -> str:
    """How an answer ended, in figures; "" when nothing is known."""
    parts = []
    if answer.tokens:
        parts.append(n_("{n} token", "{n} tokens", answer.tokens).format(n=grouped(answer.tokens)))
    if answer.tokens_per_s:
        parts.append(rate_text(answer.tokens_per_s))
    return "   ".join(parts)


def rate_text(tokens_per_s: float) -> str:
    """`23 tokens/s`."""
    return _("{rate} tokens/s").format(rate=f"{tokens_per_s:.0f}")


def context_used(answer: ChatAnswer | None) -> str:
    """Prompt and answer against the context, in the model's own tokens; "" when unknown."""
    if answer is None or not answer.prompt_tokens or answer.finish == EDITED:
        return ""
    used = grouped(answer.prompt_tokens + answer.tokens)
    if not answer.context:
        return _("{used} tokens of context").format(used=used)
    return _("{used} of {context} tokens").format(used=used, context=grouped(answer.context))


def welcome_lines(
    model: str,
    width: int,
    *,
    small: bool = True,
    fetchable: FetchableModel | None = None,
    chats: int = 0,
    chats_key: str = "o",
) -> list[StyledLine]:
    """The welcome of an empty chat; `model` is "" without one.

    `small`: it was trained here from scratch; `fetchable`: a model that can be downloaded; `chats`: number of earlier ones.
    """
    texts: list[tuple[str, str]] = []
    if not model:
        texts = [("", _("There is no model to talk with yet.")), ("", "")]
        texts.append(("d", _("try it on a sample: {outline}").format(outline=outline())))
        if fetchable is not None:
            offer = _("download {title} ({size} MB), which answers in English").format(
                title=fetchable.full_name, size=round(fetchable.download_bytes / 1e6)
            )
            texts.append(("f", offer))
        texts.append(("n", _("train your own on the Train tab")))
    else:
        if small:
            texts.append(
                ("", _("A model of this size shows the loop: it imitates style and does not converse."))
            )
        texts.append(
            (
                "",
                _(
                    "Chats stay on this machine, in the workspace. A turn becomes training data only when you keep it (esc, then K)."
                ),
            )
        )
    if chats:
        text = n_("{n} earlier chat", "{n} earlier chats", chats).format(n=grouped(chats))
        texts += [("", ""), (f"esc {chats_key}" if model else chats_key, text)]
    lines: list[StyledLine] = []
    for key, text in texts:
        label = f"{key}  " if key else ""
        kind = "" if key or not model else "dim"
        for number, (begin, end) in enumerate(wrap(text, max(20, width - MARGIN - len(label)))):
            mark = StyledSpan(label, "you strong") if number == 0 else StyledSpan(" " * len(label))
            lines.append((StyledSpan(" " * MARGIN), mark, StyledSpan(text[begin:end], kind)))
    return lines
