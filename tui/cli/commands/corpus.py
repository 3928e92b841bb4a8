"""`h2q-tui corpus`: build, show and export the corpus; try a filter on any file."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

import typer

from engine.core.i18n import _, language, n_
from engine.core.local_time import local_time
from tui.cli import output, session
from tui.cli.commands import corpus_review
from tui.cli.options import DETACH

if TYPE_CHECKING:
    from engine.corpus.review.types import ReviewDetail, ReviewItem
    from engine.corpus.stats import CorpusStats

E = TypeVar("E", bound=StrEnum)

_FILTER = "stage:near lang:zh len>200 …"


def register(app: typer.Typer) -> None:
    """Add the group `corpus`."""
    corpus = typer.Typer(
        name="corpus",
        help=_("The training data of your models: build, review, export."),
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.add_typer(corpus)
    _register_building(corpus)
    _register_reading(corpus)
    corpus_review.register(corpus)
    _register_files(corpus)


def _register_building(corpus: typer.Typer) -> None:
    @corpus.command("build", help=_("Filter all conversations in memory; your decisions are kept."))
    def build(
        detach: bool = DETACH.render(),
    ) -> None:
        from engine.runs.kinds import CorpusParams
        from engine.runs.spec import make_spec
        from tui.cli.run_output import run_command

        ws = session.workspace()
        raise typer.Exit(
            run_command(ws, make_spec(ws.root, CorpusParams(), language=language()), detach=detach)
        )

    @corpus.command(
        "stats", help=_("Conversations collected, dropped at each stage, and used for training and test.")
    )
    def stats() -> None:
        from engine.corpus.stats import corpus_stats as read
        from engine.memory.store import MemoryStore
        from tui.host.corpus_text import stage_name

        with MemoryStore(session.workspace(create=False).memory_db, readonly=True) as store:
            figures = read(store)
        rows = [(_("collected"), figures.collected)]
        rows += [
            (_("dropped: {stage}").format(stage=stage_name(stage)), count)
            for stage, count in figures.dropped.items()
        ]
        rows += [
            (_("rejected"), figures.rejected),
            (_("pending"), figures.pending),
            (_("accepted"), figures.accepted),
            (_("  with PII replaced"), figures.redacted),
            (_("  for training"), figures.train),
            (_("  held out for the test"), figures.test),
            (_("  waiting for the next test set"), figures.waiting),
        ]
        if figures.border:
            rows.append((_("  near duplicates across training and test, in neither"), figures.border))
        if figures.unassigned:
            rows.append((_("  accepted since the last build"), figures.unassigned))
        for name, count in rows:
            output.echo(f"{count:>9,}  {name}")
        for line in _composition(figures):
            output.echo(line)
        if not figures.collected:
            output.echo(_("the corpus is empty") + " → h2q-tui corpus build")
        elif figures.missing:
            output.echo(_("about {n} more conversations are needed for a verdict").format(n=figures.missing))
        if session.options.json:
            output.echo_json(figures)


def _register_reading(corpus: typer.Typer) -> None:
    @corpus.command("list", help=_("The conversations of the corpus, newest first."))
    def list_(
        filter_: str = typer.Option("", "--filter", metavar="FILTER", help=_FILTER),
        limit: int = typer.Option(50, "--limit", min=0, help=_("Number of rows to show.")),
        offset: int = typer.Option(0, "--offset", min=0, help=_("Number of rows to skip.")),
        order: str = typer.Option("newest", "--order", help="newest|oldest|longest|shortest|best|worst"),
    ) -> None:
        from engine.corpus.review.filter_query import ListOrder, check_filter

        sorting = _one_of(ListOrder, order)
        check_filter(filter_)
        with corpus_review.open_review(readonly=True) as store:
            total = store.count(filter_)
            items = store.page(filter_, offset, limit, sorting)
        for item in items:
            output.echo(_line(item))
        output.echo(_("{shown} of {total}").format(shown=len(items), total=total))
        if session.options.json:
            output.echo_json({"total": total, "offset": offset, "rows": items})

    @corpus.command("show", help=_("One conversation with the results of the filters and their reasons."))
    def show(
        id_: str = typer.Argument(metavar="ID"),
        diff: bool = typer.Option(False, "--diff", help=_("Show edits as [-before-]{+after+}.")),
    ) -> None:
        with corpus_review.open_review(readonly=True) as store:
            detail = store.detail(store.find(id_))
        for line in _lines(detail, diff=diff):
            output.echo(line)
        if session.options.json:
            output.echo_json(detail)


def _register_files(corpus: typer.Typer) -> None:
    @corpus.command(
        "export", help=_("Export the accepted conversations, redacted, for other training programs.")
    )
    def export(
        format_: str = typer.Option(
            "messages", "--format", help="messages|alpaca|sharegpt|prompt-completion"
        ),
        file: str = typer.Option(
            None, "--output", metavar="FILE", help=_("Default: a file in the workspace.")
        ),
        split: str = typer.Option("all", "--split", help="all|train|test"),
    ) -> None:
        from engine.corpus import export as exporting
        from engine.corpus.enums import DataSplit
        from engine.memory.store import MemoryStore

        chosen = _one_of(exporting.ExportFormat, format_)
        part = None if split == "all" else _one_of(DataSplit, split)
        ws = session.workspace(create=False)
        name = f"corpus_{chosen.value.replace('-', '_')}_{time.strftime('%Y%m%d_%H%M%S')}{exporting.suffix(chosen)}"
        path = session.output_path(file) if file else ws.training / "export" / name
        with MemoryStore(ws.memory_db, readonly=True) as store:
            result = exporting.export_corpus(store, path, chosen, split=part)
        output.echo(
            n_("{rows} row in {path}", "{rows} rows in {path}", result.rows).format(
                rows=f"{result.rows:,}", path=result.path
            )
        )
        if result.answers_without_place:
            output.echo(
                n_(
                    "{n} answer has no question directly before it; only --format messages can express it",
                    "{n} answers have no question directly before them; only --format messages can express them",
                    result.answers_without_place,
                ).format(n=f"{result.answers_without_place:,}")
            )
        if session.options.json:
            output.echo_json(result)

    @corpus.command("scan", help=_("Try a filter on a JSONL file of {id, text}; memory is not used."))
    def scan(
        file: str = typer.Argument(metavar="FILE"),
        stage: str = typer.Option(..., "--stage", help="low_value|sensitive|near"),
        threshold: float = typer.Option(
            0.8, "--threshold", min=0.3, max=1.0, help=_("Similarity threshold of near duplicates.")
        ),
    ) -> None:
        from engine.corpus import scan as scanning

        chosen = _one_of(scanning.ScanStage, stage)
        inputs = list(scanning.read_rows(session.resolve(file)))
        rows = scanning.scan(inputs, chosen, threshold=threshold)
        for row in rows:
            if row.action != "keep":
                spans = " ".join(f"{span.type}[{span.start}:{span.end}]" for span in row.spans)
                near = "" if row.duplicate_of is None else f"→ {row.duplicate_of}"
                output.echo(f"{row.id}  {row.action}  {spans or row.reason} {near}".rstrip())
        changed = sum(row.action != "keep" for row in rows)
        output.echo(_("{changed} of {total} rows").format(changed=changed, total=len(rows)))
        if session.options.json:
            output.echo_json({"rows": rows})


def _composition(figures: CorpusStats) -> list[str]:
    """Masked turns, languages, quality and similarity of the accepted conversations; a line for each that applies."""
    from engine.corpus.enums import REASON_LABELS

    lines = []
    if figures.masked:
        reasons = _(", ").join(
            f"{_(REASON_LABELS[reason]) if reason in REASON_LABELS else reason} {n:,}"
            for reason, n in figures.masked.items()
        )
        lines.append(
            _("turns not trained on: {n} ({reasons})").format(n=f"{figures.masked_turns:,}", reasons=reasons)
        )
    if figures.languages:
        shares = _(", ").join(f"{language or '?'} {n:,}" for language, n in figures.languages.items())
        lines.append(_("languages: {shares}").format(shares=shares))
    if figures.quality:
        low, middle, high = (f"{value:.2f}" for value in figures.quality)
        lines.append(
            _("quality: median {middle}, half of them between {low} and {high} (0 to 1)").format(
                low=low, middle=middle, high=high
            )
        )
    if figures.grouped:
        lines.append(
            _("similar to another: {n}, grouped by {embedder}").format(
                n=f"{figures.grouped:,}", embedder=figures.embedder
            )
        )
    return lines


def _one_of(choices: type[E], value: str) -> E:
    """Raises typer.BadParameter that names the choices."""
    try:
        return choices(value)
    except ValueError:
        names = _(", ").join(choice.value for choice in choices if choice.value)
        raise typer.BadParameter(
            _("{value} is not one of {choices}").format(value=value, choices=names)
        ) from None


def _stage_and_reason(stage: str, reason: str) -> str:
    """Stage and reason in the language in use."""
    from tui.host.corpus_text import reason_text, stage_name

    return f"{stage_name(stage)}: {reason_text(reason)}" if stage else ""


def _line(item: ReviewItem) -> str:
    when = local_time("%Y-%m-%d", item.time) if item.time is not None else " " * 10
    return f"{item.id[:12]:<12}  {item.state:<8}  {when}  {item.first_line[:60]}  {_stage_and_reason(item.stage, item.reason)}".rstrip()


def _lines(detail: ReviewDetail, *, diff: bool = False) -> list[str]:
    from engine.corpus.enums import STATE_LABELS, ReviewState
    from engine.corpus.review.detail import diff_markup, word_diff

    item = detail.item
    lines = [
        item.id,
        _("{state}, {pairs} answers, {characters} characters, {source}").format(
            state=_(STATE_LABELS[ReviewState(item.state)]),
            pairs=item.pairs,
            characters=item.characters,
            source=item.source,
        ),
    ]
    lines += [
        f"  {why.action}  {_stage_and_reason(why.stage, why.reason)}"
        + ("" if why.turn < 0 else " " + _("(turn {n})").format(n=why.turn + 1))
        + ("" if why.duplicate_of is None else f" → {why.duplicate_of}")
        for why in detail.reasons
    ]
    for turn in detail.turns:
        mark = "" if not turn.masked else " " + _("(context only)")
        mark += "" if turn.original is None else " " + _("(edited)")
        text = turn.redacted
        if diff and turn.original is not None:
            text = "".join(map(diff_markup, word_diff(turn.original, turn.text)))
        lines += ["", f"[{turn.role}]{mark}", text if text.strip() else _("(not imported)")]
    return lines
