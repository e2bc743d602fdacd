"""Metrics on held-out windows, computed at the end of every epoch."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ibc.data.demos import Demos
from ibc.data.windows import Windows
from ibc.policies.base import AGENT, Policy

ROWS = 64  # windows of a batch
EDGE = 0.98  # beyond it, in normalised units, an action counts as being at the bounds
BEYOND = 1.02  # beyond it as being outside
PROBES = 64  # uniform candidates that a search is compared with
MOVED = 2.0  # px since the last frame
FASTER = 1.1  # the factor of the agent's past motion in a probe
CONTACT = 3  # steps before a contact that count to it
STILL_PX = 0.1  # the block stands still below this change of its place in a step
ARM_PX = 60.0  # from its centre, where a turn is measured in px
MISSED = 0.1  # a search missed if more of them than this share are better


# The metrics of the actions that a policy chooses, so of its search and readout too.
_OF_ACTIONS = (
    "val_readout_",
    "val_action_",
    "val_past_",
    "val_contact_",
    "val_copied_",
    "val_search_",
    "val_spread_",
    "val_place_",
    "val_predicted_",
    "val_chunk_",
    "share_",
)


def without_actions(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics of an epoch without those of the actions that were searched and read out."""
    return {name: value for name, value in metrics.items() if not name.startswith(_OF_ACTIONS)}


