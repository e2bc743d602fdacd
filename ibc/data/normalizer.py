"""One normaliser for actions, positions, negatives and samples; saved with the weights.

Legend: B batch, N actions scored per observation, H action horizon, A = 2, D = H * A.
"""

import torch
from torch import Tensor, nn

from ibc.config.action import BOARD_PX, ActionConfig
from ibc.config.checks import check

BOUND = 1.0  # normalised actions lie in [-BOUND, BOUND]


class Normalizer(nn.Module):
    """Maps actions in px to [-1, 1] within their bounds, and back; positions likewise.

    low, high (A,), or (H, A) for bounds "steps": the bounds in px, in the config's frame. They are
    buffers, saved with the weights, so they always belong to the data that these were trained on.
    """

    low: Tensor
    high: Tensor

    def __init__(self, config: ActionConfig, low_A: Tensor, high_A: Tensor) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("low", low_A.to(torch.float32))
        self.register_buffer("high", high_A.to(torch.float32))

    @classmethod
    def fit(cls, config: ActionConfig, actions_BHA: Tensor, agent_BA: Tensor) -> "Normalizer":
        """Bounds from the training actions and the agent's positions before them, both in px.

        On the board's frame the bounds never leave the board, whatever the margin. ValueError if
        an axis of the actions has no extent to map.
        """
        if config.bounds == "window":
            high_A = torch.full((2,), config.window)
            return cls(config, -high_A, high_A)
        relative = config.frame == "agent"
        if config.bounds == "board":
            high_A = torch.full((2,), BOARD_PX)
            return cls(config, -high_A if relative else torch.zeros(2), high_A)
        actions = actions_BHA - agent_BA[:, None] if relative else actions_BHA
        over = (0,) if config.bounds == "steps" else (0, 1)
        low_A, high_A = actions.amin(over), actions.amax(over)
        extent_A = high_A - low_A
        check(
            bool((extent_A > 1e-3).all()),
            "the actions of the training data must vary in x and in y",
            f"ranges of {extent_A.tolist()} px",
        )
        low_A, high_A = low_A - config.margin * extent_A, high_A + config.margin * extent_A
        if not relative:
            low_A, high_A = low_A.clamp(min=0.0), high_A.clamp(max=BOARD_PX)
        return cls(config, low_A, high_A)

    @classmethod
    def blank(cls, config: ActionConfig, action_horizon: int) -> "Normalizer":
        """A normaliser whose bounds are to be loaded."""
        shape = (action_horizon, 2) if config.bounds == "steps" else (2,)
        return cls(config, torch.zeros(shape), torch.zeros(shape))

    def encode(self, actions_BHA: Tensor, agent_BA: Tensor) -> Tensor:
        """Actions in px to (B, D); not clipped, so that the caller can count those outside."""
        if self.config.frame == "agent":
            actions_BHA = actions_BHA - agent_BA[:, None]
        centre_A, half_A = (self.high + self.low) / 2, (self.high - self.low) / 2
        encoded_BD: Tensor = ((actions_BHA - centre_A) / half_A).flatten(1)
        return encoded_BD

    def decode(self, actions_BD: Tensor, agent_BA: Tensor) -> Tensor:
        """Normalised actions to px, (B, H, A), clipped to the board."""
        centre_A, half_A = (self.high + self.low) / 2, (self.high - self.low) / 2
        actions_BHA = actions_BD.reshape(len(actions_BD), -1, 2) * half_A + centre_A
        if self.config.frame == "agent":
            actions_BHA = actions_BHA + agent_BA[:, None]
        return actions_BHA.clamp(0.0, BOARD_PX)

    def lengths(self, px: float) -> Tensor:
        """A length in px in normalised units of each axis, (A,), or (H, A) for bounds "steps"."""
        return px * 2.0 / (self.high - self.low)


def normalize_positions(px: Tensor) -> Tensor:
    """Board coordinates in px to [-1, 1]; the same for agent, block and keypoints."""
    return px * (2.0 / BOARD_PX) - 1.0
