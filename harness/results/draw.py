"""The commands that run policies, and so need torch: pictures, landscape."""

import argparse

from harness.core.errors import UserError
from harness.media.landscape import draw
from harness.page import gallery
from harness.results.output import Answer, files_written
from harness.storage import lookup


def pictures(given: argparse.Namespace) -> Answer:
    """Roll out the best trials' episodes again and animate them."""
    folder = lookup.sweep_dir(given.results, given.sweep)
    entries = gallery.make(folder, given.trial or ())
    if not entries:
        raise UserError("nothing to draw: no trial has a checkpoint and episodes yet")
    return files_written([folder / gallery.FOLDER / entry["file"] for entry in entries])


def landscape(given: argparse.Namespace) -> Answer:
    """Draw one state's energy over the board for several checkpoints."""
    out = None if given.out is None else given.out.expanduser()
    path = draw(given.results, given.sweep, given.which, given.seed, given.step, out)
    return files_written([path])
