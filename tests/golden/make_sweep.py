"""Make a golden sweep: every kind of file that a sweep leaves today, in a few dozen kilobytes.

    python tests/golden/make_sweep.py tests/golden/sweep_N

Each later version must open it (tests/faults/test_faults_golden.py). Never make one anew under an
old name: when a format changes, make the next number and keep the ones before.
"""

import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import zarr
from rich.console import Console

from harness.config import plan as config_plan
from harness.core import files
from harness.demos import source as demos_source
from harness.evaluation.job import Options, evaluate
from harness.scheduling.jobs import planned_job
from harness.storage import tables
from harness.sweep.folder import SweepFolder
from harness.terminal import answers_markdown
from harness.trials.runner import run_trial

SPACE = """
version: 1
name: golden
train_seeds: [0, 1]
base:
  policy:
    obs_mode: state
    energy: {width: 8, depth: 1}
    encoder.state_width: 8
    negatives.count: 4
    inference: {samples: 4, iterations: 1}
  train: {steps: 8, epoch_steps: 2, batch_size: 8, warmup_steps: 2, val_windows: 8}
  select: {seeds: 2, every: 4}
questions:
  loss:
    ask: Does an energy help?
    arms:
      regression: {policy.kind: mse}
      too fast:
        train: {learning_rate: 1.0, weight_decay: 10.0, schedule: constant, steps: 400}
"""


def write_demos(path: Path) -> None:
    """Write 60 frames of made-up demonstrations in Diffusion Policy's layout."""
    rng = np.random.default_rng(0)
    state = rng.uniform(50, 450, (60, 5)).astype(np.float32)
    arrays = {
        "data/state": state,
        "data/action": np.clip(state[:, :2] + rng.normal(0, 20, (60, 2)), 0, 512).astype("f4"),
        "meta/episode_ends": np.array([20, 35, 60], np.int64),
    }
    root = zarr.open_group(path, mode="w", zarr_format=2)
    for name, values in arrays.items():
        root.create_array(name, data=values, chunks=values.shape)


def stop_half_way(metrics: object) -> None:
    """Interrupt a trial as Ctrl-C does, after its second epoch."""
    if metrics["step"] == 4:  # type: ignore[index]
        raise KeyboardInterrupt


def main(target: Path) -> None:
    """Run the trials that a small sweep has in all their states, and tidy the machine away."""
    target.mkdir(parents=True)
    write_demos(target / "demos.zarr")
    (target / "space.yaml").write_text(SPACE)
    source = demos_source.resolve_source(target / "demos.zarr")
    plan = config_plan.plan(target / "space.yaml")
    folder = SweepFolder(target / "results" / "golden")
    jobs = [planned_job(trial, "golden") for trial in plan.trials]
    folder.write_plan(plan, Path("space.yaml"), jobs, source, demos_source.fingerprint(source))
    for job in jobs:
        states = {("too fast", 1): "pending", ("regression", 1): "running"}
        state = states.get((job.info["arm"], job.train_seed))
        if state == "pending":
            continue
        try:
            run_trial(
                job.config,
                folder.path / "trials" / job.id,
                stop_half_way if state == "running" else None,
                demos=source.path,
                train_seed=job.train_seed,
                info=job.info,
            )
        except (KeyboardInterrupt, ArithmeticError, ValueError) as error:
            print(f"{job.label}: {type(error).__name__}")
    options = Options(ckpt="all", seeds="4", results=folder.path.parent, workers=1)
    evaluate(options, Console(file=io.StringIO()))
    tidy(folder.path, target)
    tables.rebuild(folder.path)
    answers_markdown.write(folder.path)
    trials = tables.read(folder.path, "trials")
    kept = ["trial", "arm", "status", "step", "best_step", "policy_hash", "select_score"]
    kept += ["report_score", "report_n", "health", "config_hash", "train_seed", "error"]
    expected = {
        "trials": [{k: row[k] for k in kept} for row in trials.to_pylist()],
        "episodes": tables.read(folder.path, "episodes").num_rows,
        "curves": tables.read(folder.path, "curves").num_rows,
    }
    (target / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def tidy(sweep: Path, target: Path) -> None:
    """Take out what is of this machine alone."""
    plan = files.read_json(sweep / "plan.json")
    plan["dataset"]["path"] = "demos.zarr"
    files.write_json(plan, sweep / "plan.json")
    for path in sweep.glob("trials/*/status.json"):
        files.write_json({**files.read_json(path), "device": "a processor"}, path)
    for path in sweep.glob("trials/*/error.txt"):
        root = str(Path(__file__).resolve().parents[2])
        path.write_text(path.read_text().replace(f"{root}/", ""))
    for path in [*sweep.rglob(".lock"), *sweep.rglob("training_state.safetensors")]:
        # The state of a finished trial is of no use to anyone.
        if path.name == ".lock" or "finished" in (path.parents[2] / "status.json").read_text():
            path.unlink()
    shutil.rmtree(sweep / "tables", ignore_errors=True)
    assert not any(str(target.resolve()).encode() in p.read_bytes() for p in files_of(sweep))


def files_of(folder: Path) -> list[Path]:
    """Return every file under a folder."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
