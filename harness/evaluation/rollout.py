"""Rolls a policy out: steps a block of episodes in lockstep and returns one row for each.

Legend: B episodes of the block, b those still running, T obs horizon, H action horizon.
"""

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from typing import Protocol as Structural

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from envs.batched import LockstepPushT
from envs.physics.geometry import SUCCESS_COVERAGE
from harness.config.protocol import Protocol as Protocol
from harness.core import seeds as seeding
from harness.core.text import one_line

IDLE_PX = 1.0
FARTHEST_PX = 1e6  # beyond, the arithmetic of the simulation would overflow
_MAX_ERROR = 400
Floats = NDArray[np.float64]

# Called for every state of an episode: seed, state (5,), the action applied there (2,), None at the
# last one, and the coverage.
Watch = Callable[[int, Floats, Floats | None, float], None]


class Predicts(Structural):
    """A policy; obs_mode ("state") and obs_horizon (1) are optional attributes.

    reset(), if there is one, is called before each block of episodes of a policy given by
    --policy, and torch's, numpy's and Python's global generators are seeded from the block's seeds.
    If uses_previous is true, predict_action gets a third argument: the actions (b, H, 2) px of its
    last prediction, a single NaN action before the first one.
    """

    def predict_action(
        self, obs: dict[str, Tensor], generators: Sequence[torch.Generator], /
    ) -> Tensor | Mapping[str, Tensor]:
        """Return actions (b, H, 2) px for raw observations (b, T, ...), all H to be executed.

        Of a dictionary, its "action" counts.
        """


def evaluate_block(
    policy: Predicts, seeds: Sequence[int], protocol: Protocol, *, video: Watch | None = None
) -> list[dict[str, Any]]:
    """Roll the policy out from each seed and return one row an episode, in the order of the seeds.

    An error of the policy is the row's `error`, and its numbers are None then: an exception ends
    the episodes of its batch, an action that is not finite only its own. Rows have the columns of
    `tables.SCHEMAS["episodes"]` without sweep, config_hash, train_seed, checkpoint_step and
    policy_hash. action_jerk: mean norm of the third difference of the actions (px per step cubed).
    idle_share: share of steps that moved the agent by less than 1 px. policy_ms, env_ms,
    render_ms: this episode's share of the block's total time in milliseconds.
    """
    # Policies of this project cache what stays the same from step to step.
    with getattr(policy, "acting", nullcontext)():
        block = _Block(policy, seeds, protocol, video)
        while block.running.any():
            block.act()
    return [block.row(i) for i in range(len(seeds))]


def rules(protocol: Protocol) -> dict[str, Any]:
    """Return the columns of a row that say by which rules it was rolled out."""
    return {
        "protocol_hash": protocol.hash,
        "execute_delay": protocol.execute_delay,
        "repeat": protocol.repeat,
    }


