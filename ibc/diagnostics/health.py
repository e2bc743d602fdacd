"""Names common failure modes of a training run from its metrics.

Failures that metrics cannot show, in the code around data, policy and checkpoints, are tested for
in ibc/diagnostics/probes.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Metrics = Mapping[str, float]

COPIES_FROM = 2000  # steps: before, a policy knows little more than the last move

_CAUSES = {
    "loss is zero",
    "the sampler's space is not the model's",
    "predictions are stuck in a corner",
    "dead layers",
}
_EFFECTS = {"too few negatives for the tolerance", "loss falls, action error does not"}


@dataclass(frozen=True)
class Finding:
    """An issue by name, the numbers that show it, and its fix ("mend" in health.json)."""

    name: str
    evidence: str
    mend: str


def diagnose(history: Sequence[Metrics], facts: Mapping[str, Any]) -> list[Finding]:
    """All issues found in the metrics of the epochs so far, which are given oldest first.

    facts: `Trainer.facts`, "unclipped" for a search that may leave the bounds, "idle_share" of the
    selection episodes and "select_scores", their mean by step. Checks of a missing number (nothing
    held out, an explicit policy) are skipped.
    """
    if not history:
        return []
    found = [
        *_of_loss(history, facts),
        *_of_predictions(history, facts),
        *_of_bounds_and_layers(history[-1], facts),
        *_of_selection(history, facts),
    ]
    # An effect of another issue is not reported beside it.
    if {finding.name for finding in found} & _CAUSES:
        found = [finding for finding in found if finding.name not in _EFFECTS]
    return found


def _of_loss(history: Sequence[Metrics], facts: Mapping[str, Any]) -> Iterator[Finding]:
    last = history[-1]
    train, val = last["train_loss_ratio"], last.get("val_loss_ratio", 0.0)
    # Chunks drawn from a learned proposal are rightly told from demonstrations: a loss near zero.
    proposed = "train_proposal_loss" in last
    if facts["kind"] == "ibc" and not proposed and max(train, val) <= 0.005:
        yield Finding(
            "loss is zero",
            f"training and validation loss are {train:.1%} and {val:.1%} of chance",
            "negatives differ from demonstrated actions whatever the observation: positives, "
            "negatives and samples must be in one space, the normalised one "
            "(ibc/data/normalizer.py)",
        )
    if len(history) >= 2 and train >= 0.97:
        yield Finding(
            "nothing is learned",
            f"the training loss is {train:.1%} of chance after {len(history)} epochs",
            "raise train.learning_rate, look for a dead layer, and check that observations and "
            "actions belong to the same steps",
        )
    # A trial that took another's weights has the errors of its own actions at the end alone.
    measured = len(history) >= 2 and "val_action_error_px" in history[(len(history) - 1) // 2]
    if measured and "val_action_error_px" in last:
        yield from _error_does_not_follow(history)
    if len(history) >= 4 and facts["kind"] != "mdn" and not proposed and "val_loss" in last:
        yield from _overfits(history)


def _overfits(history: Sequence[Metrics]) -> Iterator[Finding]:
    """The log density of a mixture has no zero, so its ratios mean nothing; others are left."""
    last, best = history[-1], min(history, key=lambda metrics: metrics["val_loss"])
    risen, apart = last["val_loss"] / best["val_loss"], last["val_loss"] / last["train_loss"]
    if risen >= 1.2 and apart >= 1.5:
        yield Finding(
            "overfits",
            f"the validation loss is {risen:.2f} times its lowest, of step {best['step']:.0f}, and "
            f"{apart:.2f} times the training loss",
            "train on more demonstrations, mirror them (train.augment.mirror), raise "
            "train.weight_decay, or take fewer steps",
        )


def _error_does_not_follow(history: Sequence[Metrics]) -> Iterator[Finding]:
    last = history[-1]
    error, earlier = (
        min(m["val_action_error_px"], m["val_readout_error_px"])
        for m in (last, history[(len(history) - 1) // 2])
    )
    trivial, finest = last["trivial_action_error_px"], last.get("finest_error_px", 0.0)
    # Far too few: the error falls slowly, where other losses would have brought it close to 0.
    coarse = finest > 4.0 * trivial and error > 0.5 * trivial
    if last["train_loss_ratio"] > 0.9 or (error < 0.95 * trivial and not coarse):
        return
    if finest <= 3.0 * trivial and (len(history) < 4 or error < 0.97 * earlier):
        return  # too early to tell, or still falling
    evidence = (
        f"the loss is {last['train_loss_ratio']:.1%} of chance, but the action error is "
        f"{error:.1f} px where a constant predictor has {trivial:.1f} px"
    )
    if finest > 0.5 * trivial:
        yield Finding(
            "too few negatives for the tolerance",
            f"{evidence}; the nearest negative is {finest:.0f} px away on average",
            f"raise negatives.count {(2.0 * finest / trivial) ** 2:.0f} times or tighten "
            "action.bounds: the loss resolves no error smaller than the nearest negative's",
        )
    else:
        yield Finding(
            "loss falls, action error does not",
            evidence,
            "use more negatives (negatives.count) or tighter bounds (action.bounds) so that the "
            "loss resolves errors of a few px, and make sure that the normaliser is that of this "
            "data set",
        )


def _of_selection(history: Sequence[Metrics], facts: Mapping[str, Any]) -> Iterator[Finding]:
    losses = {int(m["step"]): m["val_loss"] for m in history if "val_loss" in m}
    scores = {s: score for s, score in facts.get("select_scores", {}).items() if s in losses}
    if len(scores) < 3:
        return
    lowest, best = min(scores, key=lambda step: losses[step]), max(scores, key=lambda s: scores[s])
    if scores[best] - scores[lowest] >= 0.1:
        yield Finding(
            "loss and rollouts disagree",
            f"the lowest validation loss is that of step {lowest}, which scores "
            f"{scores[lowest]:.2f} in rollouts; step {best} scores {scores[best]:.2f}",
            "choose checkpoints by rollouts (select.every), as `best` is, not by the loss",
        )


def _of_predictions(history: Sequence[Metrics], facts: Mapping[str, Any]) -> Iterator[Finding]:
    last, several = history[-1], len(history) >= 2
    outside = 0.0 if facts.get("unclipped", False) else last.get("share_outside_bounds", 0.0)
    missed = last.get("val_search_missed", 0.0)
    if outside >= 0.1 or missed >= 0.5:
        yield Finding(
            "the sampler's space is not the model's",
            f"{outside:.0%} of the predicted actions lie outside the bounds of the action space, "
            f"and in {missed:.0%} of the windows random candidates are better than what the search "
            "found",
            "positives, negatives, the samples of the search and the bounds must be in one space, "
            "the normalised one: only ibc/data/normalizer.py may map to it and back",
        )
    x, y = last.get("val_predicted_x_px", 256.0), last.get("val_predicted_y_px", 256.0)
    corner = max(min(x, 512.0 - x), min(y, 512.0 - y)) <= 100.0
    if corner and last["val_place_ratio"] <= 0.5 and last["val_place_error_px"] >= 100.0:
        yield Finding(
            "predictions are stuck in a corner",
            f"predicted positions lie around ({x:.0f}, {y:.0f}) px, "
            f"{last['val_place_error_px']:.0f} px from the mean of the demonstrated ones",
            "the output was never un-normalised (values in [-1, 1] taken for px), or not moved "
            "back from the agent's frame: return the result of Normalizer.decode",
        )
    share = last.get("share_at_bounds", 0.0)
    if share >= 0.3:
        yield Finding(
            "predictions at the bounds",
            f"{share:.0%} of the predicted actions lie at the bounds of the action space",
            "the sampler's space and the model's differ, the output was never un-normalised, or "
            "action.window is too small for these demonstrations",
        )
    past = last.get("val_past_error_px", 0.0)
    if several and past:
        present, trivial = last["val_readout_error_px"], last["trivial_past_error_px"]
        if past <= 0.6 * min(present, trivial):
            yield Finding(
                "the action of a past frame is executed",
                f"the first action lies {past:.1f} px from the one demonstrated a step ago and "
                f"{present:.1f} px from that of the newest frame",
                "begin a chunk with the newest frame: of T observations and T actions, the present "
                "action is the last of the past ones, not the first (ibc/data/windows.py)",
            )
    copied = last.get("val_copied_motion", 0.0)
    if several and last.get("step", 0) >= COPIES_FROM and copied >= 0.5:
        yield Finding(
            "copies its own motion",
            f"where the agent's past motion is 10 % faster, the predicted move is {copied:.0%} of "
            "that faster, too",
            "hide the past motion a little (train.augment.history_noise 4), or take "
            "policy.obs_horizon 1: what a policy copies it cannot stop",
        )
    idle = facts.get("idle_share", 0.0)
    if idle > 0.3:
        yield Finding(
            "stands still",
            f"in {idle:.0%} of the steps of the selection episodes the agent moves less than 1 px",
            "take a readout that keeps moving (policy.inference.readout mean_shift); the mode of a "
            "density of human moves is slower than its mean",
        )
    ratio = last.get("val_chunk_ratio", 1.0)
    if ratio <= 0.05:
        yield Finding(
            "one action is repeated over the chunk",
            f"from action to action a predicted chunk moves {ratio:.1%} of the demonstrated "
            "distance",
            "predict every action of the chunk, or set policy.action_horizon 1: with a constant "
            "target the agent moves in jerks",
        )
    spread = last.get("val_spread_ratio", 1.0)
    if several and spread <= 0.1:
        yield Finding(
            "predictions are stuck",
            f"predicted moves vary {spread:.1%} as much as the demonstrated ones",
            "the prediction does not depend on the observation: check its scale (images must reach "
            "the encoder as uint8), the normaliser and dead layers",
        )


def _of_bounds_and_layers(last: Metrics, facts: Mapping[str, Any]) -> Iterator[Finding]:
    share = last.get("train_clipped_share", 0.0)
    if share >= 0.02:
        yield Finding(
            "demonstrated actions outside the bounds",
            f"{share:.1%} of the training windows have an action that was clipped to the bounds",
            "enlarge action.window, or use action.bounds data",
        )
    energy = facts["kind"] == "ibc"
    # InfoNCE compares energies: a constant added to all of them rightly has no gradient.
    dead = [n for n in facts.get("dead_layers", ()) if not (energy and n.endswith("out.bias"))]
    if dead:
        yield Finding(
            "dead layers",
            f"no gradient reached {', '.join(dead)} in the last epoch",
            "a layer is not connected to the loss, or all its units are inactive: connect it or "
            "lower train.learning_rate",
        )
