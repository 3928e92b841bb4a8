"""`h2q-tui validate`, `promote` and `rollback`: compare models and change the model in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from engine.core.i18n import _, n_, p_, with_percent
from tui.cli import output, session

if TYPE_CHECKING:
    from engine.core.paths import Workspace
    from engine.validation.report import Measure, ValidationReport, Verdict


def register(app: typer.Typer) -> None:
    """Add `validate`, `promote` and `rollback`."""

    @app.command(help=_("Compare a new model with a base on conversations that neither was trained on."))
    def validate(
        base: str | None = typer.Option(
            None, "--base", help=_("Name or directory. Default: the model in use.")
        ),
        new: str | None = typer.Option(None, "--new", help=_("Name or directory of the model to validate.")),
        scores: str | None = typer.Option(
            None,
            "--scores",
            help=_("Compare external scores: a JSONL file of rows {group, base, new}, higher is better."),
        ),
        promote: bool = typer.Option(False, "--promote", help=_("Promote it if it is better.")),
    ) -> None:
        from engine.core.errors import UsageProblem

        if scores is not None:
            if base or new or promote:
                raise UsageProblem(
                    _("--scores takes no --base, --new or --promote"), hint="h2q-tui validate --help"
                )
            _compare_scores(scores)
            return
        ws = session.workspace()
        if new is None:
            raise UsageProblem(_("--new NAME is required: the model to validate"), hint="h2q-tui models list")
        raise typer.Exit(compare_models(ws, base, new, promote))

    @app.command(help=_("Put a model into use. The previous one is kept; rollback restores it."))
    def promote(
        name: str = typer.Argument(metavar="NAME"),
        config: str | None = typer.Option(
            None, "--config", help=_("models.json to update instead of the workspace's.")
        ),
    ) -> None:
        from engine.models import registry

        promotion = registry.promote(_workspace_with(config), _model(name))
        output.echo(_("{name} is in use").format(name=promotion.name))
        output.echo(_("undo: {command}").format(command="h2q-tui rollback"))
        if session.options.json:
            output.echo_json(promotion)

    @app.command(help=_("Restore the model that was in use before the last promotion."))
    def rollback(
        to: str | None = typer.Option(None, "--to", metavar="STAMP", help=_("A backup of the list.")),
        list_: bool = typer.Option(False, "--list", help=_("List the backups, newest first.")),
        config: str | None = typer.Option(
            None, "--config", help=_("models.json to update instead of the workspace's.")
        ),
    ) -> None:
        from engine.models import registry

        ws = _workspace_with(config)
        if list_:
            backups = registry.backups(ws)
            for backup in backups:
                model = backup.model or (_("no model in use") if backup.readable else _("not readable"))
                output.echo(f"{backup.stamp}  {model}")
            if not backups:
                output.echo(_("no backup yet: the first promotion creates one"))
            if session.options.json:
                output.echo_json({"backups": backups})
            return
        promotion = registry.rollback(ws, to)
        output.echo(
            _("{name} is in use again").format(name=promotion.name)
            if promotion.name
            else _("no model is in use")
        )
        if session.options.json:
            output.echo_json(promotion)


def _workspace_with(config: str | None) -> Workspace:
    from dataclasses import replace

    from engine.core.outputs import check_replaced_file

    ws = session.workspace()
    if not config:
        return ws
    check_replaced_file(session.output_path(config), hint="h2q-tui paths")
    return replace(ws, models_file=session.resolve(config))


def _model(name: str) -> str:
    """A name unchanged, a path made absolute."""
    return str(session.resolve(name)) if "/" in name and not name.startswith("ollama:") else name


def _compare_scores(file: str) -> None:
    from engine.validation.external_scores import read_external_scores
    from engine.validation.verdict import external_verdict

    verdict = external_verdict(read_external_scores(session.resolve(file)))
    output.echo(verdict.sentence)
    for line in _verdict_lines(verdict):
        output.echo(line)
    if session.options.json:
        output.echo_json(verdict)


def compare_models(ws: Workspace, base: str | None, new: str, promote: bool) -> int:
    """Run the validation in the foreground, then print its table."""
    from pathlib import Path

    from engine.core.errors import BadInput
    from engine.core.i18n import language
    from engine.models.registry import in_use
    from engine.runs.kinds import ValidateParams
    from engine.runs.spec import make_spec
    from engine.validation.report import load_report
    from tui.cli.run_output import conclude, follow_in_terminal

    base = base or in_use(ws)
    if base is None:
        raise BadInput(_("there is no model in use to compare with"), hint="h2q-tui train --mode scratch")
    base, new = (session.loadable_model(ws, name).reference for name in (base, new))
    params = ValidateParams(base=base, new=new, promote=promote)
    followed = follow_in_terminal(ws, make_spec(ws.root, params, language=language()))
    finished = followed.view.finished
    if finished is not None and finished.report:
        report = load_report(Path(finished.report))
        if report is not None:
            for line in report_lines(report):
                output.echo(line)
    return conclude(followed)


def report_lines(report: ValidationReport) -> list[str]:
    """The measures as a table, the reasons, the served-path check, and the answers of both models."""
    from engine.validation.served_text import served_sentences
    from engine.validation.summary_text import shown_as, similarity_lines
    from tui.terminal.text import fit

    lines = ["", *_table(report.measures), *_verdict_lines(report.verdict)]
    if report.served is not None:
        lines += [f"- {sentence}" for sentence in served_sentences(report.served)]
    lines += [f"- {sentence}" for sentence in similarity_lines(report.similarity)]
    labels = (_("question"), _("base"), p_("model", "new"), _("reference"))
    for number, answer in enumerate(report.answers, start=1):
        texts = (answer.question, answer.base, answer.new, answer.wanted)
        rows = [f"{fit(label, 9)}  {text}" for label, text in zip(labels, texts, strict=True)]
        kind = shown_as(answer)
        lines += ["", *([kind] if kind else []), f"{number}. {rows[0]}", *(f"   {row}" for row in rows[1:])]
    return lines


def _table(measures: list[Measure]) -> list[str]:
    from tui.terminal.text import fit

    rows = [(_("measure"), _("base"), p_("model", "new"), "Δ", with_percent("95"))]
    for measure in measures:
        span = (
            "" if measure.low is None or measure.high is None else f"{measure.low:+.3f} … {measure.high:+.3f}"
        )
        rows.append(
            (
                f"{measure.name}, {measure.unit}",
                _number(measure.base),
                _number(measure.new),
                "" if measure.delta is None else f"{measure.delta:+.3f}",
                span,
            )
        )
    return [f"{fit(a, 30)} {b:>8} {c:>8} {d:>8}  {e}" for a, b, c, d, e in rows]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _verdict_lines(verdict: Verdict) -> list[str]:
    from engine.validation.verdict_text import reasons_of

    count = n_("{n} case in {groups} groups", "{n} cases in {groups} groups", verdict.n_cases).format(
        n=verdict.n_cases, groups=verdict.n_groups
    )
    return [count, *(f"- {reason}" for reason in reasons_of(verdict))]
