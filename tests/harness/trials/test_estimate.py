"""Estimates: each sort of policy is timed, and whole chunks are."""

import pytest

from harness.config.protocol import Protocol
from harness.config.trial_config import TrialConfig, resolve
from harness.evaluation import rollout
from harness.scheduling.jobs import Job
from harness.trials import estimate


def job(**settings):
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    config: TrialConfig = resolve(dotted)
    return Job(config, 0, str(settings))


def test_a_kind_that_no_time_was_left_for_is_taken_to_be_like_its_own(monkeypatch):
    """Of two kinds with two configs each, one a kind is timed first."""
    jobs = [
        job(policy__kind=kind, policy__energy__width=width)
        for kind in ("mse", "diffusion")
        for width in (64, 128)
    ]
    took = {"mse": 10.0, "diffusion": 90.0}
    clock = iter(range(100))
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(estimate, "measure", lambda config: took[config.policy.kind])
    found = estimate.estimate(jobs, {}, budget_seconds=2.5)
    assert "2 configs timed" in found.how
    assert [found.seconds[job.id] for job in jobs] == [10.0, 10.0, 90.0, 90.0]


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
    monkeypatch.setattr(rollout, "evaluate_block", block)
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: clock[0])
    seconds = estimate._rollout(policy, [0])
    assert lengths == expected
    steps = Protocol().max_episode_steps
    assert seconds == pytest.approx(2.0 * steps / policy.executed + 0.1 * steps, rel=0.05)
