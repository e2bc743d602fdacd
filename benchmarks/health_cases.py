"""Common failure modes, each reproduced by a wrong configuration or wrong wiring.

A case takes a small healthy run and breaks one thing. tests/ibc/diagnostics/test_health.py checks
that each is reported by its name; benchmarks/health_table.py prints a table by recipe.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import nn

from ibc.config import presets
from ibc.config.action import ActionConfig
from ibc.config.policy import PolicyConfig
from ibc.config.training import TrainConfig
from ibc.data.demos import Demos, Split
from ibc.data.normalizer import Normalizer
from ibc.data.windows import Windows
from ibc.diagnostics import probes
from ibc.diagnostics.health import Finding, diagnose
from ibc.encoders.image import ImageEncoder
from ibc.encoders.state import StateEncoder
from ibc.policies import implicit
from ibc.policies.base import Policy
from ibc.policies.factory import build_policy, fit_normalizer
from ibc.sampling import negatives
from ibc.training.trainer import Trainer

SEEDS = {"data": 1, "negatives": 2, "augment": 3, "validation": 4}


class Run:
    """A small run whose parts a case changes before training."""

    def __init__(
        self, demos: Demos, policy: PolicyConfig, train: TrainConfig, split: Split
    ) -> None:
        self.demos, self.policy, self.train, self.split = demos, policy, train, split
        self.windows: type[Windows] = Windows
        self.val_episodes = split.val_episodes
        self.after_building: Callable[[Trainer], None] = lambda trainer: None
        self.normalizer: Callable[[Windows], Normalizer] | None = None

    def trainer(self) -> Trainer:
        """Return a trainer as the harness builds it, with this run's parts."""
        config = self.policy
        shape = (config.obs_mode, config.obs_horizon, config.action_horizon)
        train = self.windows(self.demos, self.split.train_episodes, *shape)
        val = self.windows(self.demos, self.val_episodes, *shape)
        fit = self.normalizer or (lambda windows: fit_normalizer(config, windows))
        built = build_policy(config, fit(train), generator_seed=0)
        trainer = Trainer(built, train, val, self.train, SEEDS)
        self.after_building(trainer)
        return trainer

    def findings(self, *, trained: bool = True) -> list[Finding]:
        """Return the findings of health and probes, after training if `trained`."""
        trainer = self.trainer()
        found: list[Finding] = []
        if trained:
            history = []
            while not trainer.done:
                history.append(trainer.run_epoch())
            unclipped = not self.policy.inference.clip
            found = diagnose(history, {**trainer.facts, "unclipped": unclipped})
        return found + probes.inspect(trainer, self.split)


class Case(NamedTuple):
    """A failure mode, the name that it is reported under, and a context that causes it.

    applies: whether a policy can have it; trained: whether training is needed to detect it;
    share: the share of the short training that is needed.
    """

    entry: str
    name: str
    breaks: Callable[[Run], Any]  # a context manager
    applies: Callable[[PolicyConfig], bool] = lambda policy: True
    trained: bool = True
    share: float = 0.3


def small(name: str) -> PolicyConfig:
    """Return a preset, or our recipe of a kind or obs mode, that trains in a second."""
    if name in presets.PRESETS:
        policy = presets.preset(name)[0]
    elif name == "images":
        policy = PolicyConfig(obs_mode="image")
    else:
        policy = PolicyConfig(kind=name)  # type: ignore[arg-type]
    encoder = policy.encoder
    channels = (4, 8) if encoder.downsample == "none" else (8, 16, 16)
    replaced: dict[str, Any] = {
        "channels": channels,
        "trunk": "conv" if encoder.trunk == "resnet18" else encoder.trunk,
        "reduce_maps": None if encoder.reduce_maps is None else 8,
        "features": 16,
        "state_width": 32,
    }
    width = 64 if policy.negatives.shared else 32
    samples, chain = min(64, policy.inference.samples), policy.inference.langevin
    return dataclasses.replace(
        policy,
        encoder=dataclasses.replace(encoder, **replaced),
        energy=dataclasses.replace(policy.energy, width=width, depth=min(2, policy.energy.depth)),
        negatives=dataclasses.replace(
            policy.negatives,
            count=min(256, policy.negatives.count),
            langevin=dataclasses.replace(policy.negatives.langevin, steps=5),
        ),
        inference=dataclasses.replace(
            policy.inference,
            lattice=21,
            samples=samples,
            langevin=dataclasses.replace(chain, steps=min(10, chain.steps)),
        ),
        diffusion=dataclasses.replace(policy.diffusion, width=32, depth=1),
    )


