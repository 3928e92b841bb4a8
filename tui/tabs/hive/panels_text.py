"""The texts of the Hive tab: pure functions from its state to Content and rows."""

from __future__ import annotations

from textual.content import Content

from engine.core.i18n import _, n_, with_percent
from engine.core.local_time import local_time
from engine.hive.outgoing import base_name
from engine.hive.protocol import VersionInfo, VersionState
from engine.hive.sharing_text import size_text
from engine.hive.version_text import energy_text, gain_text, state_text
from tui.tabs.hive.reader import HiveState, OwnAdapter
from tui.terminal.glyphs import Glyphs
from tui.terminal.text import fit, one_line, safe
from tui.widgets.virtual_list import ListCell, ListRow

MOST_PEOPLE = 50


def empty_text(state: HiveState, serve_address: str) -> Content:
    """What a hive is in two sentences, and what to press."""
    rows = [
        ("s", _("open a hive on this machine ({address})").format(address=serve_address)),
        ("e", _("name the server of a hive that others opened")),
    ]
    if state.own:
        rows.append(("P", _("share an adapter with it; shows what leaves, and asks")))
    else:
        rows.append(("1", _("train an adapter first: n there, then lora")))
    lines = [
        safe(_("A hive joins the adapters of several people into one that has learnt from each of them.")),
        safe(_("Conversations stay on each machine: only adapters travel, and only when you say so.")),
        Content(""),
        *(Content.assemble((f"  {key}  ", "$text-accent bold"), safe(text)) for key, text in rows),
    ]
    if state.problem:
        lines += [Content(""), safe(state.problem, "$text-error")]
    return Content("\n").join(lines)


def server_lines(state: HiveState, glyphs: Glyphs) -> list[Content]:
    """Three lines: where and who, the round, traffic and base."""
    if state.address is None:
        return [safe(state.problem, "$text-error")]
    place = f"{state.address.url} " + (_("(this machine)") if state.address.local else "")
    if state.info is None or state.status is None:
        hint = _("s opens a hive here, e names another one") if state.served is None else _("R asks again")
        return [
            Content.assemble((f"{glyphs.failed} ", "$text-error"), safe(place)),
            safe(state.problem or _("asking …"), "$text-error" if state.problem else "$foreground-muted"),
            safe(hint, "$foreground-muted"),
        ]
    info, status = state.info, state.status
    who = _("you are {user}").format(user=one_line(info.user)) if info.user else _("no token is sent")
    mark = glyphs.running if not status.aggregating else glyphs.dot
    doing = _("joining now") if status.aggregating else _("served from here") if state.served else ""
    head = _(" · ").join(part for part in (place.strip(), who, doing) if part)
    waiting = _("round {round}: {waiting} of {needed} adapters wait").format(
        round=info.round, waiting=status.pending_for_aggregation, needed=info.min_adapters
    )
    newest = _("newest version {version}").format(version=status.latest_aggregated_version or _("none yet"))
    traffic = _("from here {sent} sent, {received} received").format(
        sent=size_text(state.bytes_sent), received=size_text(state.bytes_received)
    )
    everyone = _("server {received} in, {sent} out").format(
        received=size_text(status.bytes_received), sent=size_text(status.bytes_sent)
    )
    base = _("base {name}").format(name=one_line(info.base_model) or "–")
    return [
        Content.assemble((f"{mark} ", "$text-success"), safe(head)),
        safe(_(" · ").join((waiting, newest, base))),
        safe(_(" · ").join((traffic, everyone)), "$foreground-muted"),
    ]


def own_row(adapter: OwnAdapter, state: HiveState, glyphs: Glyphs) -> ListRow:
    """An adapter of the workspace: sign, name, what became of it."""
    text, kind = _fate(adapter, state)
    sign = ListCell(glyphs.running, "success") if adapter.name == state.in_use else _own_sign(adapter, glyphs)
    return ListRow(adapter.name, (sign, ListCell(adapter.name), ListCell(text, kind)))


def own_note(adapter: OwnAdapter) -> Content:
    """What there is to know of the adapter under the cursor, in two lines."""
    card = adapter.card
    samples = len(card.lineage.conversations)
    count = n_("{n} conversation", "{n} conversations", samples).format(n=samples)
    base = _("on {base}").format(base=one_line(base_name(card.base_path)))
    lines = [_(" · ").join((one_line(adapter.name), base, count))]
    if adapter.fetched is not None:
        lines.append(_("from {place}").format(place=one_line(adapter.fetched.place)))
    elif adapter.shared is not None:
        lines.append(_("shared as {id}").format(id=one_line(adapter.shared.adapter_id)))
    return Content("\n").join(safe(line, "$foreground-muted") for line in lines)


