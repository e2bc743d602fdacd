"""One trial: numbers that are none, pauses, clocks that jump, data that was swapped."""

import io
import json
import math
import os
import time

import pytest
import torch
from rich.console import Console

from harness.config import plan as config_plan
from harness.config import protocol, trial_config
from harness.core import files
from harness.core.errors import UserError
from harness.demos import source as demos_source
from harness.scheduling.jobs import planned_job
from harness.storage import checkpoints, table_schemas, tables
from harness.sweep import driver
from harness.sweep.driver import sweep
from harness.sweep.folder import SweepFolder
from harness.sweep.options import Options
from harness.trials import runner
from harness.trials.runner import run_trial
from ibc.training.trainer import Trainer
from tests import bare_sweep

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]


@pytest.fixture(autouse=True)
def short_episodes(monkeypatch):
    monkeypatch.setattr(runner, "PROTOCOL", protocol.Protocol(max_episode_steps=6))


@pytest.fixture
def tiny(tiny_settings):
    return trial_config.resolve(tiny_settings)


def poison(real, value):
    """Wrap a method that returns a tensor or a mapping of them: the first number is spoilt."""

    def spoilt(*given, **more):
        found = real(*given, **more)
        tensors = found.values() if isinstance(found, dict) else [found]
        for tensor in tensors:
            tensor.view(-1)[0].data.fill_(value) if tensor.ndim else tensor.data.fill_(value)
        return found

    return spoilt


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["weights", "action"])
def test_a_number_that_is_none_fails_the_trial_and_never_becomes_best(
    tiny, tiny_data, tmp_path, monkeypatch, where, value
):
    """From the second epoch on, after a first selection that went well."""
    epoch = Trainer.run_epoch
    real = runner.evaluate_block

    def broken_weights(self):
        if self.step >= 4:
            next(iter(self.policy.parameters())).data.fill_(value)
        return epoch(self)

    def broken_action(policy, *given):
        step = json.loads((tmp_path / "status.json").read_text())["step"]
        if step > 4:
            monkeypatch.setattr(
                type(policy), "predict_action", poison(type(policy).predict_action, value)
            )
        return real(policy, *given)

    if where == "weights":
        monkeypatch.setattr(Trainer, "run_epoch", broken_weights)
    else:
        monkeypatch.setattr(runner, "evaluate_block", broken_action)
    with pytest.raises((ArithmeticError, RuntimeError, ValueError)):
        run_trial(tiny, tmp_path, demos=tiny_data)
    status = json.loads((tmp_path / "status.json").read_text())
    assert status["status"] == "failed"
    said = {"weights": "must stay finite", "action": "an action is finite"}[where]
    assert said in status["error"]
    assert checkpoints.describe(tmp_path / "checkpoints/best")["step"] == 4
    assert status["best_step"] == 4


def test_an_energy_that_is_no_number_ends_the_episode_in_words(
    tiny, tiny_data, tmp_path, monkeypatch
):
    real = runner.evaluate_block

    def broken_energies(policy, *given):
        for parameter in policy.parameters():
            parameter.data.fill_(math.nan)
        return real(policy, *given)

    monkeypatch.setattr(runner, "evaluate_block", broken_energies)
    with pytest.raises(runner.RolloutError, match=r"(?i)finite|nan|inf"):
        run_trial(tiny, tmp_path, demos=tiny_data)
    assert checkpoints.find(tmp_path / "checkpoints", "best") is None


def test_four_epochs_are_two_and_two_more_in_every_tensor(tiny, tiny_data, tmp_path, numbers_of):
    def stop(metrics):
        if metrics["step"] == 4:
            raise KeyboardInterrupt

    whole, halves = tmp_path / "whole", tmp_path / "halves"
    run_trial(tiny, whole, demos=tiny_data)
    with pytest.raises(KeyboardInterrupt):
        run_trial(tiny, halves, stop, demos=tiny_data)
    torch.rand(7)  # the process's own randomness is no trial's business
    run_trial(tiny, halves, demos=tiny_data)
    assert numbers_of(halves) == numbers_of(whole)
    # Weights, their average, the optimiser, every random stream.
    states = [
        checkpoints.load_training_state(path / "checkpoints/last")["trainer"]
        for path in (whole, halves)
    ]
    assert same(*states)
    assert {"weights", "ema", "optimizer", "generators"} <= states[0].keys()


