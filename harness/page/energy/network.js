"use strict";
// The policy's energies and its choice, as ibc/encoders/state.py, ibc/energy/models.py and
// ibc/sampling compute them. A scene is {agent, before: [x, y], block, blockBefore: [x, y, angle]}:
// now and one step earlier, in px and rad.
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;

const makePolicy = ({ members, weights, low, high, lattice, bandwidth, points }) => {
  const BOARD = 512;
  // From normalised board units to 100 px (offsets) and 20 px (moves).
  const PER_OFFSET = Math.fround(BOARD / 2 / 100);
  const PER_MOVE = Math.fround(BOARD / 2 / 20);
  const count = lattice * lattice;
  const centre = low.map((value, axis) => (high[axis] + value) / 2);
  const half = low.map((value, axis) => (high[axis] - value) / 2);
  const cell = Math.fround(2 / lattice);
  const line = Float32Array.from({ length: lattice }, (_, k) => Math.fround((k + 0.5) * cell) - 1);

  const float16 = (bits) => {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const part = bits & 1023;
    return sign * (exponent ? (1 + part / 1024) * 2 ** (exponent - 15) : part * 2 ** -24);
  };
  const numbers = Float32Array.from(new Uint16Array(bytes(weights)), float16);
  let read = 0;
  const take = (length) => numbers.subarray(read, (read += length));
  const layers = (shapes) =>
    shapes.map(([rows, columns]) => ({ matrix: take(rows * columns), bias: take(rows) }));

  const dense = ({ matrix, bias }, x, rectified) => {
    const y = new Float64Array(bias.length);
    for (let row = 0, at = 0; row < y.length; row += 1) {
      let sum = bias[row];
      for (let column = 0; column < x.length; column += 1, at += 1) sum += matrix[at] * x[column];
      y[row] = rectified && sum < 0 ? 0 : sum;
    }
    return y;
  };
  const rectify = (tower, x) => tower.reduce((h, layer) => dense(layer, h, true), x);

  // The lattice's actions pass their tower once: their features do not depend on the scene. Those
  // of all actions lie side by side, unit after unit.
  const networks = members.map((shapes) => {
    const [encoder, observation, action] = ["encoder", "observation", "action"].map((name) =>
      layers(shapes[name]),
    );
    const width = action[0].bias.length;
    const features = new Float32Array(count * width);
    for (let k = 0; k < count; k += 1) {
      const place = Float64Array.of(line[Math.floor(k / lattice)], line[k % lattice]);
      rectify(action, place).forEach((value, unit) => (features[unit * count + k] = value));
    }
    return { encoder, observation, width, features };
  });

  // Nine points of the block and the agent, in px as float32, which is what policies see.
  const keypoints = ([x, y, angle], agent) => {
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    const places = points.flatMap(([u, v]) => [x + cos * u - sin * v, y + sin * u + cos * v]);
    return Float32Array.from([...places, ...agent]);
  };
  const inputs = ({ agent, before, block, blockBefore }) => {
    const normal = (px) => px.map((value) => (value * 2) / BOARD - 1);
    const now = normal(keypoints(block, agent));
    const past = normal(keypoints(blockBefore, before));
    const offsets = now.subarray(0, 18).map((value, k) => value - now[18 + (k % 2)]);
    const moves = now.map((value, k) => value - past[k]);
    return Float64Array.from([
      ...now,
      ...offsets.map((value) => value * PER_OFFSET),
      ...moves.map((value) => value * PER_MOVE),
    ]);
  };

  // Energies of the lattice's actions: x outside, y inside, each from low to high.
  const energies = (scene) => {
    const x = inputs(scene);
    const total = new Float64Array(count);
    for (const { encoder, observation, width, features } of networks) {
      const hidden = rectify(observation.slice(0, -1), rectify(encoder, x));
      const context = dense(observation[observation.length - 1], hidden, false);
      const scale = -1 / Math.sqrt(width) / networks.length;
      for (let unit = 0, at = 0; unit < width; unit += 1) {
        const weight = scale * context[unit];
        for (let k = 0; k < count; k += 1, at += 1) total[k] += weight * features[at];
      }
    }
    return total;
  };

  // The choice for each uniform number: a draw from softmax(-energy), moved to the weighted mean
  // of its neighbourhood. Actions in px on the board.
  const choose = (found, agent, units) => {
    const least = found.reduce((a, b) => Math.min(a, b));
    const weights = found.map((energy) => Math.exp(least - energy));
    let sum = 0;
    const cumulative = weights.map((weight) => (sum += weight));
    const near = (from, axis) =>
      line.map((value) => Math.exp(-0.5 * (((value - from) * half[axis]) / bandwidth) ** 2));
    return units.map((unit) => {
      let [first, last] = [0, count - 1];
      while (first < last) {
        const middle = (first + last) >> 1;
        if (cumulative[middle] > unit * sum) last = middle;
        else first = middle + 1;
      }
      const alongX = near(line[Math.floor(first / lattice)], 0);
      const alongY = near(line[first % lattice], 1);
      let [total, x, y] = [0, 0, 0];
      for (let i = 0, k = 0; i < lattice; i += 1) {
        for (let j = 0; j < lattice; j += 1, k += 1) {
          const weight = weights[k] * alongX[i] * alongY[j];
          total += weight;
          x += weight * line[i];
          y += weight * line[j];
        }
      }
      return [x, y].map((value, axis) => {
        const px = (value / total) * half[axis] + centre[axis] + agent[axis];
        return Math.min(Math.max(px, 0), BOARD);
      });
    });
  };

  return { energies, choose, lattice, low, high };
};
