"""`h2q-tui models`: list, show and remove models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from engine.core.i18n import _
from engine.core.local_time import local_time
from tui.cli import output, session
from tui.cli.options import YES

if TYPE_CHECKING:
    from engine.models.card import ModelCard


def register(app: typer.Typer) -> None:
    """Add the group `models`."""
    models = typer.Typer(
        name="models",
        help=_("Your models: list, show, remove."),
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.add_typer(models)

    @models.command("list", help=_("All models of the workspace, newest first."))
    def list_() -> None:
        from engine.models.registry import in_use, list_models

        ws = session.workspace(create=False)
        cards, used = list_models(ws), in_use(ws)
        for card in cards:
            output.echo(_row(card, used))
        if not cards:
            output.echo(_("no model yet") + " → h2q-tui demo")
        if session.options.json:
            output.echo_json({"in_use": used, "models": [_summary(card, used) for card in cards]})

    @models.command("show", help=_("Details of one model."))
    def show(name: str = typer.Argument(metavar="NAME")) -> None:
        import msgspec

        from engine.models.card import read_card
        from engine.models.registry import find_model, in_use

        ws = session.workspace(create=False)
        folder = find_model(ws, name)
        card, used = read_card(folder), in_use(ws)
        for line in _lines(card, str(folder), used):
            output.echo(line)
        if session.options.json:
            output.echo_json({**msgspec.to_builtins(card), "path": str(folder), "in_use": card.name == used})

    @models.command("remove", help=_("Delete a model; the model in use cannot be deleted."))
    def remove(
        name: str = typer.Argument(metavar="NAME"),
        yes: bool = YES.render(),
    ) -> None:
        import asyncio

        from engine.inference.client import InferenceClient
        from engine.models.registry import check_removable, remove_model
        from tui.cli.output import confirm

        ws = session.workspace(create=False)
        check_removable(ws, name)
        question = _("Delete the model {name} permanently?").format(name=name)
        confirm(question, yes, hint=f"h2q-tui models remove {name} --yes")
        asyncio.run(InferenceClient(ws).unload(name))
        remove_model(ws, name)
        output.echo(_("{name} is deleted").format(name=name))
        if session.options.json:
            output.echo_json({"removed": name})


def _row(card: ModelCard, used: str | None) -> str:
    """One line of the list."""
    mark = "●" if card.name == used else " "
    when = local_time("%Y-%m-%d %H:%M", card.created_at)
    loss = "" if card.loss is None else "  " + _("loss {loss}").format(loss=f"{card.loss:.3f}")
    base = f"  ← {card.base}" if card.base else ""
    return f"{mark} {card.name:<28} {card.mode:<8} {when}  {card.parameters / 1e6:5.1f} M{loss}{base}"


def _context_lines(card: ModelCard) -> list[str]:
    """The context length; of an adapter also its base."""
    if card.base_path:
        return [
            _("base weights: {path} ({format})").format(path=card.base_path, format=card.base_format or "?"),
            _("context: {tokens:,} tokens").format(tokens=card.context),
        ]
    # A Chinese character has three bytes.
    text = _("context: {bytes:,} bytes, about {characters:,} Chinese characters")
    return [text.format(bytes=card.context, characters=card.context // 3)]


def _lines(card: ModelCard, folder: str, used: str | None) -> list[str]:
    lineage = card.lineage
    lines = [
        card.name + (" — " + _("in use") if card.name == used else ""),
        _("mode: {mode}").format(mode=card.mode),
        _("base: {base}").format(base=card.base or _("none, from plain text")),
        _("created: {time}").format(time=local_time("%Y-%m-%d %H:%M", card.created_at)),
        _("size: {n:.2f} million parameters").format(n=card.parameters / 1e6),
        *_context_lines(card),
        _("trained on: {n} conversations, {texts} text files").format(
            n=len(lineage.conversations), texts=len(lineage.texts)
        ),
        _("weights: {hash}").format(hash=card.weights_sha256[:16]),
        _("folder: {path}").format(path=folder),
    ]
    if card.run_id:
        lines.append(_("run: {run}").format(run=card.run_id))
    return lines


def _summary(card: ModelCard, used: str | None) -> dict[str, object]:
    """A card without the long lists of its lineage."""
    return {
        "name": card.name,
        "mode": card.mode,
        "base": card.base,
        "created_at": card.created_at,
        "parameters": card.parameters,
        "context": card.context,
        "loss": card.loss,
        "conversations": len(card.lineage.conversations),
        "in_use": card.name == used,
    }
