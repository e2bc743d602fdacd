"""What is measured on held-out windows at the end of every epoch."""

import numpy as np
import torch
from torch import Tensor

from ibc.base import Policy
from ibc.windows import Windows

ROWS = 64  # windows judged at once
EDGE = 0.98  # beyond it, in normalised units, an action counts as being at the bounds


class Validation:
    """The same windows, evenly spread, and the same random numbers every time.

    So the figures of two epochs, and of two trials with one seed, differ by the weights alone.
    """

    def __init__(self, windows: Windows, count: int, seed: int) -> None:
        picks = np.linspace(0, len(windows) - 1, min(count, len(windows))).round().astype(np.int64)
        batch = {k: torch.from_numpy(v) for k, v in windows.batch(picks).items()}
        self._parts = [
            {name: value[at : at + ROWS] for name, value in batch.items()}
            for at in range(0, len(picks), ROWS)
        ]
        self._count, self._seed = len(picks), seed

    @torch.no_grad()
    def run(self, policy: Policy) -> dict[str, float]:
        """Loss, errors in px (mean Euclidean distance of the first action) and share at the bounds.

        val_action_error_px reads the lowest energy, val_readout_error_px reads as configured;
        trivial_action_error_px is that of the better of "stay" and "the mean move";
        val_spread_ratio compares the spread of predicted and demonstrated moves. Empty when nothing
        is held out.
        """
        generator = torch.Generator(policy.device).manual_seed(self._seed)
        sums: dict[str, float] = {}
        moves, predicted, row = [], [], 0
        for part in self._parts:
            rows = len(part["action"])
            loss, metrics = policy.compute_loss(part, generator)
            obs = policy.prepare(part)
            generators = [torch.Generator().manual_seed(self._seed + row + i) for i in range(rows)]
            predictions = policy.predictions(obs, generators)
            wanted_BA = part["action"][:, 0].to(policy.device)
            agent_BA = policy.newest_agent(obs)
            moves.append(wanted_BA - agent_BA)
            predicted.append(predictions["policy"][:, 0] - agent_BA)
            values = {
                "val_loss": loss,
                **{f"val_{name}": value for name, value in metrics.items()},
                "val_readout_error_px": _distance(predictions["policy"][:, 0], wanted_BA),
                "val_action_error_px": _distance(
                    predictions.get("argmax", predictions["policy"])[:, 0], wanted_BA
                ),
                "share_at_bounds": _share_at_bounds(policy, predictions["policy"], agent_BA),
            }
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float(value) * rows
            row += rows
        result = {name: value / self._count for name, value in sums.items()}
        if moves:
            moves_NA = torch.cat(moves)
            stay, mean = (
                moves_NA.norm(dim=1).mean(),
                (moves_NA - moves_NA.mean(0)).norm(dim=1).mean(),
            )
            result["trivial_action_error_px"] = float(torch.minimum(stay, mean))
            result["val_spread_ratio"] = float(_spread(torch.cat(predicted)) / _spread(moves_NA))
        return result


def _spread(moves_NA: Tensor) -> Tensor:
    return (moves_NA - moves_NA.mean(0)).square().sum(1).mean().sqrt().clamp(min=1e-6)


def _distance(a_BA: Tensor, b_BA: Tensor) -> Tensor:
    mean: Tensor = (a_BA - b_BA).norm(dim=1).mean()
    return mean


def _share_at_bounds(policy: Policy, actions_BHA: Tensor, agent_BA: Tensor) -> Tensor:
    return (policy.normalizer.encode(actions_BHA, agent_BA).abs() > EDGE).any(1).float().mean()
