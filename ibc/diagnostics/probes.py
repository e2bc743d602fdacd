"""Cheap trials of the wiring of data, policy and checkpoints, for what no curve can show.

Every probe compares what a part says with what it does, on a few windows.

Legend: B windows, T obs horizon (newest frame last), H action horizon, A = 2.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ibc.config.policy import PolicyConfig
from ibc.data.demos import Split
from ibc.data.normalizer import Normalizer
from ibc.data.windows import Windows
from ibc.diagnostics.health import Finding
from ibc.policies.base import Policy
from ibc.policies.factory import build_policy, fit_normalizer, load_policy
from ibc.training.trainer import Trainer

ROWS = 8  # windows that a probe looks at
SCALE = 1.5  # by which the spread of the inputs may differ between training and inference
BLIND = 0.1  # of the influence of the oldest frame, the least that the newest has to have


def inspect(trainer: Trainer, split: Split) -> list[Finding]:
    """What the wiring of a trainer's data and policy does wrong; nothing of it is changed.

    split: the episodes that the run says it trains and validates on.
    """
    policy = copy.deepcopy(trainer.policy_for_inference())
    policy.config = _hasty(policy.config)
    windows = trainer.train
    picks = np.linspace(0, len(windows) - 1, min(ROWS, len(windows))).round().astype(np.int64)
    batch = {k: torch.from_numpy(v) for k, v in windows.batch(picks).items()}
    found = [
        *frames(policy, windows, batch, windows.steps[picks]),
        *executed(policy, batch),
        *input_scale(policy, batch),
        *normalizer(policy, windows),
        *unread_widths(policy.config),
        *episodes(trainer, split),
    ]
    return list({finding.name: finding for finding in reversed(found)}.values())[::-1]


def frames(
    policy: Policy, windows: Windows, batch: Mapping[str, Tensor], steps: NDArray[np.int64]
) -> Iterable[Finding]:
    """Whether frame T - 1 is the newest and action 0 its action, and the policy looks at it."""
    demos = windows.demos
    true_BX = torch.from_numpy(demos.state[steps, :2])
    obs = policy.prepare(batch)
    position = {"keypoints": slice(-2, None), "state": slice(0, 2), "image": slice(0, 2)}
    name = "agent_pos" if policy.obs_mode == "image" else policy.obs_mode
    seen_BTA = batch[name][..., position[policy.obs_mode]]
    wrong = None
    if not _same(seen_BTA[:, -1], true_BX):
        wrong = "the last frame of a window is not that of its step"
    elif not _same(policy.newest_agent(obs).cpu(), seen_BTA[:, -1]):
        wrong = "the agent's position is not taken from the newest frame"
    elif policy.obs_horizon > 1:
        newest, oldest = (_influence(policy, obs, frame) for frame in (-1, 0))
        if newest < BLIND * oldest:
            wrong = f"the oldest frame moves the features {oldest:.3g}, the newest {newest:.3g}"
    if wrong is not None:
        yield Finding(
            "the oldest frame is used instead of the newest",
            wrong,
            "keep the newest frame last everywhere: windows, buffers of the rollout, encoder",
        )
    if not _same(batch["action"][:, 0], torch.from_numpy(demos.action[steps])):
        yield Finding(
            "the action of a past frame is executed",
            "the first action of a window is not the one demonstrated at its newest frame",
            "let a chunk begin with the newest frame: actions t ... t + H - 1 for the observations "
            "t - T + 1 ... t (ibc/data/windows.py)",
        )


def executed(policy: Policy, batch: Mapping[str, Tensor]) -> Iterable[Finding]:
    """Whether predict_action returns the prediction's first actions, each its own."""
    with torch.no_grad():
        predicted = policy.predictions(policy.prepare(batch), _generators(batch))
    wanted_BHA = predicted["policy"].cpu()
    given_BHA = policy.predict_action(batch, _generators(batch)).cpu()
    if not _same(given_BHA[:, 0], wanted_BHA[:, 0]):
        yield Finding(
            "the action of a past frame is executed",
            "the first action returned is not the first one predicted, which is the newest frame's",
            "execute a chunk from its first action on (Policy.predict_action)",
        )
    length = given_BHA.shape[1]
    still = given_BHA.shape[1] > 1 and _same(given_BHA, given_BHA[:, :1].expand_as(given_BHA))
    if still and not _same(wanted_BHA[:, :length], wanted_BHA[:, :1].expand(-1, length, -1)):
        yield Finding(
            "one action is repeated over the chunk",
            f"the {length} actions returned are one, those predicted are not",
            "return the actions of the chunk one after the other (Policy.predict_action)",
        )


