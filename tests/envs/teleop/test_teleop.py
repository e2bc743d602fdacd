"""A scripted person demonstrates with synthetic mouse and key events, on a dummy display."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

from envs.dataset.recording import Recording
from envs.expert.demonstrator import Demonstrator
from envs.pusht import PushTEnv
from envs.rendering.observations import render_observations
from envs.seeds import DRIVEN
from envs.teleop import __main__ as teleop_main
from envs.teleop.__main__ import Teleop
from envs.teleop.attempt import NEAR, Attempt
from envs.teleop.screen import KEYS, Screen

pygame = pytest.importorskip("pygame")
ROOT = Path(__file__).resolve().parents[3]
SIZE = 384


@pytest.fixture(autouse=True)
def no_display(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    yield
    pygame.display.quit()


def press(key: int) -> None:
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=key))


def point(target: np.ndarray, size: int = SIZE) -> None:
    """Move the mouse to a point of the board, in px of 512."""
    pixel = tuple(int(v) for v in np.rint(np.asarray(target) * size / 512))
    pygame.event.post(pygame.event.Event(pygame.MOUSEMOTION, pos=pixel))


class Person:
    """Moves the mouse as the planner says; `script` does things at control steps."""

    def __init__(self, play: Teleop, script: dict[int, Callable[[], None]]) -> None:
        self.play, self.script, self.time = play, script, 0
        self._attempt: Attempt | None = None

    def tick(self) -> float:
        self.time += 1
        attempt = self.play.attempt
        if attempt is not self._attempt:
            self._attempt, self._planner = attempt, Demonstrator()
        point(self._planner.act(attempt.state) if attempt.led else attempt.state[:2])
        self.script.get(self.time, lambda: None)()
        assert self.time < 1000
        return 10.0


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Teleop]]:
    kept = []

    def open_set(**settings: int) -> Teleop:
        play = Teleop(Recording(tmp_path / "mine.zarr"), Screen(SIZE), **settings)
        kept.append(play)
        return play

    yield open_set
    for play in kept:
        play.screen.close()
        play.recording.close()


def test_a_person_solves_retries_pauses_leaves_out_and_quits(
    opened: Callable[..., Teleop], tmp_path: Path
) -> None:
    play = opened()
    seen: dict[str, tuple[object, ...]] = {}

    def note(name: str) -> Callable[[], None]:
        def write() -> None:
            attempt = play.attempt
            seen[name] = (
                attempt.seed,
                attempt.steps,
                attempt.state.tolist(),
                play._current_message().text,
            )

        return write

    def both(*steps: Callable[[], None]) -> Callable[[], None]:
        return lambda: [step() for step in steps] and None

    person = Person(
        play,
        {
            1: note("first"),
            20: both(note("before retry"), lambda: press(pygame.K_r)),
            21: note("after retry"),
            40: both(note("before pause"), lambda: press(pygame.K_SPACE)),
            41: note("paused"),
            45: both(note("still paused"), lambda: press(pygame.K_p)),
            60: note("after pause"),
        },
    )
    loop = person.tick

    def tick() -> float:
        if play.saved == 1 and play.attempt.seed == 20_001 and play.attempt.steps == 3:
            press(pygame.K_n)
        if play.saved == 1 and play.attempt.seed == 20_002 and play.attempt.steps == 30:
            press(pygame.K_s)
        if play.saved == 2 and play.attempt.steps == 25:
            press(pygame.K_q)
        return loop()

    play.run(tick)
    assert seen["first"][1] == 0
    assert seen["before retry"][1] == 19
    assert seen["after retry"][:3] == (20_000, 0, seen["first"][2])
    assert "Same start" in seen["after retry"][3]
    assert seen["before pause"][1] == 19
    assert seen["paused"] == seen["still paused"]
    assert seen["paused"][1:3] == seen["before pause"][1:3]
    assert "Paused" in seen["paused"][3]
    assert seen["after pause"][1] > 25
    play.recording.close()

    root = zarr.open_group(tmp_path / "mine.zarr", mode="r")
    assert root["meta/seeds"][:].tolist() == [20_000, 20_002]
    ends = root["meta/episode_ends"][:].tolist()
    assert ends[1] == ends[0] + 30
    replayed(tmp_path / "mine.zarr", solved=[True, False])
    # The attempt that was under way when they quit is not there; the next run begins at it.
    again = Recording(tmp_path / "mine.zarr")
    assert Teleop(again, play.screen).attempt.seed == 20_003
    again.close()


def replayed(path: Path, solved: list[bool]) -> None:
    """Hold every recorded array against a replay through the environment."""
    root = zarr.open_group(path, mode="r")
    env, start = PushTEnv(), 0
    for seed, end, success in zip(
        root["meta/seeds"][:].tolist(), root["meta/episode_ends"][:].tolist(), solved, strict=True
    ):
        observation, info = env.reset(seed=seed)
        assert seed in DRIVEN
        for row in range(start, end):
            assert np.array_equal(observation.astype(np.float32), root["data/state"][row])
            assert root["data/n_contacts"][row] == info["n_contacts"]
            observation, _, done, _, info = env.step(root["data/action"][row])
            assert done == (success and row == end - 1)
        assert info["is_success"] == success
        start = end
    states = root["data/state"][:].astype(np.float64)
    drawn = render_observations(states)
    # States are rounded to float32, which may move an edge's pixel.
    assert (root["data/img"][:] != drawn).mean() < 1e-3
    assert root["data/img"].dtype == np.float32


@pytest.mark.slow
def test_what_a_person_made_is_checked_trained_on_and_read_by_others(
    opened: Callable[..., Teleop], tmp_path: Path
) -> None:
    play = opened(fps=50)
    person = Person(play, {})

    def tick() -> float:
        if play.saved == 2:
            pygame.event.post(pygame.event.Event(pygame.QUIT))
        return person.tick()

    play.run(tick)
    play.recording.close()
    path = tmp_path / "mine.zarr"
    replayed(path, solved=[True, True])
    environment = {**os.environ, "IBC_HARNESS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "harness.demos", "check", "--data", path],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("no faults\n")
    trained = subprocess.run(
        [sys.executable, "-c", TWO_STEPS, path],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    assert [float(loss) > 0 for loss in trained.stdout.split()] == [True, True]


TWO_STEPS = """
import sys
from harness.core import seeds
from harness.demos.source import open_demos
from ibc import PolicyConfig, TrainConfig, Trainer, build_policy, fit_normalizer
from ibc.data.windows import Windows
for mode in ("keypoints", "image"):
    demos = open_demos(sys.argv[1], mode)
    config = PolicyConfig(obs_mode=mode)
    train, val = (Windows(demos, [k], mode, config.obs_horizon, 1) for k in (0, 1))
    policy = build_policy(config, fit_normalizer(config, train), generator_seed=0)
    settings = TrainConfig(steps=2, batch_size=4, micro_batch=4, warmup_steps=0, val_windows=4)
    metrics = Trainer(policy, train, val, settings, seeds.streams(0)).run_epoch()
    print(metrics["train_loss"])
