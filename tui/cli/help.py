"""Help and usage errors of the command line in the user's language.

typer counts a Chinese character as one cell and has English sentences only, so both are rendered here from the
declarations of the commands.
"""

from __future__ import annotations

import re
import shutil
import sys
import unicodedata
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from engine.core.i18n import N_, _

COMMAND_ORDER = (
    "demo",
    "sample",
    "check",
    "monitor",
    "notify",
    "memory",
    "corpus",
    "train",
    "evolve",
    "validate",
    "promote",
    "rollback",
    "chat",
    "runs",
    "models",
    "export",
    "backup",
    "paths",
    "reset",
)
"""Order of the commands in the help, along the flow of data; others come last."""


def width(text: str) -> int:
    """Terminal cells of plain text: two for a full-width character, none for a combining one."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def wrap(text: str, cells: int) -> list[str]:
    """Wrap `text` to lines of at most `cells`; breaks at spaces and anywhere inside full-width text."""
    lines: list[str] = []
    line = ""
    for part in re.findall(r"\s+|[^\s\u2e80-\uffef]+|[\u2e80-\uffef]", text.strip()):
        word = " " if part.isspace() else part
        # Closing punctuation never begins a line.
        if width(line + word) > cells and line.strip() and word not in "，。；：、）！？":
            lines.append(line.rstrip())
            line = ""
        if line or word != " ":
            line += word
    return [*lines, line.rstrip()] if line.strip() else lines


def _columns(rows: list[tuple[str, str]], cells: int) -> str:
    left = min(max((width(name) for name, _help in rows), default=0), 30)
    out: list[str] = []
    for name, text in rows:
        lines = wrap(text, max(20, cells - left - 4))
        if width(name) > left:
            out.append(f"  {name}")
            first, rest = "", lines
        else:
            first, rest = (lines[0] if lines else ""), lines[1:]
            out.append(f"  {name}{' ' * (left - width(name))}  {first}".rstrip())
        out += [f"{' ' * (left + 4)}{line}" for line in rest]
    return "\n".join(out)


def _render_help(command: Any, ctx: typer.Context) -> str:
    cells = min(shutil.get_terminal_size((80, 24)).columns, 100)
    metavars = {"[OPTIONS]": _("[OPTIONS]"), "COMMAND [ARGS]...": _("COMMAND [ARGS]...")}
    usage = [metavars.get(part, part) for part in command.collect_usage_pieces(ctx)]
    blocks = [_("Usage: {command}").format(command=" ".join([ctx.command_path, *usage]))]
    if text := (command.help or "").strip():
        blocks.append("\n\n".join("\n".join(wrap(part, cells)) for part in text.split("\n\n")))
    records: dict[str, list[tuple[str, str]]] = {"argument": [], "option": []}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is not None:
            name, text = record
            for type_name, metavar in _METAVARS:
                name = name.replace(type_name, metavar if param.param_type_name == "option" else "")
            if "--help" in param.opts:
                text = _("Show this help and exit.")
            for english, translated in (("[required]", _("[required]")), ("[default: ", _("[default: "))):
                text = text.replace(english, translated)
            text = re.sub(r"; (?=[^\[\]]*\]$)", _("; "), text)
            records[param.param_type_name].append((name, text))
    sections = [(_("Arguments"), records["argument"]), (_("Options"), records["option"])]
    if isinstance(command, TyperGroup):
        shown = [(name, command.commands[name]) for name in command.list_commands(ctx)]
        commands = [(name, (sub.help or "").strip().split("\n")[0]) for name, sub in shown if not sub.hidden]
        sections.append((_("Commands"), commands))
    heading = _("{title}:")
    blocks += [f"{heading.format(title=title)}\n{_columns(rows, cells)}" for title, rows in sections if rows]
    return "\n\n".join(blocks)


class TranslatedCommand(TyperCommand):
    """A command with its help in the language in use."""

    def get_help(self, ctx: Any) -> str:
        return _render_help(self, ctx)


class TranslatedGroup(TyperGroup):
    """A group of commands; without a command it shows its help."""

    def get_help(self, ctx: Any) -> str:
        return _render_help(self, ctx)

    def list_commands(self, ctx: Any) -> list[str]:
        names = super().list_commands(ctx)
        if ctx.parent is not None:
            return names
        return sorted(
            names, key=lambda name: COMMAND_ORDER.index(name) if name in COMMAND_ORDER else len(COMMAND_ORDER)
        )

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not self.invoke_without_command and not ctx.resilient_parsing:
            from tui.cli.session import options

            if options.json:
                from engine.core.errors import UsageProblem

                raise UsageProblem(_("a command is missing"), hint=f"{ctx.command_path} --help")
            print(self.get_help(ctx), file=sys.stderr)
            raise typer.Exit(2)
        return super().parse_args(ctx, args)


def translate(app: typer.Typer) -> None:
    """Give every command and group of `app`, recursively, the classes above."""
    for command in app.registered_commands:
        command.cls = TranslatedCommand
    for group in app.registered_groups:
        group.cls = TranslatedGroup
        if group.typer_instance is not None:
            translate(group.typer_instance)


_METAVARS = (
    (" <list[str]>", " TEXT…"),
    (" <str>", " TEXT"),
    (" <int range>", " N"),
    (" <int>", " N"),
    (" <float range>", " X"),
    (" <float>", " X"),
)
"""typer's names for the values of options, and ours. An argument has its own name."""