def error_text(error: Exception) -> str:
    """Return the type, message and place of an error in one line."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
    return one_line(text)[:_MAX_ERROR]


class _Block:
    def __init__(
        self, policy: Predicts, seeds: Sequence[int], protocol: Protocol, watch: Watch | None
    ) -> None:
        self.policy, self.seeds, self.protocol, self.watch = policy, seeds, protocol, watch
        B = len(seeds)
        self.world = LockstepPushT(
            seeds,
            obs_mode=getattr(policy, "obs_mode", "state"),
            max_episode_steps=protocol.max_episode_steps,
        )
        self.previous: Floats = np.full((B, 1, 2), np.nan)
        self.generators = [
            seeding.episode_generator(seed, repeat=protocol.repeat) for seed in seeds
        ]
        self.errors: dict[int, str] = {}
        self.milliseconds = {name: np.zeros(B) for name in ("policy", "env", "render")}
        self.actions: list[Floats] = []
        self.frames = [self.timed_world(np.ones(B, bool), self.world.reset)] * int(
            getattr(policy, "obs_horizon", 1)
        )
        self.agents = [self.world.states[:, :2].copy()]

    @property
    def running(self) -> NDArray[np.bool_]:
        running: NDArray[np.bool_] = np.array(self.world.active, bool)
        running[list(self.errors)] = False
        return running

    def act(self) -> None:
        """Plan for all running episodes at once, then execute the whole chunk.

        During the protocol's delay the world moves on with the last action.
        """
        rows = np.flatnonzero(self.running)
        began = time.perf_counter()
        try:
            chunk_bHA = self.predict(rows)
        except Exception as error:
            self.errors |= dict.fromkeys(rows.tolist(), error_text(error))
            return
        self.milliseconds["policy"][rows] += (time.perf_counter() - began) * 1e3 / len(rows)
        chunk_BHA = np.zeros((len(self.seeds), *chunk_bHA.shape[1:]))
        chunk_BHA[rows] = chunk_bHA
        self.previous = chunk_BHA
        for _ in range(self.protocol.execute_delay):
            self.step(self.actions[-1] if self.actions else self.agents[-1])
            if not self.running.any():
                return
        for h in range(chunk_BHA.shape[1]):
            self.step(chunk_BHA[:, h])
            if not self.running.any():
                return

    def predict(self, rows: NDArray[np.intp]) -> Floats:
        obs = {name: self.history(name, rows) for name in self.frames[-1]}
        given: list[Any] = [obs, [self.generators[row] for row in rows]]
        if getattr(self.policy, "uses_previous", False):
            given.append(torch.from_numpy(self.previous[rows].astype(np.float32)))
        with torch.no_grad():
            actions: Any = self.policy.predict_action(*given)
        if isinstance(actions, Mapping):  # Diffusion Policy's form
            actions = actions["action"]
        chunk = torch.as_tensor(actions).detach().to("cpu", torch.float64).numpy()
        if chunk.ndim != 3 or chunk.shape[::2] != (len(rows), 2) or chunk.shape[1] < 1:
            raise ValueError(
                f"predict_action must return actions of shape ({len(rows)}, H, 2), "
                f"given {tuple(chunk.shape)}"
            )
        return chunk

    def history(self, name: str, rows: NDArray[np.intp]) -> Tensor:
        stacked = np.stack([frame[name][rows] for frame in self.frames], 1)
        # Demonstrations hold float32, so that is what a policy sees here too.
        return torch.from_numpy(stacked.astype(np.float32) if stacked.dtype == float else stacked)

    def step(self, actions_BA: Floats) -> None:
        running = self.running
        usable = (np.abs(actions_BA) <= FARTHEST_PX).all(1)  # false for NaN too
        for row in np.flatnonzero(running & ~usable):
            given = ", ".join(f"{value:g}" for value in actions_BA[row])
            self.errors[int(row)] = (
                f"an action is finite and within {FARTHEST_PX:g} px of the board, "
                f"given ({given}) in step {len(self.actions)}"
            )
            running[row] = False
        if not running.any():
            return
        # The simulation may still step an episode that failed here; its agent stays in place.
        actions_BA = np.where(running[:, None], actions_BA, self.world.states[:, :2])
        self.show(running, actions_BA)
        frame = self.timed_world(running, lambda: self.world.step(actions_BA))
        self.frames = [*self.frames[1:], frame]
        self.actions.append(actions_BA)
        self.agents.append(self.world.states[:, :2].copy())
        self.show(running & ~self.world.active, None)

    def timed_world(
        self, running: NDArray[np.bool_], work: Callable[[], Mapping[str, NDArray[Any]]]
    ) -> dict[str, NDArray[Any]]:
        env, render = self.world.env_seconds, self.world.render_seconds
        frame = dict(work())
        share = 1e3 / running.sum()
        self.milliseconds["env"][running] += (self.world.env_seconds - env) * share
        self.milliseconds["render"][running] += (self.world.render_seconds - render) * share
        return frame

    def show(self, rows: NDArray[np.bool_], actions_BA: Floats | None) -> None:
        if self.watch is not None:
            for row in np.flatnonzero(rows):
                action = None if actions_BA is None else actions_BA[row]
                coverage = float(self.world.coverage[row])
                self.watch(self.seeds[int(row)], self.world.states[row].copy(), action, coverage)

    def row(self, i: int) -> dict[str, Any]:
        row: dict[str, Any] = {
            **rules(self.protocol),
            "env_seed": int(self.seeds[i]),
            **{f"{name}_ms": float(spent[i]) for name, spent in self.milliseconds.items()},
        }
        if i in self.errors:
            return {**row, "error": self.errors[i]}
        world, length = self.world, int(self.world.length[i])
        best = float(world.max_coverage[i])
        actions = np.array([action[i] for action in self.actions[:length]]).reshape(-1, 2)
        agents = np.array([agent[i] for agent in self.agents[: length + 1]])
        moved = np.linalg.norm(np.diff(agents, axis=0), axis=1)
        third = np.linalg.norm(np.diff(actions, 3, axis=0), axis=1)
        return {
            **row,
            "max_coverage": best,
            "final_coverage": float(world.coverage[i]),
            "score": min(1.0, best / SUCCESS_COVERAGE),
            "success": bool(world.success[i]),
            "length": length,
            "terminated": bool(world.terminated[i]),
            "truncated": bool(world.truncated[i]),
            "success_at_reset": bool(world.success_at_reset[i]),
            "action_jerk": float(third.mean()) if len(third) else None,
            "idle_share": float((moved < IDLE_PX).mean()) if len(moved) else None,
            "error": None,
        }