"""


def test_the_world_waits_for_the_pointer() -> None:
    attempt = Attempt(20_000)
    start = attempt.state
    attempt.follow(None)
    attempt.follow((start[0] + NEAR + 1, start[1]))
    assert attempt.steps == 0
    assert np.array_equal(attempt.state, start)
    attempt.follow((start[0] + NEAR - 1, start[1]))
    attempt.follow((700.0, -90.0))  # beside the board
    assert attempt.steps == 2
    assert attempt.rows()["action"][-1].tolist() == [512, 0]
    held = attempt.state
    attempt.release()
    attempt.follow((700.0, -90.0))
    assert np.array_equal(attempt.state, held)


def test_what_is_shown(opened: Callable[..., Teleop]) -> None:
    play = opened()
    shots = []

    def tick() -> float:
        shots.append(pygame.surfarray.array3d(play.screen._surface).transpose(1, 0, 2))
        return Person.tick(person) if len(shots) < 20 else press(pygame.K_q) or 0.0

    person = Person(play, {10: lambda: press(pygame.K_SPACE)})
    play.run(tick)
    assert shots[0].shape == (SIZE + SIZE // 5, SIZE, 3)
    x, y = (round(v * SIZE / 512) for v in Attempt(20_000).state[:2])
    assert shots[0][y, x].tolist() == [78, 126, 255]  # the agent
    orange, red = (220, 90, 40), (255, 0, 0)
    rings = [(shot == orange).all(axis=2).sum() > 50 for shot in shots]
    crosses = [(shot[:SIZE] == red).all(axis=2).any() for shot in shots]
    assert (rings[0], rings[5], rings[12]) == (True, False, True)  # waits, leads, paused
    assert (crosses[0], crosses[5], crosses[12]) == (False, True, False)
    panels = [shot[SIZE:] for shot in shots]
    assert not np.array_equal(panels[0], panels[5])
    # What is longest on the screen fits in.
    width = play.screen._small.size(KEYS)[0]
    numbers = play._numbers(10.0).replace("step 9", "step 1234")
    told = "Solved and saved (1234 steps, 95.1%). Next: the disc"
    assert max(width, play.screen._small.size(numbers)[0]) < SIZE * 0.96
    assert play.screen._large.size(told)[0] < SIZE * 0.96


def test_another_window_in_front_pauses(opened: Callable[..., Teleop]) -> None:
    play = opened()
    point(play.attempt.state[:2])
    play.handle(pygame.event.get(pygame.MOUSEMOTION)[0])
    play.handle(pygame.event.Event(pygame.WINDOWFOCUSLOST))
    assert not play.paused  # nothing is going on
    play.advance()
    assert play.attempt.steps == 1
    play.handle(pygame.event.Event(pygame.WINDOWFOCUSLOST))
    play.advance()
    assert play.paused
    assert play.attempt.steps == 1


def test_saving_before_the_beginning_is_answered(opened: Callable[..., Teleop]) -> None:
    play = opened()
    play.handle(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_s))
    assert play.saved == 0
    assert play._current_message().text == "Nothing to save: the attempt has no step yet"


def test_an_episode_that_cannot_be_saved_is_held_until_it_can(
    opened: Callable[..., Teleop], monkeypatch: pytest.MonkeyPatch
) -> None:
    play = opened()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Recording, "append", full)
        play.attempt.follow(tuple(play.attempt.state[:2]))
        play.handle(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_s))
        held = play.attempt
        play.advance()
        assert play._current_message().text == "NOT saved: No space left on device. S retries"
        assert (play.saved, held.steps) == (0, 1)
    play.handle(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_s))
    assert play.saved == play.recording.episodes == 1
    assert play.attempt is not held


def test_starts_are_never_reserved_or_used_twice(opened: Callable[..., Teleop]) -> None:
    play = opened(first_seed=99_999)
    for expected in (99_999, 100_050, 100_051):
        assert play.attempt.seed == expected
        play.attempt.follow(tuple(play.attempt.state[:2]))
        play.handle(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_s))
    assert Teleop(play.recording, play.screen, 100_050).attempt.seed == 100_052
    assert Teleop(play.recording, play.screen).attempt.seed == 100_052
    assert Teleop(play.recording, play.screen, 200_000).attempt.seed == DRIVEN.start


def command(*arguments: object, **variables: str) -> subprocess.Popen[str]:
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER", "XDG_RUNTIME_DIR")
    environment = {k: v for k, v in os.environ.items() if k not in hidden} | variables
    return subprocess.Popen(
        [sys.executable, "-m", "envs.teleop", *map(str, arguments)],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_missing_display_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    with command("--out", tmp_path / "mine.zarr") as process:
        out, err = process.communicate(timeout=60)
    said = "error: a window needs a display, got none of DISPLAY, WAYLAND_DISPLAY\n"
    assert (process.returncode, out, err) == (2, "", said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order(tmp_path: Path, number: signal.Signals) -> None:
    with command("--out", tmp_path / "mine.zarr", SDL_VIDEODRIVER="dummy") as process:
        for _ in range(600):
            if (tmp_path / ".mine.zarr.lock").exists():
                break
            pygame.time.wait(50)
        pygame.time.wait(1500)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (128 + number, "no episode was saved\n", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "the following arguments are required: --out"),
        (("--out", "a.zarr", "--size", "511"), "--size must be even, 320 to 2048, got 511"),
        (("--out", "a.zarr", "--size", "99999"), "--size must be even, 320 to 2048, got 99999"),
        (("--out", "a.zarr", "--fps", "0"), "--fps must be 1 to 50, got 0"),
        (("--out", "a.zarr", "--fps", "ten"), "invalid int value: 'ten'"),
        (("--out", "a.zarr", "--seed", "-1"), "a seed must lie between 0 and"),
        (("--out", "a.zarr", "--seed", "300000"), "--seed must not be one of"),
        (("--out", "a.zarr", "--seed", "400000"), "--seed must not be one of"),
        (("--out", "a.zarr", "--seed", "205"), "--seed must not be one of"),
        (("--out", "file/a.zarr"), "the folder of --out must be writable"),
        (("--out", "file"), "--out must be a new name or a zarr v2 store"),
        (("--out", "."), "--out must be a new name or a zarr v2 store"),
    ],
)
def test_each_mistake_is_one_line(
    arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    assert teleop_main.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
