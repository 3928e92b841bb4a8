"""`h2q-tui corpus`, the commands of the review: decisions, edits, flags, rules, previews and thresholds."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from engine.core.i18n import _, n_
from tui.cli import output, session
from tui.cli.options import YES

if TYPE_CHECKING:
    from engine.core.settings import Settings
    from engine.corpus.review.store import ReviewStore
    from engine.corpus.review.types import ReviewDecision
    from engine.corpus.stats import SettingEffect
    from engine.memory.store import MemoryStore

HANDLINGS = ("redact", "drop", "keep")


def register(corpus: typer.Typer) -> None:
    """Add the commands to the group `corpus`."""
    _register_decisions(corpus)
    _register_rules(corpus)


def _register_decisions(corpus: typer.Typer) -> None:
    @corpus.command("accept", help=_("Accept conversations into the corpus."))
    def accept(
        ids: Annotated[list[str] | None, typer.Argument(metavar="ID…")] = None,
        filter_: str = typer.Option(
            "", "--filter", metavar="FILTER", help=_("All conversations that match a filter.")
        ),
        dry_run: bool = typer.Option(False, "--dry-run", help=_("Only print how many it would be.")),
        yes: bool = YES.render(),
    ) -> None:
        _decide(ids, filter_, "accepted", "", dry_run=dry_run, yes=yes)

    @corpus.command("reject", help=_("Reject conversations from the corpus."))
    def reject(
        ids: Annotated[list[str] | None, typer.Argument(metavar="ID…")] = None,
        reason: str = typer.Option("", "--reason", help=_("The reason, in your words.")),
        filter_: str = typer.Option(
            "", "--filter", metavar="FILTER", help=_("All conversations that match a filter.")
        ),
        dry_run: bool = typer.Option(False, "--dry-run", help=_("Only print how many it would be.")),
        yes: bool = YES.render(),
    ) -> None:
        _decide(ids, filter_, "rejected", reason, dry_run=dry_run, yes=yes)

    @corpus.command("restore", help=_("Restore conversations that a filter dropped."))
    def restore(ids: Annotated[list[str], typer.Argument(metavar="ID…")]) -> None:
        _decide(ids, "", "accepted", "restored")

    @corpus.command("undo", help=_("Undo the last decision; repeat for earlier ones."))
    def undo() -> None:
        with open_review() as store:
            decisions = store.undo()
        done = n_("{n} decision undone", "{n} decisions undone", len(decisions))
        _echo_decisions(decisions, done, _("nothing to undo"))

    @corpus.command("redo", help=_("Redo the decision that was undone last."))
    def redo() -> None:
        with open_review() as store:
            decisions = store.redo()
        done = n_("{n} decision redone", "{n} decisions redone", len(decisions))
        _echo_decisions(decisions, done, _("nothing to redo"))


def _register_rules(corpus: typer.Typer) -> None:
    @corpus.command("edit", help=_("Replace the text of a turn; memory keeps the original."))
    def edit(
        id_: str = typer.Argument(metavar="ID"),
        turn: int = typer.Option(..., "--turn", min=1, help=_("Number of the turn, from 1.")),
        text: str = typer.Option(..., "--text", help=_("The new text; - reads it from standard input.")),
    ) -> None:
        if text == "-":
            text = sys.stdin.read().removesuffix("\n")
        with open_review() as store:
            decisions = store.edit(store.find(id_), turn - 1, text)
        _echo_decisions(decisions, _("edited; corpus show --diff shows the change"), _("nothing changed"))

    @corpus.command("flag", help=_("Flag conversations for later; find them with --filter flag:"))
    def flag(
        ids: Annotated[list[str] | None, typer.Argument(metavar="ID…")] = None,
        off: bool = typer.Option(False, "--off", help=_("Remove the flag.")),
        filter_: str = typer.Option(
            "", "--filter", metavar="FILTER", help=_("All conversations that match a filter.")
        ),
    ) -> None:
        from engine.core.errors import UsageProblem
        from engine.corpus.review.filter_query import check_filter

        if bool(ids) == bool(filter_):
            raise UsageProblem(_("give conversation IDs, or --filter"), hint="h2q-tui corpus list")
        check_filter(filter_)
        with open_review() as store:
            decisions = store.flag([store.find(id_) for id_ in ids] if ids else store.ids(filter_), not off)
        done = _("{n} flags removed") if off else _("{n} flagged")
        _echo_decisions(decisions, done.format(n=len(decisions)), _("nothing changed"))

    @corpus.command(
        "rule", help=_("Reject everything that matches a filter, now and in every build; undo reverts it.")
    )
    def rule(
        line: str = typer.Argument(metavar="FILTER"),
        off: bool = typer.Option(False, "--off", help=_("Remove the rule.")),
    ) -> None:
        with open_review() as store:
            decisions = store.set_rule(line, not off)
        done = (
            _("rule removed; the next build includes what it excluded")
            if off
            else n_(
                "rule added; it rejects {n} conversation",
                "rule added; it rejects {n} conversations",
                len(decisions) - 1,
            ).format(n=len(decisions) - 1)
        )
        _echo_decisions(decisions, done, _("nothing changed"))

    @corpus.command(
        "preview",
        help=_("Preview of the training data: lengths, truncation, remaining PII; or of one conversation."),
    )
    def preview(
        id_: Annotated[str | None, typer.Argument(metavar="ID")] = None,
        context: int = typer.Option(
            0, "--context", min=0, help=_("Context length in tokens; 0: that of the model in use.")
        ),
    ) -> None:
        from engine.corpus.preview import render_preview as preview_conversation
        from engine.corpus.training_set import summarise
        from engine.memory.store import MemoryStore
        from tui.host.corpus_text import context_length, dataset_figures

        ws = session.workspace(create=False)
        context = context or context_length(ws)
        if id_ is not None:
            with open_review(readonly=True) as store:
                shown = preview_conversation(store.detail(store.find(id_)), context)
            # Trained text is in double brackets.
            text = "".join(f"[[{run.text}]]" if run.train else run.text for run in shown.runs)
            output.echo(text.replace("]][[", ""))
            output.echo(
                _("{tokens} tokens, {trained} trained on, {windows} windows, {cut} truncated").format(
                    tokens=shown.tokens, trained=shown.trained, windows=shown.windows, cut=shown.cut
                )
            )
            if session.options.json:
                output.echo_json(shown)
            return
        with MemoryStore(ws.memory_db, readonly=True) as memory:
            figures = summarise(memory, context)
        output.echo(
            _("{n} conversations, {trained} tokens trained on, each answer ends with {stop}").format(
                n=f"{figures.conversations:,}", trained=f"{figures.trained:,}", stop=figures.stop
            )
        )
        for line, _style in dataset_figures(figures):
            output.echo(line)
        if session.options.json:
            output.echo_json(figures)

    @corpus.command("patterns", help=_("Suggested rules: filters that your rejections share."))
    def patterns() -> None:
        from engine.corpus.review.rule_suggestions import suggest_rules
        from tui.host.corpus_text import rule_suggestion_text

        with open_review(readonly=True) as store:
            suggestions = suggest_rules(store)
        for suggestion in suggestions:
            output.echo(
                f"{rule_suggestion_text(suggestion)}  " + _("({n} others)").format(n=suggestion.others)
            )
        if not suggestions:
            output.echo(_("no suggestion: no filter matches many rejections and no acceptances"))
        if session.options.json:
            output.echo_json({"patterns": suggestions})

    @corpus.command(
        "threshold",
        help=_("Effect of another threshold: near duplicates, --low-value or --private; --save applies it."),
    )
    def threshold(
        value: Annotated[
            float | None,
            typer.Argument(
                metavar="VALUE", min=0.3, max=1.0, help=_("Similarity of near duplicates, 0.3 to 1.")
            ),
        ] = None,
        low_value: Annotated[
            float | None,
            typer.Option(
                "--low-value", min=0.5, max=1.0, help=_("Share of a turn that must be small talk, 0.5 to 1.")
            ),
        ] = None,
        private: Annotated[
            str | None,
            typer.Option(
                "--private",
                metavar="TYPE=redact|drop|keep",
                help=_("Handling of one type of PII; ALL: of all types."),
            ),
        ] = None,
        save: bool = typer.Option(False, "--save", help=_("Save it for the next corpus build.")),
    ) -> None:
        from engine.core.config import load_settings, save_settings
        from engine.core.errors import UsageProblem
        from engine.memory.store import MemoryStore

        if sum(option is not None for option in (value, low_value, private)) != 1:
            raise UsageProblem(
                _("give one of: a value, --low-value or --private"), hint="h2q-tui corpus threshold --help"
            )
        ws = session.workspace(create=save)
        changed = change_setting(load_settings(ws), near=value, low_value=low_value, private=private)
        with MemoryStore(ws.memory_db, readonly=True) as memory:
            effect = _outcome(memory, changed, near=value, low_value=low_value)
        _echo_outcome(effect)
        if save:
            save_settings(ws, changed)
            output.echo(_("saved") + " → h2q-tui corpus build")
        if session.options.json:
            output.echo_json(effect)

    @corpus.command("rules", help=_("The rules: filters whose matches are rejected."))
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
    decision: str,
    reason: str,
    *,
    dry_run: bool = False,
    yes: bool = False,
) -> None:
    """The same decision for all conversations, undone in one step. All ids are resolved before the first decision.

    On a terminal, a filter asks for confirmation with its count; elsewhere it does not, as `corpus undo` reverts it.
    """
    from engine.core.errors import UsageProblem
    from engine.corpus.review.filter_query import check_filter
    from tui.cli.output import confirm

    if bool(ids) == bool(filter_):
        raise UsageProblem(_("give conversation IDs, or --filter"), hint="h2q-tui corpus list")
    check_filter(filter_)
    with open_review(readonly=dry_run) as store:
        targets = [store.find(id_) for id_ in ids] if ids else store.ids(filter_)
        if dry_run:
            texts = {"accepted": _("{n} would be accepted"), "rejected": _("{n} would be rejected")}
            output.echo(texts[decision].format(n=f"{len(targets):,}"))
            if session.options.json:
                output.echo_json({"ids": targets})
            return
        if targets and filter_ and sys.stdin.isatty():
            questions = {
                "accepted": n_("Accept {n} conversation?", "Accept {n} conversations?", len(targets)),
                "rejected": n_("Reject {n} conversation?", "Reject {n} conversations?", len(targets)),
            }
            confirm(questions[decision].format(n=f"{len(targets):,}"), yes, "h2q-tui corpus undo")
        decisions = store.decide_many(targets, decision, reason)
    texts = {"accepted": _("{n} accepted"), "rejected": _("{n} rejected")}
    _echo_decisions(decisions, texts[decision], _("no conversation matches this filter"))


def _echo_decisions(decisions: list[ReviewDecision], text: str, nothing: str) -> None:
    output.echo(text.format(n=len(decisions)) if decisions else nothing)
    if session.options.json:
        output.echo_json({"decisions": decisions})


def change_setting(
    settings: Settings, *, near: float | None, low_value: float | None, private: str | None
) -> Settings:
    """The settings with one of them changed. Raises typer.BadParameter for an unknown type or handling."""
    import msgspec

    from engine.core.settings import PiiTypeName

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
                value=private, types=_(", ").join(types)
            )
        )
    return msgspec.structs.replace(settings, sensitive_types={**settings.sensitive_types, known: handling})


def _outcome(
    memory: MemoryStore, then: Settings, *, near: float | None, low_value: float | None
) -> SettingEffect:
    from engine.corpus.enums import CorpusStage
    from engine.corpus.what_if import filter_setting_effect, near_threshold_effect

    if near is not None:
        return near_threshold_effect(memory, near)
    return filter_setting_effect(
        memory, CorpusStage.LOW_VALUE if low_value is not None else CorpusStage.SENSITIVE, then
    )


def _echo_outcome(effect: SettingEffect) -> None:
    output.echo(_("dropped: {now} now, {then} then").format(now=f"{effect.now:,}", then=f"{effect.then:,}"))
    if effect.turns_now or effect.turns_then:
        output.echo(
            _("turns masked or redacted: {now} now, {then} then").format(
                now=f"{effect.turns_now:,}", then=f"{effect.turns_then:,}"
            )
        )
    for text, lines in (
        (_("would be dropped: {line}"), effect.leaving),
        (_("would return: {line}"), effect.returning),
    ):
        for line in lines:
            output.echo("  " + text.format(line=line[:60]))
