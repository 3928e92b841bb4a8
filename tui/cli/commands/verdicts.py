"""`h2q-tui verdicts`: the verdicts that were given, one of them with its cases, and its export."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from engine.core.i18n import _
from tui.cli import output, session

if TYPE_CHECKING:
    from engine.validation.stored_verdicts import StoredVerdict


def register(app: typer.Typer) -> None:
    """Add the group `verdicts`."""
    verdicts = typer.Typer(
        name="verdicts",
        help=_("Verdicts: list, show, export."),
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.add_typer(verdicts)

    @verdicts.command("list", help=_("All verdicts, newest first."))
    def list_() -> None:
        from engine.validation.stored_verdicts import VerdictFiles

        found = VerdictFiles().read(session.workspace(create=False))
        for verdict in found:
            output.echo(_row(verdict))
        if not found:
            output.echo(_("no verdict yet") + " → h2q-tui validate --new NAME")
        if session.options.json:
            output.echo_json({"verdicts": [_entry(verdict) for verdict in found]})

    @verdicts.command(help=_("A verdict with its measures, reasons and answers."))
    def show(
        id_: str = typer.Argument("", metavar="[ID]", help=_("Of the run. Default: the newest verdict.")),
    ) -> None:
        from engine.validation.stored_verdicts import find_verdict
        from engine.validation.summary_text import plain_sentences
        from engine.validation.verdict_text import sentence_of
        from tui.cli.commands.validate import report_lines

        verdict = find_verdict(session.workspace(create=False), id_)
        output.echo(sentence_of(verdict.report.verdict))
        for line in [*plain_sentences(verdict.report), *report_lines(verdict.report)]:
            output.echo(line)
        if session.options.json:
            output.echo_json(verdict.report)

    @verdicts.command(
        help=_(
            "Write a verdict as Markdown, JSON, and samples of lm-evaluation-harness; they hold your texts."
        )
    )
    def export(
        id_: str = typer.Argument("", metavar="[ID]", help=_("Of the run. Default: the newest verdict.")),
        output_: str = typer.Option(
            None, "--output", help=_("A new or empty folder (exports in the workspace).")
        ),
    ) -> None:
        from engine.validation.stored_verdicts import find_verdict, read_conversation
        from engine.validation.verdict_export import check_export_folder, export_verdict, verdict_folder

        ws = session.workspace(create=False)
        named = session.output_path(output_) if output_ else None
        if named is not None:
            check_export_folder(named)
        verdict = find_verdict(ws, id_)
        folder = named or verdict_folder(ws, verdict.report)
        files = export_verdict(verdict.report, folder, lambda name: read_conversation(ws, name))
        output.echo(_("written to {folder}; it holds your texts").format(folder=folder))
        if session.options.json:
            output.echo_json({"folder": str(folder), "files": [str(file) for file in files]})


def _row(verdict: StoredVerdict) -> str:
    from engine.core.local_time import local_time

    report, (base, new) = verdict.report, verdict.pair
    when = local_time("%Y-%m-%d %H:%M", report.created_at)
    return f"{report.run_id:16}  {when}  {report.verdict.decision:12}  {base} → {new}"


def _entry(verdict: StoredVerdict) -> dict[str, object]:
    report, (base, new) = verdict.report, verdict.pair
    return {
        "id": report.run_id,
        "created_at": report.created_at,
        "base": base,
        "new": new,
        "decision": report.verdict.decision,
        "look": report.verdict.look,
        "p_value": report.verdict.p_value,
        "report": str(verdict.file),
    }
