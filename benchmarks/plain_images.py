"""Plain training on images: float images, crops in a loop, a plain head.

The trunk with its reduction and pooling is ours, so only the rest differs.

Legend: B windows, T frames, K = N + 1 candidates, F features.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.plain_ibc import PlainEnergy
from ibc.config.encoder import EncoderConfig
from ibc.data.windows import Windows
from ibc.encoders.image import ImageEncoder

CROP, HORIZON = 84, 2


class PlainImageTrainer:
    """Trains on random windows; every sample is converted to floats and cropped separately."""

    def __init__(self, windows: Windows, width: int, negatives: int, batch: int) -> None:
        torch.manual_seed(0)
        self.random = np.random.default_rng(0)
        self.windows, self.negatives, self.batch = windows, negatives, batch
        self.encoder = ImageEncoder(EncoderConfig(crop=None), HORIZON)
        self.head = PlainEnergy(64 * HORIZON + 2 * HORIZON, width)
        parameters = [*self.encoder.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-4)

    def sample(self, number: int) -> dict[str, Tensor]:
        """Return one window as floats in [-1, 1] with a random crop."""
        window = self.windows.batch(np.array([number]))
        images = np.moveaxis(window["image"][0], -1, 1).astype(np.float32) / 255.0 * 2.0 - 1.0
        top, left = self.random.integers(96 - CROP + 1, size=2)
        return {
            "image": torch.from_numpy(images[:, :, top : top + CROP, left : left + CROP].copy()),
            "agent_pos": torch.from_numpy(window["agent_pos"][0] / 256.0 - 1.0),
            "action": torch.from_numpy(window["action"][0, 0] / 256.0 - 1.0),
        }

    def step(self) -> float:
        """Make one optimiser step and return its loss."""
        numbers = self.random.integers(len(self.windows), size=self.batch)
        samples = [self.sample(int(number)) for number in numbers]
        batch = {name: torch.stack([s[name] for s in samples]) for name in samples[0]}
        frames = batch["image"].flatten(0, 1)
        encoder = self.encoder
        assert encoder.reduce is not None
        assert encoder.pool is not None
        maps = encoder.reduce(encoder.trunk(frames))
        features_BF = encoder.project(encoder.pool(maps)).reshape(self.batch, -1)
        obs_BF = torch.cat([features_BF, batch["agent_pos"].flatten(1)], 1)
        drawn = torch.rand(self.batch, self.negatives, 2) * 2 - 1
        energies_BK = self.head(obs_BF, torch.cat([batch["action"].unsqueeze(1), drawn], 1))
        loss = functional.cross_entropy(-energies_BK, torch.zeros(self.batch, dtype=torch.long))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.item()
