"""How the command line speaks for itself: its help and its usage errors, in the person's language.

typer's own layout counts a Chinese character as one cell and its sentences are English only, so both are
made here from what the commands declare.
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

ORDER = (
    "demo",
    "sample",
    "check",
    "monitor",
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
"""The commands in the help, the way the data goes; one that is not named here comes last."""


def width(text: str) -> int:
    """Terminal cells of plain text: two for a full-width character, none for a combining one."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def wrapped(text: str, cells: int) -> list[str]:
    """`text` in lines of at most `cells`; breaks at spaces, and anywhere inside full-width text."""
    lines: list[str] = []
    line = ""
    for piece in re.findall(r"\s+|[^\s\u2e80-\uffef]+|[\u2e80-\uffef]", text.strip()):
        word = " " if piece.isspace() else piece
        # A closing mark never begins a line.
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
        lines = wrapped(text, max(20, cells - left - 4))
        if width(name) > left:
            out.append(f"  {name}")
            first, rest = "", lines
        else:
            first, rest = (lines[0] if lines else ""), lines[1:]
            out.append(f"  {name}{' ' * (left - width(name))}  {first}".rstrip())
        out += [f"{' ' * (left + 4)}{line}" for line in rest]
    return "\n".join(out)


def _help_of(command: Any, ctx: typer.Context) -> str:
    cells = min(shutil.get_terminal_size((80, 24)).columns, 100)
    metavars = {"[OPTIONS]": _("[OPTIONS]"), "COMMAND [ARGS]...": _("COMMAND [ARGS]...")}
    pieces = [metavars.get(piece, piece) for piece in command.collect_usage_pieces(ctx)]
    blocks = [_("Usage: {command}").format(command=" ".join([ctx.command_path, *pieces]))]
    about = (command.help or "").strip()
    if about:
        blocks.append("\n\n".join("\n".join(wrapped(part, cells)) for part in about.split("\n\n")))
    records: dict[str, list[tuple[str, str]]] = {"argument": [], "option": []}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is not None:
            name, text = record
            for typed, word in _TYPES:
                name = name.replace(typed, word if param.param_type_name == "option" else "")
            if "--help" in param.opts:
                text = _("Show this help and leave.")
            for english, words in (("[required]", _("[required]")), ("[default: ", _("[default: "))):
                text = text.replace(english, words)
            records[param.param_type_name].append((name, text))
    sections = [(_("Arguments"), records["argument"]), (_("Options"), records["option"])]
    if isinstance(command, TyperGroup):
        shown = [(name, command.commands[name]) for name in command.list_commands(ctx)]
        commands = [(name, (sub.help or "").strip().split("\n")[0]) for name, sub in shown if not sub.hidden]
        sections.append((_("Commands"), commands))
    blocks += [f"{title}:\n{_columns(rows, cells)}" for title, rows in sections if rows]
    return "\n\n".join(blocks)


class Command(TyperCommand):
    """A command whose help is in the person's language."""

    def get_help(self, ctx: Any) -> str:
        return _help_of(self, ctx)


class Group(TyperGroup):
    """A group of commands; named without one of them it shows its help."""

    def get_help(self, ctx: Any) -> str:
        return _help_of(self, ctx)

    def list_commands(self, ctx: Any) -> list[str]:
        names = super().list_commands(ctx)
        if ctx.parent is not None:
            return names
        return sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not self.invoke_without_command and not ctx.resilient_parsing:
            from tui.cli.session import options

            if options.json:
                from engine.core.errors import UsageProblem

                raise UsageProblem(_("a command is missing"), hint=f"{ctx.command_path} --help")
            print(self.get_help(ctx), file=sys.stderr)
            raise typer.Exit(2)
        return super().parse_args(ctx, args)


def dress(app: typer.Typer) -> None:
    """Gives every command and group of `app`, all the way down, the classes above."""
    for command in app.registered_commands:
        command.cls = Command
    for group in app.registered_groups:
        group.cls = Group
        if group.typer_instance is not None:
            dress(group.typer_instance)


_TYPES = (
    (" <list[str]>", " TEXT…"),
    (" <str>", " TEXT"),
    (" <int range>", " N"),
    (" <int>", " N"),
    (" <float range>", " X"),
    (" <float>", " X"),
)
"""What typer calls the values of options, and what a person calls them; an argument has its own name."""

_SENTENCES: tuple[tuple[str, str], ...] = (
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
    (r"Got unexpected extra argument\(?s?\)? \((?P<a>.*)\)", N_("there is no place for {a}")),
)
_REASONS: tuple[tuple[str, str], ...] = (
    (r"Input should be a valid integer.*", N_("a whole number is needed")),
    (r"Input should be a valid number.*", N_("a number is needed")),
    (r"Input should be greater than or equal to (?P<a>.*)", N_("at least {a} is needed")),
    (r"Input should be greater than (?P<a>.*)", N_("more than {a} is needed")),
    (r"Input should be less than or equal to (?P<a>.*)", N_("at most {a} is allowed")),
    (r"Input should be less than (?P<a>.*)", N_("less than {a} is needed")),
    (r"Input should be (?P<a>'.*)", N_("one of {a} is needed")),
    (r".*? does not exist\.?", N_("it does not exist")),
)


def _translated(text: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, sentence in table:
        match = re.fullmatch(pattern, text.strip())
        if match:
            return _(sentence).format(**match.groupdict(default=""))
    return text.strip().rstrip(".")


def describe(problem: typer.TyperException) -> tuple[str, str]:
    """A usage error as (one sentence in the person's language, the command that helps)."""
    text = problem.format_message()
    value = re.fullmatch(r"Invalid value(?: for '?(?P<name>.+?)'?)?: (?P<why>(?s:.*))", text)
    if value is None:
        sentence = _translated(text, _SENTENCES)
    elif value["name"]:
        why = _translated(value["why"], _REASONS)
        sentence = _("{option}: {why}").format(option=value["name"], why=why)
    else:
        sentence = value["why"]
    context = getattr(problem, "ctx", None)
    return sentence, f"{context.command_path if context else 'h2q-tui'} --help"
