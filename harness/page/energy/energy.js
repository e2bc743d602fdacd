"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const policy = makePolicy(data.policy);
  const [BOARD, PER_SECOND, PUSHED] = [512, 10, 40.7]; // px, steps, the T's middle on its own axis
  const part = (id) => document.getElementById(id);
  const put = (id, values) => {
    for (const [name, value] of Object.entries(values)) part(id).setAttribute(name, value);
  };
  const at = (id, [x, y], turned = 0) =>
    put(id, { transform: `translate(${x} ${y}) rotate(${(turned * 180) / Math.PI})` });
  const sum = (a, b, share = 1) => [a[0] + share * b[0], a[1] + share * b[1]];
  const minus = (a, b) => sum(a, b, -1);
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const inside = (place, margin = data.reach) =>
    place.map((value) => clamp(value, margin, BOARD - margin));

  // Episodes: a row of states is agent x, y, block x, y, angle; of what was taken there the
  // action's x, y (NaN at the last state), the search's uniform number, and the coverage.
  const episodes = data.episodes.map(({ states, taken, ...rest }) => ({
    ...rest,
    states: new Float64Array(bytes(states)),
    taken: new Float32Array(bytes(taken)),
  }));
  const stateOf = (episode, step) => {
    const row = episode.states.subarray(5 * Math.max(step, 0), 5 * Math.max(step, 0) + 5);
    return { agent: [...row.slice(0, 2)], block: [...row.slice(2)] };
  };
  const recorded = (episode, step) => {
    const [now, past] = [stateOf(episode, step), stateOf(episode, step - 1)];
    const unit = episode.taken[4 * step + 2];
    return { ...now, before: past.agent, blockBefore: past.block, unit };
  };

  let playing = null; // the timer
  let episode = episodes[0];
  let step = 0;
  let free = false; // whether a person has changed the scene
  let scene = recorded(episode, 0);
  let heading = [0, -1]; // of the ring that sets the speed, while the agent rests

  // ------------------------------------------------------------------ colours
  // Every sixteenth colour of matplotlib's magma, perceptually uniform: dark to light.
  const MAGMA = [
    "000004 0a0822 1d1147 36106b 51127c 6a1c81 832681 9c2e7f b73779 d0416f e75263 f56b5c fc8961",
    "fea772 fec488 fde2a3 fcfdbf",
  ].flatMap((text) => text.split(" ").map((hex) => parseInt(hex, 16)));
  const SHADES = 256;
  let shades = new Uint32Array(SHADES);
  const isDark = () => getComputedStyle(document.documentElement).colorScheme === "dark";
  // Low energies stand out: dark on a light board, light on a dark one. High ones fade out.
  const paint = () => {
    const dark = isDark();
    shades = shades.map((_, k) => {
      const share = k / (SHADES - 1);
      const place = (dark ? 1 - share : 0.12 + 0.88 * share) * (MAGMA.length - 1);
      const [first, last] = [Math.floor(place), Math.ceil(place)];
      const [red, green, blue] = [16, 8, 0].map((shift) => {
        const [a, b] = [(MAGMA[first] >> shift) & 255, (MAGMA[last] >> shift) & 255];
        return Math.round(a + (b - a) * (place - first));
      });
      const opacity = Math.round(255 * 0.96 * Math.min(1, (1 - share) / 0.3));
      return (opacity << 24) | (blue << 16) | (green << 8) | red;
    });
    const ramp = part("ramp").getContext("2d");
    const strip = ramp.createImageData(SHADES, 1);
    new Uint32Array(strip.data.buffer).set(shades);
    ramp.putImageData(strip, 0, 0);
  };

  // ------------------------------------------------------------------ energies
  const FINE = 4; // pixels of the picture for each cell
  const side = policy.lattice * FINE;
  const picture = document.createElement("canvas");
  picture.width = picture.height = side;
  const pen = picture.getContext("2d");
  const pixels = pen.createImageData(side, side);
  const colours = new Uint32Array(pixels.data.buffer);
  // Between the middles of two cells energies are interpolated linearly.
  const between = Array.from({ length: side }, (_, k) => {
    const place = clamp((k + 0.5) / FINE - 0.5, 0, policy.lattice - 1);
    const first = Math.min(Math.floor(place), policy.lattice - 2);
    return [first, place - first];
  });
  const heat = part("heat");
  const board = heat.getContext("2d");
  const drawHeat = (energies, least) => {
    const n = policy.lattice;
    const per = (SHADES - 1) / data.scale;
    for (let row = 0, k = 0; row < side; row += 1) {
      const [j, v] = between[row];
      for (let column = 0; column < side; column += 1, k += 1) {
        const [i, u] = between[column];
        const a = i * n + j;
        const left = energies[a] * (1 - v) + energies[a + 1] * v;
        const right = energies[a + n] * (1 - v) + energies[a + n + 1] * v;
        const above = left * (1 - u) + right * u - least;
        colours[k] = shades[Math.min(SHADES - 1, Math.round(above * per))];
      }
    }
    pen.putImageData(pixels, 0, 0);
    const size = Math.round(heat.clientWidth * Math.min(devicePixelRatio, 2));
    if (heat.width !== size) heat.width = heat.height = size;
    board.clearRect(0, 0, size, size);
    board.imageSmoothingQuality = "high";
    const scale = size / BOARD;
    const [x, y] = sum(scene.agent, policy.low).map((value) => value * scale);
    const [width, height] = minus(policy.high, policy.low).map((value) => value * scale);
    board.drawImage(picture, x, y, width, height);
  };

  // ------------------------------------------------------------------ drawing
  const SVG = "http://www.w3.org/2000/svg";
  const others = Array.from({ length: data.draws }, () => {
    const dot = document.createElementNS(SVG, "circle");
    dot.setAttribute("r", 3);
    part("others").append(dot);
    return dot;
  });
  const units = [...others.keys()].map((k) => (k + 0.5) / data.draws);
  const ends = (id, [x1, y1], [x2, y2]) => put(id, { x1, y1, x2, y2 });
  const turned = ([x, y, angle], [u, v]) => [
    x + Math.cos(angle) * u - Math.sin(angle) * v,
    y + Math.sin(angle) * u + Math.cos(angle) * v,
  ];
  let held = null; // what is being dragged
  let knob = 1; // the turning ring stands at the T's foot, or above its bar where that is outside
  const [FOOT, TOP] = [152, -32];
  const placeKnob = () => {
    const fits = (v) => turned(scene.block, [0, v]).every((px) => px > 8 && px < BOARD - 8);
    if (held !== "turn" && !fits(knob ? FOOT : TOP)) knob = fits(FOOT) ? 1 : 0;
    return turned(scene.block, [0, knob ? FOOT : TOP]);
  };
  const [REST, PER_PX] = [38, 2]; // px from the agent to its ring at rest, and more for each px
  const words = ([x, y]) => {
    const length = Math.hypot(x, y);
    if (length < 1) return "stay where it is";
    const ways = [];
    if (Math.abs(y) > 0.38 * length) ways.push(y < 0 ? "up" : "down");
    if (Math.abs(x) > 0.38 * length) ways.push(x < 0 ? "left" : "right");
    return `move ${length.toFixed(0)} px ${ways.join(" and ")}`;
  };
  const degrees = (angle) => Math.round((((angle * 180) / Math.PI) % 360) + 360) % 360;

  const describe = (action) => {
    const { agent, before, block } = scene;
    const [x, y] = agent.map(Math.round);
    const speed = minus(agent, before);
    const value = (id, now, text) => put(id, { "aria-valuenow": now, "aria-valuetext": text });
    value("agent", x, `x ${x}, y ${y}`);
    value("tee", Math.round(block[0]), `x ${Math.round(block[0])}, y ${Math.round(block[1])}`);
    value("turn", degrees(block[2]), `${degrees(block[2])} degrees`);
    value("speed", Math.round(Math.hypot(...speed)), words(speed));
    const last = episode.states.length / 5 - 1;
    const covered = Math.floor(100 * episode.taken[4 * step + 3]);
    const name = `Start ${episodes.indexOf(episode) + 1}`;
    part("scene").textContent = free
      ? `Your own scene, taken over from ${name.toLowerCase()}, step ${step}.`
      : `${name}, step ${step} of ${last}: the T covers ${covered} % of its goal.`;
    part("return").hidden = !free;
    put("step", { max: last, "aria-valuetext": `${step} of ${last}` });
    part("step").value = step;
    part("back").disabled = step === 0;
    part("next").disabled = step === last;
    part("play").textContent = playing === null ? "Play" : "Pause";
    document.querySelectorAll(".start").forEach((button, k) => {
      button.setAttribute("aria-pressed", String(episodes[k] === episode));
    });
    // While it plays, a screen reader would be told ten times a second.
    if (playing === null) part("status").textContent = `The policy would ${words(minus(action, agent))}.`;
  };

  const draw = () => {
    waiting = false;
    const energies = policy.energies(scene);
    const [action, ...rest] = policy.choose(energies, scene.agent, [scene.unit, ...units]);
    drawHeat(energies, energies.reduce((a, b) => Math.min(a, b)));
    const { agent, before, block } = scene;
    const [x, y] = sum(agent, policy.low);
    const [width, height] = minus(policy.high, policy.low);
    put("window", { x, y, width, height });
    at("tee", block, block[2]);
    const ring = placeKnob();
    ends("stalk", turned(block, [0, knob ? 120 : 0]), ring);
    at("turn", ring);
    const speed = minus(agent, before);
    const length = Math.hypot(...speed);
    if (length > 0.5) heading = speed.map((value) => value / length);
    const handle = sum(agent, heading, REST + PER_PX * length);
    ends("motion", agent, handle);
    at("speed", handle);
    at("before", before);
    at("agent", agent);
    ends("move", agent, action);
    at("chosen", action);
    rest.forEach(([cx, cy], k) => {
      others[k].setAttribute("cx", cx);
      others[k].setAttribute("cy", cy);
    });
    describe(action);
  };
  let waiting = false;
  const redraw = () => {
    if (!waiting) requestAnimationFrame(draw);
    waiting = true;
  };

  // ------------------------------------------------------------------ playing
  const show = (wanted, which = episode) => {
    episode = which;
    step = clamp(wanted, 0, which.states.length / 5 - 1);
    free = false;
    scene = recorded(episode, step);
    redraw();
  };
  const pause = () => {
    clearInterval(playing);
    playing = null;
    redraw();
  };
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const play = () => {
    if (playing !== null) return pause();
    const last = episode.states.length / 5 - 1;
    show(step === last ? 0 : step);
    const tick = () => (step === last ? pause() : show(step + 1));
    playing = setInterval(tick, 1000 / (calm.matches ? 2 : PER_SECOND));
    return undefined;
  };
  const go = (by) => {
    pause();
    show(step + by);
  };
  part("play").addEventListener("click", play);
  part("back").addEventListener("click", () => go(-1));
  part("next").addEventListener("click", () => go(1));
  part("return").addEventListener("click", () => {
    show(step);
    part("play").focus();
  });
  part("step").addEventListener("input", (event) => go(Number(event.target.value) - step));
  document.querySelectorAll(".start").forEach((button, k) => {
    button.addEventListener("click", () => {
      pause();
      show(0, episodes[k]);
    });
  });
  part("draw").addEventListener("click", () => change({ unit: Math.random() }, free));

  // ------------------------------------------------------------------ moving by hand
  // A scene that was changed is no longer the recording; a T that was moved by hand rests.
  const change = (values, isFree = true) => {
    if (playing !== null) pause();
    free = isFree;
    scene = { ...scene, ...values };
    if (values.block) scene.blockBefore = values.block;
    redraw();
  };
  const moveAgent = (place) => {
    const agent = inside(place);
    change({ agent, before: sum(agent, minus(scene.before, scene.agent)) });
  };
  const moveTee = ([x, y]) => change({ block: [...inside([x, y]), scene.block[2]] });
  // About its middle, as a T that is turned on the spot.
  const turnTee = (angle) => {
    const middle = turned(scene.block, [0, PUSHED]);
    const [x, y] = minus(middle, turned([0, 0, angle], [0, PUSHED]));
    change({ block: [x, y, angle] });
  };
  const setSpeed = (speed) => {
    const length = Math.hypot(...speed);
    if (length > 0) heading = speed.map((value) => value / length);
    const kept = length < 1 ? 0 : Math.min(length, data.fastest);
    change({ before: sum(scene.agent, heading, -kept) });
  };
  const setRing = (place) => {
    const way = minus(place, scene.agent);
    const length = Math.max(Math.hypot(...way), 1e-6);
    // Near its place of rest the ring holds: it is easy to stop the agent.
    const speed = length < REST + 3 ? 1e-3 : (length - REST) / PER_PX;
    setSpeed(way.map((value) => (value / length) * speed));
  };
  const DRAGS = {
    agent: (place, from) => moveAgent(minus(place, from)),
    tee: (place, from) => moveTee(minus(place, from)),
    turn: (place) => {
      const [x, y] = minus(place, turned(scene.block, [0, PUSHED]));
      turnTee(Math.atan2(y, x) - (knob ? 1 : -1) * (Math.PI / 2));
    },
    speed: (place) => setRing(place),
  };
  const STEPS = {
    agent: (by) => moveAgent(sum(scene.agent, by)),
    tee: (by) => moveTee(sum(scene.block, by)),
    turn: ([x, y]) => turnTee(scene.block[2] + ((x + y) * Math.PI) / 180),
    speed: (by) => setSpeed(sum(minus(scene.agent, scene.before), by, 0.4)),
  };
  const svg = part("board");
  const placeOf = (event) => {
    const box = svg.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top].map(
      (value) => (value * BOARD) / box.width,
    );
  };
  for (const [id, drag] of Object.entries(DRAGS)) {
    const grip = part(id);
    let from = null;
    grip.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      grip.setPointerCapture(event.pointerId);
      grip.focus({ preventScroll: true });
      from = minus(placeOf(event), id === "tee" ? scene.block : scene.agent);
      held = id;
      event.preventDefault();
    });
    grip.addEventListener("pointermove", (event) => {
      if (from !== null) drag(placeOf(event), from);
    });
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
      grip.addEventListener(name, () => (from = held = null));
    }
  }

  // ------------------------------------------------------------------ keys
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey) return;
    const way = ARROWS[event.key];
    const { id } = event.target;
    if (way && id in STEPS) {
      const px = event.shiftKey ? 20 : 5;
      STEPS[id](way.map((value) => value * px));
    } else if (event.key === "[" || event.key === "]") {
      turnTee(scene.block[2] + ((event.key === "[" ? -5 : 5) * Math.PI) / 180);
    } else if (event.key === " " && !event.target.matches("button, input, summary")) {
      play();
    } else {
      return;
    }
    event.preventDefault();
  });

  // ------------------------------------------------------------------ suggestions
  const away = () => {
    const middle = turned(scene.block, [0, PUSHED]);
    const way = minus(middle, turned([256, 256, Math.PI / 4], [0, PUSHED]));
    const length = Math.hypot(...way) || 1;
    return [middle, length < 5 ? [0, 1] : way.map((value) => value / length)];
  };
  part("behind").addEventListener("click", () => {
    change({ block: [170, 190, Math.PI / 4] });
    const [middle, way] = away();
    const agent = inside(sum(middle, way, 110));
    change({ agent, before: agent });
  });
  part("faster").addEventListener("click", () => {
    const action = policy.choose(policy.energies(scene), scene.agent, [0.5])[0];
    const [x, y] = minus(action, scene.agent);
    const length = Math.hypot(x, y) || 1;
    setSpeed([(-y / length) * 20, (x / length) * 20]);
  });
  part("half").addEventListener("click", () => turnTee(scene.block[2] + Math.PI));
  // On a phone the suggestions stand below the board.
  document.querySelectorAll(".tries button").forEach((button) => {
    button.addEventListener("click", () => svg.scrollIntoView({ block: "nearest" }));
  });

  // ------------------------------------------------------------------ beginning
  const repaint = () => {
    paint();
    redraw();
  };
  part("theme").addEventListener("click", repaint);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  new ResizeObserver(redraw).observe(heat);
  repaint();
  globalThis.energyPage = { policy, episodes, recorded }; // for a console
})();
