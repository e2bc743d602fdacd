"""The settings of the implicit policy: energy, negatives, loss, chains, inference."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, get_args

from ibc.config.checks import check, check_float, check_int, check_options, check_retired

Search = Literal["lattice", "dfo", "langevin"]
Readout = Literal["argmax", "sample", "softmax_mean", "mean_shift", "mode_mean"]
READOUTS = get_args(Readout)


@dataclass(frozen=True)
class LangevinConfig:
    """A chain in normalised action units (bounds +-1).

    form: the rule of a step, see the module. steps: of one run, whose step size falls from
    first_step to last_step with the given power of the share still to go. repeats: runs, one after
    the other, the later ones from repeat_step (None: from first_step again). noise: 1 for the
    density exp(-E), 0 for plain descent. limit: the largest move along an axis; in the standard
    form it applies to the gradient's part alone, against steep energies.
    """

    form: Literal["standard", "google"] = "standard"
    steps: int = 100
    repeats: int = 1
    first_step: float = 0.1
    last_step: float = 1e-5
    power: float = 2.0
    noise: float = 1.0
    limit: float | None = None
    repeat_step: float | None = None

    def __post_init__(self) -> None:
        check_options("langevin", self)
        check_int("langevin.steps", self.steps, 1, 10_000)
        check_int("langevin.repeats", self.repeats, 1, 100)
        check_float("langevin.last_step", self.last_step, 0.0, open_low=True)
        for name in ("first_step", "repeat_step"):
            value = getattr(self, name)
            if value is not None:
                check_float(f"langevin.{name}", value, 0.0, 10.0)
                rule = f"langevin.{name} must be at least langevin.last_step {self.last_step:g}"
                check(value >= self.last_step, rule, value)
        check_float("langevin.power", self.power, 0.0, 100.0)
        check_float("langevin.noise", self.noise, 0.0, 100.0)
        if self.limit is not None:
            check_float("langevin.limit", self.limit, 0.0, open_low=True)

    def step_sizes(self) -> Iterator[float]:
        """The size of every step of all runs."""
        for run in range(self.repeats):
            again = run > 0 and self.repeat_step is not None
            first = self.repeat_step if again else self.first_step
            assert first is not None
            for k in range(self.steps):
                left = 1.0 - k / max(1, self.steps - 1)
                yield (first - self.last_step) * left**self.power + self.last_step


@dataclass(frozen=True)
class EnergyConfig:
    """The late-fusion head over (features, action).

    Explicit policies read only its width, depth and dropout, for their own heads.

    fusion: "concat" is one head over both (Florence et al. 2021); "product" the inner product of
    two towers of `depth` hidden layers each, where an action scored for many observations passes
    its tower once.
    head: of "concat", an "mlp" of `depth` hidden layers, or a "resnet": a first layer, then `depth`
    hidden layers in pre-activation residual blocks of two.
    conditionals: "joint" is one energy over all actions of a chunk; "steps" one for each action,
    given those before it; "dimensions" one for each number, given those before it.
    dropout: share of hidden units left out in training. dropout_masks, of "concat": a mask for
    every "candidate", or one for all candidates of a "window", which are then compared by one
    network; on a CPU the first costs as much as the matrix products, the second almost nothing.
    spectral_norm: retired; the field stays for the hashes of configs.
    """

    fusion: Literal["concat", "product"] = "product"
    width: int = 256
    depth: int = 2
    dropout: float = 0.0
    head: Literal["mlp", "resnet"] = "mlp"
    spectral_norm: bool = False
    conditionals: Literal["joint", "steps", "dimensions"] = "joint"
    dropout_masks: Literal["candidate", "window"] = "candidate"

    def __post_init__(self) -> None:
        check_options("energy", self)
        check_retired("energy", self, spectral_norm=False)
        check_int("energy.width", self.width, 1, 8192)
        check_int("energy.depth", self.depth, 1, 32)
        check_float("energy.dropout", self.dropout, 0.0, 0.9)
        resnet = self.head == "resnet"
        rule = 'energy.head "resnet" needs energy.fusion "concat"'
        check(not resnet or self.fusion == "concat", rule, f'energy.fusion "{self.fusion}"')
        rule = 'energy.head "resnet" needs an even energy.depth (blocks of two layers)'
        check(not resnet or self.depth % 2 == 0, rule, self.depth)


@dataclass(frozen=True)
class NegativesConfig:
    """Where counter-examples come from; all lengths in normalised action units (bounds +-1).

    sampler: "uniform" over the bounds, a "mixture" of uniform and Gaussians around a centre,
    uniform ones moved by "dfo" or "langevin" under the energy that is being trained, or draws from
    a "proposal", a mixture density (`mdn`) that is learned beside the energy.
    uniform_share: of the mixture and the proposal, the probability of a uniform draw.
    centre: the mixture's centre, the (moved) "positive" or the "agent".
    scales: standard deviations of the mixture's Gaussians, equally likely.
    shared: one draw of `count` negatives for all windows of a (micro-)batch instead of one each.
    moved_share: of the negatives of "dfo" and "langevin", those that are moved.
    iterations, noise, shrink: of DFO as in inference. langevin: the chain.
    """

    sampler: Literal["uniform", "mixture", "dfo", "langevin", "proposal"] = "uniform"
    count: int = 512
    shared: bool = True
    uniform_share: float = 0.5
    centre: Literal["positive", "agent"] = "agent"
    scales: tuple[float, ...] = (0.3, 0.1, 0.03)
    moved_share: float = 1.0
    iterations: int = 3
    noise: float = 0.33
    shrink: float = 0.5
    langevin: LangevinConfig = field(default_factory=LangevinConfig)

    def __post_init__(self) -> None:
        check_options("negatives", self)
        check_int("negatives.count", self.count, 1, 65536)
        check_float("negatives.uniform_share", self.uniform_share, 0.0, 1.0, open_low=True)
        check(1 <= len(self.scales) <= 8, "negatives.scales must hold 1 to 8 lengths", self.scales)
        for scale in self.scales:
            check_float("negatives.scales", scale, 0.0, 0.5, open_low=True)
        check(
            not self.shared or self.sampler != "mixture" or self.centre == "agent",
            'negatives.shared needs negatives.sampler "uniform" or negatives.centre "agent"',
            f'negatives.centre "{self.centre}"',
        )
        check(
            not self.shared or not (self.moved or self.sampler == "proposal"),
            "negatives moved or proposed for each observation are its own: negatives.shared must "
            "be false",
            f'negatives.sampler "{self.sampler}"',
        )
        check_float("negatives.moved_share", self.moved_share, 0.0, 1.0, open_low=True)
        check_int("negatives.iterations", self.iterations, 2, 100)
        check_float("negatives.noise", self.noise, 0.0, 2.0)
        check_float("negatives.shrink", self.shrink, 0.0, 1.0)

    @property
    def moved(self) -> bool:
        """Whether counter-examples are moved under the energy, by `moved` below."""
        return self.sampler in ("dfo", "langevin")


@dataclass(frozen=True)
class LossConfig:
    """What is minimised, and what is added to it.

    form: "info_nce", or "likelihood", which InfoNCE becomes with ever more counter-examples: minus
    the log density of the demonstrated action, with the density normalised over the middles
    of `lattice` cells along each axis, and no counter-examples drawn. soft_px: the standard
    deviation of a Gaussian over these middles that takes the demonstrated action's place, 0 for
    the action itself.
    gradient_penalty: weight of max(0, |dE/da| - penalty_margin)^2 at the counter-examples, 0 for
    none; a chain that follows the gradient (negatives or inference "langevin") needs slopes that
    its steps can follow. |dE/da| is that of the steepest axis, per normalised action unit. It
    scores every counter-example for every observation on its own, shared ones too.
    penalty_norm, gradient_share: retired; the fields stay for the hashes of configs.
    """

    gradient_penalty: float = 0.0
    penalty_margin: float = 1.0
    penalty_norm: str = "inf"
    gradient_share: float = 1.0
    form: Literal["info_nce", "likelihood"] = "info_nce"
    lattice: int = 51
    soft_px: float = 0.0

    def __post_init__(self) -> None:
        check_options("loss", self)
        check_int("loss.lattice", self.lattice, 2, 1000)
        check_float("loss.soft_px", self.soft_px, 0.0, 512.0)
        check_retired("loss", self, penalty_norm="inf", gradient_share=1.0)
        check_float("loss.gradient_penalty", self.gradient_penalty, 0.0, 1e6)
        check_float("loss.penalty_margin", self.penalty_margin, 0.0)


@dataclass(frozen=True)
class InferenceConfig:
    """How an action is found.

    sampler: "lattice" (`lattice` cells along each axis, two axes at most), "dfo" or "langevin"
    with `samples` per observation, as many draws from the "proposal" of the negatives, weighed for
    what the energy says, or "autoregressive", which searches the parts of a chunk one after the
    other, each by `part_sampler` (energy.conditionals says what a part is).
    iterations: DFO's evaluations of all samples; noise is its standard deviation, in normalised
    action units, after the first resampling, multiplied by shrink after each. clip: keep the
    samples of DFO and Langevin inside the bounds. langevin: its chain.
    readout: the "argmax" (lowest energy), a "sample" from softmax(-energy), the mean under it
    ("softmax_mean"), such a sample moved to the mean of its neighbourhood ("mean_shift"), a
    Gaussian of `bandwidth` px, or the mean of the best mode's neighbourhood ("mode_mean").
    warm_start: the share of the first samples of DFO or Langevin that are drawn around the action
    executed last, with a standard deviation of warm_noise px.
    mirror: average the energies of an observation and of its mirror image, and mirror the action
    where the observation is mirrored, exactly; it takes two passes.
    """

    sampler: Literal["lattice", "dfo", "langevin", "proposal", "autoregressive"] = "lattice"
    lattice: int = 51
    samples: int = 256
    iterations: int = 3
    noise: float = 0.33
    shrink: float = 0.5
    readout: Readout = "mean_shift"
    bandwidth: float = 10.0
    clip: bool = True
    langevin: LangevinConfig = field(default_factory=LangevinConfig)
    part_sampler: Search = "lattice"
    warm_start: float = 0.0
    warm_noise: float = 10.0
    mirror: bool = False

    def __post_init__(self) -> None:
        check_options("inference", self)
        check_int("inference.lattice", self.lattice, 2, 1000)
        check_int("inference.samples", self.samples, 1, 1_000_000)
        check_int("inference.iterations", self.iterations, 1, 100)
        check_float("inference.noise", self.noise, 0.0, 2.0)
        check_float("inference.shrink", self.shrink, 0.0, 1.0)
        check_float("inference.bandwidth", self.bandwidth, 0.0, 512.0, open_low=True)
        check_float("inference.warm_start", self.warm_start, 0.0, 1.0)
        check_float("inference.warm_noise", self.warm_noise, 0.0, 512.0)
        check(
            self.warm_start == 0.0 or self.searches in ("dfo", "langevin"),
            "inference.warm_start needs samples to start from: inference.sampler (or part_sampler) "
            '"dfo" or "langevin"',
            self.searches,
        )

    @property
    def searches(self) -> str:
        """The sampler that searches a part of the chunk, or the whole of it."""
        return self.part_sampler if self.sampler == "autoregressive" else self.sampler
