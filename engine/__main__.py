"""The engine's processes: `python -m engine run RUN_DIR`, `serve DATA_DIR`, `watch DATA_DIR`, `deliver DATA_DIR`,
`rank STORE RANK COUNT`, `gate` and `llama`.

The program starts them; they communicate through journals and sockets. Output goes to `engine.log`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

from engine.core.openmp import let_waiting_threads_sleep


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code; expected failures have that of their `H2QError`."""
    parser = argparse.ArgumentParser(prog="python -m engine", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="execute the run in RUN_DIR")
    run.add_argument("run_dir", type=Path)
    run.add_argument("--lock-fd", type=int, help="descriptor of the run's lock, inherited from the launcher")
    run.add_argument("--scope", default="", help="how the process is kept alive")
    serve = verbs.add_parser("serve", help="the inference service of the workspace DATA_DIR")
    serve.add_argument("data_dir", type=Path)
    watch = verbs.add_parser("watch", help="watch the machine and the runs of the workspace DATA_DIR")
    watch.add_argument("data_dir", type=Path)
    watch.add_argument("--tick", type=float, default=5.0, help="seconds between two rounds")
    sends = verbs.add_parser("deliver", help="send the alerts that wait in the workspace DATA_DIR")
    sends.add_argument("data_dir", type=Path)
    rank = verbs.add_parser("rank", help="one of the processes that compute a training together")
    rank.add_argument("store", type=Path, help="file in which they meet")
    rank.add_argument("rank", type=int)
    rank.add_argument("count", type=int)
    verbs.add_parser("llama", help="llama.cpp with the parameters on stdin")
    verbs.add_parser("gate", help="compare a joined adapter on held-out conversations, as stdin says")
    options = parser.parse_args(arguments)
    let_waiting_threads_sleep()
    if options.verb == "llama":
        return int(importlib.import_module("engine.inference.llama.process").main())
    if options.verb == "gate":
        return int(importlib.import_module("engine.hive.gate_process").main())
    if options.verb == "rank":
        worker = importlib.import_module("engine.training.distributed.worker")
        return int(worker.main(options.store, options.rank, options.count))
    if options.verb == "watch":
        return int(importlib.import_module("engine.alerts.watcher").main(options.data_dir, options.tick))
    if options.verb == "deliver":
        return int(importlib.import_module("engine.alerts.delivery").main(options.data_dir))
    if options.verb == "serve":
        return _serve(options.data_dir)
    return _run(options.run_dir, options.lock_fd, options.scope)


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
    # Library threads must not delay or crash a process whose work is finished and on disk.
    os._exit(code)
