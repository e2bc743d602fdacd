"""Names common failure modes of a training run from its metrics.

Failures that metrics cannot show, in the code around data, policy and checkpoints, are tested for
in ibc/diagnostics/probes.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Finding:
    """An issue by name, the numbers that show it, and its fix ("mend" in health.json)."""

    name: str
    evidence: str
    mend: str


def diagnose(history: Sequence[Metrics], facts: Mapping[str, Any]) -> list[Finding]:
    """All issues found in the metrics of the epochs so far, which are given oldest first.

    facts: `Trainer.facts`, and "unclipped" for a search that may leave the bounds. Checks of a
    missing metric (nothing held out, an explicit policy) are skipped.
    """
    if not history:
        return []
    found = [finding for check in _CHECKS if (finding := check(history, facts)) is not None]
    # An effect of another issue is not reported beside it.
    if {finding.name for finding in found} & _CAUSES:
        found = [finding for finding in found if finding.name not in _EFFECTS]
    return found


def _zero_loss(history: Sequence[Metrics], facts: Mapping[str, Any]) -> Finding | None:
    last = history[-1]
    train, val = last["train_loss_ratio"], last.get("val_loss_ratio", 0.0)
    if facts["kind"] != "ibc" or max(train, val) > 0.005:
        return None
    return Finding(
        "loss is zero",
        f"training and validation loss are {train:.1%} and {val:.1%} of chance",
        "negatives differ from demonstrated actions whatever the observation: positives, "
        "negatives and samples must be in one space, the normalised one (ibc/data/normalizer.py)",
    )


def _chance(history: Sequence[Metrics], facts: Mapping[str, Any]) -> Finding | None:
    ratio = history[-1]["train_loss_ratio"]
    if len(history) < 2 or ratio < 0.97:
        return None
    return Finding(
        "nothing is learned",
        f"the training loss is {ratio:.1%} of chance after {len(history)} epochs",
        "raise train.learning_rate, look for a dead layer, and check that observations and "
        "actions belong to the same steps",
    )


def _error_does_not_follow(history: Sequence[Metrics], facts: Mapping[str, Any]) -> Finding | None:
    if len(history) < 2 or "val_action_error_px" not in history[-1]:
        return None
    last = history[-1]
    error, earlier = (
        min(m["val_action_error_px"], m["val_readout_error_px"])
        for m in (last, history[(len(history) - 1) // 2])
    )
    trivial, finest = last["trivial_action_error_px"], last.get("finest_error_px", 0.0)
    if error < 0.95 * trivial or last["train_loss_ratio"] > 0.9:
        return None
    if finest <= 3.0 * trivial and (len(history) < 4 or error < 0.97 * earlier):
        return None  # too early to tell, or still falling
    evidence = (
        f"the loss is {last['train_loss_ratio']:.1%} of chance, but the action error is "
        f"{error:.1f} px where a constant predictor has {trivial:.1f} px"
    )
    if finest > 0.5 * trivial:
        return Finding(
            "too few negatives for the tolerance",
            f"{evidence}; the nearest negative is {finest:.0f} px away on average",
            f"raise negatives.count {(2.0 * finest / trivial) ** 2:.0f} times or tighten "
            "action.bounds: the loss resolves no error smaller than the nearest negative's",
        )
    return Finding(
        "loss falls, action error does not",
        evidence,
        "use more negatives (negatives.count) or tighter bounds (action.bounds) so that the loss "
        "resolves errors of a few px, and make sure that the normaliser is that of this data set",
    )


def _other_space(history: Sequence[Metrics], facts: Mapping[str, Any]) -> Finding | None:
    outside = history[-1].get("share_outside_bounds", 0.0)
    missed = history[-1].get("val_search_missed", 0.0)
    if facts.get("unclipped", False):
        outside = 0.0
    if outside < 0.1 and missed < 0.5:
        return None
    return Finding(
        "the sampler's space is not the model's",
        f"{outside:.0%} of the predicted actions lie outside the bounds of the action space, and "
        f"in {missed:.0%} of the windows random candidates are better than what the search found",
        "positives, negatives, the samples of the search and the bounds must be in one space, the "
        "normalised one: let ibc/data/normalizer.py alone map to it and back",
    )


def _corner(history: Sequence[Metrics], facts: Mapping[str, Any]) -> Finding | None:
    last = history[-1]
    if "val_predicted_x_px" not in last or last["val_place_ratio"] > 0.5:
        return None
    x, y = last["val_predicted_x_px"], last["val_predicted_y_px"]
    if max(min(x, 512.0 - x), min(y, 512.0 - y)) > 100.0 or last["val_place_error_px"] < 100.0:
        return None
    return Finding(
        "predictions are stuck in a corner",
        f"predicted positions lie around ({x:.0f}, {y:.0f}) px, "
        f"{last['val_place_error_px']:.0f} px from the mean of the demonstrated ones",
        "the output was never un-normalised (values in [-1, 1] taken for px), or not moved back "
        "from the agent's frame: return the result of Normalizer.decode",
    )


def _at_bounds(history: Sequence[Metrics], facts: Mapping[str, Any]) -> Finding | None:
    share = history[-1].get("share_at_bounds", 0.0)
    if share < 0.3:
        return None
    return Finding(
        "predictions at the bounds",
        f"{share:.0%} of the predicted actions lie at the bounds of the action space",
        "the sampler's space and the model's differ, the output was never un-normalised, or "
        "action.window is too small for these demonstrations",
    )


def _past_frame(history: Sequence[Metrics], facts: Mapping[str, Any]) -> Finding | None:
    last = history[-1]
    past = last.get("val_past_error_px", 0.0)
    if len(history) < 2 or not past:
        return None
    present, trivial = last["val_readout_error_px"], last["trivial_past_error_px"]
    if past > 0.6 * min(present, trivial):
        return None
    return Finding(
        "the action of a past frame is executed",
        f"the first action lies {past:.1f} px from the one demonstrated a step ago and "
        f"{present:.1f} px from that of the newest frame",
        "let a chunk begin with the newest frame: of T observations and T actions, the action of "
        "the present is the last of the past ones, not the first (ibc/data/windows.py)",
    )


def _repeated(history: Sequence[Metrics], facts: Mapping[str, Any]) -> Finding | None:
    ratio = history[-1].get("val_chunk_ratio", 1.0)
    if ratio > 0.05:
        return None
    return Finding(
        "one action is repeated over the chunk",
        f"from action to action a predicted chunk moves {ratio:.1%} of the demonstrated distance",
        "predict every action of the chunk, or set policy.action_horizon 1: with a constant target "
        "the agent moves in jerks",
    )


def _stuck(history: Sequence[Metrics], facts: Mapping[str, Any]) -> Finding | None:
    spread = history[-1].get("val_spread_ratio", 1.0)
    if len(history) < 2 or spread > 0.1:
        return None
    return Finding(
        "predictions are stuck",
        f"predicted moves vary {spread:.1%} as much as the demonstrated ones",
        "the prediction does not depend on the observation: check its scale (images must reach the "
        "encoder as uint8), the normaliser and dead layers",
    )


def _clipped(history: Sequence[Metrics], facts: Mapping[str, Any]) -> Finding | None:
    share = history[-1].get("train_clipped_share", 0.0)
    if share < 0.02:
        return None
    return Finding(
        "demonstrated actions outside the bounds",
        f"{share:.1%} of the training windows have an action that was clipped to the bounds",
        "enlarge action.window, or use action.bounds data",
    )


def _dead(history: Sequence[Metrics], facts: Mapping[str, Any]) -> Finding | None:
    # InfoNCE compares energies: a constant added to all of them rightly has no gradient.
    energy = facts["kind"] == "ibc"
    names = [n for n in facts.get("dead_layers", ()) if not (energy and n.endswith("out.bias"))]
    if not names:
        return None
    return Finding(
        "dead layers",
        f"no gradient reached {', '.join(names)} in the last epoch",
        "a layer is not connected to the loss, or all its units are inactive: connect it or lower "
        "train.learning_rate",
    )


_EFFECTS = {"too few negatives for the tolerance", "loss falls, action error does not"}
_CAUSES = {
    "loss is zero",
    "the sampler's space is not the model's",
    "predictions are stuck in a corner",
    "dead layers",
}
_Check = Callable[[Sequence[Metrics], Mapping[str, Any]], Finding | None]
_CHECKS: tuple[_Check, ...] = (
    _zero_loss,
    _chance,
    _error_does_not_follow,
    _other_space,
    _corner,
    _at_bounds,
    _past_frame,
    _repeated,
    _stuck,
    _clipped,
    _dead,
)
