"""Implicit Behavioral Cloning (Florence et al. 2021) on one screen: the default recipe, no options.

The policy scores actions instead of computing one: the energy E(x, a) is low where a demonstrator
would act, and p(a | x) is proportional to exp(-E(x, a)). Training tells the demonstrated action
from random ones (InfoNCE); acting scores a lattice of actions and reads one out.
`tests/ibc/test_reference.py` holds the package to this file: same loss, same steps, same actions.

    B  batch                 T = 2  frames, the newest last      W  width of the layers
    N  negatives             A = 2  axes of an action            S  places of the lattice
    K = N + 1  candidates    X = 20 numbers a frame, in px: nine keypoints of the block, the agent
"""

import copy
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

BOARD = 512.0  # px, side of the board
WINDOW = 100.0  # px, how far from the agent an action may lie along an axis
DISTANCE, MOVE = 100.0, 20.0  # px, typical ones: agent to block, and from frame to frame
WIDTH, INPUTS = 256, 20 + 18 + 20
NEGATIVES = 512
SIDE, BANDWIDTH = 51, 10.0  # of the lattice, places along an axis; of the readout, px
STEPS, WARM_UP, LEARNING_RATE = 12_000, 500, 3e-3
BETAS, WEIGHT_DECAY, EMA_DECAY = (0.9, 0.999), 1e-6, 0.999


class EnergyModel(nn.Module):
    """E(x, a) = -<u(x), v(a)> / sqrt(W): a tower for observations and one for actions."""

    def __init__(self) -> None:
        super().__init__()
        W = WIDTH
        self.encoder = nn.Sequential(nn.Linear(INPUTS, W), nn.ReLU())
        self.observation = nn.Sequential(
            nn.Linear(W, W), nn.ReLU(), nn.Linear(W, W), nn.ReLU(), nn.Linear(W, W)
        )
        self.action = nn.Sequential(nn.Linear(2, W), nn.ReLU(), nn.Linear(W, W), nn.ReLU())

    def observe(self, keypoints_BTX: Tensor) -> Tensor:
        """u(x) (B, W): computed once, however many actions are scored."""
        u_BW: Tensor = self.observation(self.encoder(inputs(keypoints_BTX)))
        return u_BW

    def score(self, u_BW: Tensor, actions_BNA: Tensor) -> Tensor:
        """Energies (B, N) of normalised actions; those of shape (1, N, A) are for all rows."""
        v_BNW: Tensor = self.action(actions_BNA)
        return -(u_BW.unsqueeze(1) @ v_BNW.transpose(1, 2)).squeeze(1) / math.sqrt(WIDTH)


def inputs(keypoints_BTX: Tensor) -> Tensor:
    """(B, 58): newest positions, the block seen from the agent, what moved since the last frame."""
    x_BTX = keypoints_BTX * (2.0 / BOARD) - 1.0
    newest_BX, moves_BX = x_BTX[:, -1], x_BTX[:, -1] - x_BTX[:, 0]
    block_BKA, agent_B1A = newest_BX[:, :18].view(-1, 9, 2), newest_BX[:, None, 18:]
    offsets_BX = (block_BKA - agent_B1A).flatten(1)
    to_unit = BOARD / 2.0
    return torch.cat([newest_BX, offsets_BX * to_unit / DISTANCE, moves_BX * to_unit / MOVE], 1)


def encode(actions_BA: Tensor, keypoints_BTX: Tensor) -> Tensor:
    """Actions in px to [-1, 1], relative to the agent in the newest frame."""
    return ((actions_BA - keypoints_BTX[:, -1, 18:]) / WINDOW).clamp(-1.0, 1.0)


def decode(actions_BA: Tensor, keypoints_BTX: Tensor) -> Tensor:
    """Normalised actions to px on the board."""
    return (actions_BA * WINDOW + keypoints_BTX[:, -1, 18:]).clamp(0.0, BOARD)


def draw_negatives(generator: torch.Generator) -> Tensor:
    """(1, N, A) uniform over the window around the agent, the same for the whole batch."""
    return torch.rand(1, NEGATIVES, 2, generator=generator) * 2.0 - 1.0


def info_nce(
    model: EnergyModel, keypoints_BTX: Tensor, actions_BA: Tensor, negatives_1NA: Tensor
) -> Tensor:
    """Cross-entropy of picking the demonstrated action, candidate 0, by softmax(-energy)."""
    u_BW = model.observe(keypoints_BTX)
    positives_B1A = encode(actions_BA, keypoints_BTX).unsqueeze(1)
    energies_BK = torch.cat([model.score(u_BW, positives_B1A), model.score(u_BW, negatives_1NA)], 1)
    return -torch.log_softmax(-energies_BK, 1)[:, 0].mean()


@torch.no_grad()
def act(model: EnergyModel, keypoints_BTX: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Actions (B, A) in px; row b draws from generators[b].

    An action is drawn from the density on the lattice, then replaced by the mean of its
    neighbourhood ("mean shift"), which follows one of several modes without the scatter of a draw.
    """
    line = (torch.arange(SIDE) + 0.5) * (2.0 / SIDE) - 1.0
    lattice_SA = torch.cartesian_prod(line, line)
    energies_BS = model.score(model.observe(keypoints_BTX), lattice_SA.unsqueeze(0))
    cumulative_BS = torch.softmax(-energies_BS, 1).double().cumsum(1)
    unit_B1 = torch.stack([torch.rand(1, generator=g) for g in generators]).double()
    drawn_B = torch.searchsorted(cumulative_BS, unit_B1 * cumulative_BS[:, -1:], right=True)
    drawn_B1A = lattice_SA[drawn_B.clamp(max=SIDE**2 - 1)]
    distance_BS = (lattice_SA - drawn_B1A).norm(dim=2) * WINDOW / BANDWIDTH
    weights_BS = torch.softmax(-energies_BS - 0.5 * distance_BS.square(), 1)
    return decode(weights_BS @ lattice_SA, keypoints_BTX)


def learning_rate(step: int) -> float:
    """Linear warm-up, then a cosine to 0."""
    if step < WARM_UP:
        return LEARNING_RATE * (step + 1) / WARM_UP
    share = (step - WARM_UP) / (STEPS - WARM_UP)
    return LEARNING_RATE * 0.5 * (1.0 + math.cos(math.pi * share))


def train(
    model: EnergyModel, batches: Iterable[tuple[Tensor, Tensor]], generator: torch.Generator
) -> EnergyModel:
    """Train on batches of keypoints (B, T, X) and actions (B, A) px; returns averaged weights."""
    average = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), betas=BETAS, weight_decay=WEIGHT_DECAY)
    for step, (keypoints_BTX, actions_BA) in enumerate(batches):
        loss = info_nce(model, keypoints_BTX, actions_BA, draw_negatives(generator))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        optimizer.step()
        decay = min(EMA_DECAY, (1 + step) / (10 + step))  # the start is soon forgotten
        with torch.no_grad():
            for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(weight, 1.0 - decay)
    return average
