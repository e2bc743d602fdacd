"""The commands that read a data set: info, check, replay."""

import argparse

from rich.console import Console

from envs.physics.geometry import coverage
from harness.core import errors, text
from harness.core.errors import UserError
from harness.demos import consistency, correction_marks, pictures
from harness.demos.source import open_demos, resolve_source
from harness.demos.statistics import lines, statistics, table
from harness.media.recorder import Step, episode_frames, held
from harness.media.video import write_video
from ibc.data import demos as ibc_demos


def info(given: argparse.Namespace) -> int:
    """Print the statistics of a data set, and draw them where asked to."""
    drawn = (
        ("picture", given.picture, pictures.draw_statistics),
        ("sheet", given.sheet, pictures.draw_episodes),
    )
    for option, file, _ in drawn:
        if file is not None and file.suffix.lower() != ".png":
            raise UserError(f"--{option} must be a .png file, got {file.name!r}")
    source = resolve_source(given.data)
    demos = open_demos(source, ())
    found = statistics(demos)
    print("\n".join(lines(source, demos, found)))
    Console().print(table(found))
    for option, file, draw in drawn:
        if file is None:
            continue
        try:
            pictures.save(draw(demos, found), file)
        except OSError as error:
            raise UserError(f"--{option} must be a file that can be written: {error}") from error
        print(f"{option}: {file}")
    return errors.OK


def check(given: argparse.Namespace) -> int:
    """Print every fault of a data set, and what is odd about it."""
    source = resolve_source(given.data)
    print(source)
    faults, warnings = ibc_demos.check(source.path), []
    if not faults:
        demos = open_demos(source, ())
        found = consistency.compare(source, demos, ("state", "keypoints", "image"))
        faults, warnings = found.wrong, found.odd
        if (marks := correction_marks.read(demos.path, len(demos.episode_ends))) is not None:
            print(marks)
    for kind, lines_ in (("fault", faults), ("warning", warnings)):
        for line in lines_:
            print(f"{kind}: {text.one_line(line)}")
    counts = [f"{len(faults)} faults" if faults else "no faults"]
    counts += [f"{len(warnings)} warnings"] if warnings else []
    print(", ".join(counts))
    return errors.BAD_INPUT if faults else errors.OK


def replay(given: argparse.Namespace) -> int:
    """Write a video of one episode."""
    if given.out.suffix.lower() != ".mp4":
        raise UserError(f"--out must be a .mp4 file, got {given.out.name!r}")
    if not 64 <= given.size <= 2048 or given.size % 2:
        raise UserError(f"--size must be even, 64 to 2048, got {given.size}")
    demos = open_demos(resolve_source(given.data), ())
    total = len(demos.episode_ends)
    if not 0 <= given.episode < total:
        raise UserError(f"--episode must be 0 to {total - 1}, got {given.episode}")
    rows = slice(demos.episode_starts[given.episode], demos.episode_ends[given.episode])
    states, actions = demos.state[rows].astype(float), demos.action[rows].astype(float)
    steps = [Step(s, a, coverage(*s[2:])) for s, a in zip(states, actions, strict=True)]
    try:
        write_video(given.out, held(episode_frames(steps, given.size)))
    except OSError as error:
        raise UserError(f"--out must be a file that can be written: {error}") from error
    print(f"{given.out}: episode {given.episode}, {len(steps)} steps")
    return errors.OK