def input_scale(policy: Policy, batch: Mapping[str, Tensor]) -> Iterable[Finding]:
    """Whether the first layer sees the same numbers in training and at inference."""
    generator = torch.Generator(policy.device).manual_seed(0)
    augment = torch.Generator(policy.device).manual_seed(1)
    with torch.no_grad():
        trained = _first_input(
            policy, lambda: policy.compute_loss(batch, generator, augment=augment)
        )
        used = _first_input(policy, lambda: policy.predict_action(batch, _generators(batch)))
    image = policy.obs_mode == "image"
    if image and float(batch["image"].max()) <= 1.0:
        wrong = "the images hold nothing above 1 of 255"
    else:
        a, b = float(trained.std()), float(used.std())
        if max(a, b) <= SCALE * min(a, b):
            return
        wrong = (
            f"the first layer sees {float(trained.min()):.2f} to {float(trained.max()):.2f} in "
            f"training and {float(used.min()):.2f} to {float(used.max()):.2f} at inference"
        )
    yield Finding(
        "the image's scale is not that of training" if image else "inputs are scaled otherwise",
        wrong,
        "hand over images as uint8 and let the encoder alone map them to [-1, 1]"
        if image
        else "hand over raw observations and let the encoder alone scale them",
    )


def normalizer(policy: Policy, windows: Windows) -> Iterable[Finding]:
    """Whether the normaliser is the one of these training windows."""
    fitted = fit_normalizer(policy.config, windows)
    pairs = [(policy.normalizer.low, fitted.low), (policy.normalizer.high, fitted.high)]
    if not all(torch.allclose(a.cpu(), b, atol=0.5) for a, b in pairs):
        shown = [[round(v, 1) for v in a.flatten().tolist()] for pair in pairs for a in pair]
        yield Finding(
            "stale normaliser",
            f"its bounds are {shown[0]} to {shown[2]} px, those of the training data "
            f"{shown[1]} to {shown[3]} px",
            "fit the normaliser on the data that is trained on (ibc.policy.fit_normalizer)",
        )


def unread_widths(config: PolicyConfig) -> Iterable[Finding]:
    """Whether every width that this kind of policy has changes the shape of some weight."""
    usual, silent = _shapes(config), []
    for section, name in _widths(config):
        part = getattr(config, section)
        value = getattr(part, name)
        for other in (2, 1, -1):
            changed = tuple(v + 2 for v in value) if isinstance(value, tuple) else value + other
            try:
                part_ = dataclasses.replace(part, **{name: changed})
                shapes = _shapes(dataclasses.replace(config, **{section: part_}))
            except ValueError:
                continue  # two settings that exclude each other: try another value
            if shapes == usual:
                silent.append(f"{section}.{name}")
            break
    if silent:
        yield Finding(
            "a width that nothing reads",
            f"no weight has another shape when {', '.join(silent)} changes",
            "build the layer from the config's value, or take the setting out",
        )


