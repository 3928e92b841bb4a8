"""`h2q-tui hive aggregate`: joins adapters in folders of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from engine.core.i18n import _, n_, with_percent
from tui.cli import output, session
from tui.cli.hive_connection import folder_option, key_option, key_place

if TYPE_CHECKING:
    from engine.hive.aggregation.terms import JoinOptions, JoinReport
    from engine.hive.privacy import NoiseOptions


def register(group: typer.Typer) -> None:
    """Add the command to the group `hive`."""

    @group.command(help=_("Join LoRA adapters in folders, or of the workspace by name, without a server."))
    def aggregate(
        folders: list[str] = typer.Argument(None, metavar="DIR…"),  # noqa: B008
        output_: str = typer.Option(..., "--output", metavar="DIR", help=_("Folder of the joined adapter.")),
        method: str = typer.Option(
            "clip",
            "--method",
            help=_(
                "clip (updates at most of the median norm, without those against the others; then svd), svd (best adapter of the rank), stack (exact, "
                "ranks add up), fedex (mean of the factors, its residual in further ranks), fedavg (mean of the "
                "factors, which is off), trimmed, median, krum (against hostile adapters)."
            ),
        ),
        rank: int | None = typer.Option(
            None,
            "--rank",
            min=1,
            max=4096,
            help=_("Rank of the result. Default: the largest one of the adapters."),
        ),
        weights: str = typer.Option(
            "",
            "--weights",
            metavar="N,N,…",
            help=_(
                "Weight of each adapter. Default: the conversations that each was trained on, where all say it."
            ),
        ),
        hostile: int | None = typer.Option(
            None,
            "--hostile",
            min=0,
            help=_("Adapters that may be hostile (trimmed, krum). Default: a quarter."),
        ),
        frozen_a: bool = typer.Option(
            False, "--frozen-a", help=_("All adapters were trained with the same fixed A; refuse others.")
        ),
        noise: float | None = typer.Option(
            None,
            "--noise",
            min=0.0,
            help=_("Differential privacy: noise multiplier; needs --norm. The epsilon is said afterwards."),
        ),
        norm: float | None = typer.Option(
            None, "--norm", min=0.0, help=_("Norm that every update is scaled down to under --noise.")
        ),
        delta: float = typer.Option(1e-5, "--delta", help=_("Delta of the epsilon under --noise.")),
        rounds_before: int = typer.Option(
            0, "--rounds-before", min=0, help=_("Earlier rounds of the same people with the same --noise.")
        ),
        folder: str = folder_option(),
        key_file: str = key_option(),
    ) -> None:
        from engine.core.errors import UsageProblem
        from engine.hive.aggregation.terms import JoinMethod, JoinOptions
        from engine.hive.local_join import aggregate_folders

        if method not in list(JoinMethod):
            raise UsageProblem(
                _("{option} takes {choices}, not {value}").format(
                    option="--method", choices=_(", ").join(JoinMethod), value=method
                ),
                hint="h2q-tui hive aggregate --help",
            )
        options = JoinOptions(
            method=JoinMethod(method),
            rank=rank,
            hostile=hostile,
            frozen_a=frozen_a,
            noise=_noise(noise, norm, delta, rounds_before),
        )
        shared, samples = _signed(folder, key_file) if folder else ([], [])
        places = [*map(_folder, folders or []), *shared]
        if not places:
            raise UsageProblem(
                _("no adapters are named: DIR… or --folder DIR"), hint="h2q-tui hive aggregate --help"
            )
        report = aggregate_folders(
            places,
            session.output_path(output_),
            options,
            weights=_weights(weights) or (samples if shared and not folders else ()),
        )
        _show(report, session.output_path(output_), options)


def _signed(folder: str, key_file: str) -> tuple[list[Path], list[float]]:
    """The adapters of a shared folder whose signatures hold and that say what they were trained on, and the conversations
    of each; the others are named."""
    from engine.hive.shared_folder import folder_entries, read_key

    entries = folder_entries(session.resolve(folder), read_key(key_place(key_file)))
    signed: list[tuple[Path, float]] = []
    for entry in entries:
        if entry.manifest is None:
            output.echo(_("{id} is refused: {reason}").format(id=entry.id, reason=entry.problem), error=True)
        elif not entry.manifest.samples:
            # One that was joined from the others must not count again.
            output.echo(
                _("{id} is left out: it says no number of conversations, as joined ones do").format(
                    id=entry.id
                ),
                error=True,
            )
        else:
            signed.append((entry.path, float(entry.manifest.samples)))
    return [path for path, _count in signed], [count for _path, count in signed]


def _folder(name: str) -> Path:
    """A folder, or an adapter of the workspace by its name."""
    place = session.resolve(name)
    if place.exists() or "/" in name or name in ("", ".", ".."):
        return place
    own = session.locate_workspace().adapters / name
    return own if own.is_dir() else place


def _weights(text: str) -> list[float]:
    """Raises UsageProblem."""
    from engine.core.errors import UsageProblem

    try:
        return [float(one) for one in text.split(",")] if text else []
    except ValueError as problem:
        raise UsageProblem(
            _("--weights takes numbers separated by commas"), hint="h2q-tui hive aggregate --help"
        ) from problem


def _noise(multiplier: float | None, norm: float | None, delta: float, before: int) -> NoiseOptions | None:
    """Raises UsageProblem for one option without the other."""
    from engine.core.errors import UsageProblem
    from engine.hive.privacy import NoiseOptions

    if (multiplier is None) != (norm is None):
        raise UsageProblem(
            _("--noise and --norm go together: the norm must not be read off the updates"),
            hint="h2q-tui hive aggregate --help",
        )
    if multiplier is None or norm is None:
        return None
    return NoiseOptions(multiplier, norm, delta, (multiplier,) * before)


def _show(report: JoinReport, folder: Path, options: JoinOptions) -> None:
    if session.options.json:
        output.echo_json(report)
        return
    output.echo(
        n_(
            "joined {n} adapter by {method}: rank {rank}, {dtype}, {folder}",
            "joined {n} adapters by {method}: rank {rank}, {dtype}, {folder}",
            report.num_adapters,
        ).format(
            n=report.num_adapters, method=report.method, rank=report.rank, dtype=report.dtype, folder=folder
        )
    )
    output.echo(
        _("retained energy {energy}, off by {error} from the result without a limit of rank").format(
            energy=with_percent(f"{100 * report.energy:.1f}"), error=f"{report.error_vs_exact:.2g}"
        )
        if options.method not in ("fedavg", "fedex")
        else _("off by {error} from the mean of the updates").format(error=f"{report.error_vs_exact:.2g}")
    )
    if options.method == "fedex":
        output.echo(
            _("residual of the mean of the factors: {size} of the mean, kept in {rank} further ranks").format(
                size=f"{report.residual:.2g}", rank=report.residual_rank
            )
        )
    elif options.method != "fedavg" and report.naive_error is not None:
        output.echo(
            _("the mean of the factors would be off by {error}").format(error=f"{report.naive_error:.2g}")
        )
    for one in report.adapters:
        output.echo(
            _("  {name}: weight {weight}, used {used}, norm {norm}, cosine to the others {cosine} {flags}")
            .format(
                name=one.adapter,
                weight=f"{one.weight:.3f}",
                used=f"{one.used:.3f}",
                norm=f"{one.norm:.3g}",
                cosine=f"{one.cosine:+.2f}",
                flags=_(", ").join(_flag(name) for name in one.flags),
            )
            .rstrip()
        )
    for refused in report.refused:
        output.echo(
            _("  {name}: refused ({rule}): {reason}").format(
                name=refused.adapter, rule=refused.rule, reason=refused.reason
            )
        )
    if report.privacy is not None:
        output.echo(report.privacy.sentence)
        output.echo(
            _("expected norm of the noise: {ratio} times the norm that updates are scaled down to").format(
                ratio=f"{report.privacy.noise_to_norm:.2g}"
            )
        )


def _flag(name: str) -> str:
    return {
        "norm": _("unusual norm"),
        "against": _("points away from the others"),
        "direction": _("shares less with the others than they with each other"),
        "copy": _("the same as another one"),
    }.get(name, name)
