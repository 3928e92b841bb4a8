"""The actions of the Hive tab."""

from __future__ import annotations

from engine.core.i18n import N_
from tui.action_rows.row import AppAction, actions_of

HIVE = actions_of(
    "hive",
    AppAction(
        "hive.serve",
        "s",
        N_("serve"),
        "hive",
        "h2q-tui hive serve",
        footer=True,
        help=N_("Open a hive on this machine, or close it; names address and port first."),
    ),
    AppAction(
        "hive.upload",
        "P",
        N_("upload"),
        "hive",
        "h2q-tui hive upload ADAPTER",
        footer=True,
        help=N_("Share the adapter under the cursor: shows what leaves, and asks."),
    ),
    AppAction(
        "hive.download",
        "D",
        N_("download"),
        "hive",
        "h2q-tui hive download VERSION",
        footer=True,
        help=N_("Fetch the version under the cursor, else the current one, into the workspace."),
    ),
    AppAction(
        "hive.aggregate",
        "M",
        N_("aggregate"),
        "hive",
        "h2q-tui hive aggregate",
        footer=True,
        help=N_("Have the server join the adapters that wait into a new version."),
    ),
    AppAction(
        "hive.validate",
        "v",
        N_("validate"),
        "hive",
        "h2q-tui validate --base A --new B",
        footer=True,
        help=N_("Compare what was fetched with the model in use, on your own test set."),
    ),
    AppAction(
        "hive.adopt",
        "a",
        N_("adopt"),
        "hive",
        "h2q-tui promote NAME",
        footer=True,
        help=N_("Put the adapter into use; rollback restores the one before."),
    ),
    AppAction(
        "hive.server",
        "e",
        N_("server"),
        "hive",
        "h2q-tui hive status --server URL",
        help=N_("The address of the hive server that you share with."),
    ),
)
