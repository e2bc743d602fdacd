"""Model cards of the policies that come with the project, made from the tables beside them."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from harness.config.protocol import THRESHOLDS
from harness.core import paths
from harness.core.seeds import PAPER_SEEDS, REPORT_SEEDS
from harness.stats.intervals import Estimate, share_interval
from harness.storage import episode_table, tables
from harness.storage.checkpoints import WEIGHTS, describe

STARTS = REPORT_SEEDS[:500]  # those of the scores on a card, beside the literature's 50
CARD = "README.md"
NEAR, _FAR = 0.90, 0.50  # a near miss covered more than the one, a far one less than the other
_SETS = {
    "pusht_cchi_v7_replay.zarr": "human demonstrations",
    "expert.zarr": "planner's",
    "corrections.zarr": "corrections",
}
_OBSERVES = {
    "keypoints": "nine points on the block and the agent's position, px",
    "state": "the agent's position, and the block's position and angle",
    "image": "an image of 96 x 96 px and the agent's position",
}


def overview(folder: Path, place: Path) -> str:
    """Return all shipped policies of a folder as a table for a page in `place`, the best first."""
    found = []
    for trials_path in folder.glob("*/trials.parquet"):
        own = trials_path.parent
        trials, episodes = tables.read_stored(own)
        tested = episode_table.within(episodes, STARTS)
        score, success = _mean(tested, "score"), _mean(tested, "success")
        of_paper = _mean(episode_table.within(episodes, PAPER_SEEDS), "score")
        described, rows = describe(own), trials.to_pylist()
        minutes = sum(row["train_seconds"] for row in rows) / 60
        cells = [
            f"[`pretrained:{own.name}`]({os.path.relpath(own / CARD, place)})",
            described["config"]["policy"]["obs_mode"],
            _data(described["data"], rows[0]),
            f"{minutes:.0f}",
            _interval(score, 1),
            _interval(success, 100),
            _interval(of_paper, 1),
        ]
        found.append((score.value, f"| {' | '.join(cells)} |"))
    head = [
        "| policy | sees | learned from | minutes | score | success | score, paper's starts |",
        "|---|---|---|--:|---|---|---|",
    ]
    return "\n".join([*head, *(line for _, line in sorted(found, reverse=True)), ""])


def card(folder: Path) -> str:
    """Return the model card of a shipped policy, made from its files."""
    trials, stored = tables.read_stored(folder)
    episodes = episode_table.within(stored, STARTS)
    of_paper = _mean(episode_table.within(stored, PAPER_SEEDS), "score")
    described = describe(folder)
    policy = described["config"]["policy"]
    rows = trials.to_pylist()
    first = rows[0]
    minutes = " + ".join(f"{row['train_seconds'] / 60:.1f}" for row in rows)
    members = f"an ensemble of {len(rows)} (their energies are averaged)" if len(rows) > 1 else ""
    frames = policy["obs_horizon"]
    commits = _several((row["git_revision"] or "")[:7] for row in rows)
    facts = {
        "is": members or "one energy model",
        "observes": f"{_OBSERVES[policy['obs_mode']]}; {frames} frames, 0.1 s apart",
        "acts": "one position for the agent to move to within 0.1 s, px",
        "was trained on": f"{_data(described['data'], first)} (fingerprint "
        f"{(first['dataset_fingerprint'] or 'unknown')[:12]})",
        "for": f"{first['train.steps']:,} steps of {first['train.batch_size']} windows, training "
        f"seed {', '.join(str(row['train_seed']) for row in rows)}; {minutes} minutes on "
        f"{_several(row['device'] for row in rows)}",
        "recipe": f"arm {first['arm']!r} of the sweep {first['sweep']}, config "
        f"{first['config_hash']}, commit {commits}",
        "weights": f"{(folder / WEIGHTS).stat().st_size / 1e6:.1f} MB of safetensors, policy hash "
        f"{described['policy_hash']}",
        "licence": "MIT, as the project",
    }
    name = folder.name
    lines = [
        f"# {name}",
        "",
        "An implicit behavioral cloning policy for PushT that comes with the project. Made by "
        "`python -m harness.results ship`; `python -m harness.results study --check` compares "
        "this card with the tables beside it.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {key} | {text} |" for key, text in facts.items()),
        "",
        f"On the {len(STARTS)} starts {STARTS.start} to {STARTS[-1]}, which chose nothing:",
        "",
        "| | mean [95 % interval] |",
        "|---|---|",
        f"| score | {_interval(_mean(episodes, 'score'), 1)} |",
        *(
            f"| success, coverage > {least:.2f} | {_interval(_share(episodes, least), 100)} |"
            for least in THRESHOLDS
        ),
        "",
        f"On the literature's 50 starts {PAPER_SEEDS.start} to {PAPER_SEEDS[-1]} its score is "
        f"{_interval(of_paper, 1)}.",
        "",
        f"    python run_eval.py --ckpt pretrained:{name} --seeds {len(STARTS)}",
        "",
        "gives these numbers to the digit on the same kind of processor, and others inside the "
        "interval elsewhere.",
        "",
        "## Failures",
        "",
        *_failures(name, episodes),
    ]
    return "\n".join(lines) + "\n"


def _several(values: Iterable[str | None]) -> str:
    return ", ".join(dict.fromkeys(value or "unknown" for value in values))


def _data(names: str, trial: Mapping[str, Any]) -> str:
    """Return the data sets that a trial's windows were drawn from, with their shares."""
    sets = [_SETS.get(name, name) for name in names.split(paths.JOINED)]
    shares = json.loads(trial.get("split.shares") or "[]")
    if not shares:
        return ", ".join(sets)
    drawn = [(name, share) for name, share in zip(sets, shares, strict=True) if share]
    return drawn[0][0] if len(drawn) == 1 else ", ".join(f"{n} {100 * s:.0f} %" for n, s in drawn)


