"""The actions of the Train tab."""

from __future__ import annotations

from engine.core.i18n import N_
from tui.action_rows.row import AppAction, actions_of

TRAIN = actions_of(
    "train",
    AppAction(
        "train.new",
        "n",
        N_("new"),
        "train",
        "h2q-tui train --detach",
        footer=True,
        help=N_("Start a training run."),
    ),
    AppAction(
        "train.pause",
        "space",
        N_("pause"),
        "train",
        "h2q-tui runs pause ID",
        footer=True,
        help=N_(
            "Pause or resume; a training that died, was stopped or failed resumes from its newest checkpoint (runs resume ID)."
        ),
    ),
    AppAction(
        "train.checkpoint",
        "s",
        N_("checkpoint"),
        "train",
        "h2q-tui runs checkpoint ID",
        footer=True,
        help=N_("Write a checkpoint now."),
    ),
    AppAction(
        "train.stop",
        "x",
        N_("stop"),
        "train",
        "h2q-tui runs stop ID",
        footer=True,
        help=N_("Write a checkpoint and stop; asks once."),
    ),
    AppAction("train.kill", "X", N_("kill"), "train", help=N_("End the run immediately; asks for its id.")),
    AppAction(
        "train.rate",
        "L",
        N_("rate"),
        "train",
        "h2q-tui runs set ID lr=0.01",
        footer=True,
        help=N_("Replace the peak learning rate of the run; the schedule continues from it."),
    ),
    AppAction(
        "train.log",
        "o",
        N_("log"),
        "train",
        "h2q-tui runs attach ID",
        help=N_("The log alone, or the plots again."),
    ),
    AppAction(
        "train.details",
        "d",
        N_("log details"),
        "train",
        help=N_(
            "What the program measured for itself too: threads, memory limits, replanned steps; again: without."
        ),
    ),
    AppAction(
        "train.mark",
        "m",
        N_("mark"),
        "train",
        footer=True,
        help=N_("Mark the run to compare it with others, or unmark it; up to four."),
    ),
    AppAction(
        "train.compare",
        "c",
        N_("compare"),
        "train",
        footer=True,
        help=N_("The marked runs over each other, with a table: best and held-out loss, speed, verdict."),
    ),
    AppAction(
        "train.hide",
        "z",
        N_("hide other runs"),
        "train",
        "h2q-tui runs list",
        footer=True,
        help=N_("Hide imports, corpus builds and validations in the list, or show them again."),
    ),
    AppAction("train.run_before", "[", N_("previous run"), "train", palette=False),
    AppAction("train.run_after", "]", N_("next run"), "train", palette=False),
    AppAction(
        "train.second",
        "v",
        N_("side panel"),
        "train",
        "h2q-tui runs show ID --plot",
        help=N_("What the model writes, the learning rate, events of the run, or cycles of an evolution."),
    ),
    AppAction(
        "train.scale", "Y", N_("log scale"), "train", help=N_("Loss on a logarithmic axis, or linear.")
    ),
)
