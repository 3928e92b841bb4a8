"""`h2q-tui check`: the preflight, read-only; `--fix` offers the changes that would help, one by one."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import typer

from engine.core.i18n import N_, _, colon
from tui.cli import output, session
from tui.cli.options import Option

if TYPE_CHECKING:
    from engine.health.grades import CheckResult, Fix


_AGREED = Option(
    name="yes",
    type=list[str],
    metavar="ID",
    help=N_("With --fix: make the change of this check without asking; repeatable."),
)
_ONLY = Option(name="only", type=list[str], metavar="ID", help=N_("Only this check; repeatable."))


def register(app: typer.Typer) -> None:
    """Add `check`."""

    @app.command(help=_("Check the machine and the workspace; changes nothing without --fix."))
    def check(
        fix: bool = typer.Option(False, "--fix", help=_("Offer changes that help; each is asked about.")),
        yes: list[str] | None = _AGREED.render(),  # noqa: B008
        only: list[str] | None = _ONLY.render(),  # noqa: B008
    ) -> None:
        import msgspec

        from engine.health.grades import Grade
        from engine.health.preflight import CHECKS, run_checks

        ids = [row.id for row in CHECKS]
        yes, only = yes or [], only or []
        _require_known("--yes", yes, ids)
        _require_known("--only", only, ids)
        if yes and not fix:
            raise typer.BadParameter(_("--yes is for --fix"))
        ws, items = session.locate_workspace(), []
        for item in run_checks(ws, [row for row in CHECKS if not only or row.id in only]):
            items.append(item)
            _print(item)
        made = _offer_fixes(items, yes) if fix else []
        failed = [item.id for item in items if item.grade is Grade.FAIL]
        if session.options.json:
            changes = [{"id": before.id, "grade": after.grade} for before, after in made]
            shown = [msgspec.structs.replace(item, hint=session.complete(item.hint)) for item in items]
            output.echo_json({"ok": not failed, "items": shown, **({"fixed": changes} if fix else {})})
        raise typer.Exit(5 if failed else 0)


def _require_known(option: str, given: list[str], ids: list[str]) -> None:
    """Raises BadParameter for an id that no check has."""
    for name in given:
        if name not in ids:
            text = _("{option}: there is no check {name}; there are {ids}")
            raise typer.BadParameter(text.format(option=option, name=name, ids=_(", ").join(ids)))


def _print(item: CheckResult) -> None:
    from engine.health.grades import GRADE_NAMES

    hint = f" → {item.hint}" if item.hint else ""
    grade = _(GRADE_NAMES[item.grade])
    output.echo(f"{colon(f'{grade:<9} {item.name}', item.detail)}{hint}")


def _offer_fixes(items: list[CheckResult], yes: list[str]) -> list[tuple[CheckResult, CheckResult]]:
    """Asks about each change and makes those that are agreed to; the results before and after, replaced in `items`."""
    from engine.health.preflight import find_check

    made = []
    for at, item in enumerate(items):
        if item.fix is None or not _agreed(item.id, item.fix, yes):
            continue
        problem = run_fix(item.fix)
        if problem:
            output.echo(colon(item.name, problem), error=True)
        after = find_check(item.id).run(session.locate_workspace())
        _print(after)
        made.append((item, after))
        items[at] = after
    if not any(item.fix for item in items) and not made:
        output.echo(_("there is nothing that --fix could change"))
    return made


def _agreed(id_: str, fix: Fix, yes: list[str]) -> bool:
    """Whether the person agrees to a change: with `--yes ID`, or by answering. Raises UsageProblem without a terminal."""
    from engine.core.errors import UsageProblem
    from tui.terminal.text import plain

    if id_ in yes:
        return True
    if yes:
        return False
    question = _("{change}? ({command})").format(change=fix.change, command=session.complete(fix.hint))
    if not sys.stdin.isatty():
        raise UsageProblem(
            _("this needs confirmation: {question}").format(question=question),
            hint=session.own_command("check", "--fix", "--yes", id_),
        )
    return typer.confirm(plain(question), default=False, err=True)


def run_fix(fix: Fix) -> str:
    """Runs the command of a change; returns why it failed, "" when it did not."""
    first, *rest = fix.command
    words = [first, *rest]
    if first == "h2q-tui":
        words = [
            sys.executable,
            "-m",
            "tui.cli.main",
            *rest,
            "--data-dir",
            str(session.locate_workspace().root),
        ]
    try:
        # What it prints goes to stderr: stdout holds the JSON.
        code = subprocess.run(words, stdout=2).returncode
    except OSError as problem:
        return colon(first, problem.strerror or type(problem).__name__)
    return _("the command failed with code {code}").format(code=code) if code else ""