class Validation:
    """The same windows, evenly spread, and the same random numbers every time.

    So metrics of two epochs, and of two trials with one seed, differ by the weights alone.
    """

    def __init__(self, windows: Windows, count: int, seed: int) -> None:
        picks = np.linspace(0, len(windows) - 1, min(count, len(windows))).round().astype(np.int64)
        batch = {k: torch.from_numpy(v) for k, v in windows.batch(picks).items()}
        self.rows = windows.steps[picks]
        demos = windows.demos
        episodes = np.searchsorted(demos.episode_ends, self.rows, side="right")
        before = np.maximum(self.rows - 1, demos.episode_starts[episodes])
        batch["past_agent"] = torch.from_numpy(demos.state[before, :2])
        batch["past_action"] = torch.from_numpy(demos.action[before])
        batch["pushes"] = torch.from_numpy(_pushes(demos)[self.rows])
        self._parts = [
            {name: value[at : at + ROWS] for name, value in batch.items()}
            for at in range(0, len(picks), ROWS)
        ]
        self._count, self._seed = len(picks), seed
        self._moving = _moving(batch, windows.obs_mode)

    @torch.no_grad()
    def run(self, policy: Policy) -> dict[str, float]:
        """Loss, and errors in px (mean Euclidean distance of the first action); empty without data.

        val_action_error_px is that of the lowest energy, val_readout_error_px of the configured
        readout; trivial_stay/mean/repeat_error_px are those of staying, of the mean move and of
        repeating the last move, trivial_action_error_px the better of the first two.
        val_past_error_px: distance to the demonstrated action of the step before.
        val_contact_error_px: the readout's error in windows whose agent moves the block now or in
        the next CONTACT steps, the part of an episode that decides its score.
        val_copied_motion: by how many percent the predicted move grows where the agent's past
        motion is scaled up by one percent, 1 where it is repeated (obs_horizon 2 or more).
        val_search_missed: share of windows in which a tenth of uniform candidates has a lower
        energy than the action found. share_at_, share_outside_bounds: of the actions read out.
        val_spread_ratio, val_place_ratio: spread of predicted over demonstrated moves and places,
        val_chunk_ratio: distance from action to action within a chunk, likewise. finest_error_px:
        mean distance to the nearest uniform negative, the smallest error that the loss resolves.
        """
        with policy.acting():  # the lattice of candidates is the same for all windows
            return self._run(policy)

    def _run(self, policy: Policy) -> dict[str, float]:
        generator = torch.Generator(policy.device).manual_seed(self._seed)
        sums: dict[str, float] = {}
        wanted, predicted, agents, pasts, pushes = [], [], [], [], []
        row = 0
        for part in self._parts:
            rows = len(part["action"])
            loss, metrics = policy.compute_loss(part, generator)
            obs = policy.prepare(part)
            generators = [torch.Generator().manual_seed(self._seed + row + i) for i in range(rows)]
            predictions = policy.predictions(obs, generators)
            chosen_BHA, agent_BA = predictions["policy"], policy.newest_agent(obs)
            lowest_BHA = predictions.get("argmax", chosen_BHA)
            wanted_BHA = part["action"].to(policy.device)
            past_BA = part["past_action"].to(policy.device)
            beyond_B = policy.normalizer.encode(chosen_BHA, agent_BA).abs().amax(1)
            values = {
                "val_loss": loss,
                **{f"val_{name}": value for name, value in metrics.items()},
                "val_readout_error_px": _distance(chosen_BHA[:, 0], wanted_BHA[:, 0]),
                "val_action_error_px": _distance(lowest_BHA[:, 0], wanted_BHA[:, 0]),
                "val_past_error_px": _distance(chosen_BHA[:, 0], past_BA),
                "trivial_past_error_px": _distance(agent_BA, past_BA),
                "share_at_bounds": (beyond_B > EDGE).float().mean(),
                "share_outside_bounds": (beyond_B > BEYOND).float().mean(),
                **self._search(policy, obs, lowest_BHA, agent_BA),
                **_chunks(chosen_BHA, wanted_BHA),
            }
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float(value) * rows
            wanted.append(wanted_BHA[:, 0])
            predicted.append(chosen_BHA[:, 0])
            agents.append(agent_BA)
            pasts.append(part["past_agent"].to(policy.device))
            pushes.append(part["pushes"].to(policy.device))
            row += rows
        if not wanted:
            return {}
        result = {name: value / self._count for name, value in sums.items()}
        if "_chunk_predicted" in result:
            result["val_chunk_ratio"] = result.pop("_chunk_predicted") / max(
                result.pop("_chunk_wanted"), 1e-6
            )
        numbers = _over_all(
            torch.cat(wanted), torch.cat(predicted), torch.cat(agents), torch.cat(pasts)
        )
        errors_N = (torch.cat(predicted) - torch.cat(wanted)).norm(dim=1)
        if torch.cat(pushes).any():
            numbers["val_contact_error_px"] = float(errors_N[torch.cat(pushes)].mean())
        return {**result, **numbers, **_finest_error(policy), **self._copied_motion(policy)}

    def _copied_motion(self, policy: Policy) -> dict[str, float]:
        if not self._moving:
            return {}
        lengths = []
        for scale in (1.0, FASTER):
            obs = policy.prepare(_scaled(self._moving, policy.obs_mode, scale))
            agent_BA = policy.newest_agent(obs)
            generators = [
                torch.Generator().manual_seed(self._seed + i) for i in range(len(agent_BA))
            ]
            chosen_BHA = policy.predictions(obs, generators)["policy"]
            lengths.append(float((chosen_BHA[:, 0] - agent_BA).norm(dim=1).sum()))
        return {"val_copied_motion": (lengths[1] / max(lengths[0], 1e-6) - 1.0) / (FASTER - 1.0)}

    def _search(
        self, policy: Policy, obs: dict[str, Tensor], found_BHA: Tensor, agent_BA: Tensor
    ) -> dict[str, Tensor]:
        config = policy.config
        score = getattr(policy, "energies", None)
        if score is None or config.energy.conditionals != "joint":
            return {}
        found_B1D = policy.normalizer.encode(found_BHA, agent_BA).unsqueeze(1)
        D = found_B1D.shape[2]
        generator = torch.Generator().manual_seed(self._seed)
        some_1KD = (torch.rand(1, PROBES, D, generator=generator) * 2.0 - 1.0).to(found_B1D.device)
        better_B = (score(obs, some_1KD) < score(obs, found_B1D)).float().mean(1)
        return {"val_search_missed": (better_B > MISSED).float().mean()}


