"""`h2q-tui train`: corpus, training, validation and promotion of one model, in the foreground or detached."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import typer

from engine.core.filenames import shell_word
from engine.core.i18n import _
from tui.cli import session
from tui.cli.options import TRAIN_OPTIONS, Values, add_command, run_params

if TYPE_CHECKING:
    from engine.compat.h2q_config import StreamingConfig
    from engine.core.paths import Workspace
    from engine.models.resolve import ModelPlace
    from engine.runs.kinds import TrainParams


def register(app: typer.Typer) -> None:
    """Add `train`."""
    text = _("Train: corpus, model, verdict, and promotion when the new model is better.")
    add_command(app, "train", TRAIN_OPTIONS, _train, help=text)


def _train(values: Values) -> None:
    import msgspec

    from engine.core.i18n import language
    from engine.runs import torchrun
    from engine.runs.kinds import TrainParams
    from engine.runs.spec import make_spec
    from tui.cli.run_output import run_command

    _check_output(values)
    ws = session.workspace()
    streaming = _streaming(values["config"])
    base = _base(ws, values["model"], values["mode"]) if values["model"] else None
    params = run_params(TRAIN_OPTIONS, values) | {
        "model": base.reference if base is not None else None,
        "config": _models_file(values["config"]) if streaming is None else None,
        "settings": _settings(ws, values["set"], streaming, unload_ollama=values["unload_ollama"]),
        "wait": values["wait"] or not values["run_once"],
        "scheduled": os.environ.get("H2Q_SCHEDULED") == "1",
    }
    if streaming is not None and params.get("context") is None:
        params["context"] = streaming.context
    if torchrun.started_by_torchrun():
        _check_torchrun(values)
        params["nproc"] = torchrun.world_size()
    asked = msgspec.convert(params, TrainParams)
    _check_flags(asked, base)
    if torchrun.started_by_torchrun():
        raise typer.Exit(_train_in_torchrun(ws, asked))
    spec = make_spec(ws.root, asked, language=language())
    raise typer.Exit(run_command(ws, spec, detach=values["detach"]))


def _check_torchrun(values: Values) -> None:
    """Raises UsageProblem for flags that contradict torchrun."""
    from engine.core.errors import UsageProblem
    from engine.runs import torchrun

    if values["detach"]:
        raise UsageProblem(_("--detach does not work under torchrun, which waits for its processes"))
    if values["nproc"] not in (1, torchrun.world_size()):
        raise UsageProblem(
            _("--nproc {nproc} contradicts torchrun, which has started {count} processes").format(
                nproc=values["nproc"], count=torchrun.world_size()
            ),
            hint=f"torchrun --nproc-per-node {values['nproc']} --no-python h2q-tui train",
        )


def _train_in_torchrun(ws: Workspace, asked: TrainParams) -> int:
    """A process of torchrun: the first one is the run, the others compute for it. Returns the exit code.

    When torchrun has started all processes again, the run is resumed from its newest checkpoint.
    """
    from importlib import import_module

    from engine.core.errors import RunFailed
    from engine.core.i18n import language
    from engine.runs import torchrun
    from engine.runs.resume import interrupted_run, resume_spec
    from engine.runs.spec import make_spec
    from tui.cli.run_output import run_command

    worker = import_module("engine.training.distributed.worker")
    if torchrun.rank() > 0:
        return int(worker.serve_torchrun())
    earlier = interrupted_run(ws, asked) if torchrun.restarts() > 0 else None
    spec = (
        make_spec(ws.root, asked, language=language())
        if earlier is None
        else resume_spec(earlier, language())
    )
    code = run_command(ws, spec)
    if code != RunFailed.exit_code:
        worker.release_torchrun()
    return code


def _check_output(values: Values) -> None:
    """Before the run starts: what `--output` and `--training-dir` name. Raises UsageProblem."""
    from engine.core.outputs import check_model_output, check_output_parent

    mode = f" --mode {values['mode']}" if values["mode"] else ""
    if values["output"]:
        hint = f"h2q-tui train{mode} --output NEW-FOLDER"
        check_model_output(session.output_path(values["output"]), values["mode"] or "auto", hint=hint)
    elif values["training_dir"]:
        hint = f"h2q-tui train{mode} --training-dir OTHER-FOLDER"
        check_output_parent(session.output_path(values["training_dir"]), hint=hint)


def _check_flags(params: TrainParams, base: ModelPlace | None) -> None:
    """Raises UsageProblem for a flag that the mode does not read, or that the adapter to continue contradicts."""
    from engine.core.errors import UsageProblem
    from engine.models.adapter_settings import check_continued
    from engine.models.resolve import ModelKind
    from engine.runs.train_flags import check_processes, unused_flags

    if unused := unused_flags(params, params.mode):
        raise UsageProblem(
            _("--mode {mode} makes no use of {flags}").format(mode=params.mode, flags=_(", ").join(unused)),
            hint=f"h2q-tui train --mode {params.mode}",
        )
    check_processes(params.nproc, params.mode)
    if base is not None and base.kind is ModelKind.ADAPTER and base.folder is not None and not params.resume:
        check_continued(base.folder, params)


def _streaming(config: str | None) -> StreamingConfig | None:
    """The streaming configuration of H2Q-Evo that `--config` names; None if it is a models.json."""
    from engine.compat.h2q_config import read_streaming_config
    from engine.core.outputs import check_replaced_file

    if not config:
        return None
    # Before it is read, which a FIFO would never end.
    check_replaced_file(session.output_path(config), hint="h2q-tui paths")
    streaming = read_streaming_config(session.resolve(config))
    if streaming is not None and streaming.ignored:
        typer.echo(_("Ignored settings: {names}").format(names=_(", ").join(streaming.ignored)), err=True)
    return streaming


def _settings(
    ws: Workspace, assignments: list[str], streaming: StreamingConfig | None, *, unload_ollama: bool
) -> dict[str, bool | int | float | str]:
    """Settings for this run only: of the streaming configuration, then of `--set`. Checked before the run starts."""
    from engine.core.config import load_settings, with_overrides
    from engine.core.errors import UsageProblem
    from engine.machine.cpu import check_cpu_affinity

    overrides = dict(streaming.settings) if streaming is not None else {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageProblem(
                _("--set takes NAME=VALUE, not {value}").format(value=text),
                hint="h2q-tui train --set micro_batch_size=2",
            )
        overrides[name.strip()] = value.strip()
    if unload_ollama:
        overrides["unload_ollama"] = True
    settings = with_overrides(load_settings(ws), overrides)
    check_cpu_affinity(settings.cpu_affinity)
    return overrides


def _models_file(config: str | None) -> str | None:
    """The absolute path of the models.json of `--config`. Its folder must exist: a typo would promote into a new file."""
    from engine.core.errors import BadInput

    if not config:
        return None
    path = session.resolve(config)
    if not path.parent.is_dir():
        raise BadInput(
            _("There is no such folder"), path=path.parent, hint=f"mkdir -p {shell_word(path.parent)}"
        )
    return str(path)


def _base(ws: Workspace, name: str, mode: str) -> ModelPlace:
    """The model to train on, as the run finds it. Raises BadInput and UsageProblem, before the run exists."""
    from engine.models.catalog import check_base

    check_base(session.model_place(ws, name), mode)
    return session.loadable_model(ws, name)
