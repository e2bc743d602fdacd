"""The settings of the explicit baselines: mixture density and diffusion."""

from dataclasses import dataclass
from typing import Literal

from ibc.config.checks import check, check_float, check_int, check_options, check_retired


@dataclass(frozen=True)
class MDNConfig:
    """A mixture density over the whole chunk: the policy "mdn", or a proposal for negatives.

    components: Gaussians, each over all D dimensions of the chunk, with diagonal covariance.
    min_std: floor of their deviations, in normalised action units (bounds +-1), without which the
    likelihood of repeated actions is unbounded: 3 px of a window of 100. A floor of 0.01 makes
    held-out actions likelier, and the policy no better at pushing.
    readout: of the policy, the mean of a "component" drawn by weight (the low-noise sampling with
    which LSTM-GMM is evaluated, Mandlekar et al. 2021), or a full "sample".
    """

    components: int = 5
    min_std: float = 0.03
    readout: Literal["component", "sample"] = "component"

    def __post_init__(self) -> None:
        check_options("mdn", self)
        check_int("mdn.components", self.components, 1, 256)
        check_float("mdn.min_std", self.min_std, 0.0, 1.0, open_low=True)


@dataclass(frozen=True)
class DiffusionConfig:
    """Denoising of the whole chunk; read for policies of kind "diffusion" alone.

    train_steps: noise levels L. inference_steps: how many of them denoising passes.
    spread: the assumed standard deviation of normalised actions; they are divided by it before they
    are noised, because the noise levels are meant for data of deviation 1.
    width, depth, kernel: channels, blocks and steps of the convolutions over the chunk's steps.
    schedule, prediction, eta, network: retired; the fields stay for the hashes of configs.

    For an action_horizon above 2 take action.bounds "steps": later actions lie farther from the
    agent than a window of 100 px.
    """

    train_steps: int = 100
    inference_steps: int = 10
    schedule: str = "cosine"
    prediction: str = "sample"
    eta: float = 0.0
    spread: float = 0.2
    network: str = "conv"
    width: int = 64
    depth: int = 2
    kernel: int = 5

    def __post_init__(self) -> None:
        check_retired(
            "diffusion", self, schedule="cosine", prediction="sample", eta=0.0, network="conv"
        )
        check_int("diffusion.train_steps", self.train_steps, 2, 10_000)
        check_int("diffusion.inference_steps", self.inference_steps, 1)
        rule = f"diffusion.inference_steps must not exceed diffusion.train_steps {self.train_steps}"
        check(self.inference_steps <= self.train_steps, rule, self.inference_steps)
        check_float("diffusion.spread", self.spread, 0.0, 10.0, open_low=True)
        check_int("diffusion.width", self.width, 2, 8192)
        check_int("diffusion.depth", self.depth, 1, 32)
        check_int("diffusion.kernel", self.kernel, 1, 31)
        check(self.kernel % 2 == 1, "diffusion.kernel must be odd", self.kernel)
