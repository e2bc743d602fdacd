"""The command line over demonstrations: info, check, download, collect, replay."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from harness.core import errors, paths, text
from harness.core.errors import UserError
from harness.demos import source as data
from harness.demos.source import DOWNLOADED, Source
from ibc.data import demos as ibc_demos
from ibc.data.demos import Demos


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 1 (the download failed) or 2 (bad input)."""
    parser = _parser()
    given = parser.parse_args(arguments)
    return int(given.command(given))


def _parser() -> argparse.ArgumentParser:
    parser = errors.ArgumentParser(prog="python -m harness.demos", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    info = commands.add_parser("info", help="what a data set holds and how good its episodes are")
    info.add_argument("--picture", type=Path, metavar="FILE.png", help="also draw it")
    info.add_argument("--sheet", type=Path, metavar="FILE.png", help="also draw 24 episodes")
    info.set_defaults(command=_info)

    check = commands.add_parser("check", help="every fault of a data set; exit code 2 if any")
    check.set_defaults(command=_check)

    replay = commands.add_parser("replay", help="a video of one episode")
    replay.add_argument("--episode", type=int, required=True, metavar="K", help="from 0 on")
    replay.add_argument("--out", type=Path, required=True, metavar="FILE.mp4")
    replay.add_argument("--size", type=int, default=512, help="pixels along an edge")
    replay.set_defaults(command=_replay)

    for command in (info, check, replay):
        command.add_argument(
            "--data", metavar="PATH", help="a zarr store (default: the downloaded or built-in one)"
        )

    download = commands.add_parser("download", help="fetch the published human demonstrations")
    download.add_argument("--url", help="a mirror of the zip; its content is verified all the same")
    download.add_argument("--force", action="store_true", help="even if they are there already")
    download.set_defaults(command=_download)

    collect = commands.add_parser("collect", help="make demonstrations with the planner, on Ray")
    collect.add_argument("--out", type=Path, required=True, metavar="PATH.zarr")
    collect.add_argument("--episodes", type=int, default=200, metavar="N")
    collect.add_argument("--seed-start", type=int, default=None, metavar="SEED")
    collect.add_argument("--workers", type=int, default=None, help="default: all CPUs")
    collect.set_defaults(command=_collect)
    return parser


def _open(given: argparse.Namespace) -> tuple[Source, Demos]:
    source = data.resolve_source(given.data)
    return source, data.open_demos(source, ())


def _info(given: argparse.Namespace) -> int:
    from harness.demos import pictures as demo_picture
    from harness.demos import sheet
    from harness.demos.statistics import lines, statistics, table

    pictures = {"--picture": given.picture, "--sheet": given.sheet}
    for option, file in pictures.items():
        if file is not None:
            demo_picture.check(file, option)
    source, demos = _open(given)
    found = statistics(demos)
    print("\n".join(lines(source, demos, found)))
    Console().print(table(found))
    if given.picture is not None:
        demo_picture.draw(demos, found, given.picture)
        print(f"picture: {given.picture}")
    if given.sheet is not None:
        sheet.draw(demos, found, given.sheet)
        print(f"sheet: {given.sheet}")
    return errors.OK


def _check(given: argparse.Namespace) -> int:
    from harness.demos.statistics import inconsistencies

    source = data.resolve_source(given.data)
    print(source)
    faults = ibc_demos.check(source.path)
    if not faults:
        faults = inconsistencies(data.open_demos(source, ()))
    for fault in faults:
        print(f"fault: {text.one_line(fault)}")
    print(f"{len(faults)} faults" if faults else "no faults")
    return errors.BAD_INPUT if faults else errors.OK


def _replay(given: argparse.Namespace) -> int:
    from envs.physics.geometry import coverage
    from harness.media.recorder import Step, episode_frames, held
    from harness.media.video import write_video

    if given.out.suffix.lower() != ".mp4":
        raise UserError(f"--out must be a .mp4 file, got {given.out.name!r}")
    if not 64 <= given.size <= 2048 or given.size % 2:
        raise UserError(f"--size must be even, 64 to 2048, got {given.size}")
    _, demos = _open(given)
    total = len(demos.episode_ends)
    if not 0 <= given.episode < total:
        raise UserError(f"--episode must be 0 to {total - 1}, got {given.episode}")
    rows = range(demos.episode_starts[given.episode], demos.episode_ends[given.episode])
    states, actions = demos.state.astype(float), demos.action.astype(float)
    steps = [Step(states[t], actions[t], coverage(*states[t, 2:])) for t in rows]
    try:
        write_video(given.out, held(episode_frames(steps, given.size)))
    except OSError as error:
        raise UserError(f"--out must be a file that can be written: {error}") from error
    print(f"{given.out}: episode {given.episode}, {len(rows)} steps")
    return errors.OK


def _download(given: argparse.Namespace) -> int:
    from harness.demos import download as demos_download

    target = paths.DATA / DOWNLOADED
    if target.exists() and not given.force:
        if data.fingerprint(target) == demos_download.FINGERPRINT:
            print(f"already there and right: {target}")
            return errors.OK
        raise UserError(f"{target} is another data set; --force replaces it")
    url = given.url or demos_download.URL
    print(f"downloading {text.one_line(url)}", flush=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    console = Console(stderr=True)
    bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    try:
        with bars as progress:
            bar = progress.add_task("pusht.zip", total=None)
            path = demos_download.download(
                url,
                folder=paths.DATA,
                expected=demos_download.FINGERPRINT,
                progress=lambda done, total: progress.update(bar, completed=done, total=total),
            )
    except demos_download.DownloadError as error:
        print(f"error: {text.one_line(error)}", file=sys.stderr)
        return errors.SOME_FAILED
    print(f"installed and verified: {path}")
    return errors.OK


def _collect(given: argparse.Namespace) -> int:
    from harness.demos.collect import FIRST_SEED, collect

    collect(
        given.out,
        episodes=given.episodes,
        first_seed=FIRST_SEED if given.seed_start is None else given.seed_start,
        workers=given.workers,
        progress=True,
    )
    return errors.OK


if __name__ == "__main__":
    sys.exit(errors.run(main))