def short_training(policy: PolicyConfig, share: float = 1.0) -> TrainConfig:
    """Return a short training, or a share of it."""
    image = policy.obs_mode == "image"
    steps, batch = (150, 8) if image else (300, 64 if policy.negatives.shared else 16)
    steps = round(steps * share)
    return TrainConfig(
        steps=steps,
        epoch_steps=steps // 2,
        batch_size=batch,
        learning_rate=3e-3 if image else 2e-3,
        warmup_steps=10,
        ema_decay=0.9,
        val_windows=32 if image else 64,
    )


@contextmanager
def _policy(run: Run, **changes: Any) -> Iterator[None]:
    run.policy = dataclasses.replace(run.policy, **changes)
    yield


@contextmanager
def negatives_in_px(run: Run) -> Iterator[None]:
    def px(real: Callable[..., Any]) -> Callable[..., Any]:
        def drawn(*given: Any, **more: Any) -> Any:
            actions, rest = real(*given, **more)
            return actions * 256.0 + 256.0, rest

        return drawn

    with (
        patch.object(negatives, "sample", px(negatives.sample)),
        patch.object(negatives, "moved", px(negatives.moved)),
    ):
        yield


@contextmanager
def search_in_another_space(run: Run) -> Iterator[None]:
    """The search returns actions in [0, 1]; the model and the bounds are in [-1, 1]."""
    real = implicit.read_out
    with patch.object(implicit, "read_out", lambda *given: (real(*given) + 1.0) / 2.0):
        yield


@contextmanager
def never_unnormalised(run: Run) -> Iterator[None]:
    """Outputs in [-1, 1] are used as px."""
    with patch.object(
        Normalizer,
        "decode",
        lambda self, actions_BD, agent_BA: actions_BD.view(len(actions_BD), -1, 2).clamp(0.0),
    ):
        yield


@contextmanager
def too_few_negatives(run: Run) -> Iterator[None]:
    count = dataclasses.replace(run.policy.negatives, sampler="uniform", count=2)
    board = ActionConfig(frame="board", bounds="board")
    with _policy(run, negatives=count, action=board):
        yield


@contextmanager
def stale_normalizer(run: Run) -> Iterator[None]:
    def of_other_data(windows: Windows) -> Normalizer:
        fitted = fit_normalizer(run.policy, windows)
        return Normalizer(fitted.config, fitted.low * 0.3 + 20.0, fitted.high * 0.3 + 20.0)

    run.normalizer = of_other_data
    yield


class FromTheOldest(Windows):
    """As many actions as observations, the first for the oldest frame."""

    def batch(self, indices: Any) -> dict[str, Any]:
        """Return the windows with their actions shifted into the past."""
        found = super().batch(indices)
        back = self.obs_horizon - 1
        found["action"] = self.demos.action[self._actions_NH[indices] - back]
        return found


@contextmanager
def past_action(run: Run) -> Iterator[None]:
    run.windows = FromTheOldest
    horizon = max(2, run.policy.obs_horizon)
    with _policy(run, obs_horizon=horizon):
        yield


@contextmanager
def repeated_action(run: Run) -> Iterator[None]:
    """The first action of a chunk is returned for each of its steps."""
    dfo = dataclasses.replace(run.policy.inference, sampler="dfo", samples=64)
    change = {"inference": dfo} if run.policy.inference.sampler == "lattice" else {}
    real = Policy.predict_action

    def still(self: Policy, *given: Any, **more: Any) -> Any:
        actions = real(self, *given, **more)
        return actions[:, :1].expand_as(actions)

    with (
        _policy(run, action_horizon=2, **change),
        patch.object(Policy, "predict_action", still),
    ):
        yield


class NewestFirst(Windows):
    """Frames in the order newest to oldest."""

    def batch(self, indices: Any) -> dict[str, Any]:
        """Return the windows with their frames reversed."""
        found = super().batch(indices)
        return {k: v if k == "action" else v[:, ::-1].copy() for k, v in found.items()}


@contextmanager
def oldest_frame(run: Run) -> Iterator[None]:
    run.windows = NewestFirst
    with _policy(run, obs_horizon=max(2, run.policy.obs_horizon)):
        yield


@contextmanager
def image_in_0_1(run: Run) -> Iterator[None]:
    """The encoder maps to [-1, 1] when it augments (in training), otherwise to [0, 1]."""
    real = ImageEncoder.forward

    def scaled(self: ImageEncoder, obs: Any, augment: Any = None) -> Any:
        if augment is not None:
            return real(self, obs, augment)
        handle = self.trunk.register_forward_pre_hook(lambda _, given: ((given[0] + 1.0) / 2.0,))
        try:
            return real(self, obs, augment)
        finally:
            handle.remove()

    with patch.object(ImageEncoder, "forward", scaled):
        yield


