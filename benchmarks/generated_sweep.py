"""A generated sweep of any size: the folders and files of a real one, without training.

The writers of real sweeps write it (`TrialFolder`, `SweepFolder`, `table_schemas`). Scores follow a
crossed design: the effects of the arm, the training seed and the start, and the episode's noise.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.config.plan import baseline_seeds, plan
from harness.config.protocol import Protocol
from harness.config.trial_config import to_dict
from harness.core import files, provenance
from harness.core.seeds import REPORT_SEEDS, SELECT_SEEDS
from harness.demos.source import Source
from harness.scheduling.jobs import planned_job
from harness.storage import table_schemas
from harness.sweep.folder import SweepFolder

FINGERPRINT = "0" * 64
STEPS = 8_000


@dataclass(frozen=True)
class Size:
    """The size of a sweep; configs other than the baseline are distributed over the questions.

    select: starts of each of two selections; report: starts of the evaluation of the best.
    """

    configs: int = 334
    questions: int = 8
    train_seeds: int = 3
    select: int = 50
    report: int = 900
    epochs: int = 40

    @property
    def trials(self) -> int:
        """The number of trials, the baseline's further seeds included."""
        arms = self.configs - 1
        return arms * self.train_seeds + baseline_seeds(self.train_seeds, arms)

    @property
    def episodes(self) -> int:
        """The number of episode rows."""
        return self.trials * (2 * self.select + self.report)


def write(folder: Path, size: Size) -> None:
    """Write the sweep `folder` without derived tables."""
    file = folder.parent / f"{folder.name}.yaml"
    files.write_json(_space(size), file)  # JSON is YAML
    planned = plan(file)
    jobs = [planned_job(trial, folder.name) for trial in planned.trials]
    sweep = SweepFolder(folder)
    sweep.write_plan(planned, file, jobs, Source((folder / "no.zarr",), "given"), FINGERPRINT)
    provenance_ = provenance.collect("cpu")
    effects: dict[str, float] = {}
    random = np.random.default_rng(0)
    for job in jobs:
        hash_, _, seed = job.id.rpartition("-s")
        effect = effects.setdefault(hash_, float(random.normal(0.0, 0.08)))
        described = {
            **job.info,
            "config_hash": hash_,
            "train_seed": int(seed),
            "config": to_dict(job.config),
        }
        _write_trial(sweep.path / "trials" / job.id, described, effect, size, provenance_)


def _space(size: Size) -> dict[str, Any]:
    questions: dict[str, Any] = {}
    for number in range(size.configs - 1):
        name = f"question {number % size.questions}"
        content = questions.setdefault(name, {"ask": f"What of {name}?", "arms": {}})
        content["arms"][f"{number + 1} negatives"] = {"policy.negatives.count": number + 1}
    seeds = list(range(size.train_seeds))
    return {"version": 1, "name": "generated", "train_seeds": seeds, "questions": questions}


def _write_trial(
    path: Path, described: dict[str, Any], effect: float, size: Size, provenance_: dict[str, Any]
) -> None:
    trial = SweepFolder(path.parent.parent).trial(path.name)
    trial.claim(described, FINGERPRINT)
    seed = described["train_seed"]
    random = np.random.default_rng([int(described["config_hash"], 16), seed])
    level = 0.6 + effect + float(random.normal(0.0, 0.03))
    weights = f"{int(random.integers(2**48)):012x}"
    identity = {"config_hash": described["config_hash"], "train_seed": seed}
    trial.write_curves([{**identity, **row} for row in _curves(random, size.epochs)])
    common = {**identity, "sweep": described["sweep"], "protocol_hash": Protocol().hash}
    best = {**common, "checkpoint_step": STEPS, "policy_hash": weights}
    early = {**common, "checkpoint_step": STEPS // 2, "policy_hash": weights[::-1]}
    select = np.array(SELECT_SEEDS[: size.select])
    report = np.array(REPORT_SEEDS[: size.report])
    chosen = episodes(random, select, level, best)
    folder = path / "episodes"
    for step, rows in (
        (STEPS // 2, episodes(random, select, level - 0.05, early)),
        (STEPS, chosen),
    ):
        table_schemas.write(rows, folder / f"select-{step:08d}.parquet")
    evaluated = f"eval-0001-{weights[:4]}-{Protocol().hash}-step{STEPS}.parquet"
    if size.report:
        table_schemas.write(episodes(random, report, level, best), folder / evaluated)
    info = {"version": 1, "step": STEPS, "policy_hash": weights, **identity}
    files.write_json(info, path / "checkpoints" / "best" / "config.json")
    files.write_json([], path / "health.json")
    scores = chosen["score"].to_numpy()
    trial.write_status(
        status="finished",
        attempts=1,
        epoch=size.epochs,
        step=STEPS,
        best_step=STEPS,
        select_score=float(scores.mean()),
        select_success_rate=float((scores == 1.0).mean()),
        select_n=size.select,
        train_seconds=float(random.uniform(100.0, 200.0)),
        samples_per_second=float(random.uniform(8e3, 9e3)),
        dataset_fingerprint=FINGERPRINT,
        **provenance_,
    )


def episodes(
    random: np.random.Generator, seeds: NDArray[np.int64], level: float, common: dict[str, Any]
) -> pa.Table:
    """Return an episode row for each environment seed, with about this mean score."""
    n = len(seeds)
    # A start is equally hard for every policy: its effect is a function of its seed.
    hardness = np.array([np.sin(seed * 12.9898) * 0.15 for seed in seeds])
    best = np.clip(level + hardness + random.normal(0.0, 0.2, n), 0.0, 1.0)
    success = best > 0.95
    columns: dict[str, Any] = {
        **{name: [value] * n for name, value in common.items()},
        "env_seed": seeds,
        "max_coverage": best,
        "final_coverage": best * random.uniform(0.8, 1.0, n),
        "score": np.minimum(1.0, best / 0.95),
        "success": success,
        "length": np.where(success, random.integers(80, 300, n), 300),
        "terminated": success,
        "truncated": ~success,
        "success_at_reset": np.zeros(n, bool),
        "action_jerk": random.uniform(1.0, 9.0, n),
        "idle_share": random.uniform(0.0, 0.4, n),
        "policy_ms": random.uniform(100.0, 300.0, n),
        "env_ms": random.uniform(5.0, 9.0, n),
        "render_ms": random.uniform(0.0, 20.0, n),
    }
    schema = table_schemas.SCHEMAS["episodes"]
    arrays = [
        pa.array(columns.get(field.name, pa.nulls(n, field.type)), field.type) for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _curves(random: np.random.Generator, epochs: int) -> list[dict[str, Any]]:
    rows = []
    for epoch in range(1, epochs + 1):
        loss = 6.0 / epoch + float(random.normal(0.0, 0.02))
        rows.append(
            {
                "epoch": epoch,
                "step": epoch * STEPS // epochs,
                "train_loss": loss,
                "train_loss_ratio": loss / 6.2,
                "val_loss": loss + 0.1,
                "val_loss_ratio": (loss + 0.1) / 6.2,
                "val_action_error_px": 40.0 / epoch + 5.0,
                "learning_rate": 1e-3 / epoch,
                "gradient_norm": float(random.uniform(0.5, 2.0)),
                "seconds": 3.0,
                "samples_per_second": 8.5e3,
            }
        )
    return rows


def describe(size: Size) -> str:
    """Return the size in words."""
    return json.dumps(vars(size))[1:-1].replace('"', "")
