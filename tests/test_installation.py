"""`pip install .`: the commands work in any folder, with the package's own spaces and data."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from harness.core.errors import UserError
from harness.sweep.options import Options
from tests.commands import ROOT, SPACE, terminal

SOURCES = (
    "envs",
    "harness",
    "ibc",
    "search_spaces",
    "policies",
    "data/expert.zarr",
    "data/corrections.zarr",
)
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "run_sweep.py", "run_eval.py")


def test_a_search_space_is_a_file_or_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Options(space=Path("recipes")).plan.name == "recipes"
    assert Options(space=Path("recipes.yaml")).plan.name == "recipes"
    (tmp_path / "recipes.yaml").write_text(SPACE)
    assert Options(space=Path("recipes.yaml")).plan.name != "recipes"  # a file of the user's
    for missing in ("recipe", "folder/recipes"):
        with pytest.raises((UserError, OSError), match=missing):
            _ = Options(space=Path(missing)).plan


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The bin folder of a fresh environment, beside the libraries of this one."""
    folder = tmp_path_factory.mktemp("installed")
    source, environment = folder / "source", folder / "environment"
    for name in SOURCES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    base = {"base": str(environment), "platbase": str(environment)}
    packages = Path(sysconfig.get_path("purelib", vars=base))
    # As a .pth file it does not lead on to this environment's own editable installation.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    options = ("--no-deps", "--no-build-isolation", "--no-compile", "--no-index", "--quiet")
    subprocess.run(
        [environment / "bin/python", "-m", "pip", "install", *options, source],
        check=True,
        env=terminal(PIP_DISABLE_PIP_VERSION_CHECK="1"),
    )
    shutil.rmtree(source)
    return environment / "bin"


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_the_installed_commands_work_in_another_folder(installed, tmp_path):
    path = f"{installed}{os.pathsep}{os.environ['PATH']}"
    environment = terminal(PATH=path, XDG_CACHE_HOME=str(tmp_path / "cache"), OMP_NUM_THREADS="1")
    environment.pop("PYTHONPATH", None)
    folder = tmp_path / "empty"
    folder.mkdir()
    (tmp_path / "mine.yaml").write_text(SPACE)

    def run(line):
        done = subprocess.run(
            ["sh", "-c", line], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout

    for name in ("sweep", "eval", "results", "demos"):
        assert run(f"ibc-{name} --help").startswith(f"usage: ibc-{name} ")
    assert "built-in" in run("ibc-demos info")
    assert "no faults" in run("ibc-demos check")
    assert "trials" in run("ibc-sweep ablations --budget smoke --dry-run")
    assert not list(folder.iterdir())  # nothing was begun
    run("ibc-sweep ../mine.yaml --name mine --cpus-per-trial 1")
    assert (folder / "results/mine/report.html").is_file()
    (line,) = re.findall(r"^evaluate it: (ibc-eval .*)$", run("ibc-results best"), re.M)
    assert "score" in run(line.replace("--seeds 500", "--seeds 4 --workers 1"))
    assert [path.name for path in folder.iterdir()] == ["results"]
    (data,) = installed.parent.glob("lib/*/site-packages/harness/data")
    assert {path.name for path in data.iterdir()} == {"corrections.zarr", "expert.zarr"}
    assert "score" in run("ibc-eval --ckpt pretrained:keypoints --seeds 4 --workers 1")