def episodes(trainer: Trainer, split: Split) -> Iterable[Finding]:
    """Whether training and validation look at the episodes that the split names, at no others."""
    for what, steps, said in (
        ("training", trainer.train.steps, split.train_episodes),
        ("validation", trainer.validation.rows, split.val_episodes),
    ):
        ends = trainer.train.demos.episode_ends
        seen = set(np.searchsorted(ends, steps, side="right").tolist())
        other = sorted(seen - set(said))
        if other:
            some = ", ".join(map(str, other[:5])) + (" ..." if len(other) > 5 else "")
            yield Finding(
                "validation uses other episodes than it says",
                f"{what} looks at {len(other)} episodes that are not its own: {some}",
                "make both window sets from one ibc.demos.split",
            )


def saved(policy: Policy, folder: Path | None) -> list[Finding]:
    """Whether the folder holds the policy's very weights."""
    wrong = None
    if folder is None:
        wrong = "there is none"
    else:
        try:
            kept = load_policy(folder).state_dict()
        except (ValueError, OSError) as error:
            wrong = str(error)
        else:
            now = policy.state_dict()
            other = [n for n in now if n not in kept or not torch.equal(kept[n], now[n].cpu())]
            if other:
                wrong = f"{len(other)} of {len(now)} tensors in {folder} are others, as {other[0]}"
    if wrong is None:
        return []
    return [
        Finding(
            "the checkpoint is not what was trained",
            wrong,
            "let a failure to save end the trial; look for a full disk and swallowed exceptions",
        )
    ]


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a.float(), b.float(), atol=1e-2)


def _generators(batch: Mapping[str, Tensor]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(len(batch["action"]))]


def _hasty(config: PolicyConfig) -> PolicyConfig:
    """The same policy with a short search: the wiring does not depend on how well it searches."""
    chain, found = config.negatives.langevin, config.inference
    return dataclasses.replace(
        config,
        negatives=dataclasses.replace(
            config.negatives,
            count=min(8, config.negatives.count),
            langevin=dataclasses.replace(chain, steps=min(2, chain.steps), repeats=1),
        ),
        inference=dataclasses.replace(
            found,
            lattice=min(9, found.lattice),
            samples=min(16, found.samples),
            langevin=dataclasses.replace(
                found.langevin, steps=min(2, found.langevin.steps), repeats=1
            ),
        ),
    )


def _influence(policy: Policy, obs: Mapping[str, Tensor], frame: int) -> float:
    """How far the features move when one frame is replaced by another window's."""
    other = {name: value.clone() for name, value in obs.items()}
    for value in other.values():
        value[:, frame] = value[:, frame].roll(max(1, len(value) // 2), 0)
    with torch.no_grad():
        moved_BF = policy.encoder(other) - policy.encoder(dict(obs))
    return float(moved_BF.norm(dim=1).mean())


def _first_input(policy: Policy, work: Callable[[], Any]) -> Tensor:
    """What the first layer with weights is given while the work is done."""
    seen: list[Tensor] = []
    handles = [
        module.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
        for module in policy.modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    try:
        work()
    finally:
        for handle in handles:
            handle.remove()
    return seen[0].float()


def _widths(config: PolicyConfig) -> list[tuple[str, str]]:
    """The widths and depths that a policy of this kind and these observations has to read."""
    fused = config.encoder.stacking in ("recurrent", "attention") and config.obs_horizon > 1
    names = []
    if config.obs_mode == "image":
        names += ["features"] + ["channels"] * (config.encoder.trunk != "resnet18")
        names += ["reduce_maps"] * (config.encoder.reduce_maps is not None)
    else:
        names += ["state_depth"] + ["state_width"] * (fused or config.encoder.state_depth > 0)
    found = [("encoder", name) for name in names]
    head = "diffusion" if config.kind == "diffusion" else "energy"
    found += [(head, "width"), (head, "depth")]
    return found + [("mdn", "components")] * (config.kind == "mdn")


def _shapes(config: PolicyConfig) -> list[tuple[int, ...]]:
    with torch.device("meta"):
        blank = Normalizer.blank(config.action, config.action_horizon)
        policy = build_policy(config, blank, generator_seed=0)
    return [tuple(value.shape) for value in policy.state_dict().values()]
