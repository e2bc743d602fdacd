"""Every command line of README.md and docs/ is run as a user would run it.

Each runs in a fresh process with a terminal's environment, in a copy of the repository whose search
spaces keep a few arms of a few steps. Numbers of starts and episodes are made small, and what
stands for something (`SPACE.yaml`, `TRIAL`, `A B`) is filled in; all options stay. What cannot run
here is in NOT_RUN, with the reason.
"""

import itertools
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.config import strict_yaml
from tests.commands import ROOT, terminal

pytestmark = pytest.mark.timeout(600)

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"(\w+=\S+ )*((\.venv/bin/)?python\d? \S|make [a-z])")
# In running text and tables the programs stand alone too, with at least one option.
INLINE = re.compile(rf"{COMMAND.pattern}|run_(sweep|eval)\.py \S|make [a-z]")

NOT_RUN = {
    r"--address|s3://": "needs a cluster or an object store: tests/cluster",
    r"--tracker (mlflow|wandb)": "needs a tracker's server: tests/harness/tracking",
    r"evaluation\.adapters": "needs other packages: tests/harness/evaluation/test_adapters.py",
    r"-m envs\.teleop": "needs a display and a person: tests/envs/teleop",
    r"-m harness\.demos download": "needs the network: tests/harness/demos/test_download.py",
    r"search_spaces/image": "trains on images of the human demonstrations: minutes",
    r"-m harness\.demos corrections": "trains in rounds: tests/harness/demos/test_rounds.py",
    r"-m harness\.results study": "renews the documents: tests/harness/results/test_study.py",
    r"-m harness\.results energy": "shows the default recipe alone: tests/harness/page/energy",
    r"-m harness\.results ship": "takes 550 episodes: tests/harness/results/test_ship.py",
    r"-m harness\.results COMMAND": "the synopsis of the commands that follow it",
    r"-m pytest": "runs the tests",
    r"-m tests\.faults\.adversary": "minutes of signals: tests/faults/test_faults_adversary.py",
    r"-m tests\.faults\.table_attacks": "takes a checkout of another version",
    r"benchmarks[./](?!structure)": "measures for minutes",
    r"notebooks/run\.py": "takes minutes: tests/test_notebooks.py",
}
# What is like another command that is always run, or takes long.
SLOW = (
    r"run_(sweep|eval)\.py",  # those of `make demo` are run
    r"implicit_explicit|regression",
    r"harness\.results (report|pictures|landscape|watch$|export .*--format (csv|arrow|parquet))",
    r"--fail-if-worse",  # like the comparison
    r"harness\.results (trials|episodes|show|list)$",  # like those with options
    r"harness\.results (best --yaml|export .*--format markdown)",
    r"harness\.demos (check|replay|info$)",
    r"harness\.demos collect",  # two workers of it: tests/harness/demos/test_collect.py
    r"make (?!demo$)",
)


def commands_of(page: str) -> Iterator[str]:
    """Yield the command lines of a page as they stand there."""
    page = page.replace("\\\n", " ")
    blocks = re.findall(r"^```\w*\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    text = re.sub(r"^```\w*\n.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^    (\S.*)$", text, re.MULTILINE)
    for line in [*itertools.chain(*(block.splitlines() for block in blocks)), *indented]:
        line = re.sub(r"\s+#.*", "", line.removeprefix("$ ")).strip()
        if COMMAND.match(line):
            yield line
    # A table of subcommands names their program once, above it.
    program = "python -m harness.results"
    for row in re.findall(r"^\| (`.*?) \|(?! what it does)", text, re.MULTILINE):
        for code in re.findall(r"`([^`]+)`", row):
            if code.split()[0] in SUBCOMMANDS:
                yield f"{program} {code}"
    for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", text):
        line = " ".join(code.split())
        if INLINE.match(line) and not NAME_ALONE.fullmatch(line):
            yield line


SUBCOMMANDS = (
    *("list", "show", "answers", "best", "trials", "episodes", "compare", "sql", "watch"),
    *("export", "rebuild", "report", "pictures", "landscape"),
)


# A program's name in a text, without anything that it should do.
NAME_ALONE = re.compile(r"python -m (harness\.results|harness\.demos|envs\.teleop)")


def alternatives(line: str) -> list[str]:
    """Return the lines that `a|b` and `[--option X]` stand for, each alternative in one of them."""
    line = line.replace("\\|", "|").replace("[", "").replace("]", "")
    words = shlex.split(line)
    choices = [word.split("|") if "|" in word and " " not in word else [word] for word in words]
    count = max(len(each) for each in choices)
    return [shlex.join(each[k % len(each)] for each in choices) for k in range(count)]


def documented() -> list[str]:
    """Return every command of the pages once, alternatives apart."""
    lines = itertools.chain(*(commands_of(page.read_text()) for page in PAGES))
    return list(dict.fromkeys(itertools.chain(*map(alternatives, lines))))


def reason(command: str) -> str | None:
    """Return why a command is not run here, None if it is."""
    found = [why for pattern, why in NOT_RUN.items() if re.search(pattern, command)]
    return found[0] if found else None


