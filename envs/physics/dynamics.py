"""The bodies of PushT and the ten substeps of one control step, on Chipmunk through pymunk.

Two engines step the same bodies, to the same bits: `pymunk` uses pymunk's public API, `cffi` calls
Chipmunk's C functions directly and saves pymunk's Python in between.
"""

import functools
import math
import struct
from array import array
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pymunk

from envs.argument_checks import check_seed, check_vector

Engine = Literal["auto", "cffi", "pymunk"]
BOARD = 512.0
AGENT_RADIUS = 15.0
CONTROL_HZ = 10
SUBSTEPS = 10
DT = 0.01
STIFFNESS = 100.0
DAMPING = 20.0

# The block's rectangles in its own frame (px), in the order in which they are simulated and drawn.
BAR = ((-60.0, 30.0), (60.0, 30.0), (60.0, 0.0), (-60.0, 0.0))
STEM = ((-15.0, 30.0), (-15.0, 120.0), (15.0, 120.0), (15.0, 30.0))
CENTRE_OF_GRAVITY = (0.0, 45.0)
WALLS = (
    ((5, 506), (5, 5)),
    ((5, 5), (506, 5)),
    ((506, 5), (506, 506)),
    ((5, 506), (506, 506)),
)
Values = tuple[float, float, float, float, float]


class World:
    """One episode's bodies: the agent, the block and the walls.

    Positions are px on the 512 x 512 board, y down; the angle is rad. Engine `auto` is `cffi` where
    that reproduces pymunk's public API to the last bit, else `pymunk`. Equal seeds or states give
    identical episodes.

    A world can be copied and pickled, to the bit: as Chipmunk's contacts cannot be stored, a copy
    takes the same steps again (some milliseconds for an episode).
    """

    def __init__(self, engine: Engine = "auto") -> None:
        if engine not in ("auto", "cffi", "pymunk"):
            raise ValueError(f"engine must be 'auto', 'cffi' or 'pymunk', got {engine!r}")
        if engine == "cffi" and _chipmunk() is None:
            raise ValueError("engine 'cffi' needs pymunk's compiled module, which did not load")
        if engine == "auto":
            engine = "cffi" if _fast_path_is_exact() else "pymunk"
        self.engine = engine
        self._bodies: _Bodies | None = None
        self._start: tuple[str, Sequence[Sequence[float]]] = ("", ())
        self._targets = array("d")  # x, y of each step since

    def __getstate__(self) -> dict[str, Any]:
        return {"engine": self.engine, "start": self._start, "targets": self._targets}

    def __setstate__(self, state: dict[str, Any]) -> None:
        World.__init__(self, state["engine"])
        method, arguments = state["start"]
        if method:
            getattr(self, method)(*arguments)
        targets = state["targets"]
        for x, y in zip(targets[::2], targets[1::2], strict=True):
            self.drive(x, y)

    def reset(self, seed: int) -> None:
        """Start at the legacy reset of `seed`, as the demonstrations did; the agent is at rest."""
        random = np.random.RandomState(check_seed(seed))
        agent_x, agent_y = random.randint(50, 450), random.randint(50, 450)
        block_x, block_y = random.randint(100, 400), random.randint(100, 400)
        angle = random.randn() * 2 * math.pi - math.pi
        self.place((agent_x, agent_y, block_x, block_y, angle))

    def place(self, draw: npt.ArrayLike) -> None:
        """Start from a reset's raw draw (5,): agent x, y, block x, y (px), angle (rad).

        As in the original, the block's position is set before its angle, so that it turns about its
        centre of gravity away from the drawn position; then one substep is taken. ValueError for a
        wrong shape or a value that is not finite.
        """
        values = check_vector("draw", draw, 5)
        agent_x, agent_y, block_x, block_y, angle = values
        bodies = self._fresh("place", values)
        bodies.agent.position = (agent_x, agent_y)
        bodies.block.position = (block_x, block_y)
        bodies.block.angle = angle
        bodies.space.step(DT)

    def set_state(self, state: npt.ArrayLike, agent_velocity: Sequence[float] = (0.0, 0.0)) -> None:
        """Restore a recorded state (5,) exactly: agent x, y, block x, y (px), angle (rad).

        Recordings lack the hidden state: `agent_velocity` (px/s) and Chipmunk's cached contacts.
        ValueError for a wrong shape or a value that is not finite.
        """
        values = check_vector("state", state, 5)
        agent_x, agent_y, block_x, block_y, angle = values
        velocity = check_vector("agent_velocity", agent_velocity, 2)
        bodies = self._fresh("set_state", values, velocity)
        bodies.agent.position = (agent_x, agent_y)
        bodies.agent.velocity = (velocity[0], velocity[1])
        bodies.block.angle = angle
        bodies.block.position = (block_x, block_y)
        bodies.space.reindex_shapes_for_body(bodies.agent)
        bodies.space.reindex_shapes_for_body(bodies.block)

    def step(self, action: npt.ArrayLike) -> int:
        """Drive the agent towards `action` (2,), a target in px, for 0.1 s; return `contacts`.

        ValueError before the first reset, for a wrong shape or a value that is not finite.
        """
        target_x, target_y = check_vector("action", action, 2)
        self.drive(target_x, target_y)
        return self._live().contacts()

    def drive(self, target_x: float, target_y: float) -> None:
        """Like `step`, without the check of the target and without counting contacts."""
        self._live().step(target_x, target_y)
        self._targets.extend((target_x, target_y))

    @property
    def contacts(self) -> int:
        """How many of the block's two parts the agent touches: 0, 1 or 2."""
        return self._live().contacts()

    @property
    def values(self) -> Values:
        """The state as five floats: agent x, y, block x, y (px), block angle in [0, 2 pi) (rad)."""
        return self._live().read()

    @property
    def state(self) -> npt.NDArray[np.float64]:
        """The state (5,): agent x, y, block x, y (px), block angle in [0, 2 pi) (rad)."""
        return np.array(self._live().read())

    @property
    def agent_velocity(self) -> npt.NDArray[np.float64]:
        """The agent's velocity (2,) in px/s: hidden state, 0 after a reset."""
        velocity = self._live().agent.velocity
        return np.array([velocity.x, velocity.y])

    def _fresh(self, method: str, *arguments: Sequence[float]) -> "_Bodies":
        # New bodies for every start: no history in Chipmunk's contact cache and tree.
        self._start, self._targets = (method, arguments), array("d")
        self._bodies = _FastBodies() if self.engine == "cffi" else _Bodies()
        return self._bodies

    def _live(self) -> "_Bodies":
        if self._bodies is None:
            raise ValueError("a world must be reset before it is used, got no reset or set_state")
        return self._bodies


