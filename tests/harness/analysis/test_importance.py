"""Importances on searches whose answer is known."""

import math

import numpy as np
import pytest

from harness.analysis.importance import MIN_TRIALS, importances
from harness.config import plan as space
from harness.core import files
from harness.scheduling.search_history import SearchRun
from harness.storage import tables
from harness.storage.trial_folder import TrialFolder

SPACE = """
version: 1
train_seeds: [0, 1]
base: {train: {steps: 900, epoch_steps: 50}, select: {every: 100, seeds: 2}}
search:
  sampler: random
  axes:
    train.learning_rate: {low: 1e-4, high: 1e-1, log: true}
    policy.energy.width: [8, 16, 32]
    train.weight_decay: {low: 0.0, high: 1e-3}
    policy.encoder.channels: [[16, 32], [16, 64]]
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)

    def write(n: int, text: str = SPACE, *, halved: bool = False, train_seeds: int = 2):
        """A search of n trials whose score is their learning rate's, and a little their width's."""
        path = tmp_path / "x.yaml"
        path.write_text(text)
        plan = space.plan(path)
        sweep = tmp_path / "sweep"
        content = {"train_seeds": list(plan.train_seeds), "search": plan.search.describe()}
        files.write_json({**content, "questions": []}, sweep / "plan.json")
        run = SearchRun(plan.search, "sweep", sweep, plan.train_seeds)
        rng = np.random.default_rng(0)
        for number in range(n):
            parameters = {
                "train.learning_rate": 10 ** rng.uniform(-4, -1),
                "policy.energy.width": [8, 16, 32][rng.integers(3)],
                "train.weight_decay": rng.uniform(0, 1e-3),
                "policy.encoder.channels": [[16, 32], [16, 64]][rng.integers(2)],
            }
            rate = math.log10(parameters["train.learning_rate"])
            score = 0.9 - 0.2 * (rate + 2.5) ** 2 + 0.02 * (parameters["policy.energy.width"] == 16)
            for seed in range(train_seeds):
                job = run.job(number, parameters, seed)
                folder = TrialFolder(sweep / "trials" / job.id)
                identity = {"config_hash": job.id[:12], "train_seed": seed}
                folder.claim({**job.info, **identity, "config": {}}, "data")
                if halved:  # the best at the first rung look bad later on: they went farther
                    row = {**identity, "score": score, "checkpoint_step": 100, "env_seed": 200_000}
                    folder.write_selected(100, [row])
                    folder.write_status(status="stopped", step=100, select_score=0.5)
                else:
                    folder.write_status(status="finished", step=900, select_score=score)
        tables.rebuild(sweep)
        return sweep

    return write


def test_what_decides_the_score_is_named_with_an_interval(write):
    found, note = importances(write(60))
    first = next(iter(found))
    assert first == "train.learning_rate"
    assert found[first].value > 0.6
    assert found[first].low > found["train.weight_decay"].high
    assert sum(share.value for share in found.values()) == pytest.approx(1)
    assert all(0 <= share.low <= share.high <= 1 for share in found.values())
    assert found.keys() == {
        "train.learning_rate",
        "policy.energy.width",
        "train.weight_decay",
        "policy.encoder.channels",
    }
    assert {share.n for share in found.values()} == {60}
    assert note.startswith("PED-ANOVA: the best 6 of 60 trials against all")


def test_stopped_trials_are_compared_at_the_first_rung(write):
    halved = SPACE.replace("sampler: random", "sampler: random\n  halving: {first: 100}")
    found, note = importances(write(40, halved, halved=True))
    first, share = next(iter(found.items()))
    assert first == "train.learning_rate"
    assert share.value > 0.5
    assert "of 40 trials at step 100 against all" in note


def test_too_few_trials_give_a_reason(write, tiny_results):
    found, note = importances(write(MIN_TRIALS - 1))
    assert found == {}
    assert note == f"importance needs at least {MIN_TRIALS} trials with a score, there are 19"
    assert importances(tiny_results / "tiny") == ({}, "")


def test_parameters_count_when_all_their_training_seeds_are_done(write):
    assert "there are 0" in importances(write(30, train_seeds=1))[1]
