"""Small but real policies and a small but real results folder."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from harness.config.protocol import Protocol, blocks
from harness.config.trial_config import config_hash, resolve, to_dict
from harness.core import files
from harness.evaluation.job import Options, evaluate
from harness.evaluation.rollout import evaluate_block
from harness.storage import checkpoints, table_schemas
from ibc.config.action import ActionConfig
from ibc.config.policy import PolicyConfig
from ibc.data.normalizer import Normalizer
from ibc.policies.base import Policy
from ibc.policies.factory import build_policy

SMALL = {
    "policy.action.frame": "board",
    "policy.action.bounds": "board",
    "policy.energy.width": 16,
    "policy.energy.depth": 1,
    "policy.inference.samples": 16,
    "select.seeds": 25,
}


@pytest.fixture(scope="session")
def tiny_policy() -> Callable[..., Policy]:
    """Makes untrained policies: weights by seed, settings as `policy__kind="mse"`."""

    def make(seed: int = 0, **settings: Any) -> Policy:
        dotted = {name.replace("__", "."): value for name, value in settings.items()}
        config: PolicyConfig = resolve(SMALL, dotted).policy
        bounds = torch.zeros(2), torch.full((2,), 512.0)
        normalizer = Normalizer(ActionConfig(frame="board", bounds="board"), *bounds)
        return build_policy(config, normalizer, generator_seed=seed).eval()

    return make


@pytest.fixture
def tiny_results(tmp_path: Path, _tiny_results: Path) -> Path:
    """A copy of its own of the sweep `tiny` in a results folder, see below."""
    return Path(shutil.copytree(_tiny_results, tmp_path / "results"))


@pytest.fixture
def evaluated_results(tmp_path: Path, _evaluated_results: Path) -> Path:
    """A copy of the same, each finished trial evaluated on the 25 report seeds from 300000 on."""
    return Path(shutil.copytree(_evaluated_results, tmp_path / "results"))


@pytest.fixture(scope="session")
def _evaluated_results(tmp_path_factory: pytest.TempPathFactory, _tiny_results: Path) -> Path:
    results = Path(shutil.copytree(_tiny_results, tmp_path_factory.mktemp("done") / "results"))
    for folder in (results / "tiny" / "trials").iterdir():
        options = Options(ckpt=folder.name, seeds="25", results=results, workers=1)
        assert evaluate(options, Console(file=io.StringIO())) == 0
    return results


@pytest.fixture(scope="session")
def _tiny_results(
    tmp_path_factory: pytest.TempPathFactory, tiny_policy: Callable[..., Policy]
) -> Path:
    """A results folder with the sweep `tiny`: two arms, two training seeds, one trial pending.

    Its checkpoints hold real weights and its selection rows are real rollouts (25 starts, as an
    evaluation has them).
    """
    results = tmp_path_factory.mktemp("tiny") / "results"
    sweep = results / "tiny"
    arms = {"energy": {}, "explicit": {"policy.kind": "mse"}}
    trials = []
    for arm, changes in arms.items():
        config = resolve(SMALL, changes)
        for train_seed in (0, 1):
            identity = {"config_hash": config_hash(config), "train_seed": train_seed}
            described = {**identity, "question": "loss", "arm": arm, "config": to_dict(config)}
            trials.append(described)
            if (arm, train_seed) == ("explicit", 1):
                continue
            folder = sweep / "trials" / f"{identity['config_hash']}-s{train_seed}"
            files.write_json(described, folder / "config.json")
            policy = tiny_policy(train_seed, policy__kind=config.policy.kind)
            checkpoints.save(
                folder / "checkpoints",
                "best",
                policy,
                config=described["config"],
                step=500,
                info=identity,
            )
            columns = {
                "sweep": "tiny",
                **identity,
                "checkpoint_step": 500,
                "policy_hash": checkpoints.weights_hash(folder / "checkpoints" / "best"),
            }
            rows = [
                {**row, **columns}
                for block in blocks(range(200_000, 200_025), 25)
                for row in evaluate_block(policy, block, Protocol(max_episode_steps=30))
            ]
            table_schemas.write(
                table_schemas.table("episodes", rows), folder / "episodes" / "select-500.parquet"
            )
            score = sum(row["score"] for row in rows) / len(rows)
            status = {
                "status": "finished",
                "attempts": 1,
                "best_step": 500,
                "step": 500,
                "select_score": score,
                "train_seconds": 12.5,
                "samples_per_second": 1e4,
            }
            files.write_json(status, folder / "status.json")
            files.write_json([], folder / "health.json")
    asked = {
        "question": "loss",
        "text": "Does an energy help?",
        "arms": [
            {"arm": arm, "config_hash": trials[2 * i]["config_hash"]} for i, arm in enumerate(arms)
        ],
    }
    plan = {"sweep": "tiny", "trials": trials, "questions": [asked]}
    files.write_json(plan, sweep / "plan.json")
    return results