ALL = documented()
RUN = [command for command in ALL if reason(command) is None]

TINY = {
    "train": {"steps": 8, "epoch_steps": 4, "batch_size": 8, "warmup_steps": 2, "val_windows": 8},
    "policy.energy": {"width": 8, "depth": 1},
    "policy.inference": {"samples": 16, "iterations": 1},
    "select": {"seeds": 4, "every": 8},
}


def make_tiny(path: Path) -> None:
    """Leave a few arms of a few steps in a search space; its names stay."""
    space = strict_yaml.read(path).content
    space["train_seeds"] = [0, 1] if path.stem == "demo" else [0]
    questions = space.get("questions", {})
    if "bounds" in questions:  # the ablations: those on keypoints that the pages speak of
        questions = {k: questions[k] for k in ("bounds", "explicit", "negatives", "readout")}
        for question in questions.values():
            question["arms"] = dict(list(question["arms"].items())[:1])
            question["tracks"] = ["keypoints"]
        space["questions"] = questions
        del space["tracks"]["image"]  # the presets have image policies
    if path.stem == "recipes":
        space["data"] = ["built-in", "data/other.zarr", "corrections"]
        space["questions"] = {k: questions[k] for k in ("data", "negatives")}
    search = space.get("search", {})
    search |= {"trials": 3} if "trials" in search else {}
    search |= {"halving": {"factor": 2, "first": 4}} if "halving" in search else {}
    if "confirm" in search:
        search["confirm"] = {"winners": 1, "train_seeds": [100], "report_seeds": 4}
    if search.get("sampler") == "grid":
        search["axes"] = {name: values[:1] for name, values in search["axes"].items()}
    tiny = TINY if "questions" in space else {k: v for k, v in TINY.items() if "energy" not in k}
    space["budgets"] = {name: {"set": tiny} for name in space.get("budgets", ["standard"])}
    path.write_text(yaml.safe_dump(space, sort_keys=False, allow_unicode=True))


class Copy:
    """A copy of the repository in which commands run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = ("benchmarks", "envs", "harness", "ibc", "notebooks", "policies", "search_spaces")
        ignored = shutil.ignore_patterns("__pycache__")
        for name in names:
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        for name in ("run_sweep.py", "run_eval.py", "Makefile", "pyproject.toml"):
            shutil.copy(ROOT / name, folder)
        for path in ROOT.glob("constraints*.txt"):
            shutil.copy(path, folder)
        for name in ("expert.zarr", "corrections.zarr"):
            shutil.copytree(ROOT / "data" / name, folder / "data" / name)
        shutil.copytree(ROOT / "data" / "expert.zarr", folder / "data" / "other.zarr")
        for path in (folder / "search_spaces").glob("*.yaml"):
            make_tiny(path)
        policies = (ROOT / "docs" / "POLICIES.md").read_text()
        for name, code in re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", policies, re.M | re.S):
            (folder / name).write_text(code)

    def run(self, command: str) -> str:
        """Run a command that must succeed; return what it printed."""
        words = shlex.split(command)
        while "=" in words[0]:
            words.pop(0)
        if words[0] == "make":
            words[1:1] = ["--dry-run"]
        else:
            words[0] = sys.executable
        environment = terminal(
            IBC_HARNESS_CACHE=str(self.folder / "cache"), PYTHONPATH=str(self.folder)
        )
        environment.pop("OMP_NUM_THREADS", None)
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert done.stdout or done.stderr, command
        assert "Traceback" not in done.stderr, done.stderr
        assert "Warning" not in done.stderr, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy of the repository, with nothing run yet."""
    return Copy(tmp_path_factory.mktemp("copy"))


@pytest.fixture(scope="module")
def finished(copy: Copy) -> Copy:
    """A copy in which `make demo` has run."""
    recipe = copy.run("make demo").splitlines()
    lines = [line for line in recipe if re.search(r"python (run_|-m harness)", line)]
    assert len(lines) == 3, recipe
    for line in lines:
        # A film of 300 steps with its energies takes seconds: other commands make some.
        copy.run(filled(line, copy.folder).replace(" --video 1 --overlay energy", ""))
    return copy


@pytest.fixture(scope="module")
def answered(finished: Copy) -> Copy:
    """A copy in which the README's first answer has been found too."""
    finished.run("python run_sweep.py search_spaces/implicit_explicit.yaml")
    finished.run("python run_eval.py --ckpt all --sweep implicit_explicit-standard --seeds 30")
    return finished


def alike(trials: list[Path]) -> list[str]:
    """Return two trials whose policies differ in their training alone, if there are any."""
    found: dict[str, list[str]] = {}
    for trial in trials:
        policy = json.loads((trial / "config.json").read_text())["config"]["policy"]
        compared = {k: v for k, v in policy.items() if k not in ("negatives", "loss")}
        found.setdefault(json.dumps(compared), []).append(trial.name)
    return max(found.values(), key=len, default=[])[:2]


