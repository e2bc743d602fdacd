"""Losses of the fast versions and of the plain one on held-out windows."""

import sys
import time
from typing import Any

import numpy as np
import torch

from benchmarks.plain_ibc import PlainTrainer
from benchmarks.training_cases import (
    Ours,
    Size,
    masks_by_candidate,
    numbers,
    plain,
    same_network,
)
from ibc.data.windows import Windows

SIZE = Size(256, 64, 32)
EVERY, HELD_OUT = 100, 1024
# The plain version has masks by candidate; with masks by window one thinned network scores all.
VERSIONS = ("plain", "ours, masks by candidate", "ours")


def compare(train: Windows, held_out: Windows, seeds: int, steps: int) -> dict[str, Any]:
    """Print and return the held-out InfoNCE of every version and seed at every mark."""
    marks = range(min(EVERY, steps), steps + 1, EVERY)
    curves: dict[str, list[list[float]]] = {name: [] for name in VERSIONS}
    seconds = dict.fromkeys(curves, 0.0)
    for seed in range(seeds):
        for name, losses in curves.items():
            start = time.perf_counter()
            losses.append(_curve(name, train, held_out, seed, len(marks), marks[0]))
            seconds[name] += time.perf_counter() - start
            print(f"seed {seed}, {name}: {losses[-1][-1]:.3f}", file=sys.stderr, flush=True)
    print(
        f"InfoNCE on held-out windows, width {SIZE.width}, {SIZE.negatives} negatives, batch "
        f"{SIZE.batch}, dropout off: mean and standard deviation over {seeds} seeds\n"
    )
    print("| step | " + " | ".join(curves) + " |\n|---|" + "--:|" * len(curves))
    for i, mark in enumerate(marks):
        cells = []
        for losses in curves.values():
            values = np.array([curve[i] for curve in losses])
            cells.append(f"{values.mean():.3f} +- {values.std(ddof=1 if seeds > 1 else 0):.3f}")
        print(f"| {mark} | " + " | ".join(cells) + " |")
    print("\nseconds: " + ", ".join(f"{name} {spent:.0f}" for name, spent in seconds.items()))
    return {"marks": list(marks), "curves": curves, "seconds": seconds}


def begin_alike(ours: Ours, theirs: PlainTrainer) -> None:
    """Give ours the plain network's initial weights; its first layer is split in two."""
    energy: Any = ours.trainer.policy.energy
    net: Any = theirs.net
    first, *hidden = net.layers
    weight = first.weight.detach()
    with torch.no_grad():
        energy.observation.weight.copy_(weight[:, :-2])
        energy.observation.bias.copy_(first.bias)
        energy.action.weight.copy_(weight[:, -2:])
        for mine, layer in zip([*energy.hidden, energy.out], [*hidden, net.out], strict=True):
            mine.load_state_dict(layer.state_dict())


def _curve(
    name: str, train: Windows, held_out: Windows, seed: int, count: int, every: int
) -> list[float]:
    picks = np.linspace(0, len(held_out) - 1, min(HELD_OUT, len(held_out))).astype(np.int64)
    losses = []
    if name == "plain":
        theirs = plain(train, SIZE, seed)
        trained = theirs.obs_LF, theirs.actions_LD
        judged = tuple(values[picks] for values in numbers(held_out, train))
        for _ in range(count):
            for _ in range(every):
                theirs.step()
            theirs.net.eval()
            theirs.obs_LF, theirs.actions_LD = judged
            with torch.no_grad():
                generator = torch.Generator().manual_seed(0)
                losses.append(float(theirs.loss(torch.arange(len(picks)), generator)))
            theirs.net.train()
            theirs.obs_LF, theirs.actions_LD = trained
        return losses
    config = same_network(SIZE)
    if name == "ours, masks by candidate":
        config = masks_by_candidate(config)
    ours = Ours(train, config, SIZE.batch, seed, steps=every)
    begin_alike(ours, plain(train, SIZE, seed))
    batch = held_out.batch(picks)
    for _ in range(count):
        ours.epoch()
        with torch.no_grad():
            generator = torch.Generator().manual_seed(0)
            losses.append(float(ours.trainer.policy.compute_loss(batch, generator)[0]))
    return losses
