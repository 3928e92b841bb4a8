"""The headless commands, one module for each group.

A module imports typer, the translations and `tui.cli` when it is loaded, and engine modules when its command is
called, so that `--help` stays fast.
"""

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
    hive,
    memory,
    models,
    monitor,
    notify,
    ollama,
    runs,
    schedule,
    train,
    validate,
    verdicts,
    web,
    workspace,
)

GROUPS: tuple[Callable[[typer.Typer], None], ...] = (
    demo.register,
    check.register,
    monitor.register,
    notify.register,
    web.register,
    workspace.register,
    memory.register,
    corpus.register,
    train.register,
    evolve.register,
    validate.register,
    verdicts.register,
    chat.register,
    runs.register,
    models.register,
    export.register,
    ollama.register,
    hive.register,
    schedule.register,
)
