"""The engine's processes: `python -m engine run RUN_DIR` and `python -m engine serve DATA_DIR`.

They are started by the program, not by people, and speak through journals and sockets; what is printed here
lands in `engine.log`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Exit codes as in DESIGN 5."""
    parser = argparse.ArgumentParser(prog="python -m engine", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="carry out the run in RUN_DIR")
    run.add_argument("run_dir", type=Path)
    run.add_argument("--lock-fd", type=int, help="descriptor of the run's lock, handed over by the launcher")
    run.add_argument("--scope", default="", help="how the process is kept alive")
    serve = verbs.add_parser("serve", help="the inference service of the workspace DATA_DIR")
    serve.add_argument("data_dir", type=Path)
    given = parser.parse_args(arguments)
    return (
        _serve(given.data_dir) if given.verb == "serve" else _run(given.run_dir, given.lock_fd, given.scope)
    )


def _run(run_dir: Path, lock_fd: int | None, scope: str) -> int:
    import faulthandler

    from engine.core.errors import H2QError
    from engine.core.i18n import set_language
    from engine.runs import runner
    from engine.runs.rundir import RunDir

    faulthandler.enable()
    runner.lower_priority()
    try:
        set_language(RunDir(run_dir).spec.language)
        return runner.main(run_dir, lock_fd=lock_fd, scope=scope)
    except H2QError as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code


def _serve(data_dir: Path) -> int:
    service = importlib.import_module("engine.inference.service")
    return int(service.main(data_dir))


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of libraries must not hold up, or crash, a process whose work is done and written.
    os._exit(code)
