"""Demonstrate PushT with the mouse; every solved episode is saved at once.

    python -m envs.teleop --out data/mine.zarr

Move the pointer to the blue disc: the disc follows it and the simulation starts. Push the T onto
the green goal; above 95 % coverage the episode is saved and the next start appears. Keys: R retries
the start, N skips to another, S saves the attempt unsolved, SPACE (or P) pauses, Q (or Escape)
quits. An unfinished attempt is not saved.

The data set has Diffusion Policy's layout; episodes are appended to an existing one.
"""

import argparse
import contextlib
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import pygame

from envs.argument_checks import check_seed
from envs.dataset.recording import Recording
from envs.physics.dynamics import CONTROL_HZ
from envs.seeds import DRIVEN, EVALUATED, is_reserved
from envs.teleop.attempt import Attempt, Point
from envs.teleop.screen import Message, Screen

SIZES, RATES = range(320, 2049), range(1, 51)
BEGIN = Message("Move the mouse to the blue disc to begin", "wait")
RESUME = Message("Move the mouse to the blue disc to resume", "wait")
PUSH = Message("Push the T onto the green goal", "go")
PAUSED = Message("Paused: SPACE resumes", "wait")


class Teleop:
    """The event loop between a person and the data set, on pygame's events."""

    def __init__(
        self, recording: Recording, screen: Screen, first_seed: int | None = None, fps: int = 10
    ) -> None:
        self.recording, self.screen, self.fps = recording, screen, fps
        self.saved = 0  # episodes in this run
        self._used = set(recording.seeds or ())
        if first_seed is None:
            # A data set without seeds counts as one that used the first seeds.
            first_seed = max([DRIVEN.start + recording.episodes - 1, *self._used]) + 1
        self.attempt = Attempt(self._free(first_seed))
        self.message = BEGIN
        self.paused = self.quit = False
        self._pointer: Point | None = None
        self._unsaved: str | None = None  # why the finished episode could not be saved

    def run(self, tick: Callable[[], float] | None = None) -> None:
        """Handle events, step and draw until the person quits.

        `tick` waits for the next control step and returns the frame rate (default: at `fps`).
        """
        clock, rate = pygame.time.Clock(), 0.0
        while not self.quit:
            for event in pygame.event.get():
                self.handle(event)
            if not self.quit:
                self.advance()
                self.screen.show(self.attempt, self._current_message(), self._numbers(rate))
                if tick is None:
                    clock.tick(self.fps)
                    rate = clock.get_fps()
                else:
                    rate = tick()

    def handle(self, event: pygame.event.Event) -> None:
        """Handle one event."""
        if event.type == pygame.QUIT:
            self.quit = True
        elif event.type == pygame.MOUSEMOTION:
            self._pointer = self.screen.board_point(event.pos)
        elif event.type == pygame.WINDOWFOCUSLOST and self.attempt.led:
            self._pause()  # the mouse is in another window
        elif event.type == pygame.KEYDOWN:
            self._press(event.key)

    def advance(self) -> None:
        """Take one control step, and save the episode if that solved it."""
        if self.paused or self._unsaved is not None:
            return
        waited = not self.attempt.led
        self.attempt.follow(self._pointer)
        if waited and self.attempt.led:
            self.message = PUSH
        if self.attempt.solved:
            self._save()

    def _press(self, key: int) -> None:
        if key in (pygame.K_q, pygame.K_ESCAPE):
            self.quit = True
        elif key in (pygame.K_SPACE, pygame.K_p):
            if self.paused:
                self.paused = False
                self.message = RESUME if self.attempt.steps else BEGIN
            else:
                self._pause()
        elif key == pygame.K_s:
            if self.attempt.steps:
                self._save()
            else:
                self.message = Message("Nothing to save: the attempt has no step yet", "bad")
        elif key == pygame.K_r:
            self._begin(
                self.attempt.seed, Message("Same start: move the mouse to the disc", "wait")
            )
        elif key == pygame.K_n:
            text = f"Start {self.attempt.seed} skipped: move the mouse to the disc"
            self._begin(self.attempt.seed + 1, Message(text, "wait"))

    def _pause(self) -> None:
        self.paused = True
        self.attempt.release()

    def _begin(self, seed: int, message: Message) -> None:
        self._unsaved, self.paused = None, False
        self.attempt, self.message = Attempt(self._free(seed)), message

    def _save(self) -> None:
        """Save the episode; if the disk refuses, keep it until the person retries."""
        attempt = self.attempt
        try:
            self.recording.append(attempt.rows(), attempt.seed)
        except (OSError, ValueError) as error:
            self._unsaved = getattr(error, "strerror", None) or str(error)
            attempt.release()
            return
        self.saved += 1
        self._used.add(attempt.seed)
        solved = "Solved and saved" if attempt.solved else "Saved unsolved"
        text = f"{solved} ({attempt.steps} steps, {attempt.coverage:.1%}). Next: the disc"
        self._begin(attempt.seed + 1, Message(text, "good"))

    def _current_message(self) -> Message:
        if self._unsaved is not None:
            return Message(f"NOT saved: {self._unsaved}. S retries", "bad")
        return PAUSED if self.paused else self.message

    def _numbers(self, rate: float) -> str:
        return (
            f"episode {self.recording.episodes + 1}    start {self.attempt.seed}    "
            f"step {self.attempt.steps}    {self.saved} saved now    {rate:.0f} frames/s"
        )

    def _free(self, seed: int) -> int:
        """Return the first seed from `seed` on that is neither used in this set nor reserved."""
        while seed in self._used or is_reserved(seed):
            seed = DRIVEN.start if seed in EVALUATED else seed + 1
        return seed


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (--help lists the options)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 2 (bad input), 130 or 143 (interrupted; saved episodes stay)."""
    try:
        return _demonstrate(_parsed(arguments))
    except ValueError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m envs.teleop",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="PATH.zarr")
    parser.add_argument(
        "--seed",
        type=int,
        help=f"the first episode's start (default: the next of {DRIVEN.start} and on)",
    )
    parser.add_argument("--size", type=int, default=512, help="the board's width in pixels")
    parser.add_argument(
        "--fps", type=int, default=CONTROL_HZ, help="control steps per second; 10 is real time"
    )
    given = parser.parse_args(arguments)
    if given.size not in SIZES or given.size % 2:
        raise ValueError(f"--size must be even, {SIZES[0]} to {SIZES[-1]}, got {given.size}")
    if given.fps not in RATES:
        raise ValueError(f"--fps must be {RATES[0]} to {RATES[-1]}, got {given.fps}")
    if given.seed is not None and is_reserved(check_seed(given.seed)):
        raise ValueError(
            "--seed must not be one of the demonstrations' (0-205), the paper's (100000-100049) or "
            f"the evaluations' (from 200000 on), got {given.seed}"
        )
    return given


def _demonstrate(given: argparse.Namespace) -> int:
    arrived: list[int] = []

    def leave(signum: int, frame: FrameType | None) -> None:
        arrived.append(signum)
        teleop.quit = True  # the loop ends after the current step, never within a save

    with contextlib.ExitStack() as stack:
        recording = Recording(given.out.expanduser())
        stack.callback(recording.close)
        screen = Screen(given.size)
        teleop = Teleop(recording, screen, given.seed, given.fps)
        for signum in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, signum, signal.signal(signum, leave))
        stack.callback(screen.close)
        teleop.run()
    if recording.episodes:
        found = f"{recording.episodes} episodes, {recording.steps} steps"
        print(f"{given.out}: {found}; {teleop.saved} new")
    else:
        print("no episode was saved")
    return 128 + arrived[0] if arrived else 0


if __name__ == "__main__":
    sys.exit(main())