@contextmanager
def dead_layer(run: Run) -> Iterator[None]:
    """All units of one layer are zero for every input."""

    def kill(trainer: Trainer) -> None:
        layers = [
            m for m in trainer.policy.modules() if isinstance(m, nn.Linear) and m.bias is not None
        ]
        hidden = next(m for m in layers if m.out_features > 2)
        with torch.no_grad():
            hidden.weight.zero_()
            hidden.bias.fill_(-1e4)
        hidden.register_forward_hook(lambda *given: given[-1].detach())

    run.after_building = kill
    yield


@contextmanager
def unread_width(run: Run) -> Iterator[None]:
    """Encoders whose width is fixed."""
    kind = ImageEncoder if run.policy.obs_mode == "image" else StateEncoder
    real = kind.__init__
    name = "features" if run.policy.obs_mode == "image" else "state_width"

    def fixed(self: Any, config: Any, *rest: Any) -> None:
        real(self, dataclasses.replace(config, **{name: 24}), *rest)

    encoder = dataclasses.replace(run.policy.encoder, state_depth=1)
    with ExitStack() as stack:
        if run.policy.obs_mode != "image":
            stack.enter_context(_policy(run, encoder=encoder))
        stack.enter_context(patch.object(kind, "__init__", fixed))
        yield


@contextmanager
def other_validation(run: Run) -> Iterator[None]:
    """Validation episodes that include training episodes."""
    run.val_episodes = tuple(sorted({*run.split.val_episodes, *run.split.train_episodes[:3]}))
    yield


def swallowed_save(demos: Demos, policy: PolicyConfig) -> list[Finding]:
    """The first checkpoint is never replaced: saving fails without an error."""
    run = Run(demos, policy, short_training(policy), Split(tuple(range(10)), (10, 11)))
    trainer = run.trainer()
    with tempfile.TemporaryDirectory() as folder:
        trainer.policy_for_inference().save(Path(folder))
        trainer.config = dataclasses.replace(trainer.config, steps=2, epoch_steps=2)
        trainer.run_epoch()
        return probes.saved(trainer.policy_for_inference(), Path(folder))


def _searches(policy: PolicyConfig) -> bool:
    return policy.kind == "ibc"


def _sees_images(policy: PolicyConfig) -> bool:
    return policy.obs_mode == "image"


CASES: tuple[Case, ...] = (
    Case("losses both 0: negatives in px", "loss is zero", negatives_in_px, _searches, share=1.0),
    Case(
        "action error huge: the sampler's space and the model's differ",
        "the sampler's space is not the model's",
        search_in_another_space,
        _searches,
        share=1.0,
    ),
    Case(
        "stuck in the upper left corner: output never un-normalised",
        "predictions are stuck in a corner",
        never_unnormalised,
    ),
    Case(
        "loss falls, action error does not: too few negatives for the tolerance",
        "too few negatives for the tolerance",
        too_few_negatives,
        lambda policy: _searches(policy) and not policy.negatives.moved,
    ),
    Case(
        "loss falls, action error does not: a stale normaliser",
        "stale normaliser",
        stale_normalizer,
        trained=False,
    ),
    Case(
        "as many actions as observations: one meant for a past frame is executed",
        "the action of a past frame is executed",
        past_action,
        trained=False,
    ),
    Case(
        "one action repeated over the chunk: the agent moves in jerks",
        "one action is repeated over the chunk",
        repeated_action,
        trained=False,
    ),
    Case(
        "the oldest frame used instead of the newest",
        "the oldest frame is used instead of the newest",
        oldest_frame,
        trained=False,
    ),
    Case(
        "image in [0, 1] where the model was trained on [-1, 1]",
        "the image's scale is not that of training",
        image_in_0_1,
        _sees_images,
        trained=False,
    ),
    Case("a dead layer", "dead layers", dead_layer),
    Case(
        "a layer width in the config that nothing reads",
        "a width that nothing reads",
        unread_width,
        trained=False,
    ),
    Case(
        "validation that uses other episodes than it says",
        "validation uses other episodes than it says",
        other_validation,
        trained=False,
    ),
)
SAVING = "checkpoint saving that fails inside a swallowed exception"


def names(demos: Demos, policy: PolicyConfig, case: Case | None, split: Split) -> list[str]:
    """Return the names reported for a run with the case's failure mode, or for a healthy one."""
    if case is None:
        found = Run(demos, policy, short_training(policy), split).findings()
    else:
        share = max(case.share, 0.6) if policy.obs_mode == "image" else case.share
        run = Run(demos, policy, short_training(policy, share), split)
        with case.breaks(run):
            found = run.findings(trained=case.trained)
    assert all(finding.evidence and finding.mend for finding in found)
    return [finding.name for finding in found]
