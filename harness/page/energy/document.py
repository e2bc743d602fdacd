"""The whole page: the board, its controls, and what a newcomer needs to read."""

import json
import math
from pathlib import Path

from envs.physics.dynamics import AGENT_RADIUS, BOARD, WALLS
from envs.physics.geometry import GOAL_POSE, OUTLINE
from harness.core import files
from harness.core.errors import UserError
from harness.core.text import plural
from harness.page.elements import Element, Node, el, note, own_files, short, whole_page
from harness.page.energy import shown
from harness.page.energy.episodes import Recording, record
from harness.storage.lookup import Checkpoint
from ibc.policies.implicit import IBCPolicy

MOST_BYTES = 2**20
WEIGHT_BYTES = round(0.85 * MOST_BYTES)
SCALE = 12  # nats above the lowest energy, from which on the board is seen
FASTEST = 60  # px a step, of a speed that is set by hand
DRAWS = 12  # random draws whose moves are shown beside the one that is taken
_TEE = "M" + "L".join(f"{x:g} {y:g}" for x, y in OUTLINE) + "Z"


def write(found: Checkpoint, out: Path) -> Path:
    """Write the page of a policy atomically; return its path.

    UserError for a policy that the page cannot show, and for a file that cannot be written.
    """
    if out.suffix.lower() != ".html":
        raise UserError(f"--out must be a .html file, given {out.name!r}")
    policy = shown.load(found.path)
    check_size(policy)
    content = page(policy, record(policy), _source(found)).encode("utf-8", "backslashreplace")
    try:
        with files.atomic(out) as file:
            file.write(content)
    except OSError as error:
        raise UserError(f"--out must be a file that can be written: {error}") from error
    return out


def check_size(policy: IBCPolicy) -> None:
    """Refuse a policy whose weights leave no room for the rest of the page."""
    size = len(shown.numbers(policy)["weights"])
    if size > WEIGHT_BYTES:
        rule = f"the energy page has {MOST_BYTES:,} bytes, of which weights take {WEIGHT_BYTES:,}"
        networks = plural(policy.config.members, "network")
        raise UserError(f"{rule} at most, given {size:,} of {networks}")


def page(policy: IBCPolicy, recording: Recording, source: str) -> str:
    """Return the page's HTML; source: where the policy comes from, in words."""
    data = {
        "policy": shown.numbers(policy),
        "episodes": [episode.plain() for episode in recording.episodes],
        "scale": SCALE,
        "draws": DRAWS,
        "fastest": FASTEST,
        "reach": AGENT_RADIUS + WALLS[0][0][0],
    }
    lead = (
        "A policy has learned from demonstrations to push the T onto its goal. It gives every move "
        "an energy, and it takes a move of low energy. Drag the T and the agent: the energy "
        "follows."
    )
    theme = el("button", "Theme: auto", type="button", id="theme", class_="scripted")
    return whole_page(
        "The energy, in your hands",
        own_files("theme.css", "energy/energy.css"),
        own_files("theme.js", "energy/network.js", "energy/energy.js"),
        el(
            "header",
            el("div", el("p", "Implicit behavioral cloning", class_="kicker"), theme, class_="top"),
            el("h1", "The energy, in your hands"),
            el("p", lead, class_="lead"),
            el("p", el("strong", "This page needs JavaScript."), class_="unscripted"),
        ),
        el(
            "main",
            el("div", _board(), _scale(), _player(recording), class_="play"),
            el("div", _try(), _key(), class_="side"),
            _how(policy, recording, source),
        ),
        el("script", json.dumps(data, separators=(",", ":")), type="application/json", id="data"),
    )


def _source(found: Checkpoint) -> str:
    name = found.path.name if found.trial_dir is None else found.trial_dir.name
    step = "" if found.step is None else f", {found.step:,} training steps"
    return f"{short(name, 60)}{step}, weights {found.policy_hash}"


def _board() -> Element:
    """Return the energies with what can be moved above them; the script sets the places."""
    x, y, angle = GOAL_POSE
    turn = f"translate({x:g} {y:g}) rotate({math.degrees(angle):g})"
    (near, _), (far, _) = WALLS[1][0], WALLS[2][0]
    side = far - near
    shapes = [
        el("path", d=_TEE, transform=turn, class_="goal"),
        el("rect", x=near, y=near, width=side, height=side, class_="wall"),
        el("rect", id="window", class_="window"),
        _grip("tee", "T", el("path", d=_TEE, class_="halo"), el("path", d=_TEE, class_="tee")),
        el("line", id="stalk", class_="stalk"),
        _grip("turn", "Turn the T", *_knob(), most=360),
        el("circle", id="before", r=AGENT_RADIUS, class_="before"),
        el("line", id="motion", class_="stalk"),
        _grip(
            "agent",
            "Agent",
            el("circle", r=26, class_="touch"),
            el("circle", r=AGENT_RADIUS + 6, class_="halo"),
            el("circle", r=AGENT_RADIUS, class_="agent"),
        ),
        _grip("speed", "Speed of the agent", *_knob(), most=FASTEST),
        el("g", id="others"),
        el("line", id="move", class_="move"),
        el("g", *_cross(), id="chosen"),
    ]
    form = {"viewBox": f"0 0 {BOARD:g} {BOARD:g}", "role": "group", "aria_label": "The board"}
    return el(
        "div",
        el("canvas", id="heat", aria_hidden="true"),
        el("svg", *shapes, id="board", **form),
        class_="board",
    )


