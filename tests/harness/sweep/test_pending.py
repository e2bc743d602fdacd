"""What is left to do when a plan grows, when trials failed, and when files are lost; no Ray."""

import errno
import io
import os
import shutil

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from harness.config import plan
from harness.core import files
from harness.core.errors import UserError
from harness.sweep import pending, plan_table
from harness.sweep.estimate import Estimate
from harness.sweep.folder import SweepFolder
from ibc.data.demos import Demos, join

SPACE = """
version: 1
name: tiny
train_seeds: [0]
base: {policy.obs_mode: state}
questions:
  width: {arms: {narrow: {policy.energy.width: 8}}}
"""


class Swept:
    """A space file and the folder of its sweep, whose trials end as they are told to."""

    def __init__(self, path):
        self.file, self.folder = path / "tiny.yaml", SweepFolder(path / "sweep")
        self.file.write_text(SPACE)

    def left(self, *questions, retry_failed=False):
        return pending.find(plan.plan(self.file), self.folder, questions, retry_failed)

    def end(self, status="finished", *, jobs=None):
        for job in self.left().left if jobs is None else jobs:
            trial = self.folder.trial(job.id)
            trial.claim({**job.info, "config_hash": job.id[:12], "train_seed": job.train_seed}, "d")
            trial.write_status(status=status, step=4, best_step=4, train_seconds=1.0)
            (trial.checkpoints / "best").mkdir(parents=True, exist_ok=True)
            files.write_json({"version": 1}, trial.checkpoints / "best/config.json")
            files.write_json({}, trial.checkpoints / "best/policy.json")
            save_file({}, trial.checkpoints / "best/model.safetensors")
            trial.write_curves([])
            trial.write_health([])
            trial.write_selected(4, [{"env_seed": 200000, "policy_hash": "abc"}])

    def change(self, before, after):
        text = self.file.read_text()
        assert before in text
        self.file.write_text(text.replace(before, after))


@pytest.fixture
def swept(tmp_path):
    return Swept(tmp_path)


def arms(work):
    return [(job.info["arm"], job.train_seed) for job in work.left]


def test_more_training_seeds_run_these_alone(swept):
    swept.end()
    assert arms(swept.left()) == []
    swept.change("train_seeds: [0]", "train_seeds: [0, 1]")
    assert arms(swept.left()) == [("baseline (all)", 1), ("narrow", 1)]


def test_a_further_arm_or_value_runs_it_alone(swept):
    swept.end()
    swept.change("{narrow: {", "{wide: {policy.energy.width: 16}, narrow: {")
    assert arms(swept.left()) == [("wide", 0)]
    swept.end()
    grid = "  depth: {grid: {policy.energy.depth: [1, 2, 3]}}\n"
    swept.file.write_text(swept.file.read_text() + grid)
    first = arms(swept.left())
    assert len(first) in (2, 3)  # one value may be the baseline's
    swept.end()
    swept.change("[1, 2, 3]", "[1, 2, 3, 4]")
    assert arms(swept.left()) == [("depth 4", 0)]


def test_failed_trials_are_left_alone_until_they_are_to_be_tried_again(swept):
    swept.end("failed", jobs=swept.left().left[:1])
    assert arms(swept.left()) == [("narrow", 0)]
    assert arms(swept.left(retry_failed=True)) == [("baseline (all)", 0), ("narrow", 0)]
    # Another question's failures are not this one's.
    deep = "  depth: {arms: {deep: {policy.energy.depth: 3}}}\n"
    swept.file.write_text(swept.file.read_text() + deep)
    assert arms(swept.left("depth", retry_failed=True)) == [("baseline (all)", 0), ("deep", 0)]


