"""Rounds until every verdict is reached; trials end as they are told to, without Ray."""

import io
import shutil

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from harness.analysis import verdicts
from harness.analysis.sweep_results import Sweep
from harness.core import files
from harness.core.errors import UserError
from harness.demos.source import Source
from harness.storage import tables
from harness.storage.rounds import FILE, Rounds
from harness.storage.trial_folder import TrialFolder
from harness.sweep import pending, plan_table
from harness.sweep.folder import SweepFolder
from harness.sweep.options import Options

SPACE = """
version: 1
name: arms
train_seeds: [0]
base: {policy.obs_mode: state}
questions:
  width:
    arms:
      bad: {policy.energy.width: 8}
      same: {policy.energy.width: 16}
      noisy: {policy.energy.width: 24}
      again: {}
  depth: {arms: {good: {policy.energy.depth: 1}}}
"""
STARTS = 60
# The true difference of each arm, and the standard deviation between its training seeds.
EFFECTS = {"bad": (-0.2, 0.01), "same": (0.0, 0.004), "noisy": (0.02, 0.08), "good": (0.2, 0.01)}


@pytest.fixture(autouse=True, scope="module")
def _quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        patch.setattr("harness.core.provenance.collect", dict)  # which imports torch
        yield


class Swept:
    """A sweep of rounds; `run` ends its trials one after the other, as a single slot would."""

    def __init__(self, path, **options):
        self.space, self.folder = path / "arms.yaml", SweepFolder(path / "results" / "sweep")
        path.mkdir(exist_ok=True)
        self.space.write_text(SPACE)
        self.options, self.said = {"until_verdict": True, "train_seeds": "0-5", **options}, []
        self.failing = set()

    def jobs(self, **options):
        given = Options(self.space, **{**self.options, **options})
        given.check()
        work = pending.find(
            given.plan, self.folder, given.question, given.retry_failed, given.until
        )
        source = Source((self.space.parent / "d.zarr",), "given")
        delta = None if given.until is None else given.until.delta
        self.folder.check_same(given.plan, source, "f", delta)
        rounds = {"delta": delta, "trials": work.source.most} if delta else None
        self.folder.write_plan(given.plan, self.space, (), source, "f", rounds)
        if delta:
            work.source.note = self.said.append
        return work

    def run(self, count=999, **options):
        source, done = self.jobs(**options).source, []
        while len(done) < count and (job := source.next(idle=True)) is not None:
            self.end(job)
            source.done(job, {})
            done.append(f"{job.info['arm'].split()[0]}-{job.train_seed}")
        return done

    def end(self, job):
        arm, seed = job.info["arm"].split()[0], job.train_seed
        trial = self.folder.trial(job.id)
        identity = {"config_hash": job.config_hash, "train_seed": seed}
        trial.claim({**job.info, **identity}, "f")
        if (arm, seed) in self.failing:
            trial.write_status(status="failed", error="told to")
            return
        effect, sd = EFFECTS.get(arm, (0.0, 0.01))
        rng = np.random.default_rng((len(arm), ord(arm[0]), seed))
        scores = np.linspace(0.3, 0.7, STARTS) + effect + rng.normal(0, sd)
        scores += rng.normal(0, 0.02, STARTS)
        rows = [
            {**identity, "env_seed": 200_000 + at, "score": float(np.clip(score, 0, 1)),
             "success": bool(score > 0.6), "max_coverage": 0.5, "checkpoint_step": 4,
             "policy_hash": "p", "protocol_hash": "r"}
            for at, score in enumerate(scores)
        ]  # fmt: skip
        trial.write_selected(4, rows)
        trial.write_status(status="finished", best_step=4, step=4, train_seconds=1.0)
        (trial.checkpoints / "best").mkdir(parents=True, exist_ok=True)
        files.write_json({"version": 1}, trial.checkpoints / "best/config.json")
        files.write_json({}, trial.checkpoints / "best/policy.json")
        save_file({}, trial.checkpoints / "best/model.safetensors")
        trial.write_curves([])
        trial.write_health([])

    def words(self):
        return {
            verdict.arm: (verdict.word, verdict.score)
            for answer in verdicts.answers(Sweep(self.folder.path))
            for verdict in answer.verdicts
        }


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A whole sweep of rounds, which later tests compare with and copy."""
    swept = Swept(tmp_path_factory.mktemp("ended"))
    swept.done = swept.run()
    return swept


def test_decided_arms_stop_and_open_ones_get_further_seeds(ended):
    # Four arms that differ: the baseline has twice their seeds, and the first round three of each.
    first = {f"baseline-{seed}" for seed in range(6)}
    first |= {f"{arm}-{seed}" for arm in EFFECTS for seed in range(3)}
    assert set(ended.done[:18]) == first
    counts = {arm: sum(name.startswith(arm) for name in ended.done) for arm in EFFECTS}
    assert counts["bad"] < 5
    assert counts["good"] < 5
    assert counts["noisy"] == 6
    assert len(set(ended.done)) == len(ended.done)
    words = {arm: word for arm, (word, _) in ended.words().items()}
    assert words == {
        "bad": "hurts", "good": "helps", "same": "no difference", "noisy": "not enough evidence",
    }  # fmt: skip
    rounds = Rounds.read(ended.folder.path)
    assert all(each.finished is not None for each in rounds)
    # After the first round the widest interval is served first, once its baselines are.
    second = list(rounds)[1].trials
    hashes = {arm.arm: arm.config_hash for arm in Sweep(ended.folder.path).arms()}
    arms = [name for id_ in second for name, h in hashes.items() if id_.startswith(h)]
    assert next(arm for arm in arms if arm not in ("baseline", "again")) == "noisy"
    assert len(ended.said) == len(list(rounds))
    assert "“bad” hurts: -0.2" in "".join(ended.said)
    most = ended.jobs().source.most
    assert ended.said[-1].endswith(f"1 of 4 verdicts open after {len(ended.done)} of {most} trials")


def test_an_interrupted_sweep_reaches_the_same_decisions(ended, tmp_path):
    again, done = Swept(tmp_path), []
    while more := again.run(count=3):  # killed after every third trial, before its look
        done += more
    again.run()
    assert done == ended.done
    for name in (FILE,):
        assert (again.folder.path / name).read_bytes() == (ended.folder.path / name).read_bytes()
    assert again.words() == ended.words()
    assert again.jobs().total == 0


def test_the_decision_is_on_the_disk_before_it_is_carried_out(tmp_path, monkeypatch):
    swept = Swept(tmp_path)
    source = swept.jobs().source
    assert not (swept.folder.path / FILE).exists()  # a dry run leaves nothing
    job = source.next(idle=True)
    assert job.id in Rounds.read(swept.folder.path).begun
    assert source.next(idle=False) is not None
    swept = Swept(tmp_path / "b")
    swept.run(count=18)
    before = (swept.folder.path / FILE).read_bytes()

    def killed(self, sweep):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Rounds, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            swept.jobs().source.next(idle=True)
    assert (swept.folder.path / FILE).read_bytes() == before
    source = swept.jobs().source
    assert source.next(idle=False) is None  # the last trial of a round still runs: no look yet
    assert source.next(idle=True) is not None


def test_a_verdict_is_judged_by_its_look_whatever_is_trained_later(ended, tmp_path):
    swept = Swept(tmp_path)
    shutil.copytree(ended.folder.path, swept.folder.path)
    rounds = Rounds.read(swept.folder.path)
    (look, trials) = rounds.latest("depth", "good")
    found = ended.words()["good"][1]
    # The baseline has more seeds by now than the verdict was reached with.
    assert len(trials) < len(rounds.begun)
    (verdict,) = [
        each
        for answer in verdicts.answers(Sweep(swept.folder.path))
        for each in answer.verdicts
        if each.arm == "good"
    ]
    assert verdict.level == look.level > 0.95
    for job in swept.jobs().planned:  # what no round asked for changes no verdict
        if job.id not in rounds.begun:
            swept.end(job)
    tables.rebuild(swept.folder.path)
    assert swept.words()["good"][1] == found
    text = "".join(
        line for answer in verdicts.answers(Sweep(swept.folder.path)) for line in answer.check
    )
    assert f"{len(rounds.begun)} of" in text
    assert "at most 0.03" in text


def test_a_limit_ends_a_sweep_and_a_higher_one_goes_on(ended, tmp_path):
    swept = Swept(tmp_path)
    first = swept.run(max_trials=20)
    assert len(first) == 20
    assert "open after 20 of" in swept.said[-1]
    second = swept.run()
    assert sorted([*first, *second]) == sorted(ended.done)
    late = Swept(tmp_path / "late")
    assert late.run(max_hours=1e-9) == []
    assert late.jobs().source.end.startswith("4 of 4 verdicts open after 0 of")
    assert Rounds.read(late.folder.path).ended is False
    assert late.run() == ended.done


def test_failed_trials_count_as_none_until_they_are_tried_again(tmp_path):
    swept = Swept(tmp_path)
    swept.failing = {("bad", 0), ("bad", 1)}
    done = swept.run()
    assert swept.words()["bad"][0] == "hurts"
    (look, _) = Rounds.read(swept.folder.path).latest("width", "bad")
    assert "bad-0" in done
    assert look.seeds >= 3
    swept.failing = set()
    assert swept.run() == []
    assert sorted(swept.run(retry_failed=True)) == ["bad-0", "bad-1"]
    assert swept.words()["bad"][0] == "hurts"


def test_a_sweep_keeps_the_rounds_that_it_began_with(tmp_path):
    swept = Swept(tmp_path)
    swept.run(count=1)
    for options, given in (
        ({"delta": 0.04}, "--until-verdict --delta 0.04"),
        ({"train_seeds": "0-6"}, "--train-seeds 0,1,2,3,4,5,6"),
        ({"until_verdict": False}, "no --until-verdict"),
    ):
        with pytest.raises(UserError, match="was begun with --until-verdict") as error:
            swept.jobs(**options)
        assert given in str(error.value)
    assert len(swept.run(question=["depth"])) == 8  # the rest of this question's first round


def test_a_sweep_that_was_begun_without_rounds_goes_on_in_rounds(tmp_path):
    swept = Swept(tmp_path)
    for job in swept.jobs(until_verdict=False).left:
        if job.train_seed < 3:
            swept.end(job)
    done = swept.run()
    assert not [name for name in done if name[-1] in "012"]
    assert swept.words()["bad"][0] == "hurts"


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"delta": 0.0}, "--delta must be above 0 and at most 1, given 0"),
        ({"delta": 1.5}, "--delta must be above 0 and at most 1, given 1.5"),
        ({"delta": float("nan")}, "--delta must be above 0 and at most 1, given nan"),
        ({"max_trials": 17}, "--max-trials must be at least 18, for 3 training seeds"),
        ({"max_trials": 2, "question": ["depth"]}, "--max-trials must be at least 6"),
        ({"max_hours": 0.0}, "--max-hours must be above 0"),
        ({"train_seeds": "3,5"}, "--until-verdict needs at least 3 training seeds, given 2"),
        ({"train_seeds": "0-3,2"}, "every seed may be given once; seed 2 is given twice"),
        ({"train_seeds": ""}, "--train-seeds takes training seeds"),
        ({"train_seeds": "0-100"}, "at most 100 seeds; given 101"),
        ({"train_seeds": "5-3"}, "from the lower to the higher"),
        ({"until_verdict": False, "delta": 0.1}, "--delta belongs to --until-verdict"),
    ],
)
def test_bad_options(tmp_path, options, rule):
    with pytest.raises(UserError) as error:
        Swept(tmp_path).jobs(**options)
    assert rule in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("search: {axes: {policy.energy.width: [8, 16]}}", "is a search"),
        ("questions: {}", "has none that differ"),
        ("questions: {width: {arms: {same: {}}}}", "has none that differ"),
    ],
)
def test_what_has_no_arms_has_no_verdicts(tmp_path, text, rule):
    path = tmp_path / "x.yaml"
    path.write_text(f"version: 1\n{text}\n")
    with pytest.raises(UserError, match=rule):
        Options(path, until_verdict=True).check()


def test_training_seeds_from_the_command_line(tmp_path):
    swept = Swept(tmp_path)
    plan = Options(swept.space, train_seeds="3,7-8").plan
    assert plan.train_seeds == (3, 7, 8)
    seeds = {
        hash_: [trial.train_seed for trial in plan.trials if trial.config_hash == hash_]
        for hash_ in plan.seed_counts(1)
    }
    baseline = seeds.pop(plan.baselines["all"])
    assert baseline == [3, 7, 8, 9, 10, 11]  # for four arms twice as many
    assert set(map(tuple, seeds.values())) == {(3, 7, 8)}
    # Eight for rounds, where the command gives none.
    assert len(Options(swept.space, until_verdict=True).plan.train_seeds) == 8
    console = Console(file=io.StringIO(), width=120)
    plan_table.print_counts(console, swept.folder.path, swept.jobs())
    assert "0 finished, 0 failed, 36 to run" in console.file.getvalue()
    assert TrialFolder(tmp_path).read_status() == {}
