"""Random talks and one small writer per import format, in the shape that its program writes: the truth for importers."""