class _Bodies:
    """The space and what is in it, stepped through pymunk's public API."""

    def __init__(self) -> None:
        self.space = pymunk.Space()
        self.space.gravity = (0, 0)
        self.space.damping = 0
        for start, end in WALLS:
            self.space.add(pymunk.Segment(self.space.static_body, start, end, 2))
        self.agent = pymunk.Body(body_type=pymunk.Body.KINEMATIC)
        self.agent.position = (256, 400)
        self.disc = pymunk.Circle(self.agent, AGENT_RADIUS)
        self.space.add(self.agent, self.disc)
        self.block = pymunk.Body(1, 3000)
        self.bar, self.stem = pymunk.Poly(self.block, BAR), pymunk.Poly(self.block, STEM)
        self.block.center_of_gravity = CENTRE_OF_GRAVITY
        self.block.position = (256, 300)
        self.space.add(self.block, self.bar, self.stem)

    def step(self, target_x: float, target_y: float) -> None:
        """Take the ten substeps."""
        agent = self.agent
        for _ in range(SUBSTEPS):
            (x, y), (vx, vy) = agent.position, agent.velocity
            agent.velocity = (
                vx + (STIFFNESS * (target_x - x) - DAMPING * vx) * DT,
                vy + (STIFFNESS * (target_y - y) - DAMPING * vy) * DT,
            )
            self.space.step(DT)

    def contacts(self) -> int:
        """Return how many of the block's two parts the agent touches."""
        place, parts = self.agent.position, (self.bar, self.stem)
        return sum(part.point_query(place).distance <= AGENT_RADIUS for part in parts)

    def read(self) -> Values:
        """Return agent x, y, block x, y, angle in [0, 2 pi)."""
        (agent_x, agent_y), (block_x, block_y) = self.agent.position, self.block.position
        return agent_x, agent_y, block_x, block_y, self.block.angle % (2 * math.pi)


