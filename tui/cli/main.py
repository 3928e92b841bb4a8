"""The `h2q-tui` command: without a subcommand it opens the app, with one it runs headless."""

from __future__ import annotations

import io
import os
import sys

import typer

from engine.core.i18n import LANGUAGES, _, set_language, system_language
from engine.core.openmp import let_waiting_threads_sleep
from tui.cli.session import GlobalOptions, options

_FLAGS = {"--json": "json", "--plain": "plain", "--quiet": "quiet"}
_VALUES = {"--data-dir": "data_dir", "--lang": "lang", "--workspace": "workspace_dir"}


def parse_globals(arguments: list[str]) -> list[str]:
    """Parse the global options at any position into `options`; returns the other arguments.

    Stops at `--`. Raises typer.BadParameter for an option without its value.
    """
    rest: list[str] = []
    queue = list(arguments)
    while queue:
        word = queue.pop(0)
        name, _equals, value = word.partition("=")
        if word == "--":
            return [*rest, word, *queue]
        if word in _FLAGS:
            setattr(options, _FLAGS[word], True)
        elif name in _VALUES:
            if not _equals:
                if not queue:
                    raise typer.BadParameter(_("{option} needs a value").format(option=name))
                value = queue.pop(0)
            setattr(options, _VALUES[name], value)
        else:
            rest.append(word)
    return rest


