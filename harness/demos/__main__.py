"""The commands for demonstrations: info, check, download, collect, corrections, replay."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.core import command_lines, errors
from harness.core.imports import load


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 1 (the download failed) or 2 (bad input)."""
    given = _parser().parse_args(arguments)
    if getattr(given, "from_failures", None) is not None:
        given.command = "harness.demos.corrections:command"
    return int(load(given.command)(given))


def _parser() -> argparse.ArgumentParser:
    parser = errors.ArgumentParser(prog=command_lines.name("demos"), description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    info = commands.add_parser("info", help="print the statistics of a data set")
    info.add_argument("--picture", type=Path, metavar="FILE.png", help="also draw its statistics")
    info.add_argument("--sheet", type=Path, metavar="FILE.png", help="also draw 24 episodes")
    info.set_defaults(command="harness.demos.commands:info")

    check = commands.add_parser("check", help="list every fault of a data set; exit code 2 if any")
    check.set_defaults(command="harness.demos.commands:check")

    replay = commands.add_parser("replay", help="write a video of one episode")
    replay.add_argument("--episode", type=int, required=True, metavar="K", help="from 0 on")
    replay.add_argument("--out", type=Path, required=True, metavar="FILE.mp4")
    replay.add_argument("--size", type=int, default=512, help="width and height in pixels")
    replay.set_defaults(command="harness.demos.commands:replay")

    for command in (info, check, replay):
        command.add_argument(
            "--data", metavar="PATH", help="a zarr store (default: the downloaded or built-in one)"
        )

    download = commands.add_parser("download", help="fetch the published human demonstrations")
    download.add_argument("--url", help="a mirror of the zip; its content is verified all the same")
    download.add_argument("--force", action="store_true", help="replace another data set")
    download.set_defaults(command="harness.demos.download:command")

    collect = commands.add_parser("collect", help="make demonstrations with the planner, on Ray")
    collect.add_argument("--out", type=Path, required=True, metavar="PATH.zarr")
    collect.add_argument("--episodes", type=int, default=200, metavar="N")
    collect.add_argument(
        "--seed-start", type=int, metavar="SEED", help="default: 10000; of corrections 110000"
    )
    collect.add_argument("--workers", type=int, help="default: all CPUs")
    collect.add_argument(
        "--from-failures",
        metavar="SWEEP|TRIAL|PATH",
        help="correct a policy (a sweep's best trial) where it fails on N starts",
    )
    collect.add_argument(
        "--results", type=Path, metavar="DIR", help="where SWEEP or TRIAL is (results/)"
    )
    collect.set_defaults(command="harness.demos.collect:command")

    rounds = commands.add_parser("corrections", help="train and correct in rounds")
    rounds.add_argument(
        "space", type=Path, metavar="SPACE.yaml", help="see search_spaces/corrections.yaml"
    )
    rounds.add_argument("--budget", default="standard", help="of each round's sweep (standard)")
    rounds.add_argument("--workers", type=int, help="that collect; default: all CPUs")
    rounds.add_argument("--results", type=Path, metavar="DIR", help="of the sweeps (results/)")
    rounds.set_defaults(command="harness.demos.rounds:command")
    return parser


def command() -> int:
    """Run as a console command; return its exit code."""
    return errors.run(main)


if __name__ == "__main__":
    sys.exit(command())
