"""Measured seconds of a trial: within a budget of time, and by whole chunks of actions."""

import pytest

from harness.config.protocol import Protocol
from harness.config.trial_config import TrialConfig, resolve
from harness.scheduling.jobs import Job
from harness.trials import estimate


def job(**settings):
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    config: TrialConfig = resolve(dotted)
    return Job(config, 0, str(settings))


def test_first_ones_have_a_larger_budget(monkeypatch):
    jobs = [job(policy__energy__width=width) for width in range(1, 7)]
    clock = iter([0.0, 0.1, 1.0, 3.9, 0.2, 0.3, 0.6])
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(estimate, "measure", lambda config: float(config.policy.energy.width))
    assert list(estimate.measure_some(jobs, 3).values()) == [1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize(
    ("horizon", "execute", "expected"), [(1, None, [1, 11]), (8, None, [1, 17]), (16, 12, [1, 13])]
)
def test_whole_chunks_are_timed(monkeypatch, tiny_policy, horizon, execute, expected):
    """Two episodes that end in the middle of one chunk would leave the policy's time out."""
    policy = tiny_policy(
        policy__kind="diffusion", policy__action_horizon=horizon, policy__execute=execute
    )
    lengths = []

    def block(policy, seeds, protocol):
        lengths.append(protocol.max_episode_steps)
        calls = 1 + (protocol.max_episode_steps - 1) // policy.executed
        clock[0] += 2.0 * calls + 0.1 * protocol.max_episode_steps

    clock = [0.0]
    monkeypatch.setattr(estimate, "evaluate_block", block)
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: clock[0])
    seconds = estimate._rollout(policy, [0])
    assert lengths == expected
    steps = Protocol().max_episode_steps
    assert seconds == pytest.approx(2.0 * steps / policy.executed + 0.1 * steps, rel=0.05)
