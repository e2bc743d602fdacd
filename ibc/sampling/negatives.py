"""Counter-example samplers, each with its exact log density.

InfoNCE learns the conditional density only if the positive and the negatives are exchangeable given
what the sampler is conditioned on. For a candidate set {a_0 .. a_N} the right logits are

    -E(x, a_k) + correction_k.

- Uniform: the correction is the same constant for all, so none.
- Mixture centred on the agent, q(a | x): ranking NCE, correction_k = -log q(a_k | x).
- Proposal, a learned q(a | x): ranking NCE, too (Singh et al. 2023, arXiv:2309.05803). It learns
  the demonstrations by its own likelihood alone. The energy is E = f - log q with a network f (a
  residual energy, Deng et al. 2020, arXiv:2004.11714), so that the logits are -f.
- Mixture centred on the positive: q depends on which candidate is the positive, and -log q would
  be wrong. Instead the positive is first moved by the mixture itself, z ~ q(. | a_0), and the
  negatives are drawn from q(. | z). The candidate set then has the density
  p(a_k | x) q(z | a_k) prod_{i != k} q(a_i | z), so correction_k = log q(z | a_k) - log q(a_k | z),
  which is 0 because q is symmetric: it is wrapped around the bounds.
- Moved by DFO or Langevin under the current energy: their density q is unknown, so what is learned
  is log p - log q + c. They sharpen the contrast where uniform ones are sparse (many dimensions),
  but readouts that weigh by the density are biased. A moved_share below 1 keeps some uniform ones,
  so that the energy stays high everywhere else.

Legend: B batch, N negatives (M of them moved), R rounds, K = N + 1 candidates (the positive first),
D action dimensions.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ibc.config.checks import check
from ibc.config.implicit import NegativesConfig
from ibc.data.normalizer import BOUND
from ibc.sampling import langevin
from ibc.sampling.mixture import Proposal
from ibc.sampling.search import dfo


def sample(
    config: NegativesConfig, positives_BD: Tensor, agent_BD: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """Negatives (B, N, D), or (1, N, D) if shared, and the logits' correction (B, K) or None.

    positives_BD and agent_BD (the action "stay where you are") are normalised; the generator's
    device is theirs. Shared negatives around the agent need one agent_BD for all rows.
    """
    check(not config.moved, "moved negatives need an energy: call `moved`", config.sampler)
    rows = 1 if config.shared else len(positives_BD)
    if config.sampler == "uniform":
        return _uniform(positives_BD[:rows], config.count, generator), None
    if config.centre == "positive":
        centre_BD = draw(config, positives_BD, 1, generator).squeeze(1)
        return draw(config, centre_BD, config.count, generator), None
    negatives_BND = draw(config, agent_BD[:rows], config.count, generator)
    log_q_B1 = log_density(config, positives_BD.unsqueeze(1), agent_BD)
    log_q_BN = log_density(config, negatives_BND, agent_BD[:rows]).expand(len(log_q_B1), -1)
    return negatives_BND, -torch.cat([log_q_B1, log_q_BN], 1)


def moved(
    config: NegativesConfig,
    positives_BD: Tensor,
    energy: Callable[[Tensor], Tensor],
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Negatives (B, N, D) moved downhill from uniform draws, and statistics of the chains.

    `energy` maps (B, M, D) to (B, M) and must not hold on to a graph of its own; no gradient goes
    through the chain. The statistics are those of `langevin.Chain` as far as the sampler has them.
    """
    start_BND = _uniform(positives_BD, config.count, generator)
    M = max(1, round(config.moved_share * config.count))
    still_BND, start_BMD = start_BND[:, M:], start_BND[:, :M]
    given: dict[str, Any] = {"generator": generator, "device": positives_BD.device}
    (B, _, D), R = start_BMD.shape, config.iterations - 1
    if config.sampler == "langevin":
        normal = partial(torch.randn, B, M, D, **given)
        actions_BMD, _, statistics = langevin.chain(energy, start_BMD, config.langevin, normal)
    else:
        draws = torch.rand(B, R, M, **given), torch.randn(B, R, M, D, **given)
        noise, shrink = config.noise, config.shrink
        with torch.no_grad():
            actions_BMD, energies_BM, first_BM = dfo(
                energy, start_BMD, *draws, noise=noise, shrink=shrink
            )
        statistics = {
            "chain_energy_drop": (first_BM - energies_BM).mean(),
            "chain_at_bounds": (actions_BMD.abs() >= BOUND).any(-1).float().mean(),
        }
    return torch.cat([actions_BMD, still_BND], 1), statistics


@torch.no_grad()
def proposed(
    proposal: Proposal, positives_BD: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Negatives (B, N, D) drawn from the proposal, and the logits' correction (B, K)."""
    B, D = positives_BD.shape
    given: dict[str, Any] = {"generator": generator, "device": positives_BD.device}
    units_BNX = torch.rand(B, count, D + 2, **given)
    negatives_BND = proposal.draw(units_BNX, torch.randn(B, count, D, **given))
    candidates_BKD = torch.cat([positives_BD.unsqueeze(1), negatives_BND], 1)
    return negatives_BND, -proposal.log_density(candidates_BKD)


def draw(
    config: NegativesConfig, centre_BD: Tensor, count: int, generator: torch.Generator
) -> Tensor:
    """(B, count, D) independent draws from the mixture around the centre, wrapped at the bounds."""
    B, D = centre_BD.shape
    device = centre_BD.device
    uniform_BND = _uniform(centre_BD, count, generator)
    scales = torch.tensor(config.scales, device=device)
    which = torch.randint(len(scales), (B, count, 1), generator=generator, device=device)
    noise_BND = torch.randn(B, count, D, generator=generator, device=device) * scales[which]
    near_BND = torch.remainder(centre_BD.unsqueeze(1) + noise_BND + BOUND, 2 * BOUND) - BOUND
    far_BN1 = torch.rand(B, count, 1, generator=generator, device=device) < config.uniform_share
    return torch.where(far_BN1, uniform_BND, near_BND)


def log_density(config: NegativesConfig, actions_BKD: Tensor, centre_BD: Tensor) -> Tensor:
    """The mixture's log density (B, K) at the actions, exact: wrapped Gaussians and uniform."""
    D = actions_BKD.shape[-1]
    log_uniform = -D * math.log(2 * BOUND)
    # Images one period away suffice: the next lie at least six standard deviations off.
    images = torch.arange(-1, 2, device=actions_BKD.device) * (2 * BOUND)
    distance_BKD3 = (actions_BKD - centre_BD.unsqueeze(1)).unsqueeze(-1) + images
    parts = [torch.full_like(actions_BKD[..., 0], log_uniform + math.log(config.uniform_share))]
    near_share = (1.0 - config.uniform_share) / len(config.scales)
    if near_share > 0.0:
        for scale in config.scales:
            log_BKD3 = -0.5 * (distance_BKD3 / scale) ** 2
            norm = math.log(scale * math.sqrt(2 * math.pi))
            log_BK = (log_BKD3.logsumexp(-1) - norm).sum(-1)
            parts.append(log_BK + math.log(near_share))
    return torch.stack(parts).logsumexp(0)


def _uniform(like_BD: Tensor, count: int, generator: torch.Generator) -> Tensor:
    B, D = like_BD.shape
    unit_BND = torch.rand(B, count, D, generator=generator, device=like_BD.device)
    return unit_BND * (2 * BOUND) - BOUND
