"""The headless commands, a module for each group. Each imports only typer, the words and `common` when
loaded, and its engine module when it is called, so that `--help` stays fast."""

from __future__ import annotations

from collections.abc import Callable

import typer

from tui.cli.commands import (
    chat,
    check,
    corpus,
    demo,
    evolve,
    export,
    memory,
    models,
    monitor,
    runs,
    schedule,
    train,
    validate,
    workspace,
)

GROUPS: tuple[Callable[[typer.Typer], None], ...] = (
    demo.register,
    check.register,
    monitor.register,
    workspace.register,
    memory.register,
    corpus.register,
    train.register,
    evolve.register,
    validate.register,
    chat.register,
    runs.register,
    models.register,
    export.register,
    schedule.register,
)
