"""`h2q-tui sample`, `paths`, `backup` and `reset`: commands on the whole workspace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from engine.core.filenames import shell_command
from engine.core.i18n import _, language, n_
from engine.core.local_time import local_time
from tui.cli import output, session
from tui.cli.options import YES
from tui.cli.output import confirm

if TYPE_CHECKING:
    from engine.workspace.backup import Backup


def register(app: typer.Typer) -> None:
    """Add `sample`, `paths`, `reset` and the group `backup`."""

    @app.command(help=_("Write sample conversations and text to start from; DIR: <data-dir>/sample."))
    def sample(folder: str | None = typer.Argument(None, metavar="[DIR]")) -> None:
        from engine.workspace.sample import write_sample

        target = session.output_path(folder) if folder else session.workspace().root / "sample"
        sample_ = write_sample(target)
        output.echo(
            _("{n} files written to {folder}, {same} existed already").format(
                n=len(sample_.written), folder=sample_.folder, same=len(sample_.unchanged)
            )
        )
        output.echo("  " + session.own_command("memory", "import", sample_.conversations(language())))
        output.echo("  " + session.own_command("train", "--mode", "scratch", "--data", sample_.text))
        if session.options.json:
            output.echo_json(sample_)

    @app.command(help=_("Paths of the workspace."))
    def paths() -> None:
        ws = session.workspace(create=False)
        rows = {
            "workspace": (_("workspace"), ws.root),
            "memory": (_("conversations and decisions"), ws.memory_db),
            "training_data": (_("plain text for training from scratch"), ws.training_data),
            "training": (_("datasets and reports"), ws.training),
            "settings": (_("settings"), ws.settings_file),
            "models_json": (_("the model in use"), ws.models_json),
            "models": (_("models"), ws.models),
            "runs": (_("runs with their checkpoints"), ws.runs),
            "status": (_("status files for other programs"), ws.status),
            "backups": (_("backups"), ws.backups),
            "runtime": (_("sockets"), ws.runtime),
        }
        for description, path in rows.values():
            output.echo(
                f"{path}  {description}" + ("" if path.exists() else "  " + _("(does not exist yet)"))
            )
        if session.options.json:
            output.echo_json({name: str(path) for name, (_description, path) in rows.items()})

    @app.command(help=_("Delete runs, datasets and status files; with --all everything, permanently."))
    def reset(
        all_: bool = typer.Option(False, "--all", help=_("Also memory, models, settings and backups.")),
        yes: bool = YES.render(),
    ) -> None:
        import asyncio

        from engine.inference.client import InferenceClient
        from engine.workspace.reset import plan_reset, require_no_run
        from engine.workspace.reset import reset as reset_

        ws = session.workspace(create=False)
        require_no_run(ws)
        plan = plan_reset(ws, all_)
        if not plan.names:
            output.echo(_("nothing to delete in {path}").format(path=ws.root))
        else:
            question = _("Delete {names} ({size:.1f} MB) from {path} permanently?").format(
                names=_(", ").join(plan.names), size=plan.bytes / 1e6, path=ws.root
            )
            confirm(question, yes, session.own_command("reset", *(["--all"] if all_ else []), "--yes"))
            if all_:
                asyncio.run(InferenceClient(ws).shutdown())
                from engine.scheduler.install import remove as unschedule

                unschedule(ws)
            plan = reset_(ws, all_)
            output.echo(_("Removed: {names}").format(names=_(", ").join(plan.names)))
        if session.options.json:
            output.echo_json({"removed": plan.names, "bytes": plan.bytes})

    _register_backup(app)


def _register_backup(app: typer.Typer) -> None:
    backup = typer.Typer(
        name="backup",
        help=_("Compressed copies of memory, decisions and configuration."),
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.add_typer(backup)

    @backup.command(help=_("Create a backup now; the newest eight are kept."))
    def create() -> None:
        from engine.workspace.backup import create_backup

        created = create_backup(session.workspace())
        output.echo(_row(created))
        output.echo(created.path)
        if session.options.json:
            output.echo_json(created)

    @backup.command("list", help=_("All backups, newest first."))
    def list_() -> None:
        from engine.workspace.backup import list_backups

        backups = list_backups(session.workspace(create=False))
        for backup_ in backups:
            output.echo(_row(backup_))
        if not backups:
            output.echo(_("no backup yet") + " → h2q-tui backup create")
        if session.options.json:
            output.echo_json({"backups": backups})

    @backup.command(
        help=_("Restore the newest backup or that of STAMP; the current state is backed up first.")
    )
    def restore(
        stamp: str | None = typer.Argument(None, metavar="[STAMP|FILE]"),
        yes: bool = YES.render(),
    ) -> None:
        from engine.workspace.backup import find_backup, restore_backup
        from engine.workspace.reset import require_no_run

        ws = session.workspace()
        path = find_backup(ws, stamp)
        require_no_run(ws)
        question = _("Replace memory and configuration with {path}?").format(path=path)
        confirm(
            question, yes, shell_command("h2q-tui", "backup", "restore", *([stamp] if stamp else []), "--yes")
        )
        restored = restore_backup(ws, path)
        text = n_(
            "Restored {stamp}: {n} conversation",
            "Restored {stamp}: {n} conversations",
            restored.conversations,
        )
        output.echo(text.format(stamp=restored.stamp, n=restored.conversations))
        if session.options.json:
            output.echo_json(restored)


def _row(backup: Backup) -> str:
    reasons = {
        "manual": _("manual"),
        "weekly": _("weekly"),
        "migration": _("before a migration"),
        "restore": _("before a restore"),
    }
    when = local_time("%Y-%m-%d %H:%M", backup.created_at)
    reason = reasons.get(backup.reason, backup.reason)
    if backup.damage:
        reason += _(", ") + _("DAMAGED")
    row = n_(
        "{stamp}  {when}  {size:.1f} MB  {n} conversation  {reason}",
        "{stamp}  {when}  {size:.1f} MB  {n} conversations  {reason}",
        backup.conversations,
    )
    return row.format(
        stamp=backup.stamp,
        when=when,
        size=backup.bytes / 1e6,
        n=backup.conversations,
        reason=reason,
    )