def _grip(name: str, label: str, *shapes: Element, most: float = BOARD) -> Element:
    """Return something that pointers drag and arrow keys move."""
    form = {"tabindex": 0, "role": "slider", "aria_label": label, "aria_valuemin": 0}
    return el(
        "g", *shapes, id=name, class_="grip", aria_valuemax=f"{most:g}", aria_valuenow=0, **form
    )


def _knob() -> tuple[Element, ...]:
    return (
        el("circle", r=22, class_="touch"),
        el("circle", r=11, class_="halo"),
        el("circle", r=6, class_="knob"),
    )


def _cross() -> tuple[Element, ...]:
    lines = "M-8 0H8M0-8V8"
    return el("path", d=lines, class_="under"), el("path", d=lines, class_="over")


def _scale() -> Element:
    marks = [el("span", f"{k * SCALE // 4}") for k in range(4)]
    marks.append(el("span", f"{SCALE}+"))
    text = "Energy above the lowest one. At 3, a move is 20 times less likely than at 0."
    return el(
        "div",
        el("canvas", id="ramp", width=256, height=1, aria_hidden="true"),
        el("div", *marks, class_="marks", aria_hidden="true"),
        note(text),
        class_="scale",
    )


def _player(recording: Recording) -> Element:
    starts = [
        el(
            "button",
            f"Start {at + 1}",
            el("small", f"{'solved' if each.success else 'failed'}, {each.steps / 10:.1f} s"),
            type="button",
            class_="start",
            aria_pressed="false",
        )
        for at, each in enumerate(recording.episodes)
    ]
    return el(
        "div",
        el("div", *starts, class_="starts", role="group", aria_label="Recorded episodes"),
        el(
            "div",
            _button("play", "Play"),
            _button("back", "◀", "One step back"),
            _button("next", "▶", "One step on"),
            el("input", id="step", type="range", min=0, value=0, aria_label="Step"),
            class_="controls",
        ),
        el("p", id="scene", class_="note"),
        el("p", id="status", role="status", class_="note"),
        el(
            "div",
            _button("return", "Back to the recording"),
            _button("draw", "Draw another move"),
            class_="more",
        ),
        class_="player",
    )


def _button(name: str, text: str, label: str | None = None) -> Element:
    return el("button", text, type="button", id=name, aria_label=label)


def _try() -> Element:
    tries = (
        ("behind", "Put the agent behind the T", "Which way does it push?"),
        ("faster", "Give it a speed", "Does it want to go on?"),
        ("half", "Turn the T by 180°", "Where must it go first?"),
    )
    items = [
        el("li", el("button", text, type="button", id=name), el("span", question))
        for name, text, question in tries
    ]
    return el("section", el("h2", "Try this"), el("ol", *items, class_="tries"))


def _key() -> Element:
    window = "The agent, and the window of moves that are compared."
    before = "Where it was 0.1 s ago; the policy sees this, too. Drag the ring to give it a speed."
    chosen = "The move that the policy takes. Dots: moves after other random draws."
    rows = (
        (
            [
                el("rect", x=1, y=1, width=22, height=22, class_="window"),
                el("circle", cx=12, cy=12, r=6, class_="agent"),
            ],
            window,
        ),
        (
            [
                el("circle", cx=8, cy=12, r=6, class_="before"),
                el("circle", cx=19, cy=12, r=3.5, class_="knob"),
            ],
            before,
        ),
        ([el("g", *_cross(), transform="translate(12 12) scale(.9)")], chosen),
        (
            [el("path", d=_TEE, transform="translate(12 4) scale(.15)", class_="tee")],
            "The T. Drag it; the ring at its end turns it.",
        ),
        (
            [el("path", d=_TEE, transform="translate(12 4) scale(.15)", class_="goal small")],
            "The goal.",
        ),
    )
    items = [
        el("li", el("svg", *shapes, viewBox="0 0 24 24", aria_hidden="true"), el("span", text))
        for shapes, text in rows
    ]
    keys = el(
        "p",
        el("kbd", "Tab"),
        " chooses, ",
        el("kbd", "arrows"),
        " move, ",
        el("kbd", "["),
        " and ",
        el("kbd", "]"),
        " turn the T, ",
        el("kbd", "space"),
        " plays.",
        class_="note",
    )
    return el("section", el("h2", "What you see"), el("ul", *items, class_="key"), keys)


def _how(policy: IBCPolicy, recording: Recording, source: str) -> Element:
    inference = policy.config.inference
    side, networks = inference.lattice, policy.config.members
    network = "the policy's own network" if networks == 1 else f"the mean of {networks} networks"
    texts: list[Node] = [
        el(
            "p",
            f"The colours are computed in your browser by {network}, at {side} × {side} moves. To "
            "act, the policy draws one of them with a probability proportional to exp(−energy), "
            f"and takes the mean of the moves around it (mean shift, {inference.bandwidth:g} px). "
            "It sees where the T and the agent are now and where they were 0.1 s ago.",
        ),
        el(
            "p",
            "This page has no physics: what you move stays where you put it. The recordings are "
            f"episodes of the exact simulator. {_chosen(recording)}",
        ),
        el("p", f"Policy: {source}, rounded to 16 bits."),
    ]
    return el("section", el("h2", "How it works"), *texts, class_="how")


def _chosen(recording: Recording) -> str:
    solved = sum(episode.success for episode in recording.episodes)
    which = [
        text if count == 1 else text.replace("first", f"first {count}")
        for text, count in (
            ("the first that it solved", solved),
            ("the first that it did not solve", len(recording.episodes) - solved),
        )
        if count
    ]
    tried = f"{recording.solved} of the {recording.tried} starts that were tried"
    return f"It solved {tried}; shown are {' and '.join(which)}."
