"""`h2q-tui corpus edit`, `flag`, `rule` and `rules`: what a person writes on conversations beside a verdict."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from engine.core.i18n import _
from tui.cli import output, session
from tui.cli.commands import corpus_threshold

if TYPE_CHECKING:
    from engine.corpus.review.store import Decision, ReviewStore


def register(corpus: typer.Typer) -> None:
    """Adds the commands to the group `corpus`."""

    @corpus.command("edit", help=_("Let another text stand for a turn; memory keeps the one that came."))
    def edit(
        id_: str = typer.Argument(metavar="ID"),
        turn: int = typer.Option(..., "--turn", min=1, help=_("Number of the turn, from 1.")),
        text: str = typer.Option(..., "--text", help=_("The text; - reads it from standard input.")),
    ) -> None:
        if text == "-":
            text = sys.stdin.read().removesuffix("\n")
        with _store() as store:
            made = store.edit(store.find(id_), turn - 1, text)
        _tell(made, _("edited; corpus show --diff shows what changed"), _("nothing is changed"))

    @corpus.command("flag", help=_("Mark conversations for later; --filter flag: finds them."))
    def flag(
        ids: Annotated[list[str] | None, typer.Argument(metavar="ID…")] = None,
        off: bool = typer.Option(False, "--off", help=_("Take the mark off.")),
        filter_: str = typer.Option("", "--filter", metavar="FILTER", help=_("Everything under a filter.")),
    ) -> None:
        from engine.core.errors import UsageProblem
        from engine.corpus.review.filter_query import refuse_mistakes

        if bool(ids) == bool(filter_):
            raise UsageProblem(_("name conversations, or --filter"), hint="h2q-tui corpus list")
        refuse_mistakes(filter_)
        with _store() as store:
            made = store.flag([store.find(id_) for id_ in ids] if ids else store.ids(filter_), not off)
        done = _("{n} flags taken off") if off else _("{n} flagged")
        _tell(made, done.format(n=len(made)), _("nothing is changed"))

    @corpus.command(
        "rule", help=_("Leave everything under a filter out, now and in every build; undo takes it back.")
    )
    def rule(
        line: str = typer.Argument(metavar="FILTER"),
        off: bool = typer.Option(False, "--off", help=_("End the rule.")),
    ) -> None:
        with _store() as store:
            made = store.set_rule(line, not off)
        done = (
            _("the rule has ended; the next build lets in what it left out")
            if off
            else _("the rule holds; {n} rejected by it").format(n=len(made) - 1)
        )
        _tell(made, done, _("nothing is changed"))

    @corpus.command(
        "preview", help=_("What would be trained on: lengths, cuts, private text left; or one conversation.")
    )
    def preview(
        id_: Annotated[str | None, typer.Argument(metavar="ID")] = None,
        context: int = typer.Option(
            0, "--context", min=0, help=_("Tokens of a window; 0: of the model in use.")
        ),
    ) -> None:
        from engine.corpus.outlook import outlook
        from engine.corpus.preview import preview as look
        from engine.memory.store import MemoryStore
        from tui.tabs.corpus.preview_text import context_of, figure_lines

        ws = session.workspace(create=False)
        context = context or context_of(ws)
        if id_ is not None:
            with _store(readonly=True) as store:
                shown = look(store.detail(store.find(id_)), context)
            # What is learnt stands in double brackets.
            text = "".join(f"[[{run.text}]]" if run.train else run.text for run in shown.runs)
            output.echo(text.replace("]][[", ""))
            output.echo(
                _("{tokens} tokens, {learnt} learnt, {windows} windows, {cut} cut").format(
                    tokens=shown.tokens, learnt=shown.trained, windows=shown.windows, cut=shown.cut
                )
            )
            if session.options.json:
                output.echo_json(shown)
            return
        with MemoryStore(ws.memory_db, readonly=True) as memory:
            figures = outlook(memory, context)
        output.echo(
            _("{n} conversations, {learnt} tokens learnt, each answer ends with {stop}").format(
                n=f"{figures.conversations:,}", learnt=f"{figures.trained:,}", stop=figures.stop
            )
        )
        for line, _style in figure_lines(figures):
            output.echo(line)
        if session.options.json:
            output.echo_json(figures)

    @corpus.command("patterns", help=_("What your rejections share, as filters for corpus rule."))
    def patterns() -> None:
        from engine.corpus.review.rule_suggestions import patterns as find
        from tui.tabs.corpus.review_text import pattern_words

        with _store(readonly=True) as store:
            found = find(store)
        for one in found:
            output.echo(f"{pattern_words(one)}  " + _("({n} others)").format(n=one.others))
        if not found:
            output.echo(_("no pattern that many rejections share and acceptances do not"))
        if session.options.json:
            output.echo_json({"patterns": found})

    corpus_threshold.register(corpus)

    @corpus.command("rules", help=_("The filters whose conversations are left out."))
    def rules() -> None:
        with _store(readonly=True) as store:
            lines = store.rules()
        for line in lines:
            output.echo(line)
        if not lines:
            output.echo(_("no rules"))
        if session.options.json:
            output.echo_json({"rules": lines})


def _store(*, readonly: bool = False) -> ReviewStore:
    from engine.corpus.review.store import ReviewStore

    return ReviewStore(session.workspace(create=False).memory_db, readonly=readonly)


def _tell(made: list[Decision], done: str, nothing: str) -> None:
    output.echo(done if made else nothing)
    if session.options.json:
        output.echo_json({"decisions": made})