def test_a_trial_that_failed_on_a_full_disk_is_run_again(swept):
    """A library words the error in its own way."""
    swept.end()
    first, second = (swept.folder.trial(job.id) for job in swept.left().planned)
    first.write_failure(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    work = swept.left()
    assert arms(work) == [("baseline (all)", 0)]
    assert work.states == {"finished": 1, "no room": 1}
    assert first.read_status()["error"].endswith("and run the same command again to continue")
    second.write_failure(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert len(swept.left().left) == 2
    second.write_failure(RuntimeError("another one"))
    assert arms(swept.left()) == [("baseline (all)", 0)]


@pytest.mark.parametrize(
    ("lost", "state"),
    [
        ("checkpoints/best", "lost"),
        ("episodes", "lost"),
        ("status.json", "pending"),
        (".", "pending"),
    ],
)
def test_what_is_lost_is_run_again(swept, lost, state):
    swept.end()
    job = swept.left().planned[0]
    path = swept.folder.trial(job.id).path / lost
    path.unlink() if path.is_file() else shutil.rmtree(path)
    work = swept.left()
    assert [j.id for j in work.left] == [job.id]
    assert work.states == {"finished": 1, state: 1}


def test_a_torn_status_is_set_aside_and_its_trial_run_again(swept):
    swept.end()
    job = swept.left().planned[1]
    path = swept.folder.trial(job.id).path / "status.json"
    path.write_bytes(path.read_bytes()[:20])
    assert arms(swept.left()) == [("narrow", 0)]
    assert path.exists()
    with swept.folder.lock():
        assert arms(swept.left()) == [("narrow", 0)]
    assert path.with_name("status.json.torn").exists()


def test_the_plan_says_where_every_trial_stands(swept):
    swept.change("train_seeds: [0]", "train_seeds: [0, 1, 2]")
    jobs = swept.left().left
    for status, some in (
        ("finished", jobs[:1]),
        ("failed", jobs[1:2]),
        ("stopped", jobs[2:3]),
        ("running", jobs[3:4]),
    ):
        swept.end(status, jobs=some)
    console = Console(file=io.StringIO(), width=200)
    work = swept.left()
    plan_table.print_counts(console, swept.folder.path, work)
    line = "1 finished, 1 failed, 1 stopped early, 1 interrupted, 4 to run\n"
    assert console.file.getvalue() == f"{swept.folder.path}: {line}"
    assert pending.finished_seconds(work.statuses) == {jobs[0].config_hash: 1.0}


def ending_at(*goals):
    """Data sets whose ten episodes of 60 steps each end at a goal."""
    sets = []
    for number, goal in enumerate(goals):
        state = np.full((600, 5), 100.0, np.float32)
        state[59::60, 2:] = goal
        sets.append(
            Demos(
                path=f"set {number}",
                fingerprint=str(number),
                action=state[:, :2].copy(),
                state=state,
                keypoints=np.zeros((600, 20), np.float32),
                episode_ends=np.arange(60, 601, 60),
                images=None,
            )
        )
    return join(sets)


GOAL, ELSEWHERE = (255.0, 257.0, 0.8), (150.0, 256.0, 0.8)
NO_MIRROR = "base: {train.augment.mirror: 0.0, "


def test_a_goal_that_is_not_the_mirrors_is_refused(swept):
    pending.check_data(swept.left(), ending_at(GOAL))
    for goal in (ELSEWHERE, (256.0, 256.0, 2.4)):
        with pytest.raises(
            UserError, match=r"needs the goal at \(256, 256\) px, 0.79 rad; .* set 0"
        ):
            pending.check_data(swept.left(), ending_at(goal))
    swept.change("base: {", NO_MIRROR)
    pending.check_data(swept.left(), ending_at(ELSEWHERE))


def test_data_sets_of_different_goals_are_refused(swept):
    swept.change("base: {", NO_MIRROR)
    with pytest.raises(UserError, match=r"must have one goal; .* around \(255, .*; \(150, "):
        pending.check_data(swept.left(), ending_at(GOAL, ELSEWHERE))


def test_shares_are_of_the_data_sets(swept):
    swept.change("base: {", "base: {split.shares: [0.5, 0.5], ")
    pending.check_data(swept.left(), ending_at(GOAL, GOAL))
    with pytest.raises(UserError, match=r"empty or one for each of 1 data sets, got \(0.5, 0.5\)"):
        pending.check_data(swept.left(), ending_at(GOAL))


def test_the_plan_counts_the_trials_that_this_run_is_about(swept):
    """A baseline of several questions has more training seeds than one of them needs."""
    swept.change("train_seeds: [0]", "train_seeds: [0, 1, 2]")
    arms = ", ".join(f"w{width}: {{policy.energy.width: {width}}}" for width in range(9, 17))
    swept.change("questions:\n", f"questions:\n  depth: {{arms: {{{arms}}}}}\n")
    console = Console(file=io.StringIO(), width=200)
    whole, work = plan.plan(swept.file), swept.left("width")
    found = Estimate({}, "")
    plan_table.print_plan(console, whole.only(["width"]), work, found)
    line = next(each for each in console.file.getvalue().splitlines() if "baseline" in each)
    own = sum(job.info["arm"] != "narrow" for job in work.left)
    assert f"{own} to run" in line
    assert own < sum(job.info["arm"].startswith("baseline") for job in swept.left().left)