def _own_sign(adapter: OwnAdapter, glyphs: Glyphs) -> ListCell:
    if adapter.decision == "promote":
        return ListCell(glyphs.done, "success")
    if adapter.decision:
        return ListCell(glyphs.kept, "warning")
    return ListCell(glyphs.dot, "dim")


def _fate(adapter: OwnAdapter, state: HiveState) -> tuple[str, str]:
    """(what became of it, kind of the cell)."""
    if adapter.name == state.in_use:
        return _("in use"), "success"
    if adapter.fetched is not None:
        judged = {
            "promote": (_("fetched, better here"), "success"),
            "keep": (_("fetched, not better here"), "warning"),
            "inconclusive": (_("fetched, too few to tell"), "warning"),
        }
        return judged.get(adapter.decision, (_("fetched, not judged"), "warning"))
    if adapter.used_in:
        return _("in {version}").format(version=adapter.used_in), "success"
    if adapter.shared is not None:
        where = adapter.shared.round
        return (_("shared, round {round}").format(round=where) if where else _("shared")), ""
    return _("not shared"), "dim"


def version_row(version: VersionInfo, glyphs: Glyphs) -> ListRow:
    """A version: sign, name, adapters, energy, gain."""
    signs = {
        VersionState.CURRENT: ListCell(glyphs.done, "success"),
        VersionState.REJECTED: ListCell(glyphs.failed, "error"),
        VersionState.WITHDRAWN: ListCell(glyphs.kept, "warning"),
    }
    return ListRow(
        version.version,
        (
            signs.get(version.state, ListCell(glyphs.dot, "dim")),
            ListCell(version.version),
            ListCell(f"{len(version.parents):>2}", "dim"),
            ListCell(f"{energy_text(version.energy):>5}"),
            ListCell(f"{gain_text(version):>7}", _gain_kind(version)),
        ),
    )


def _gain_kind(version: VersionInfo) -> str:
    if version.gain is None:
        return "dim"
    return "success" if version.gain > 0 else "warning"


def people_lines(state: HiveState) -> list[Content]:
    """Rounds in one line, then the contributors by the names of their tokens."""
    lines = []
    rounds = [
        _("{round}: {n} → {version}").format(
            round=one.number, n=one.adapters, version=one_line(one.version) or "…"
        )
        for one in state.rounds[:4]
    ]
    if rounds:
        lines.append(safe(_("rounds  {list}").format(list="   ".join(rounds)), "$foreground-muted"))
    if not state.contributors:
        lines.append(safe(_("nobody has shared yet"), "$foreground-muted"))
    for person in state.contributors[:MOST_PEOPLE]:
        when = local_time("%m-%d %H:%M", person.last_at) if person.last_at else "–"
        count = n_("{n} adapter", "{n} adapters", person.adapters).format(n=person.adapters)
        parts = (fit(person.user_id, 16), fit(count, 12), fit(size_text(person.bytes_received), 9), when)
        line = Content("  ".join(parts))
        if person.refused:
            refused = n_("{n} refused", "{n} refused", person.refused).format(n=person.refused)
            line = line.append(Content.styled("  " + refused, "$text-warning"))
        lines.append(line)
    return lines


def version_note(version: VersionInfo, state: HiveState) -> Content:
    """What there is to know of the version under the cursor, in one or two lines."""
    parts = [
        state_text(version.state),
        _("{method}, rank {rank}").format(method=version.method, rank=version.rank),
    ]
    if state.fetched_as(version.version) is not None:
        parts.insert(1, _("is here"))
    parts.append(size_text(version.bytes))
    if version.epsilon is not None:
        parts.append(f"ε {version.epsilon:.2g}")
    outliers = sum(parent.outlier for parent in version.parents)
    if outliers:
        parts.append(n_("{n} unlike the others", "{n} unlike the others", outliers).format(n=outliers))
    people = _(", ").join(
        f"{one_line(parent.user_id)} {with_percent(f'{parent.weight * 100:.0f}')}"
        for parent in version.parents[:6]
    )
    lines = [safe(_(" · ").join(parts), "$foreground-muted"), safe(people, "$foreground-muted")]
    if version.reason:
        lines.append(safe(one_line(version.reason), "$text-warning" if version.gate == "keep" else ""))
    return Content("\n").join(lines)
