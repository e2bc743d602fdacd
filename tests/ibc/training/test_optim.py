"""AdamW: the bits of torch's own, what it goes on from, and that it brings no compiler along."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ibc.training.optim import AdamW

ROOT = Path(__file__).resolve().parents[3]
BETAS, DECAY = (0.9, 0.95), 0.01


def parameters() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 3), (4,), (2, 2)]
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def give_gradients(of: list[Tensor], step: int) -> None:
    """Gradients that depend on the weights; the last parameter has one in every other step."""
    for i, parameter in enumerate(of):
        scale = torch.sin(parameter.detach() * (step + 1)) * 10.0 ** (i - 1)
        parameter.grad = scale if i < 2 or step % 2 else None


def reference(of: list[Tensor]) -> torch.optim.AdamW:
    return torch.optim.AdamW(of, lr=1.0, betas=BETAS, weight_decay=DECAY, fused=True)


def step_both(ours: AdamW, theirs: torch.optim.AdamW, of: list[list[Tensor]], at: int) -> None:
    rate = 1e-2 / (1 + at)
    for each in of:
        give_gradients(each, at)
    ours.step(rate)
    theirs.param_groups[0]["lr"] = rate
    theirs.step()


def test_its_steps_are_those_of_torch_to_the_bit() -> None:
    mine, others = parameters(), parameters()
    ours, theirs = AdamW(mine, betas=BETAS, weight_decay=DECAY), reference(others)
    for at in range(6):
        step_both(ours, theirs, [mine, others], at)
        assert all(torch.equal(a, b) for a, b in zip(mine, others, strict=True)), at
    state, expected = ours.state_dict()["state"], theirs.state_dict()["state"]
    assert state.keys() == expected.keys() == {0, 1, 2}
    assert [float(state[i]["step"]) for i in range(3)] == [6.0, 6.0, 3.0]
    for i, moments in expected.items():
        assert moments.keys() == state[i].keys()
        assert all(torch.equal(value, state[i][name]) for name, value in moments.items())
    before = [p.clone() for p in mine]
    ours.zero_grad()
    ours.step(1.0)
    assert all(p.grad is None for p in mine)
    assert all(torch.equal(a, b) for a, b in zip(before, mine, strict=True))


@pytest.mark.parametrize("of_torch", [True, False])
def test_it_goes_on_from_its_own_state_and_from_torchs(of_torch: bool) -> None:
    mine, others = parameters(), parameters()
    ours, theirs = AdamW(mine, betas=BETAS, weight_decay=DECAY), reference(others)
    for at in range(3):
        step_both(ours, theirs, [mine, others], at)
    again = AdamW(mine, betas=BETAS, weight_decay=DECAY)
    given = theirs.state_dict() if of_torch else ours.state_dict()
    again.load_state_dict(given)
    step_both(again, theirs, [mine, others], 3)
    assert all(torch.equal(a, b) for a, b in zip(mine, others, strict=True))
    # What was given stays what it was: the state is a copy.
    assert float(ours.state_dict()["state"][0]["step"]) == 3.0


def test_training_imports_no_compiler() -> None:
    """It would cost every worker, and every command that times a step, two seconds."""
    code = """
import sys
import torch
import ibc
from ibc.config.policy import PolicyConfig
from ibc.data.normalizer import Normalizer
from ibc.training import trainer
config = PolicyConfig()
normalizer = Normalizer.fit(config.action, torch.rand(9, 1, 2), torch.rand(9, 2))
policy = ibc.build_policy(config, normalizer, generator_seed=0)
batch = {"keypoints": torch.rand(8, 2, 20) * 512, "action": torch.rand(8, 1, 2) * 512}
loss, _ = policy.compute_loss(batch, torch.Generator())
loss.backward()
trainer.AdamW(policy.parameters(), betas=(0.9, 0.999), weight_decay=0.0).step(1e-3)
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
