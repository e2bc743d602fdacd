"""Quick tests of the code around data, policy and checkpoints, for failures that no curve shows.

Every probe compares documented and actual behaviour on a few windows.

Legend: B windows, T obs horizon (newest frame last), H action horizon, A = 2.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
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

ROWS = 8  # windows of a probe
SCALE = 1.5  # largest ratio of the inputs' spreads in training and at inference
BLIND = 0.1  # least influence of the newest frame, over that of the oldest


def inspect(trainer: Trainer, split: Split) -> list[Finding]:
    """The issues of a trainer's data and policy, neither of which is changed.

    split: the episodes that the run is documented to train and validate on.
    """
    policy = copy.deepcopy(trainer.policy_for_inference())
    policy.config = _with_short_search(policy.config)
    windows = trainer.train
    picks = np.linspace(0, len(windows) - 1, min(ROWS, len(windows))).round().astype(np.int64)
    batch = {k: torch.from_numpy(v) for k, v in windows.batch(picks).items()}
    found = [
        *frames(policy, windows, batch, windows.steps[picks]),
        *executed(policy, batch),
        *input_scale(policy, batch),
        *normalizer(policy, windows, mirrored=trainer.config.augment.mirror > 0.0),
        *unread_widths(policy.config),
        *episodes(trainer, split),
    ]
    return list({finding.name: finding for finding in reversed(found)}.values())[::-1]


def frames(
    policy: Policy, windows: Windows, batch: Mapping[str, Tensor], steps: NDArray[np.int64]
) -> Iterable[Finding]:
    """Whether frame T - 1 is the newest, action 0 is its action, and the features depend on it."""
    demos, obs, wrong = windows.demos, policy.prepare(batch), None
    name = "agent_pos" if policy.obs_mode == "image" else policy.obs_mode
    agent = slice(-2, None) if policy.obs_mode == "keypoints" else slice(2)
    last_BA = batch[name][:, -1, agent]
    if not _same(last_BA, torch.from_numpy(demos.state[steps, :2])):
        wrong = "the last frame of a window is not that of its step"
    elif not _same(policy.newest_agent(obs).cpu(), last_BA):
        wrong = "the agent's position is not taken from the newest frame"
    elif policy.obs_horizon > 1:
        newest, oldest = (_influence(policy, obs, frame) for frame in (-1, 0))
        if newest < BLIND * oldest:
            wrong = (
                f"the oldest frame changes the features by {oldest:.3g}, the newest {newest:.3g}"
            )
    if wrong:
        yield Finding(
            "the oldest frame is used instead of the newest",
            wrong,
            "keep the newest frame last in windows, the rollout's buffers and the encoder",
        )
    if not _same(batch["action"][:, 0], torch.from_numpy(demos.action[steps])):
        yield Finding(
            "the action of a past frame is executed",
            "the first action of a window is not the one demonstrated at its newest frame",
            "begin a chunk with the newest frame: actions t ... t + H - 1 for the observations "
            "t - T + 1 ... t (ibc/data/windows.py)",
        )


def executed(policy: Policy, batch: Mapping[str, Tensor]) -> Iterable[Finding]:
    """Whether predict_action returns the prediction's first actions, in order."""
    with torch.no_grad():
        predicted = policy.predictions(policy.prepare(batch), _generators(batch))
    given_BHA = policy.predict_action(batch, _generators(batch)).cpu()
    length = given_BHA.shape[1]
    wanted_BHA = predicted["policy"].cpu()[:, :length]
    if not _same(given_BHA[:, 0], wanted_BHA[:, 0]):
        yield Finding(
            "the action of a past frame is executed",
            "the first action returned is not the first one predicted, that of the newest frame",
            "execute a chunk from its first action (Policy.predict_action)",
        )
    still, wanted_still = (_same(a, a[:, :1].expand_as(a)) for a in (given_BHA, wanted_BHA))
    if length > 1 and still and not wanted_still:
        yield Finding(
            "one action is repeated over the chunk",
            f"the {length} actions returned are equal, those predicted are not",
            "return the actions of the chunk in order (Policy.predict_action)",
        )


def input_scale(policy: Policy, batch: Mapping[str, Tensor]) -> Iterable[Finding]:
    """Whether the first layer's input has the same scale in training and at inference."""
    generator = torch.Generator(policy.device).manual_seed(0)
    augment = torch.Generator(policy.device).manual_seed(1)
    with torch.no_grad():
        trained = _first_input(policy, lambda: policy.compute_loss(batch, generator, augment))
        used = _first_input(policy, lambda: policy.predict_action(batch, _generators(batch)))
    image = policy.obs_mode == "image"
    if image and float(batch["image"].max()) <= 1.0:
        wrong = "no pixel of the images exceeds 1 of 255"
    else:
        a, b = float(trained.std()), float(used.std())
        if max(a, b) <= SCALE * min(a, b):
            return
        wrong = (
            f"the first layer's input is {float(trained.min()):.2f} to {float(trained.max()):.2f} "
            f"in training and {float(used.min()):.2f} to {float(used.max()):.2f} at inference"
        )
    yield Finding(
        "the image's scale is not that of training" if image else "inputs are scaled otherwise",
        wrong,
        "pass images as uint8; only the encoder maps them to [-1, 1]"
        if image
        else "pass raw observations; only the encoder scales them",
    )