def same(a, b):
    """Whether two trees of tensors and plain values are equal to the bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize("jump", [-3600.0, 3600.0, -1e9])
def test_a_clock_that_jumps_changes_no_number_and_no_order(
    tiny, tiny_data, tmp_path, numbers_of, monkeypatch, jump
):
    """An hour back or forth is the summer time's end or beginning; the last a dead battery."""
    undisturbed = tmp_path / "a"
    run_trial(tiny, undisturbed, demos=tiny_data)
    clock = [time.time()]

    def now():
        clock[0] += 0.01
        return clock[0]

    def jumps(metrics):
        clock[0] += jump
        if metrics["step"] == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "time", now)
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    jumped = tmp_path / "sweep/trials/b"
    with pytest.raises(KeyboardInterrupt):
        run_trial(tiny, jumped, jumps, demos=tiny_data)
    run_trial(tiny, jumped, jumps, demos=tiny_data)
    monkeypatch.undo()
    time.tzset()
    assert numbers_of(jumped) == numbers_of(undisturbed)
    assert json.loads((jumped / "status.json").read_text())["train_seconds"] > 0
    curves = tables.read(tmp_path / "sweep", "curves")
    assert curves["step"].to_pylist() == [2, 4, 6, 8]


def test_an_episode_that_was_rolled_out_twice_counts_once_whatever_the_clock_says(golden):
    (path,) = (golden / "golden/trials").glob("ae9d6b4ceea4-s0/episodes/eval-*")
    before = tables.read(golden / "golden", "episodes").num_rows
    table = table_schemas.read_file(path, "episodes")
    again = path.with_name(path.name.replace("eval-0001", "eval-0002"))
    table_schemas.write(table, again)
    old = 1e9  # 2001: before everything else there
    os.utime(again, (old, old))
    assert tables.read(golden / "golden", "episodes").num_rows == before


def test_a_sweep_whose_data_was_swapped_refuses_and_says_which(
    commands, write_demos, tmp_path, monkeypatch
):
    monkeypatch.setattr(driver, "estimate", bare_sweep.estimate)
    path = tmp_path / "demos.zarr"
    write_demos(path, lengths=(20, 15, 25))
    source = demos_source.resolve_source(path)
    plan = config_plan.plan(commands.space)
    folder = SweepFolder(commands.results / "tiny-standard")
    jobs = [planned_job(each, "tiny-standard") for each in plan.trials]
    first = demos_source.fingerprint(source)
    folder.write_plan(plan, commands.space, jobs, source, first)
    options = Options(space=commands.space, data=(path,), results=commands.results, dry_run=True)
    assert sweep(options, Console(file=io.StringIO())) == 0
    write_demos(path, lengths=(20, 15, 25), seed=1)
    second = demos_source.fingerprint(source)
    with pytest.raises(UserError) as refused:
        sweep(options, Console(file=io.StringIO()))
    said = str(refused.value)
    assert str(path) in said
    assert first[:12] in said
    assert second[:12] in said
    assert files.read_json(folder.path / "plan.json")["dataset"]["fingerprint"] == first


def test_more_than_a_thousand_trials_need_a_yes(commands, monkeypatch):
    monkeypatch.setattr(driver, "estimate", bare_sweep.estimate)
    values = ", ".join(str(k) for k in range(1, 1002))
    head = commands.space.read_text().partition("    arms:")[0]
    commands.space.write_text(f"{head}    grid: {{train.warmup_steps: [{values}]}}\n")
    options = Options(space=commands.space, data=(commands.data,), results=commands.results)
    with pytest.raises(UserError, match=r"more than 1,000 trials need --yes, given 1,00[12]"):
        sweep(options, Console(file=io.StringIO()))
    assert not list(commands.results.rglob("plan.json"))
