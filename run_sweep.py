"""Run a sweep. See `python run_sweep.py --help` and search_spaces/."""

import sys
from pathlib import Path

from harness.core import command_lines, errors
from harness.core.imports import load
from harness.sweep.options import Options


def main() -> int:
    """Parse the arguments and run the sweep."""
    parser = errors.ArgumentParser(
        prog=command_lines.name("sweep"),
        description="Train and compare every arm of a search space; run again to continue.",
    )
    parser.add_argument(
        "space", type=Path, metavar="SPACE.yaml", help="a file, or a name of search_spaces/"
    )
    parser.add_argument("--budget", default="standard", help="one of the file's (standard)")
    parser.add_argument("--name", help="the sweep's folder (the space's name and the budget)")
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        metavar="PATH",
        help="a zarr store of demonstrations; given several times they are mixed",
    )
    parser.add_argument("--results", metavar="DIR", help="folder of all sweeps (results/)")
    parser.add_argument("--trials", type=int, metavar="N", help="number of a search's trials")
    parser.add_argument("--train-seeds", metavar="A-B,C", help="training seeds (the file's)")
    parser.add_argument(
        "--question",
        action="append",
        metavar="NAME",
        help="run this question alone, with its baselines; may be given several times",
    )
    parser.add_argument(
        "--until-verdict",
        action="store_true",
        help="train in rounds, further seeds where a verdict is open (up to 8 training seeds)",
    )
    parser.add_argument("--delta", type=float, metavar="X", help="too small to matter (0.03)")
    parser.add_argument("--max-trials", type=int, metavar="N", help="begin at most so many")
    parser.add_argument("--max-hours", type=float, metavar="X", help="begin no trial after them")
    parser.add_argument("--cpus-per-trial", type=float, metavar="X", help="threads of a trial (1)")
    parser.add_argument("--gpus-per-trial", type=float, metavar="X", help="1 where there is one")
    parser.add_argument("--hours-per-trial", type=float, metavar="X", help="at most (24)")
    parser.add_argument("--address", metavar="ADDR", help="join a Ray cluster")
    parser.add_argument("--tracker", metavar="NAME", help="tensorboard, mlflow or wandb (none)")
    parser.add_argument("--retry-failed", action="store_true", help="run failed trials again")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    parser.add_argument("--yes", action="store_true", help="agree to 1,000 trials or changed code")
    given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}

    options = Options(**given)
    options.check()  # before imports that take seconds
    console = load("rich.console:Console")()
    return int(load("harness.sweep.driver:sweep")(options, console))


def command() -> int:
    """Run as a console command; return its exit code."""
    return errors.run(main)


if __name__ == "__main__":
    sys.exit(command())
