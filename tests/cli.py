"""The command line in the process of the tests."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest
from _pytest.capture import DontReadFromInput

from tui.cli.main import main
from tui.cli.session import GlobalOptions, options


@dataclass(frozen=True)
class CliResult:
    code: int
    out: str
    err: str


def run_cli(*arguments: str) -> CliResult:
    """Run one command in English and capture what it prints. The engine's priority is that of the tests."""
    vars(options).update(vars(GlobalOptions()))
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as exit_,
    ):
        patch.setattr("engine.runs.runner.lower_priority", lambda: None)
        if isinstance(sys.stdin, DontReadFromInput):
            patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
        main(["--lang", "en", *arguments])
    return CliResult(int(exit_.value.code or 0), out.getvalue(), err.getvalue())
