"""The one normaliser: bounds, frames, and the way there and back."""

import pytest
import torch

from ibc.config.action import ActionConfig
from ibc.data.normalizer import Normalizer, normalize_positions


def actions_and_agents(n=200, horizon=3):
    generator = torch.Generator().manual_seed(0)
    agents = torch.rand(n, 2, generator=generator) * 400 + 56
    moves = torch.randn(n, horizon, 2, generator=generator) * 15
    return (agents[:, None] + moves).clamp(0, 512), agents


@pytest.mark.parametrize(
    "config",
    [
        ActionConfig(frame="board", bounds="data"),
        ActionConfig(frame="board", bounds="board"),
        ActionConfig(frame="agent", bounds="data"),
        ActionConfig(frame="agent", bounds="board"),
        ActionConfig(frame="agent", bounds="window"),
        ActionConfig(frame="board", bounds="steps"),
        ActionConfig(frame="agent", bounds="steps"),
    ],
)
def test_training_actions_lie_inside_and_come_back(config):
    actions, agents = actions_and_agents()
    normalizer = Normalizer.fit(config, actions, agents)
    encoded = normalizer.encode(actions, agents)
    assert encoded.shape == (200, 6)
    assert encoded.abs().max() <= 1.0
    torch.testing.assert_close(normalizer.decode(encoded, agents), actions, atol=1e-3, rtol=0)


def test_bounds_of_steps_are_the_range_of_each_step_by_itself():
    actions = torch.tensor([[[10.0, 20.0], [100.0, 200.0]], [[30.0, 24.0], [300.0, 240.0]]])
    config = ActionConfig("agent", "steps", margin=0.0)
    normalizer = Normalizer.fit(config, actions, torch.zeros(2, 2))
    assert normalizer.low.tolist() == [[10.0, 20.0], [100.0, 200.0]]
    assert normalizer.high.tolist() == [[30.0, 24.0], [300.0, 240.0]]
    assert normalizer.encode(actions, torch.zeros(2, 2)).abs().eq(1.0).all()
    torch.testing.assert_close(normalizer.lengths(1.0), torch.tensor([[0.1, 0.5], [0.01, 0.05]]))


def test_data_bounds_are_the_range_plus_its_margin():
    actions = torch.tensor([[[100.0, 200.0]], [[300.0, 240.0]]])
    agents = torch.zeros(2, 2)
    normalizer = Normalizer.fit(ActionConfig("board", "data", margin=0.1), actions, agents)
    assert normalizer.low.tolist() == [80.0, 196.0]
    assert normalizer.high.tolist() == [320.0, 244.0]


def test_margins_do_not_leave_the_board():
    actions = torch.tensor([[[10.0, 20.0]], [[500.0, 505.0]]])
    normalizer = Normalizer.fit(ActionConfig("board", "data", margin=0.2), actions, actions[:, 0])
    assert normalizer.low.tolist() == [0.0, 0.0]
    assert normalizer.high.tolist() == [512.0, 512.0]


def test_agent_frame_does_not_see_where_on_the_board_it_is():
    normalizer = Normalizer.fit(ActionConfig("agent", "window", window=50.0), *actions_and_agents())
    move = torch.tensor([[[25.0, -50.0]]])
    for agent in (torch.tensor([[100.0, 300.0]]), torch.tensor([[256.0, 256.0]])):
        assert normalizer.encode(agent[:, None] + move, agent).tolist() == [[0.5, -1.0]]


def test_actions_are_kept_on_the_board():
    normalizer = Normalizer.fit(ActionConfig(), *actions_and_agents())
    decoded = normalizer.decode(torch.tensor([[1.0, -1.0]]), torch.tensor([[500.0, 3.0]]))
    assert decoded.tolist() == [[[512.0, 0.0]]]


def test_data_without_extent_is_refused():
    still = torch.full((5, 1, 2), 100.0)
    with pytest.raises(ValueError, match="must vary in x and in y"):
        Normalizer.fit(ActionConfig("board", "data"), still, still[:, 0])


def test_board_corners_are_minus_one_and_one():
    assert normalize_positions(torch.tensor([0.0, 256.0, 512.0])).tolist() == [-1.0, 0.0, 1.0]