def normalizer(policy: Policy, windows: Windows, *, mirrored: bool = False) -> Iterable[Finding]:
    """Whether the normaliser is the one of these training windows."""
    fitted = fit_normalizer(policy.config, windows, mirrored=mirrored)
    pairs = [(policy.normalizer.low, fitted.low), (policy.normalizer.high, fitted.high)]
    if not all(torch.allclose(a.cpu(), b, atol=0.5) for a, b in pairs):
        shown = [[round(v, 1) for v in a.flatten().tolist()] for pair in pairs for a in pair]
        yield Finding(
            "stale normaliser",
            f"its bounds are {shown[0]} to {shown[2]} px, those of the training data "
            f"{shown[1]} to {shown[3]} px",
            "fit the normaliser on the training data (ibc.fit_normalizer)",
        )


def unread_widths(config: PolicyConfig) -> Iterable[Finding]:
    """Whether every width of this kind of policy changes the shape of some weight."""
    usual, unread = _shapes(config), []
    for section, name in _widths(config):
        part = getattr(config, section)
        value = getattr(part, name)
        for by in (2, 1, -1):
            changed = tuple(v + by for v in value) if isinstance(value, tuple) else value + by
            with suppress(ValueError):  # two settings may exclude each other: try another value
                other = dataclasses.replace(part, **{name: changed})
                if _shapes(dataclasses.replace(config, **{section: other})) == usual:
                    unread.append(f"{section}.{name}")
                break
    if unread:
        yield Finding(
            "a width that nothing reads",
            f"no weight has another shape when {', '.join(unread)} changes",
            "build the layer from the config's value, or remove the setting",
        )


def episodes(trainer: Trainer, split: Split) -> Iterable[Finding]:
    """Whether training and validation read only the episodes of the split."""
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
                f"{what} reads {len(other)} episodes that are not in its split: {some}",
                "make both window sets from one ibc.data.demos.split",
            )


def saved(policy: Policy, folder: Path | None) -> list[Finding]:
    """Whether the folder holds the policy's weights."""
    wrong, now = "there is no checkpoint", policy.state_dict()
    if folder is not None:
        try:
            kept = load_policy(folder).state_dict()
        except (ValueError, OSError) as error:
            wrong = str(error)
        else:
            other = [n for n in now if n not in kept or not torch.equal(kept[n], now[n].cpu())]
            if not other:
                return []
            wrong = f"{len(other)} of {len(now)} tensors in {folder} differ, such as {other[0]}"
    mend = "let a failed save end the trial; look for a full disk and swallowed exceptions"
    return [Finding("the checkpoint is not what was trained", wrong, mend)]


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a.float(), b.float(), atol=1e-2)


def _generators(batch: Mapping[str, Tensor]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(len(batch["action"]))]


def _with_short_search(config: PolicyConfig) -> PolicyConfig:
    """The same policy with a short search: the probes do not depend on its quality."""
    replace, negatives, found = dataclasses.replace, config.negatives, config.inference
    chains = [replace(part.langevin, steps=2, repeats=1) for part in (negatives, found)]
    negatives = replace(negatives, count=8, langevin=chains[0])
    found = replace(found, lattice=9, samples=16, langevin=chains[1])
    return replace(config, negatives=negatives, inference=found)


def _influence(policy: Policy, obs: Mapping[str, Tensor], frame: int) -> float:
    """How much the features change when one frame is replaced by another window's."""
    other = {name: value.clone() for name, value in obs.items()}
    for value in other.values():
        value[:, frame] = value[:, frame].roll(max(1, len(value) // 2), 0)
    with torch.no_grad():
        moved_BF = policy.features(other) - policy.features(obs)
    return float(moved_BF.norm(dim=1).mean())


def _first_input(policy: Policy, work: Callable[[], Any]) -> Tensor:
    """The input of the first layer with weights while `work` runs."""
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
    """The widths and depths that a policy of this kind and observation mode must read."""
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
    proposed = config.kind == "ibc" and config.negatives.sampler == "proposal"
    return found + [("mdn", "components")] * (config.kind == "mdn" or proposed)


def _shapes(config: PolicyConfig) -> list[tuple[int, ...]]:
    with torch.device("meta"):
        blank = Normalizer.blank(config.action, config.action_horizon)
        policy = build_policy(config, blank, generator_seed=0)
    return [tuple(value.shape) for value in policy.state_dict().values()]