class _FastBodies(_Bodies):
    """The same bodies, stepped by direct calls of Chipmunk's functions.

    A kinematic body feels no forces, so the agent's ten velocities are known before the substeps.
    """

    _PACK = struct.Struct(f"{2 * SUBSTEPS}d").pack_into

    def __init__(self) -> None:
        super().__init__()
        chipmunk = _chipmunk()
        assert chipmunk is not None
        ffi, lib = chipmunk
        vectors = ffi.new(f"cpVect[{SUBSTEPS}]")
        self._memory = ffi.buffer(vectors)
        self._velocities = [vectors[i] for i in range(SUBSTEPS)]
        space, agent, block = self.space._space, self.agent._body, self.block._body
        self._stepping = lib.cpBodySetVelocity, agent, lib.cpSpaceStep, space
        self._reading = lib.cpBodyGetPosition, lib.cpBodyGetAngle, block
        self._touching = lib.cpShapePointQuery, self.bar._shape, self.stem._shape
        self._place = lib.cpBodyGetPosition, agent, ffi.new("cpPointQueryInfo *")
        self._motion: tuple[float, float, float, float] | None = None

    def step(self, target_x: float, target_y: float) -> None:
        """Take the ten substeps."""
        x, y, vx, vy = self._motion or (*self.agent.position, *self.agent.velocity)
        velocities: list[float] = []
        stiffness, damping, dt = STIFFNESS, DAMPING, DT
        for _ in range(SUBSTEPS):
            vx += (stiffness * (target_x - x) - damping * vx) * dt
            vy += (stiffness * (target_y - y) - damping * vy) * dt
            x += vx * dt
            y += vy * dt
            velocities += vx, vy
        self._motion = x, y, vx, vy
        self._PACK(self._memory, 0, *velocities)
        set_velocity, agent, step, space = self._stepping
        for velocity in self._velocities:
            set_velocity(agent, velocity)
            step(space, dt)

    def contacts(self) -> int:
        """Return how many of the block's two parts the agent touches."""
        distance, bar, stem = self._touching
        position, agent, info = self._place
        place = position(agent)
        from_bar, from_stem = distance(bar, place, info), distance(stem, place, info)
        return int((from_bar <= AGENT_RADIUS) + (from_stem <= AGENT_RADIUS))

    def read(self) -> Values:
        """Return agent x, y, block x, y, angle in [0, 2 pi)."""
        if self._motion is None:
            return super().read()
        position, angle, body = self._reading
        block = position(body)
        return self._motion[0], self._motion[1], block.x, block.y, angle(body) % (2 * math.pi)


@functools.cache
def _chipmunk() -> tuple[Any, Any] | None:
    """Return pymunk's cffi handles (ffi, lib), or None in a build that has them elsewhere."""
    try:
        from pymunk._chipmunk_cffi import ffi, lib
    except ImportError:
        return None
    return (ffi, lib) if ffi.sizeof("cpVect") == 16 else None


@functools.cache
def _fast_path_is_exact() -> bool:
    """Return whether both engines give the same bits for one difficult push on this machine."""
    if _chipmunk() is None:
        return False
    ends = []
    for engine in ("cffi", "pymunk"):
        world = World(engine)
        world.set_state((254.3, 168.7, 256.1, 255.9, 0.1), agent_velocity=(31.7, 11.3))
        contacts = [world.step((251.9, 330.1 + k)) for k in range(5)]
        ends.append((contacts, world.state.tolist(), world.agent_velocity.tolist()))
    return ends[0] == ends[1]