_TYPER_ERRORS: tuple[tuple[str, str], ...] = (
    (
        r"No such command '(?P<a>.*?)'\. Did you mean (?P<b>.*)\?",
        N_("there is no command {a}; did you mean {b}?"),
    ),
    (r"No such command '(?P<a>.*?)'\.?", N_("there is no command {a}")),
    (
        r"No such option: (?P<a>\S+) \(Possible options: (?P<b>.*)\)",
        N_("there is no option {a}; did you mean {b}?"),
    ),
    (r"No such option: (?P<a>\S+)", N_("there is no option {a}")),
    (r"Missing command\.?", N_("a command is missing")),
    (r"Missing argument '(?P<a>.*?)'\.?(?P<b>(?s:.*))", N_("{a} is missing")),
    (r"Missing option '(?P<a>.*?)'\.?(?P<b>(?s:.*))", N_("the option {a} is missing")),
    (r"Option '(?P<a>.*?)' requires .*", N_("{a} needs a value")),
    (r"Option '(?P<a>.*?)' does not take a value\.?", N_("{a} takes no value")),
    (r"Got unexpected extra argument\(?s?\)? \((?P<a>.*)\)", N_("unexpected argument {a}")),
)
_VALUE_ERRORS: tuple[tuple[str, str], ...] = (
    (r"Input should be a valid integer.*", N_("a whole number is needed")),
    (r"Input should be a valid number.*", N_("a number is needed")),
    (r"Input should be greater than or equal to (?P<a>.*)", N_("at least {a} is needed")),
    (r"Input should be greater than (?P<a>.*)", N_("more than {a} is needed")),
    (r"Input should be less than or equal to (?P<a>.*)", N_("at most {a} is allowed")),
    (r"Input should be less than (?P<a>.*)", N_("less than {a} is needed")),
    (r"Input should be (?P<a>'.*)", N_("one of {a} is needed")),
    (r".*? does not exist\.?", N_("it does not exist")),
)


def _translate_error(text: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, sentence in table:
        match = re.fullmatch(pattern, text.strip())
        if match:
            found = {name: part.replace("'", "") for name, part in match.groupdict(default="").items()}
            return _(sentence).format(**found)
    return text.strip().rstrip(".")


def describe_usage_error(problem: typer.TyperException) -> tuple[str, str]:
    """A usage error as one sentence in the language in use, and the command that helps."""
    text = problem.format_message()
    value = re.fullmatch(r"Invalid value(?: for '?(?P<name>.+?)'?)?: (?P<why>(?s:.*))", text)
    if value is None:
        sentence = _translate_error(text, _TYPER_ERRORS)
    elif value["name"]:
        why = _translate_error(value["why"], _VALUE_ERRORS)
        sentence = _("{option}: {why}").format(option=value["name"], why=why)
    else:
        sentence = value["why"]
    context = getattr(problem, "ctx", None)
    return sentence, f"{context.command_path if context else 'h2q-tui'} --help"
