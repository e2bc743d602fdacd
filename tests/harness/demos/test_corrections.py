"""Corrections of a policy's failures: which states, exact restarts, marks, resumption, refusals."""

import io
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from rich.console import Console

import envs.expert
from envs.dataset.recording import Recording
from envs.expert.demonstrator import Episode
from envs.physics.dynamics import World
from envs.physics.geometry import SUCCESS_COVERAGE
from harness.config.protocol import Protocol, caution
from harness.core import errors, files, paths
from harness.core.errors import UserError
from harness.core.seeds import CORRECTION_SEEDS
from harness.demos import __main__ as demos_main
from harness.demos import correction_marks, corrections
from harness.demos.corrections import LEAD, Options, collect_corrections, takeover_steps
from harness.demos.source import open_demos
from harness.demos.statistics import statistics
from harness.evaluation.policy_source import Source
from harness.evaluation.rollout import evaluate_block
from harness.media.recorder import Recorder
from harness.storage import checkpoints
from ibc.data import demos
from tests.commands import Commands

FIRST = CORRECTION_SEEDS.start


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "300")


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[corrections.Takeover]:
    """The takeovers that were planned, by a planner that takes no time."""
    made = []

    def demonstrate(takeover: corrections.Takeover) -> Episode:
        made.append(takeover)
        states = np.tile(np.float32(takeover.state), (3, 1))
        return Episode(states, states[:, :2] + 1, 0.96, success=takeover.step % 2 == 0)

    monkeypatch.setattr(corrections, "demonstrate", demonstrate)
    return made


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `python -m harness.demos ...` in process."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = errors.run(lambda: demos_main.main([str(argument) for argument in arguments]))
        out, err = capfd.readouterr()
        return code, out, err

    return run


def collect(results: Path, out: Path, episodes: int = 2, **more: Any) -> str:
    printed = io.StringIO()
    given = {"policy": "tiny", "workers": 1, "results": results, **more}
    options = Options(out=out, episodes=episodes, **given)
    collect_corrections(options, Console(file=printed, width=300))
    return printed.getvalue()


def contents(store: Path) -> dict[str, bytes]:
    found = sorted(path for path in store.rglob("*") if path.is_file())
    return {str(path.relative_to(store)): path.read_bytes() for path in found}


def test_the_planner_takes_over_before_in_and_long_before_the_stall() -> None:
    progress = [*np.linspace(0, 0.8, 100), *[0.6] * 50, 0.805, *[0.3] * 50]
    for seed in range(50):
        early, lead, stalled = takeover_steps(progress, seed)
        assert lead == 99 - LEAD  # 0.805 is no progress over 0.8
        assert 0 <= early < lead < 99 <= stalled < len(progress)
    assert len({tuple(takeover_steps(progress, seed)) for seed in range(50)}) > 40
    assert takeover_steps(progress, 3) == takeover_steps(progress, 3)


def test_an_episode_without_progress_stalls_from_the_start() -> None:
    for seed in range(20):
        steps = takeover_steps([0.0] * 31, seed)
        assert steps[0] == 0
        assert len(steps) <= 2
        assert steps[-1] <= 30


def test_states_and_velocities_are_those_of_the_rollout(tiny_policy: Callable[..., Any]) -> None:
    recorder = Recorder([FIRST])
    evaluate_block(tiny_policy(), [FIRST], Protocol(max_episode_steps=40), video=recorder)
    steps = recorder.steps[FIRST]
    found = corrections.takeovers_of(FIRST, steps)
    assert [t.step for t in found] == takeover_steps([s.coverage for s in steps], FIRST)
    world = World()
    world.reset(FIRST)
    velocities = [world.agent_velocity]
    for step in steps[:-1]:
        world.step(step.action)
        velocities.append(world.agent_velocity)
    for takeover in found:
        np.testing.assert_array_equal(takeover.state, steps[takeover.step].state.astype("f4"))
        expected = velocities[takeover.step].astype("f4")
        np.testing.assert_array_equal(takeover.agent_velocity, expected)
    assert any(any(takeover.agent_velocity) for takeover in found)


