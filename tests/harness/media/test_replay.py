"""The decisions computed again are those of the recorded episode, for any policy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from harness.config.protocol import Protocol
from harness.evaluation.rollout import evaluate_block
from harness.media.recorder import Recorder, Step
from harness.media.replay import SIDE, decisions, observe

SEEDS = [300_000, 300_001]
CHUNK = {"policy__kind": "mdn", "policy__action_horizon": 4, "policy__execute": 3}
WARM = {
    "policy__inference__sampler": "dfo",
    "policy__inference__warm_start": 0.5,
    "policy__inference__readout": "softmax_mean",
}


def recorded(policy: Any, steps: int = 8) -> dict[int, list[Step]]:
    recorder = Recorder(SEEDS)
    rows = evaluate_block(policy, SEEDS, Protocol(max_episode_steps=steps), video=recorder)
    assert all(row["error"] is None for row in rows)
    for row in rows:
        of_row = recorder.steps[row["env_seed"]]
        assert len(of_row) == row["length"] + 1
        assert of_row[-1].coverage == row["final_coverage"]
        assert max(step.coverage for step in of_row[1:]) == row["max_coverage"]
    return recorder.steps


@pytest.mark.parametrize("settings", [{}, WARM, CHUNK, {"policy__obs_mode": "image"}])
def test_the_plans_are_those_that_were_carried_out(
    tiny_policy: Callable[..., Any], settings: dict[str, Any]
) -> None:
    policy = tiny_policy(**settings)
    for seed, steps in recorded(policy).items():
        seen = list(decisions(policy, seed, steps))
        assert len(seen) == len(steps)
        assert seen[-1] is None
        for step, decision in zip(steps[:-1], seen[:-1], strict=True):
            assert decision is not None
            assert step.action is not None
            # A block's batch may differ from one observation's in the last bits.
            np.testing.assert_allclose(decision.plan[decision.age], step.action, atol=0.5)
            assert decision.energies is not None
            assert decision.energies.shape == (SIDE, SIDE)
        ages = [decision.age for decision in seen[:-1] if decision is not None]
        assert ages == [at % policy.executed for at in range(len(ages))]


class Notes:
    """Acts like a policy and keeps the observations that it is given."""

    def __init__(self, policy: Any) -> None:
        self.policy, self.seen = policy, list[dict[str, torch.Tensor]]()
        self.obs_mode, self.obs_horizon = policy.obs_mode, policy.obs_horizon

    def predict_action(self, obs: Any, generators: Any) -> Any:
        self.seen.append({name: value[:1].clone() for name, value in obs.items()})
        return self.policy.predict_action(obs, generators)


@pytest.mark.parametrize("mode", ["state", "keypoints", "image"])
def test_observations_are_those_that_the_policy_had(
    tiny_policy: Callable[..., Any], mode: Any
) -> None:
    notes = Notes(tiny_policy(policy__obs_mode=mode))
    states = [step.state for step in recorded(notes)[SEEDS[0]]]
    assert len(notes.seen) == len(states) - 1
    for at, expected in enumerate(notes.seen):
        found = observe(states, at, notes.obs_horizon, mode)
        assert found.keys() == expected.keys()
        for name in found:
            assert found[name].dtype == expected[name].dtype
            assert torch.equal(found[name], expected[name])


def test_only_wanted_steps_have_a_landscape(tiny_policy: Callable[..., Any]) -> None:
    policy = tiny_policy()
    steps = recorded(policy)[SEEDS[0]]
    every, some = (
        list(decisions(policy, SEEDS[0], steps)),
        list(decisions(policy, SEEDS[0], steps, wanted=lambda step: step % 3 == 0)),
    )
    for at, (a, b) in enumerate(zip(every[:-1], some[:-1], strict=True)):
        assert a is not None
        assert b is not None
        assert np.array_equal(a.plan, b.plan)
        assert (b.energies is None) == (at % 3 != 0)


def test_a_foreign_policy_has_no_decisions() -> None:
    steps = [Step(np.zeros(5), np.zeros(2), 0.0), Step(np.zeros(5), None, 0.0)]
    assert list(decisions(object(), 1, steps)) == [None, None]