def _pushes(demos: Demos) -> NDArray[np.bool_]:
    """Whether the block moves within the next CONTACT + 1 steps of each row, (L,)."""
    change = np.abs(np.diff(demos.state[:, 2:], axis=0, append=demos.state[-1:, 2:]))
    change[:, 2] = np.minimum(change[:, 2], 2 * math.pi - change[:, 2]) * ARM_PX
    moves = np.asarray((change > STILL_PX).any(axis=1))
    moves[demos.episode_ends - 1] = False  # the next row is another episode's
    rows = np.arange(len(moves))
    left = demos.episode_ends[np.searchsorted(demos.episode_ends, rows, side="right")] - rows
    found = moves.copy()
    for ahead in range(1, CONTACT + 1):
        found |= np.roll(moves, -ahead) & (left > ahead)
    return found


def _moving(batch: dict[str, Tensor], obs_mode: str) -> dict[str, Tensor]:
    """Observations in which the agent has moved by MOVED px since the last frame, up to ROWS."""
    name, agent = AGENT[obs_mode]
    positions_BTA = batch[name][..., agent]
    if positions_BTA.shape[1] == 1:
        return {}
    moved_B = (positions_BTA[:, -1] - positions_BTA[:, -2]).norm(dim=1) >= MOVED
    rows = torch.nonzero(moved_B).flatten()
    if not len(rows):
        return {}
    picked = rows[torch.linspace(0, len(rows) - 1, min(ROWS, len(rows))).round().long()]
    names = {name, "image"} if obs_mode == "image" else {name}
    return {name: batch[name][picked] for name in names}


def _scaled(obs: dict[str, Tensor], obs_mode: str, scale: float) -> dict[str, Tensor]:
    """Observations with the agent's past motion scaled: its older positions farther away."""
    name, agent = AGENT[obs_mode]
    frames = obs[name].clone()
    newest = frames[:, -1:, agent]
    frames[..., agent] = newest + scale * (frames[..., agent] - newest)
    return {**obs, name: frames}


def _over_all(
    wanted_NA: Tensor, predicted_NA: Tensor, agent_NA: Tensor, past_NA: Tensor
) -> dict[str, float]:
    """The errors of trivial predictors and the spread of predictions, over all windows."""
    moves_NA, predicted_moves_NA = wanted_NA - agent_NA, predicted_NA - agent_NA
    stay = moves_NA.norm(dim=1).mean()
    mean = (moves_NA - moves_NA.mean(0)).norm(dim=1).mean()
    repeat = (moves_NA - (agent_NA - past_NA)).norm(dim=1).mean()
    x, y = predicted_NA.mean(0).tolist()
    return {
        "trivial_action_error_px": float(torch.minimum(stay, mean)),
        "trivial_stay_error_px": float(stay),
        "trivial_mean_error_px": float(mean),
        "trivial_repeat_error_px": float(repeat),
        "val_spread_ratio": float(_spread(predicted_moves_NA) / _spread(moves_NA)),
        "val_place_ratio": float(_spread(predicted_NA) / _spread(wanted_NA)),
        "val_predicted_x_px": x,
        "val_predicted_y_px": y,
        "val_place_error_px": float((predicted_NA.mean(0) - wanted_NA.mean(0)).norm()),
    }


def _chunks(chosen_BHA: Tensor, wanted_BHA: Tensor) -> dict[str, Tensor]:
    """The mean distance from action to action within predicted and demonstrated chunks."""
    if chosen_BHA.shape[1] == 1:
        return {}
    return {
        "_chunk_predicted": chosen_BHA.diff(dim=1).norm(dim=-1).mean(),
        "_chunk_wanted": wanted_BHA.diff(dim=1).norm(dim=-1).mean(),
    }


def _finest_error(policy: Policy) -> dict[str, float]:
    config = policy.config
    if config.kind != "ibc" or config.negatives.sampler != "uniform" or config.action_horizon > 1:
        return {}
    area = float((policy.normalizer.high - policy.normalizer.low).prod())
    return {"finest_error_px": 0.5 * math.sqrt(area / config.negatives.count)}


def _spread(moves_NA: Tensor) -> Tensor:
    return (moves_NA - moves_NA.mean(0)).square().sum(1).mean().sqrt().clamp(min=1e-6)


def _distance(a_BA: Tensor, b_BA: Tensor) -> Tensor:
    mean: Tensor = (a_BA - b_BA).norm(dim=1).mean()
    return mean
