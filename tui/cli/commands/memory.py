"""`h2q-tui memory`: import, list, add and forget conversations."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import typer

from engine.core.filenames import shell_command, shell_word
from engine.core.i18n import _, n_
from engine.core.local_time import local_time
from tui.cli import output, session
from tui.cli.options import DETACH, YES
from tui.cli.output import confirm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine.core.paths import Workspace
    from engine.memory.importers.fields import ImportOptions
    from engine.memory.records import Conversation
    from engine.memory.store import MemoryStats, MemoryStore


def register(app: typer.Typer) -> None:
    """Add the group `memory`."""
    memory = typer.Typer(
        name="memory",
        help=_("Your conversations: import, list, add, forget."),
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.add_typer(memory)

    @memory.command(
        "import", help=_("Import conversations from files or folders; a second import adds nothing.")
    )
    def import_(
        paths: list[str] = typer.Argument(metavar="PATH…"),  # noqa: B008
        format_: str = typer.Option("auto", "--format", help=_("Format of the files; auto detects it.")),
        map_: list[str] = typer.Option([], "--map", help=_("Roles of speakers: NAME=user,NAME=assistant.")),  # noqa: B008
        again: bool = typer.Option(
            False, "--again", help=_("Also import conversations that were forgotten earlier.")
        ),
        me: str = typer.Option(
            "",
            "--me",
            metavar="NAME",
            help=_(
                "Who you are in a chat of two people: your messages are the answers, the other person asks."
            ),
        ),
        silence: str = typer.Option(
            "1h",
            "--silence",
            metavar="DURATION",
            help=_("A chat of two people is cut where nobody writes for so long: 30min, 1h, 24h."),
        ),
        dry_run: bool = typer.Option(False, "--dry-run", help=_("Say what the files hold; import nothing.")),
        within: float | None = typer.Option(
            None,
            "--within",
            min=0.1,
            help=_("Seconds of a --dry-run; what is left then is named and not counted."),
        ),
        detach: bool = DETACH.render(),
    ) -> None:
        from engine.core.errors import BadInput
        from engine.core.filenames import path_to_text
        from engine.core.i18n import language
        from engine.memory.importers.chats.people import parse_silence
        from engine.memory.importers.fields import ImportOptions, parse_role_map
        from engine.memory.importers.formats import find_importer
        from engine.runs.kinds import ImportParams
        from engine.runs.spec import make_spec
        from tui.cli.run_output import run_command

        if format_ != "auto":
            find_importer(format_)
        roles = _roles(map_)
        parse_role_map(roles)
        silence_s = parse_silence(silence)
        files = [session.resolve(path) for path in paths]
        for file in files:
            if not file.exists():
                raise BadInput(_("There is no such file"), path=file, hint="h2q-tui memory import --help")
        ws = session.workspace()
        if dry_run:
            options = ImportOptions(roles=parse_role_map(roles), me=me, silence_s=silence_s)
            _preview(ws, files, format_, options, within)
            return
        params = ImportParams(
            paths=[path_to_text(file) for file in files],
            format=format_,
            role_map=roles,
            again=again,
            me=me,
            silence_s=silence_s,
        )
        raise typer.Exit(run_command(ws, make_spec(ws.root, params, language=language()), detach=detach))

    @memory.command(help=_("Number, sources and dates of the conversations in memory."))
    def stats() -> None:
        with _store() as store:
            stats_ = store.stats()
        for line in _stats_lines(stats_):
            output.echo(line)
        if session.options.json:
            output.echo_json(stats_)

    @memory.command("list", help=_("Conversations, newest first; --match searches every turn."))
    def list_(
        match: str | None = typer.Option(
            None, "--match", help=_("Only conversations that contain this text.")
        ),
        source: str | None = typer.Option(None, "--source", help=_("Only conversations of this source.")),
        limit: int = typer.Option(50, "--limit", min=1, help=_("Number of rows to show.")),
        offset: int = typer.Option(0, "--offset", min=0, help=_("Number of rows to skip.")),
        points: bool = typer.Option(
            False, "--points", help=_("List memory points (summaries, not trained on).")
        ),
    ) -> None:
        if points:
            _list_points(match or "", limit, offset)
            return
        with _store() as store:
            found, matching = _search(store, match, source, limit=limit, offset=offset)
            rows = [_row(conversation, excerpt) for conversation, excerpt in found]
            total = store.count()
            damaged = store.damaged
            matching_points = len(store.point_ids_containing(match)) if match else 0
        for row in rows:
            output.echo(
                f"{row['id']}  {row['date'] or '—':<10}  {row['source']:<10} {row['turns']:>4}  {row['text']}"
            )
        if not rows:
            output.echo(_no_results(match, total))
        if matching_points:
            text = n_("{n} memory point contains it", "{n} memory points contain it", matching_points)
            output.echo(
                text.format(n=matching_points)
                + f" → h2q-tui memory list --points --match {shell_word(match or '')}"
            )
        if rows and match is None and source is None and offset + len(rows) + len(damaged) < total:
            output.echo(
                _("{n} more").format(n=total - offset - len(rows) - len(damaged))
                + f" → h2q-tui memory list --offset {offset + limit}"
            )
        for id_ in damaged:
            text = _("The conversation {id} is damaged").format(id=id_)
            output.echo(f"{text} → h2q-tui backup restore", error=True)
        if session.options.json:
            output.echo_json({"conversations": rows, "total": matching, "damaged": damaged})

    @memory.command(help=_("A whole conversation. ID: a prefix is enough."))
    def show(id_: str = typer.Argument(metavar="ID")) -> None:
        with _store() as store:
            conversation = store.get(store.resolve_id(id_))
        assert conversation is not None
        for line in _lines(conversation):
            output.echo(line)
        if session.options.json:
            output.echo_json(conversation)

    @memory.command(help=_("Add one conversation, from --user and --assistant or as JSON on standard input."))
    def add(
        user: list[str] = typer.Option([], "--user", help=_("Your message; may be repeated.")),  # noqa: B008
        assistant: list[str] = typer.Option([], "--assistant", help=_("The answer to each message.")),  # noqa: B008
        system: str | None = typer.Option(None, "--system", help=_("System prompt.")),
        title: str = typer.Option("", "--title", help=_("A title.")),
    ) -> None:
        ws = session.workspace()
        paired = user or assistant
        result = add_pairs(ws, user, assistant, system, title) if paired else add_from_stdin(ws)
        output.echo(_("{taken} added, {unchanged} already in memory").format(**result))
        if session.options.json:
            output.echo_json(result)

    @memory.command(
        help=_("Erase conversations permanently: from memory, datasets, reports, runs and backups.")
    )
    def forget(
        ids: list[str] | None = typer.Argument(None, metavar="[ID…]"),  # noqa: B008
        match: str | None = typer.Option(
            None, "--match", help=_("Every conversation that contains this text.")
        ),
        yes: bool = YES.render(),
    ) -> None:
        from engine.core.errors import BadInput, UsageProblem
        from engine.pipeline.forget import forget as forget_
        from engine.pipeline.forget import trained_on

        if not ids and not match:
            raise UsageProblem(
                _("what to forget is missing: an ID or --match TEXT"), hint="h2q-tui memory list"
            )
        ws = session.workspace()
        with _store() as store:
            wanted = [store.resolve_id(id_) for id_ in ids or []]
            if match:
                wanted += store.ids_containing(match)
        wanted = list(dict.fromkeys(wanted))
        models = trained_on(ws, wanted)
        question = n_(
            "Erase {n} conversation permanently from memory, datasets, reports, runs and backups?",
            "Erase {n} conversations permanently from memory, datasets, reports, runs and backups?",
            len(wanted),
        )
        if not wanted:
            question = _(
                "No conversation in memory contains it. Erase it from backups, datasets, exports, reports and runs?"
            )
        arguments = [*(ids or []), *(["--match", match] if match else []), "--yes"]
        confirm(question.format(n=len(wanted)), yes, session.own_command("memory", "forget", *arguments))
        done = forget_(ws, wanted, text=match or "")
        if match and not done.erased_anything and not done.left:
            raise BadInput(_("Nothing contains {text}").format(text=match), hint="h2q-tui memory list")
        output.echo(
            _("{n} erased; rewritten: {files}, {backups}").format(
                n=len(done.ids),
                files=n_("{n} file", "{n} files", len(done.files)).format(n=len(done.files)),
                backups=n_("{n} backup", "{n} backups", done.backups).format(n=done.backups),
            )
        )
        if done.removed_backups:
            text = n_("{n} damaged backup removed", "{n} damaged backups removed", done.removed_backups)
            output.echo(text.format(n=done.removed_backups))
        if done.runs:
            text = n_(
                "{n} import run removed with the path of its file",
                "{n} import runs removed with the paths of their files",
                len(done.runs),
            )
            output.echo(text.format(n=len(done.runs)))
        if done.rules:
            text = n_("{n} rule quoted it and ended", "{n} rules quoted it and ended", done.rules)
            output.echo(text.format(n=done.rules))
        for path in done.left:
            output.echo(
                _("the text still stands in {path}").format(path=path) + " → " + shell_command("less", path)
            )
        for name in models:
            output.echo(
                _("the model {name} was trained on it").format(name=name) + f" → h2q-tui models remove {name}"
            )
        for path in done.exports:
            copy = path.removeprefix("ollama:")
            if copy != path:
                text = _("Ollama has a copy of a model that held it: {name}").format(name=copy)
                output.echo(text + " → " + shell_command("ollama", "rm", copy))
                continue
            output.echo(
                _("the export {path} was made from such a model").format(path=path)
                + " → "
                + shell_command("rm", "-r", path)
            )
        if session.options.json:
            output.echo_json(done)


def add_pairs(
    ws: Workspace, user: list[str], assistant: list[str], system: str | None, title: str
) -> dict[str, object]:
    """Add one conversation with an answer to each question. Raises UsageProblem if their numbers differ."""
    from engine.core.chat import Role
    from engine.core.errors import UsageProblem
    from engine.memory.records import Conversation, Turn
    from engine.memory.store import MemoryStore

    if len(user) != len(assistant):
        raise UsageProblem(
            _("{a} --user but {b} --assistant: each message needs an answer").format(
                a=len(user), b=len(assistant)
            ),
            hint="h2q-tui memory add --user TEXT --assistant TEXT",
        )
    now = time.time()
    turns = [Turn(role=Role.SYSTEM, text=system, time=now)] if system else []
    for question, answer in zip(user, assistant, strict=True):
        turns += [
            Turn(role=Role.USER, text=question, time=now),
            Turn(role=Role.ASSISTANT, text=answer, time=now),
        ]
    conversation = Conversation.of(turns, source="added", title=title)
    with MemoryStore(ws.memory_db) as store:
        result = store.add([conversation], "added", again=True)
    return {"id": conversation.id, "taken": result.added, "unchanged": result.unchanged}


def add_from_stdin(ws: Workspace) -> dict[str, object]:
    """Import standard input in any known format. Raises UsageProblem if it is empty, BadInput."""
    from engine.core.errors import UsageProblem
    from engine.memory.store import MemoryStore
    from engine.pipeline.import_run import import_paths
    from engine.workspace.leftovers import staging_folder

    nothing = UsageProblem(
        _("nothing to add: give texts, or JSON on standard input"),
        hint="h2q-tui memory add --user TEXT --assistant TEXT",
    )
    if sys.stdin.isatty():
        raise nothing
    with staging_folder(ws.memory_db.parent, ".add.") as folder:
        path = folder / "stdin"
        with path.open("wb") as file:
            while chunk := sys.stdin.buffer.read(2**20):
                file.write(chunk)
        if not path.stat().st_size:
            raise nothing
        with MemoryStore(ws.memory_db) as store:
            report = import_paths(store, [path], again=True)
    return {"taken": report.added, "unchanged": report.unchanged, "skipped": report.skipped}


def _list_points(match: str, limit: int, offset: int) -> None:
    with _store() as store:
        points = store.points(match, limit=limit, offset=offset)
    for point in points:
        text = " ".join((point.summary or point.content).split())[:100]
        output.echo(f"{point.id}  {_date(point.created_at) or '—':<10}  {point.source:<10}  {text}")
    if not points:
        output.echo(_("no memory points"))
    if session.options.json:
        output.echo_json({"points": points})


def _store() -> MemoryStore:
    from engine.memory.store import MemoryStore

    return MemoryStore(session.workspace(create=False).memory_db, readonly=True)


def _roles(given: list[str]) -> dict[str, str]:
    """`客服=assistant,顾客=user` as a mapping. Raises UsageProblem."""
    from engine.core.errors import UsageProblem

    roles: dict[str, str] = {}
    for pair in (pair for text in given for pair in text.replace("，", ",").split(",") if pair.strip()):
        name, equals, role = pair.partition("=")
        if not equals or not name.strip():
            raise UsageProblem(_("--map takes NAME=ROLE, not {text}").format(text=pair))
        name, role = name.strip(), role.strip()
        if roles.setdefault(name, role) != role:
            raise UsageProblem(_("--map gives {name} two roles").format(name=name))
    return roles


def _search(
    store: MemoryStore, match: str | None, source: str | None, *, limit: int, offset: int
) -> tuple[list[tuple[Conversation, str]], int]:
    """Conversations, each with the excerpt that matches, and how many there are with those that are not shown."""
    if match is None:
        rows = [(conversation, "") for conversation in store.newest(limit, source=source, offset=offset)]
        return rows, store.count() if source is None else store.stats().sources.get(source, 0)
    excerpts: dict[str, str] = {}
    for hit in store.search(match, limit=1_000_000):
        excerpts.setdefault(hit.conversation_id, hit.excerpt)
    matching = [c for c in store.by_ids(list(excerpts)) if source in (None, c.source)]
    return [(c, excerpts[c.id]) for c in matching[offset : offset + limit]], len(matching)


def _row(conversation: Conversation, excerpt: str) -> dict[str, object]:
    first = next(
        (turn.text for turn in conversation.turns if turn.role == "user" and not turn.is_empty),
        conversation.turns[0].text,
    )
    return {
        "id": conversation.id,
        "source": conversation.source,
        "date": _date(conversation.updated_at or conversation.started_at),
        "turns": len(conversation.turns),
        "title": conversation.title,
        "text": " ".join((excerpt or conversation.title or first).split())[:100],
    }


def _date(seconds: float | None) -> str:
    return "" if seconds is None else local_time("%Y-%m-%d", seconds)


def _no_results(match: str | None, total: int) -> str:
    if total == 0:
        return _("Memory is empty") + " → h2q-tui memory import PATH"
    return _("No conversation contains {text}").format(text=match) if match else _("no conversations")


def _stats_lines(stats: MemoryStats) -> list[str]:
    if stats.conversations == 0:
        return [_no_results(None, 0)]
    lines = [
        _(", ").join(
            (
                n_("{n:,} conversation", "{n:,} conversations", stats.conversations).format(
                    n=stats.conversations
                ),
                n_("{n:,} turn", "{n:,} turns", stats.turns).format(n=stats.turns),
                n_("{n:,} character", "{n:,} characters", stats.characters).format(n=stats.characters),
            )
        ),
        _("from: {sources}").format(
            sources=_(", ").join(f"{name} {n:,}" for name, n in stats.sources.items())
        ),
    ]
    if stats.dated:
        lines.append(
            _("{n:,} with dates, {oldest} to {newest}").format(
                n=stats.dated, oldest=_date(stats.oldest or stats.newest), newest=_date(stats.newest)
            )
        )
    if stats.dated < stats.conversations:
        lines.append(_("{n:,} without dates").format(n=stats.conversations - stats.dated))
    if stats.points:
        lines.append(_("{n} memory points").format(n=stats.points))
    lines.append(
        _("{imports} imports, {superseded} shorter versions kept, {size:.1f} MB on disk").format(
            imports=stats.imports, superseded=stats.superseded, size=stats.bytes / 1e6
        )
    )
    return lines


def _lines(conversation: Conversation) -> Iterator[str]:
    yield f"{conversation.id}  {conversation.source}  {_date(conversation.updated_at or conversation.started_at)}"
    if conversation.title:
        yield conversation.title
    names = {"user": _("you"), "assistant": _("model"), "system": _("system"), "tool": _("tool")}
    for turn in conversation.turns:
        yield ""
        yield f"{names[str(turn.role)]}:"
        yield turn.text if not turn.is_empty else _("(not imported)")
        for other in turn.alternatives:
            yield _("another answer:")
            yield other


def _preview(
    ws: Workspace, files: list[Path], format_: str, options: ImportOptions, within: float | None
) -> None:
    """Prints what each of `files` would give; `within` seconds for each."""
    from engine.memory.import_texts import preview_lines
    from engine.pipeline.import_preview import preview_import

    found = []
    for file in files:
        preview = preview_import(file, ws.memory_db.parent, format_=format_, options=options, within_s=within)
        found.append(preview)
        for line in preview_lines(preview):
            output.echo(line)
    if session.options.json:
        output.echo_json(found)
