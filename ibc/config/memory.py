"""The least memory that a policy needs, from its settings, before anything is built."""

from ibc.config.policy import PolicyConfig

COPIES = 5  # of the weights: their average, the gradient, AdamW's two moments
_NUMBER = 4  # bytes


def least_bytes(policy: PolicyConfig, rows: int) -> int:
    """Return a lower bound of the bytes that training, and acting on so many rows, need.

    Counted are the hidden layers of the largest network and one layer's outputs for all samples;
    encoders and training batches come on top.
    """
    energy, diffusion = policy.energy, policy.diffusion
    width, depth = energy.width, energy.depth
    if policy.kind == "diffusion":
        width, depth = diffusion.width, diffusion.depth
    weights = policy.members * (depth - 1) * width**2
    samples = policy.inference.samples if policy.kind == "ibc" else 1
    return _NUMBER * (COPIES * weights + rows * samples * width)
