"""`h2q-tui corpus threshold`: what another strictness of a filter would change, and keeping it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, get_args

import typer

from engine.core.i18n import _
from tui.cli import output, session

if TYPE_CHECKING:
    from engine.core.config import Settings
    from engine.corpus.what_if import Outcome
    from engine.memory.store import MemoryStore

HANDLINGS = ("redact", "drop", "keep")


def register(corpus: typer.Typer) -> None:
    """Adds the command to the group `corpus`."""

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
