"""Measured seconds of a trial: within a budget of time, and by whole chunks of actions."""

import pytest

from harness.config.protocol import Protocol
from harness.config.trial_config import resolve
from harness.trials import estimate


class FakeTrainer:
    """A training step takes 1 ms by window and negative; acting a second by candidate."""

    def __init__(self, config, clock, calls):
        self.config, self.policy = config, config
        self._clock, self._calls = clock, calls

    def run_epoch(self):
        self._calls.append(("step", self.config))
        self._clock[0] += 1.0
        return {"samples_per_second": 1000.0 / self.config.policy.negatives.count}


@pytest.fixture
def timed(monkeypatch):
    """The calls of timed parts and the clock, which each part moves by a second."""
    clock, calls = [0.0], []

    def trainer(config, *, validated):
        return FakeTrainer(config, clock, calls)

    def rollout(config, seeds):
        calls.append(("acting", config))
        clock[0] += 1.0
        return float(config.policy.inference.samples * len(seeds))

    monkeypatch.setattr(estimate, "_trainer", trainer)
    monkeypatch.setattr(estimate, "_dear", lambda policy, env_seed: False)
    monkeypatch.setattr(estimate, "_validation", lambda trainer: 0.0)
    monkeypatch.setattr(estimate, "_rollout", rollout)
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: clock[0])
    return calls


def configs(*changes):
    base = {"train.steps": 10, "train.batch_size": 4, "select.seeds": 2}
    base |= {"policy.inference.samples": 8, "policy.negatives.count": 16}
    return [resolve(base, change) for change in changes]


def test_parts_that_do_not_differ_are_timed_once(timed):
    given = configs(
        {},
        {"train.learning_rate": 1e-4, "policy.action.window": 50.0, "split.val_share": 0.2},
        {"train.steps": 20, "train.batch_size": 8},
        {"policy.inference.samples": 64},
        {"policy.negatives.count": 32},
        {"policy.kind": "mse"},
    )
    measured = estimate.measure_some(given, [10**6] * len(given), [True] * len(given))
    # Of acting, explicit and the two numbers of samples; a step is timed after a warm-up.
    assert [part for part, _ in timed].count("acting") == 3
    assert [part for part, _ in timed].count("step") == 2 * 3
    assert measured.exact == 6
    one = estimate.TRIAL_SECONDS
    step = [10 * 4 * 0.016] * 2 + [20 * 8 * 0.016, 10 * 4 * 0.016, 10 * 4 * 0.032, 10 * 4 * 0.016]
    acting = [16, 16, 16, 128, 16, 16]
    expected = [one + a + b for a, b in zip(step, acting, strict=True)]
    assert measured.seconds() == pytest.approx(expected)
    measured.trained = [True] * 5 + [False]  # takes another's weights
    assert measured.seconds() == pytest.approx([*expected[:-1], one + acting[-1]])


def test_the_most_different_ones_are_timed_while_there_is_time(timed):
    widths = [{"policy.energy.width": width, "policy.inference.samples": 2} for width in (8, 16)]
    far = {"policy.energy.depth": 3, "policy.energy.width": 32, "policy.negatives.count": 99}
    given = configs(*widths, far, {"policy.kind": "mse"})
    measured = estimate.measure_some(given, [1] * 4, [True] * 4)
    # For 1 % of so little there is no time, but for one of each kind.
    order = list(dict.fromkeys(config for _, config in timed))
    assert order == [given[0], given[3]]
    assert measured.exact == 2
    assert measured.seconds()[1] == pytest.approx(measured.seconds()[0])
    timed.clear()
    measured = estimate.measure_some(given, [10**6] * 4, [True] * 4)
    order = list(dict.fromkeys(config for _, config in timed))
    assert order == [given[0], given[3], given[2], given[1]]
    assert measured.exact == 4


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
    seconds = estimate._rollout(policy, [0, 1])
    assert lengths == expected
    steps = Protocol().max_episode_steps
    assert seconds == pytest.approx(2.0 * steps / policy.executed + 0.1 * steps, rel=0.05)
    # One start alone is of a slow policy, of which one chunk more is enough.
    lengths.clear()
    estimate._rollout(policy, [0])
    assert lengths == [1, 1 + policy.executed]


def test_a_slow_policy_is_known_by_its_faster_attempt(monkeypatch, tiny_policy):
    def dear(*took):
        left = iter(took)
        monkeypatch.setattr(estimate, "_timed", lambda policy, env_seeds, steps: next(left))
        return estimate._dear(tiny_policy(), [0])

    assert dear(3.0, 0.2)
    assert not dear(3.0, 0.01)  # the first call imports and warms up