def build() -> typer.Typer:
    """The command tree in the language in use. Imports no engine module except `engine.core.i18n`."""
    from tui.cli.commands import GROUPS
    from tui.cli.help import TranslatedGroup, translate

    app = typer.Typer(
        name="h2q-tui",
        cls=TranslatedGroup,
        help=_("Your conversations become your own model, offline, in one terminal."),
        no_args_is_help=False,
        invoke_without_command=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def root(
        context: typer.Context,
        version: bool = typer.Option(False, "--version", help=_("Print the version and exit.")),
        data_dir: str = typer.Option(None, "--data-dir", help=_("The workspace (also $H2Q_DATA_DIR).")),
        json: bool = typer.Option(
            False, "--json", help=_("One JSON document on stdout, messages on stderr.")
        ),
        lang: str = typer.Option(None, "--lang", help=_("Language: en or zh.")),
        plain: bool = typer.Option(False, "--plain", help=_("No colour, no redrawing.")),
        quiet: bool = typer.Option(False, "--quiet", help=_("Only errors.")),
        workspace_dir: str = typer.Option(None, "--workspace", help=_("Folder for relative paths.")),
        read_only: bool = typer.Option(
            False, "--read-only", help=_("Open the app to look only: nothing can be changed or started.")
        ),
    ) -> None:
        # The options are parsed before the tree is built; here they are declared for the help.
        if version:
            from importlib.metadata import version as installed

            if options.json:
                from tui.cli.output import echo_json

                echo_json({"version": installed("h2q-tui")})
            else:
                print(installed("h2q-tui"))
            raise typer.Exit
        if context.invoked_subcommand is None:
            from tui.cli.commands.demo import open_app_or_demo

            raise typer.Exit(open_app_or_demo(read_only=read_only))
        if read_only:
            raise typer.BadParameter(_("--read-only is for the app alone, and for h2q-tui web"))

    for register in GROUPS:
        register(app)
    translate(app)
    return app


def main(arguments: list[str] | None = None) -> None:
    """Entry point. An expected failure is one sentence on stderr and the exit code of its class in `engine.core.errors`."""
    given = sys.argv[1:] if arguments is None else arguments
    if os.name == "nt":
        print("h2q-tui runs on Linux and macOS; on Windows use WSL2", file=sys.stderr)
        raise SystemExit(2)
    let_waiting_threads_sleep()
    vars(options).update(vars(GlobalOptions()))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What the encoding of the terminal lacks is printed as an escape.
            stream.reconfigure(errors="backslashreplace")
    set_language(system_language())
    try:
        rest = parse_globals(given)
        if options.lang is not None and options.lang not in LANGUAGES:
            raise typer.BadParameter(_("--lang takes en or zh, not {value}").format(value=options.lang))
        set_language(options.lang or _saved_language() or system_language())
        code = build()(rest, standalone_mode=False, prog_name="h2q-tui")
    except typer.Exit as exit_:
        code = exit_.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except BrokenPipeError:
        # The reader of the pipe has closed it (`… | head`): discard the buffered output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as problem:
        code = _report_safely(problem)
    if code and options.json and not options.json_printed:
        # Interrupted, or a command that has printed its reasons as messages only.
        code = _report_safely(_silent_failure(code))
    raise SystemExit(code or 0)


def _silent_failure(code: int) -> Exception:
    """The error of a command that ended with `code` without a JSON document."""
    from engine.core.errors import H2QError, Interrupted

    problem = Interrupted(_("interrupted")) if code == 130 else H2QError(_("the command failed"))
    problem.exit_code = code
    return problem


def _report_safely(problem: Exception) -> int:
    """Print a failure; when stdout cannot be written (`> /dev/full`), that failure on stderr."""
    try:
        return _report(problem)
    except OSError as second:
        # Nothing more goes to stdout, also not at the exit of the interpreter.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        options.json = False
        return _report(second)


def _saved_language() -> str | None:
    """The language in the workspace's settings, read without opening the workspace."""
    from engine.core.paths import find_workspace

    file = find_workspace(options.data_dir).settings_file
    try:
        # A FIFO in its place would never end.
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
    except (OSError, UnicodeDecodeError):
        return None
    for line in text.splitlines():
        key, _equals, value = line.partition("=")
        if key.strip() == "language" and value.strip().strip("\"'") in LANGUAGES:
            return value.strip().strip("\"'")
    return None


def _report(problem: Exception) -> int:
    """Print a failure as one sentence; returns its exit code.

    With H2Q_TRACEBACK set, an unexpected exception is raised for its traceback.
    """
    from engine.core.errors import H2QError, RunFailed, UsageProblem, error_text

    if os.environ.get("H2Q_TRACEBACK") and not isinstance(problem, H2QError | typer.TyperException):
        raise problem
    if isinstance(problem, typer.TyperException):
        from tui.cli.help import describe_usage_error

        sentence, hint = describe_usage_error(problem)
        problem = UsageProblem(sentence, hint=hint)
    elif isinstance(problem, OSError) and problem.strerror:
        problem = RunFailed(error_text(problem), hint="h2q-tui check")
    elif type(problem).__module__ == "sqlite3":
        import sqlite3

        from engine.memory.integrity import damaged_memory, is_damage, reason_of
        from engine.memory.schema import describe_sqlite_error

        reason = describe_sqlite_error(problem) if isinstance(problem, sqlite3.Error) else str(problem)
        text = _("The memory cannot be read or written ({reason})").format(reason=reason)
        if isinstance(problem, sqlite3.Error) and is_damage(problem):
            problem = damaged_memory(reason_of(problem))
        else:
            problem = RunFailed(text, hint="h2q-tui check")
    elif isinstance(problem, UnicodeEncodeError) and problem.encoding.startswith("utf"):
        # Only a byte of an argument that is not UTF-8 cannot be encoded as such.
        problem = UsageProblem(_("this text is not valid UTF-8: {text}").format(text=problem.object))
    elif not isinstance(problem, H2QError):
        reason = " ".join(str(problem).split())
        text = _("unexpected problem ({kind}: {text})").format(kind=type(problem).__name__, text=reason)
        problem = RunFailed(text, hint="H2Q_TRACEBACK=1 h2q-tui …")
    from tui.cli.output import echo, echo_json
    from tui.cli.session import complete

    if options.json:
        echo_json({"error": problem.message, "hint": complete(problem.hint), "exit_code": problem.exit_code})
    echo(str(problem), error=True)
    return problem.exit_code


if __name__ == "__main__":
    main()
