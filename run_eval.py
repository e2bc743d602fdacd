"""Evaluate a policy over many seeds. See `python run_eval.py --help`."""

import sys

from harness.core import command_lines, errors
from harness.core.imports import load


def main() -> int:
    """Parse the arguments and run the evaluation."""
    parser = errors.ArgumentParser(
        prog=command_lines.name("eval"),
        description="Roll a checkpoint out from many initial states; each episode becomes a row.",
    )
    parser.add_argument(
        "--ckpt",
        action="append",
        metavar="best|TRIAL|PATH|all|pretrained:NAME",
        help="best: on the selection seeds; all: every finished trial; pretrained: of policies/; "
        "may be repeated",
    )
    parser.add_argument("--sweep", metavar="NAME", help="where best or TRIAL is (newest)")
    parser.add_argument(
        "--seeds", required=True, metavar="N|A-B[,C-D]", help="500 stands for 300000-300499"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (one a CPU)")
    parser.add_argument(
        "--video", type=int, default=0, metavar="N", help="videos of N seeds, and of best to worst"
    )
    parser.add_argument(
        "--overlay", metavar="energy", help="videos show the policy's energies and candidates"
    )
    parser.add_argument("--video-size", type=int, metavar="PX", help="side of the board (384)")
    parser.add_argument("--gif", action="store_true", help="a small GIF beside each video")
    parser.add_argument(
        "--policy",
        action="append",
        metavar="module:factory|FILE.py:factory",
        help="evaluate any object instead (docs/POLICIES.md)",
    )
    parser.add_argument(
        "--policy-arg", action="append", metavar="NAME=VALUE", help="an argument of its factory"
    )
    parser.add_argument(
        "--name", action="append", metavar="NAME", help="of its rows, results/evaluations/NAME"
    )
    parser.add_argument(
        "--results",
        metavar="DIR|URI",
        help="folder of all sweeps (results/), also s3://bucket/prefix",
    )
    parser.add_argument(
        "--ensemble", action="store_true", help="one policy of the mean energies of all --ckpt"
    )
    parser.add_argument(
        "--until-decided",
        action="store_true",
        help="two policies (--ckpt or --policy), on --seeds starts at most, until the better one "
        "is known",
    )
    parser.add_argument(
        "--delta", type=float, metavar="D", help="or until they differ by less than D (0.05)"
    )
    parser.add_argument(
        "--repeats",
        type=int,
        metavar="K",
        help="K rollouts of each start: the policy's noise apart from the start's difficulty",
    )
    parser.add_argument(
        "--execute-delay",
        type=int,
        metavar="STEPS",
        help="steps of 0.1 s for which the world moves on while the policy thinks (0)",
    )
    parser.add_argument("--address", metavar="ADDR", help="workers of a Ray cluster")
    parser.add_argument("--redo", action="store_true", help="repeat stored episodes")
    given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}

    options = load("harness.evaluation.job:Options")(**given)
    return int(load("harness.evaluation.job:evaluate")(options, load("rich.console:Console")()))


def command() -> int:
    """Run as a console command; return its exit code."""
    return errors.run(main)


if __name__ == "__main__":
    sys.exit(command())
