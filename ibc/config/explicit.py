"""The settings of the explicit baselines: mixture density and diffusion."""

from dataclasses import dataclass
from typing import Literal

from ibc.config.checks import check, check_choice, check_float, check_int

MDN_READOUTS = ("mode", "component", "sample", "mean")


@dataclass(frozen=True)
class MDNConfig:
    """A mixture density over the whole chunk; read for policies of kind "mdn" alone.

    components: Gaussians, each over all D dimensions of the chunk, with diagonal covariance.
    min_std: floor of their deviations, in normalised action units (bounds +-1), without which the
    likelihood of repeated actions has no upper end: 3 px of a window of 100. A floor of 0.01 makes
    held-out actions likelier, and the policy no better at pushing.
    readout: the mean of the weightiest component ("mode"), the mean of a "component" drawn by
    weight (the low-noise sampling with which LSTM-GMM is evaluated, Mandlekar et al. 2021), a full
    "sample", or the "mean" of the mixture.
    """

    components: int = 5
    min_std: float = 0.03
    readout: Literal["mode", "component", "sample", "mean"] = "component"

    def __post_init__(self) -> None:
        check_int("mdn.components", self.components, 1, 256)
        check_float("mdn.min_std", self.min_std, 0.0, 1.0, open_low=True)
        check_choice("mdn.readout", self.readout, MDN_READOUTS)


@dataclass(frozen=True)
class DiffusionConfig:
    """Denoising of the whole chunk; read for policies of kind "diffusion" alone.

    train_steps: noise levels L. inference_steps: how many of them are passed on the way back.
    schedule: "cosine" (Nichol and Dhariwal, eq. 17) or "linear" (Ho et al., for any L).
    prediction: what the network says of a noised chunk: its noise ("epsilon") or the "sample",
    which a short training and few steps back get right sooner.
    eta: 0 draws only the start (DDIM; few steps then end a little closer to the middle of what they
    draw from); 1 with all steps is the ancestral sampler of Ho et al.
    spread: the standard deviation that normalised actions are taken to have; they are divided by it
    before they are noised, so that the levels tell what they tell for data of deviation 1.
    network: "conv" is a residual 1-D convolution over the chunk's steps, "mlp" one over the chunk
    as a whole; width of each of `depth` blocks, kernel in steps, for "conv".

    Chunks want action bounds of their own: later actions lie farther from
    the agent than a window of 100 px, so take action.bounds "steps" for an action_horizon above 2.
    """

    train_steps: int = 100
    inference_steps: int = 10
    schedule: Literal["cosine", "linear"] = "cosine"
    prediction: Literal["epsilon", "sample"] = "sample"
    eta: float = 0.0
    spread: float = 0.2
    network: Literal["conv", "mlp"] = "conv"
    width: int = 64
    depth: int = 2
    kernel: int = 5

    def __post_init__(self) -> None:
        check_int("diffusion.train_steps", self.train_steps, 2, 10_000)
        check_int("diffusion.inference_steps", self.inference_steps, 1)
        check(
            self.inference_steps <= self.train_steps,
            f"diffusion.inference_steps must not exceed diffusion.train_steps {self.train_steps}",
            self.inference_steps,
        )
        check_choice("diffusion.schedule", self.schedule, ("cosine", "linear"))
        check_choice("diffusion.prediction", self.prediction, ("epsilon", "sample"))
        check_float("diffusion.eta", self.eta, 0.0, 1.0)
        check_float("diffusion.spread", self.spread, 0.0, 10.0, open_low=True)
        check_choice("diffusion.network", self.network, ("conv", "mlp"))
        check_int("diffusion.width", self.width, 2, 8192)
        check_int("diffusion.depth", self.depth, 1, 32)
        check_int("diffusion.kernel", self.kernel, 1, 31)
        check(self.kernel % 2 == 1, "diffusion.kernel must be odd", self.kernel)