def filled(command: str, folder: Path) -> str:
    """Return a command with small numbers, and with what its placeholders stand for."""
    if command.startswith("run_"):
        command = f"python {command}"
    program = command.split()[1] if " " in command else ""
    if program == "run_eval.py":  # text that shows an option leaves out what is needed
        command += "" if re.search("--(ckpt|policy)", command) else " --ckpt best"
        command += "" if "--seeds" in command else " --seeds 30"
    if program == "run_sweep.py" and not re.search(r"\.yaml|\.\.\.", command):
        command = command.replace("run_sweep.py", "run_sweep.py SPACE.yaml")
    trials = sorted((folder / "results/demo-standard/trials").glob("*-s[01]"))
    trial = trials[0] if trials else Path("TRIAL")
    to = "table" if re.search("latex|markdown", command) else "exported"
    for pattern, value in (
        (r"(--seeds|--episodes) \d+", r"\1 30" if "run_eval" in command else r"\1 4"),
        (r"--video \d+", "--video 1"),
        (r"A\.zarr", "data/expert.zarr"),
        (r"B\.zarr", "data/other.zarr"),
        (r"(data/)?mine\.zarr", "data/expert.zarr"),
        (r"TRIAL( --ckpt TRIAL)+", " --ckpt ".join(alike(trials))),
        (r"SPACE\.yaml|\.\.\.(?= --)", "search_spaces/ablations.yaml"),
        (r"\bNAME\b|\brecipes-standard\b|(?<=--sweep )recipes\b", "demo-standard"),
        (r"\bTRIAL\b", trial.name),
        (r"--ckpt PATH", f"--ckpt {trial / 'checkpoints/best'}"),
        (r"--trial T\b", f"--trial {trial.name}"),
        (r"--limit N", "--limit 3"),
        (r"--every S", "--every 0.2"),
        (r"results compare$", "results compare A B"),
        (r"results sql$", 'results sql "SELECT ..."'),
        (r"results export$", "results export --to DIR"),
        (r"--fail-if-worse 0\.02", "--fail-if-worse 0.99"),  # so few episodes show no less
        (r"compare A B --on report", "compare regression baseline --on report"),
        (r"compare A B", "compare 'whole board' baseline"),
        (r"--to (DIR|FILE)", f"--to {folder / to} --force"),
        (r"SELECT \.\.\.", "SELECT arm FROM trials"),
        (r"harness\.demos (check|replay|collect)$", r"harness.demos \1 --out x.zarr --episodes 2"),
        (r"harness\.demos (check|replay)( --out.*)", r"harness.demos \1"),
    ):
        command = re.sub(pattern, value, command)
    return command


def test_every_page_gives_commands_and_every_exception_is_needed():
    assert len(ALL) > 50
    for program in ("run_sweep.py", "run_eval.py", "-m harness.results", "-m harness.demos"):
        assert any(program in command for command in RUN), program
    for pattern in NOT_RUN:
        assert any(re.search(pattern, command) for command in ALL), f"{pattern} is in no command"
    for subcommand in SUBCOMMANDS:
        assert any(f"-m harness.results {subcommand}" in command for command in RUN), subcommand


# Each once, as it is when it is filled.
UNIQUE = list({filled(command, Path()): command for command in reversed(RUN)}.values())[::-1]


# Those that speak of the README's first answer, its arms and its evaluations.
FIRST_ANSWER = re.compile("implicit_explicit-standard|regression")


def parameters(*, answered: bool) -> list[Any]:
    """Return the commands that speak of the README's first answer, or the others."""
    return [
        pytest.param(command, marks=[pytest.mark.slow] if slow(command) else [])
        for command in sorted(UNIQUE, key=slow)  # they may add sweeps
        if bool(FIRST_ANSWER.search(filled(command, Path()))) == answered
    ]


def slow(command: str) -> bool:
    """Return whether a command is run with the slow tests."""
    return any(re.search(pattern, filled(command, Path())) for pattern in SLOW)


@pytest.mark.parametrize("command", parameters(answered=False))
def test_a_documented_command_runs(finished, command):
    """`make` is asked for its recipe, of which `finished` has run that of `make demo`."""
    finished.run(filled(command, finished.folder))


@pytest.mark.parametrize("command", parameters(answered=True))
def test_a_documented_command_on_the_first_answer_runs(answered, command):
    answered.run(filled(command, answered.folder))


@pytest.mark.slow
def test_the_options_of_what_is_not_run_are_there(copy):
    """Each option that a page shows is in its program's help."""
    options: dict[str, set[str]] = {}
    for command in ALL:
        words = shlex.split(command)
        if reason(command) is None or re.search(r"pytest|COMMAND|-m tests\.", command):
            continue  # the copy has no tests
        if not words[0].startswith("run_"):
            while not words.pop(0).endswith("python"):
                pass
        length = 2 if words[0] == "-m" else 1
        length += words[1:2] in (["harness.demos"], ["harness.results"])
        program = " ".join(words[:length])
        options.setdefault(program, set()).update(w for w in words[length:] if w[:2] == "--")
    for program, shown in options.items():
        if shown:
            text = copy.run(f"python {program} --help")
            assert {each for each in shown if each not in text} == set(), program