def _mean(episodes: pa.Table, column: str) -> Estimate:
    return share_interval(episodes[column].cast("float64").to_numpy())


def _share(episodes: pa.Table, threshold: float) -> Estimate:
    return share_interval(
        pc.greater(episodes["max_coverage"], threshold).cast("float64").to_numpy()
    )


def _interval(found: Estimate, scale: int) -> str:
    """Return a number with its interval: a share (scale 1), or one in percent (scale 100)."""
    digits, unit = (3, "") if scale == 1 else (1, " %")
    value, low, high = (f"{scale * x:.{digits}f}" for x in (found.value, found.low, found.high))
    return f"{value}{unit} [{low}, {high}]"


def _failures(name: str, episodes: pa.Table) -> list[str]:
    """Return what the episodes without a success have in common, and which are the worst."""
    failed = episodes.filter(pc.invert(episodes["success"])).sort_by("max_coverage").to_pylist()
    if not failed:
        return [f"None of {episodes.num_rows} episodes."]
    kinds = Counter(
        "near" if row["max_coverage"] > NEAR else "far" if row["max_coverage"] < _FAR else "part"
        for row in failed
    )
    ended = sum(row["final_coverage"] < row["max_coverage"] - 0.05 for row in failed)
    worst = failed[:5]
    starts = ", ".join(f"{row['env_seed']} ({row['max_coverage']:.2f})" for row in worst)
    seeds = ",".join(f"{row['env_seed']}-{row['env_seed']}" for row in worst)
    return [
        f"{len(failed)} of {episodes.num_rows} episodes end without a success. {kinds['near']} of "
        f"them came as far as a coverage of {NEAR:.2f} to 0.95, {kinds['far']} never reached "
        f"{_FAR:.2f}; {ended} lost more than 0.05 of the coverage that they had.",
        "",
        f"The lowest, with the largest coverage reached: {starts}. To see them:",
        "",
        f"    python run_eval.py --ckpt pretrained:{name} --seeds {seeds} --video {len(worst)}",
    ]