def test_corrections_are_a_data_set_that_replays_to_success(
    tmp_path: Path, tiny_results: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    out = tmp_path / "new" / "a.zarr"
    words = ("--results", tiny_results, "--episodes", 2, "--workers", 1)
    code, _, err = command("collect", "--from-failures", "tiny", "--out", out, *words)
    assert code == 0, err
    assert "of 2 failures on 2 starts" in err
    assert demos.check(out) == []
    assert not list(tmp_path.rglob("*.partial*"))

    root = zarr.open_group(str(out), mode="r")
    opened = open_demos(out, "image")  # drawn, as the store has none
    assert opened.images is not None
    found = statistics(opened)
    assert (found.coverage > SUCCESS_COVERAGE).all()
    assert (found.coverage == found.final_coverage).all()  # an episode ends when it is solved
    assert found.drift_px.max() < 1e-4  # of float32; the agent was not at rest
    assert not found.seeded.any()
    marks = correction_marks.read(out, len(found.coverage))
    assert marks is not None
    assert marks.starts == (FIRST, 2)
    assert [mark.seed for mark in marks.episodes] == root["meta/seeds"][:].tolist()
    assert {mark.seed for mark in marks.episodes} <= {FIRST, FIRST + 1}
    assert any(any(mark.agent_velocity) for mark in marks.episodes)
    best = max(
        (path for path in (tiny_results / "tiny" / "trials").iterdir()),
        key=lambda path: files.read_json(path / "status.json")["select_score"],
    )
    assert marks.policy.startswith(f"trial {best.name} of tiny")
    assert marks.policy_hash == checkpoints.weights_hash(best / "checkpoints" / "best")

    line = str(marks)
    assert f"{len(marks.episodes)} episodes continue 2 of 2 failures of trial" in line
    for name in ("info", "check"):
        code, printed, _ = command(name, "--data", out)
        assert code == 0
        assert line in printed


def test_an_image_policy_is_corrected_too(
    tmp_path: Path, tiny_policy: Callable[..., Any], planned: list[corrections.Takeover]
) -> None:
    policy = tiny_policy(policy__obs_mode="image", policy__inference__samples=2)
    checkpoints.save(tmp_path, "image", policy, config={}, step=1)
    collect(tmp_path, tmp_path / "a.zarr", 1, policy=str(tmp_path / "image"))
    assert planned
    marks = correction_marks.read(tmp_path / "a.zarr", len(planned))
    assert marks is not None
    assert marks.policy == f"checkpoint {tmp_path / 'image'}"


def test_a_collection_killed_at_any_write_goes_on(
    tmp_path: Path,
    tiny_results: Path,
    planned: list[corrections.Takeover],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    collect(tiny_results, tmp_path / "whole.zarr", first_seed=FIRST + 24)
    takeovers, rolled = list(planned), []
    planned.clear()
    atomic, roll = files.atomic, corrections._failures
    written: list[Path] = []

    def killed(path: Path) -> Any:
        if path.name != "made-by.json":
            written.append(path)
            if len(written) % 2 == 0:
                raise KeyboardInterrupt
        return atomic(path)

    monkeypatch.setattr(files, "atomic", killed)
    monkeypatch.setattr(corrections, "_failures", lambda o: rolled.append(o) or roll(o))
    attempts = 0
    while not (tmp_path / "a.zarr").exists():
        attempts += 1
        try:
            collect(tiny_results, tmp_path / "a.zarr", first_seed=FIRST + 24)
        except KeyboardInterrupt:
            assert (tmp_path / "a.zarr.partial").is_dir()
    # Two blocks of a start and every correction: each but the first was killed before its write.
    pieces = 2 + len(takeovers)
    assert attempts == pieces
    assert len(written) == 2 * pieces - 1
    assert len(rolled) == 2 + 1
    assert len(planned) == 2 * len(takeovers)
    assert contents(tmp_path / "a.zarr") == contents(tmp_path / "whole.zarr")


def test_what_was_kept_for_another_policy_or_damaged_is_made_again(
    tmp_path: Path, tiny_results: Path, planned: list[corrections.Takeover]
) -> None:
    collect(tiny_results, tmp_path / "whole.zarr", 1)
    partial = tmp_path / "a.zarr.partial"
    files.write_json("another", partial / "made-by.json")
    files.write_json({}, partial / f"starts-{FIRST}-{FIRST}.json")  # no failures, it says
    collect(tiny_results, tmp_path / "a.zarr", 1)
    assert contents(tmp_path / "a.zarr") == contents(tmp_path / "whole.zarr")


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_command_goes_on_with_any_number_of_workers(
    tmp_path: Path, tiny_results: Path, commands: Commands
) -> None:
    words = ("-m", "harness.demos", "collect", "--from-failures", "tiny", "--episodes", 2)
    words = (*words, "--results", tiny_results, "--out", tmp_path / "a.zarr")
    first = commands.start(*words, "--workers", 1)
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob("a.zarr.partial/seed-*.npz")):
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    code, _, err = commands.run(*words, "--workers", 2)
    assert code == 0, err
    assert demos.check(tmp_path / "a.zarr") == []
    collect(tiny_results, tmp_path / "b.zarr")
    assert contents(tmp_path / "a.zarr") == contents(tmp_path / "b.zarr")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--from-failures", "nothing"), "no folder and no trial of any sweep"),
        (("--from-failures", "unfinished"), "none of the 0 trials of sweep unfinished"),
        (("--from-failures", "tiny", "--episodes", "0"), "--episodes must be at least 1, given 0"),
        (("--from-failures", "tiny", "--workers", "0"), "--workers must be at least 1, given 0"),
        (
            ("--from-failures", "tiny", "--seed-start", "300000"),
            "must lie in 110000 to 199999, given 300000 to 300199",
        ),
        (
            ("--from-failures", "tiny", "--seed-start", "199900"),
            "must lie in 110000 to 199999, given 199900 to 200099",
        ),
        ((), "--results needs --from-failures"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path,
    tiny_results: Path,
    command: Callable[..., tuple[int, str, str]],
    words: tuple[str, ...],
    message: str,
) -> None:
    (tiny_results / "unfinished" / "trials").mkdir(parents=True)
    out = tmp_path / "new.zarr"
    code, _, err = command("collect", "--out", out, "--results", tiny_results, *words)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert not list(tmp_path.glob("*new.zarr*"))


def test_a_policy_without_failures_is_said(
    tmp_path: Path,
    tiny_results: Path,
    command: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Source, "load", lambda source: envs.expert.policy())
    words = ("--results", tiny_results, "--episodes", 1, "--workers", 1)
    code, _, err = command("collect", "--from-failures", "tiny", "--out", tmp_path / "a", *words)
    assert code == 2
    assert err.splitlines()[-1].startswith("error: corrections need a policy that fails, and trial")
    assert err.endswith(f"succeeds on all 1 starts from {FIRST}\n")


def test_a_target_in_use_is_refused(
    tmp_path: Path, tiny_results: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    def run() -> tuple[int, str]:
        words = ("--out", tmp_path / "a.zarr", "--results", tiny_results)
        code, _, err = command("collect", "--from-failures", "tiny", *words)
        return code, err.splitlines()[-1]

    with files.lock(tmp_path / ".a.zarr.partial.lock"):
        code, said = run()
        assert code == 2
        assert said.startswith("error: one process at a time collects to")
    (tmp_path / "a.zarr").mkdir()
    code, said = run()
    assert code == 2
    assert "must be a new store" in said


def test_marks_of_another_schema_are_refused_and_further_episodes_have_none(
    tmp_path: Path, tiny_results: Path, planned: list[corrections.Takeover]
) -> None:
    store = tmp_path / "a.zarr"
    collect(tiny_results, store, 1)
    written = files.read_json(store / ".zattrs")
    marks = written[correction_marks.ATTRIBUTE]
    count = len(marks["episodes"])
    recording = Recording(store)  # a person adds an episode
    recording.append({"state": np.ones((2, 5), "f4"), "action": np.full((2, 2), 99.0)}, 20_000)
    recording.close()
    assert len(correction_marks.read(store, count + 1).episodes) == count  # type: ignore[union-attr]
    assert len(statistics(open_demos(store, ())).lengths) == count + 1
    with pytest.raises(UserError, match=r"\.zattrs: corrections\.episodes: there must be one mark"):
        correction_marks.read(store, count - 1)
    for broken, place in (
        ({**marks, "episodes": [{"seed": 1}]}, r"corrections\.episodes\.0\.step"),
        ("x", "corrections"),
    ):
        files.write_json({**written, correction_marks.ATTRIBUTE: broken}, store / ".zattrs")
        with pytest.raises(UserError, match=place):
            correction_marks.read(store, count)
    shutil.copy(store / ".zgroup", store / ".zattrs")  # attributes of somebody else
    assert correction_marks.read(store, count) is None


def test_starts_of_corrections_are_for_training_alone() -> None:
    assert "corrections" in str(caution([FIRST]))
