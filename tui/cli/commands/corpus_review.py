"""`h2q-tui corpus`, the part that decides: decisions, edits, flags, rules, previews and thresholds."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from engine.core.i18n import _, n_
from tui.cli import output, session

if TYPE_CHECKING:
    from engine.core.config import Settings
    from engine.corpus.review.store import Decision, ReviewStore
    from engine.corpus.what_if import Outcome
    from engine.memory.store import MemoryStore

HANDLINGS = ("redact", "drop", "keep")


def register(corpus: typer.Typer) -> None:
    """Add the commands to the group `corpus`."""
    _register_decisions(corpus)
    _register_rules(corpus)


def _register_decisions(corpus: typer.Typer) -> None:
    @corpus.command("accept", help=_("Take conversations into the corpus."))
    def accept(
        ids: Annotated[list[str] | None, typer.Argument(metavar="ID…")] = None,
        filter_: str = typer.Option("", "--filter", metavar="FILTER", help=_("Everything under a filter.")),
        dry_run: bool = typer.Option(False, "--dry-run", help=_("Only say how many it would be.")),
        yes: bool = typer.Option(False, "--yes", help=_("Do not ask.")),
    ) -> None:
        _decide(ids, filter_, "accepted", "", dry_run=dry_run, yes=yes)

    @corpus.command("reject", help=_("Keep conversations out of the corpus."))
    def reject(
        ids: Annotated[list[str] | None, typer.Argument(metavar="ID…")] = None,
        reason: str = typer.Option("", "--reason", help=_("Why, in your words.")),
        filter_: str = typer.Option("", "--filter", metavar="FILTER", help=_("Everything under a filter.")),
        dry_run: bool = typer.Option(False, "--dry-run", help=_("Only say how many it would be.")),
        yes: bool = typer.Option(False, "--yes", help=_("Do not ask.")),
    ) -> None:
        _decide(ids, filter_, "rejected", reason, dry_run=dry_run, yes=yes)

    @corpus.command("restore", help=_("Take back in what a filter left out."))
    def restore(ids: Annotated[list[str], typer.Argument(metavar="ID…")]) -> None:
        _decide(ids, "", "accepted", "restored")

    @corpus.command("undo", help=_("Take the last decision back; again for the one before."))
    def undo() -> None:
        with open_review() as store:
            made = store.undo()
        done = n_("{n} decision is taken back", "{n} decisions are taken back", len(made))
        _tell(made, done, _("there is nothing to undo"))

    @corpus.command("redo", help=_("Give back what was undone last."))
    def redo() -> None:
        with open_review() as store:
            made = store.redo()
        done = n_("{n} decision holds again", "{n} decisions hold again", len(made))
        _tell(made, done, _("there is nothing to redo"))


def _register_rules(corpus: typer.Typer) -> None:
    @corpus.command("edit", help=_("Let another text stand for a turn; memory keeps the one that came."))
    def edit(
        id_: str = typer.Argument(metavar="ID"),
        turn: int = typer.Option(..., "--turn", min=1, help=_("Number of the turn, from 1.")),
        text: str = typer.Option(..., "--text", help=_("The text; - reads it from standard input.")),
    ) -> None:
        if text == "-":
            text = sys.stdin.read().removesuffix("\n")
        with open_review() as store:
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
        with open_review() as store:
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
        with open_review() as store:
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
            with open_review(readonly=True) as store:
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

        with open_review(readonly=True) as store:
            found = find(store)
        for one in found:
            output.echo(f"{pattern_words(one)}  " + _("({n} others)").format(n=one.others))
        if not found:
            output.echo(_("no pattern that many rejections share and acceptances do not"))
        if session.options.json:
            output.echo_json({"patterns": found})

    @corpus.command(
        "threshold",
        help=_(
            "What another strictness would change: near duplicates, --low-value or --private; --save keeps it."
        ),
    )
    def threshold(
        value: Annotated[
            float | None,
            typer.Argument(
                metavar="VALUE", min=0.3, max=1.0, help=_("How alike near duplicates are, 0.3 to 1.")
            ),
        ] = None,
        low_value: Annotated[
            float | None,
            typer.Option(
                "--low-value", min=0.5, max=1.0, help=_("How much of a turn must be courtesy, 0.5 to 1.")
            ),
        ] = None,
        private: Annotated[
            str | None,
            typer.Option(
                "--private", metavar="TYPE=redact|drop|keep", help=_("What happens to one type; ALL: to all.")
            ),
        ] = None,
        save: bool = typer.Option(False, "--save", help=_("Keep it; corpus build then uses it.")),
    ) -> None:
        from engine.core.config import load_settings, save_settings
        from engine.core.errors import UsageProblem
        from engine.memory.store import MemoryStore

        if sum(given is not None for given in (value, low_value, private)) != 1:
            raise UsageProblem(
                _("name one: a value, --low-value or --private"), hint="h2q-tui corpus threshold --help"
            )
        ws = session.workspace(create=save)
        then = changed(load_settings(ws), near=value, low_value=low_value, private=private)
        with MemoryStore(ws.memory_db, readonly=True) as memory:
            found = _outcome(memory, then, near=value, low_value=low_value)
        _say(found)
        if save:
            save_settings(ws, then)
            output.echo(_("saved") + " → h2q-tui corpus build")
        if session.options.json:
            output.echo_json(found)

    @corpus.command("rules", help=_("The filters whose conversations are left out."))
    def rules() -> None:
        with open_review(readonly=True) as store:
            lines = store.rules()
        for line in lines:
            output.echo(line)
        if not lines:
            output.echo(_("no rules"))
        if session.options.json:
            output.echo_json({"rules": lines})


def open_review(*, readonly: bool = False) -> ReviewStore:
    from engine.corpus.review.store import ReviewStore

    return ReviewStore(session.workspace(create=False).memory_db, readonly=readonly)


def _decide(
    ids: list[str] | None,
    filter_: str,
    verdict: str,
    reason: str,
    *,
    dry_run: bool = False,
    yes: bool = False,
) -> None:
    """One verdict for all named, undone in one step. Every id is looked up before the first is decided.

    On a terminal a filter shows its count before; elsewhere it goes on, because `corpus undo` takes it back.
    """
    from engine.core.errors import UsageProblem
    from engine.corpus.review.filter_query import refuse_mistakes
    from tui.cli.output import confirm

    if bool(ids) == bool(filter_):
        raise UsageProblem(_("name conversations, or --filter"), hint="h2q-tui corpus list")
    refuse_mistakes(filter_)
    with open_review(readonly=dry_run) as store:
        found = [store.find(id_) for id_ in ids] if ids else store.ids(filter_)
        if dry_run:
            words = {"accepted": _("{n} would be accepted"), "rejected": _("{n} would be rejected")}
            output.echo(words[verdict].format(n=f"{len(found):,}"))
            if session.options.json:
                output.echo_json({"ids": found})
            return
        if found and filter_ and sys.stdin.isatty():
            questions = {
                "accepted": n_("Accept {n} conversation?", "Accept {n} conversations?", len(found)),
                "rejected": n_("Reject {n} conversation?", "Reject {n} conversations?", len(found)),
            }
            confirm(questions[verdict].format(n=f"{len(found):,}"), yes, "h2q-tui corpus undo")
        done = store.decide_many(found, verdict, reason)
    words = {"accepted": _("{n} accepted"), "rejected": _("{n} rejected")}
    _tell(done, words[verdict], _("nothing stands under this filter"))


def _tell(decisions: list[Decision], done: str, nothing: str) -> None:
    output.echo(done.format(n=len(decisions)) if decisions else nothing)
    if session.options.json:
        output.echo_json({"decisions": decisions})


def changed(
    settings: Settings, *, near: float | None, low_value: float | None, private: str | None
) -> Settings:
    """The settings with one of them changed. Raises typer.BadParameter for what is no type or no handling."""
    import msgspec

    from engine.core.config import PiiTypeName

    types: tuple[PiiTypeName, ...] = get_args(PiiTypeName)
    if near is not None:
        return msgspec.structs.replace(settings, near_threshold=near)
    if low_value is not None:
        return msgspec.structs.replace(settings, low_value_from=low_value)
    type_, _equals, handling = (private or "").partition("=")
    if type_ == "ALL" and handling in HANDLINGS[:2]:
        return msgspec.structs.replace(settings, sensitive=handling)
    known = next((one for one in types if one == type_), None)
    if known is None or handling not in HANDLINGS:
        raise typer.BadParameter(
            _("{value} is not TYPE=redact, drop or keep; types: {types}").format(
                value=private, types=", ".join(types)
            )
        )
    return msgspec.structs.replace(settings, sensitive_types={**settings.sensitive_types, known: handling})


def _outcome(memory: MemoryStore, then: Settings, *, near: float | None, low_value: float | None) -> Outcome:
    from engine.corpus.enums import Stage
    from engine.corpus.strictness import outcome_of
    from engine.corpus.what_if import outcome

    if near is not None:
        return outcome(memory, near)
    return outcome_of(memory, Stage.LOW_VALUE if low_value is not None else Stage.SENSITIVE, then)


def _say(found: Outcome) -> None:
    output.echo(_("left out: {now} now, {then} then").format(now=f"{found.now:,}", then=f"{found.then:,}"))
    if found.turns_now or found.turns_then:
        output.echo(
            _("turns masked or redacted: {now} now, {then} then").format(
                now=f"{found.turns_now:,}", then=f"{found.turns_then:,}"
            )
        )
    for words, lines in (
        (_("would leave: {line}"), found.leaving),
        (_("would come back: {line}"), found.returning),
    ):
        for line in lines:
            output.echo("  " + words.format(line=line[:60]))
