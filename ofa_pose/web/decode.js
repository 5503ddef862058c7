// From a network's heatmaps and tags to poses: ofa_pose/pose/decode.py and ofa_pose/pose/peaks.py in JavaScript.
// It needs nothing but this file and runs wherever JavaScript does: pages, workers, Node.

import { group } from "./grouping.js";

const HIGH_STRIDE = 2; // input pixels per cell of the fused heatmaps
const WINDOW = 2; // a peak is the highest of 5 × 5 cells
const FAR_TAG = 1e6; // instead of a broken tag
const LEAST_HEAT = 1e-3; // smaller heats are noise, whose logarithms say nothing
const MOST_HEAT = 1e3; // larger ones are broken
const NEARNESS = 0.2; // heat that a missing joint's place loses for each extent of the person it lies from its middle
const LEAST_EXTENT = 32; // input pixels: a person of one joint has no extent of its own
const WARM_CELLS = 4096; // of a plane that may hold a missing joint, the warmest

/**
 * Maps of one image, as ONNX Runtime's tensors are: dims is [1, channels, height, width].
 * @typedef {{data: ArrayLike<number>, dims: readonly number[]}} Maps
 */

/**
 * How poses are read from maps: `order`, and the settings of "decode" in a model's metadata.
 * @typedef {object} DecodeOptions
 * @property {number[]} order the J joints' indices in the order of grouping.
 * @property {number} [max_people] at most so many people, the best ones; 30.
 * @property {number} [candidates] at most so many peaks a joint, the highest ones; 30.
 * @property {number} [threshold] the height above which a peak is a joint; 0.2.
 * @property {number} [tag_threshold] a joint is a person's where its tag lies within half of this from the mean of the
 *     person's other tags; 1.
 * @property {boolean} [recover] look for a person's missing joints by its mean tag; true.
 * @property {number} [recover_floor] none of these has less heat; 0.05.
 * @property {number} [reach] the longer side of the box round a person's joints, as a share of the input's short side,
 *     is at most this; of any size.
 */

/**
 * A person: its score, the mean over all J joints of the heats of those that were found as peaks; the box [x, y, width,
 * height] round its joints of a score above 0; and of each joint [x, y, score], the score its heat. A joint that was not
 * found has score 0, and a guess at x, y or 0, 0. Places are in input pixels, where pixel i covers [i, i + 1).
 * @typedef {{score: number, box: number[], keypoints: number[][]}} Pose
 */

/**
 * The poses of one image.
 * @param {Maps} low [1, 2J, h, w]: J heatmaps, then J maps of tags, at stride 4: a model's output "low".
 * @param {Maps} high [1, J, 2h, 2w]: heatmaps at stride 2: its output "high".
 * @param {DecodeOptions} options
 * @returns {Pose[]} best first.
 * @throws {RangeError} where the maps do not fit each other, or the order does not fit them.
 */
export function decode(low, high, options) {
  const { order, max_people = 30, candidates = 30, threshold = 0.2, tag_threshold = 1 } = options;
  const { recover = true, recover_floor = 0.05, reach = Infinity } = options;
  check(low, high, order);
  const [, joints, height, width] = high.dims;
  const maps = { heat: fuse(low, high), tags: low.data, joints, height, width };
  const rows = order.map((_, joint) => findPeaks(maps, joint, threshold, candidates));
  const most = Math.max(0, ...rows.map((peaks) => peaks.length));
  const found = new Float64Array(joints * most * 4);
  rows.forEach((peaks, joint) => {
    peaks.forEach((spot, k) => found.set([...place(maps, spot), spot.tag], 4 * (joint * most + k)));
  });
  const longest = (reach ?? Infinity) * HIGH_STRIDE * Math.min(height, width);
  const people = most ? group(found, order, { tag_threshold, reach: longest, max_people }) : [];
  for (const person of people) {
    person.keypoints = person.keypoints.map((keypoint) => keypoint.map(Math.fround));
    person.seen = person.keypoints.map((keypoint) => keypoint[2] > 0);
  }
  if (recover) fillMissing(maps, people, recover_floor, tag_threshold, longest);
  return people.map(({ score, keypoints }) => ({ score: Math.fround(score), box: boxRound(keypoints), keypoints }));
}

/** The box [x, y, width, height] round the joints [x, y, score] of a score above 0; zeros where there are none. */
export function boxRound(keypoints) {
  const seen = keypoints.filter((keypoint) => keypoint[2] > 0);
  if (!seen.length) return [0, 0, 0, 0];
  const [xs, ys] = [0, 1].map((axis) => seen.map((keypoint) => keypoint[axis]));
  const [x, y] = [Math.min(...xs), Math.min(...ys)];
  return [x, y, Math.max(...xs) - x, Math.max(...ys) - y];
}

function check(low, high, order) {
  const [images, channels, h, w] = low.dims;
  const [others, joints, height, width] = high.dims;
  const shapes = `low [${low.dims}], high [${high.dims}]`;
  if (low.dims.length !== 4 || high.dims.length !== 4 || images !== 1 || others !== 1 || channels !== 2 * joints) {
    throw new RangeError(`not the heatmaps and tags of one image: ${shapes}`);
  }
  if (height !== 2 * h || width !== 2 * w) throw new RangeError(`maps do not fit each other: ${shapes}`);
  if (order.length !== joints || [...order].sort((a, b) => a - b).some((joint, index) => joint !== index)) {
    throw new RangeError(`[${order}] is not an order of ${joints} joints`);
  }
}

/** The mean of both heatmaps at stride 2, Float32Array (J, 2h, 2w); the low ones are enlarged as OpenCV's INTER_LINEAR. */
function fuse(low, high) {
  const [, joints, height, width] = high.dims;
  const [h, w] = [height / 2, width / 2];
  const fused = new Float32Array(joints * height * width);
  const wide = new Float32Array(h * width);
  const columns = Array.from({ length: width }, (_, x) => between(x, w));
  const rows = Array.from({ length: height }, (_, y) => between(y, h));
  for (let joint = 0; joint < joints; joint++) {
    columns.forEach(({ first, second, share }, x) => {
      for (let y = 0; y < h; y++) {
        const row = (joint * h + y) * w;
        wide[y * width + x] = mixed(low.data[row + first], low.data[row + second], share);
      }
    });
    rows.forEach(({ first, second, share }, y) => {
      const row = (joint * height + y) * width;
      for (let x = 0; x < width; x++) {
        const upsampled = Math.fround(mixed(wide[first * width + x], wide[second * width + x], share));
        fused[row + x] = 0.5 * upsampled + 0.5 * high.data[row + x];
      }
    });
  }
  return fused;
}

/** One value and a share of the way to another; a share of 0 is the first alone, whatever the other is. */
function mixed(one, other, share) {
  return share ? one + share * (other - one) : one;
}

/** Between which two of `count` cells the middle of a cell of half their size lies, and the share of the second. */
function between(cell, count) {
  const first = (cell - 1) >> 1;
  if (first < 0 || first === count - 1) return { first: Math.max(first, 0), second: 0, share: 0 };
  return { first, second: first + 1, share: cell & 1 ? 0.25 : 0.75 };
}

/** The heat of a cell; beyond an edge, of the cell at it. */
function heatAt({ heat, height, width }, joint, x, y) {
  const column = Math.min(Math.max(x, 0), width - 1);
  const row = Math.min(Math.max(y, 0), height - 1);
  return heat[(joint * height + row) * width + column];
}

/** A cell of a joint's fused heatmap, with its tag. */
function spotAt({ heat, tags, joints, height, width }, joint, x, y) {
  const tag = tags[((joints + joint) * (height / 2) + (y >> 1)) * (width / 2) + (x >> 1)];
  const far = Number.isNaN(tag) ? FAR_TAG : Math.sign(tag) * FAR_TAG;
  return { joint, x, y, heat: heat[(joint * height + y) * width + x], tag: Number.isFinite(tag) ? tag : far };
}

/** The cells [x, y] of a joint's fused heatmap with finite heat above a floor, row by row. */
function warmCells({ heat, height, width }, joint, floor) {
  const cells = [];
  const start = joint * height * width;
  for (let cell = 0; cell < height * width; cell++) {
    const value = heat[start + cell];
    if (value > floor && value < Infinity) cells.push([cell % width, Math.floor(cell / width)]);
  }
  return cells;
}

/** The local maxima of a joint's heatmap above the threshold, highest first, at most so many. */
function findPeaks(maps, joint, threshold, candidates) {
  const tops = warmCells(maps, joint, threshold).filter(([x, y]) => isHighest(maps, joint, x, y));
  const spots = tops.map(([x, y]) => spotAt(maps, joint, x, y)).sort((one, other) => other.heat - one.heat);
  const peaks = spots.slice(0, candidates);
  return peaks.filter((spot, k) => !peaks.slice(0, k).some((earlier) => onOnePlateau(spot, earlier)));
}

function isHighest(maps, joint, x, y) {
  const own = heatAt(maps, joint, x, y);
  for (let down = -WINDOW; down <= WINDOW; down++) {
    for (let across = -WINDOW; across <= WINDOW; across++) {
      if (heatAt(maps, joint, x + across, y + down) > own) return false; // NaN is no higher
    }
  }
  return true;
}

/** Coarse number formats make equal neighbours, which are one peak. */
function onOnePlateau(one, other) {
  return one.heat === other.heat && Math.abs(one.x - other.x) <= WINDOW && Math.abs(one.y - other.y) <= WINDOW;
}

/** [x, y, heat] of a spot in input pixels, refined below the cell; exact for a Gaussian. */
function place(maps, { joint, x, y, heat }) {
  const column = vertex(x, maps.width, (at) => heatAt(maps, joint, at, y));
  const row = vertex(y, maps.height, (at) => heatAt(maps, joint, x, at));
  return [column * HIGH_STRIDE, row * HIGH_STRIDE, heat];
}

/** The vertex, in cells, of the parabola through the logarithms of a cell's heat and its neighbours' on one axis. */
function vertex(cell, side, heat) {
  const inner = Math.max(Math.min(cell, side - 2), 1);
  const [before, here, after] = [inner - 1, inner, inner + 1].map((at) => {
    const value = heat(at);
    return Math.log(value > LEAST_HEAT ? Math.min(value, MOST_HEAT) : LEAST_HEAT); // NaN too is least
  });
  const bend = Math.min(before + after - 2 * here, -1e-9);
  return cell + 0.5 + Math.min(Math.max(inner - cell + (0.5 * (before - after)) / bend, -0.5), 0.5);
}

/**
 * Give the people's missing joints the warm cells with the nearest tags to their mean tags.
 *
 * A cell's worth is its heat less its tag distance in whole thresholds (HigherHRNet) and a little for its distance from
 * the person; one that would make the person longer than `longest` input pixels is a threshold farther away. One whose
 * tag is not the person's gets no score.
 */
function fillMissing(maps, people, floor, threshold, longest) {
  for (let joint = 0; joint < maps.joints; joint++) {
    const wanting = people.filter(({ seen }) => !seen[joint]);
    const spots = wanting.length ? placesOfMissing(maps, joint, floor) : [];
    if (!spots.length) continue;
    for (const { keypoints, seen, tag } of wanting) {
      const own = keypoints.filter((_, other) => seen[other]);
      const middle = [0, 1].map((axis) => own.reduce((sum, keypoint) => Math.fround(sum + keypoint[axis]), 0) / own.length);
      const [left, top, width, height] = boxRound(own);
      const penalty = NEARNESS / Math.max(width, height, LEAST_EXTENT);
      let best = { worth: -Infinity };
      for (const spot of spots) {
        const [x, y] = [spot.x, spot.y].map((cell) => (cell + 0.5) * HIGH_STRIDE);
        const across = Math.max(left + width, x) - Math.min(left, x);
        const down = Math.max(top + height, y) - Math.min(top, y);
        const step = roundEven(Math.abs(spot.tag - tag) / threshold) + (Math.max(across, down) > longest ? 1 : 0);
        const worth = spot.heat - step - penalty * Math.hypot(x - middle[0], y - middle[1]);
        if (worth > best.worth) best = { worth, step, spot };
      }
      const [x, y, heat] = place(maps, best.spot);
      keypoints[joint] = [x, y, best.step > 0 ? 0 : heat].map(Math.fround);
    }
  }
}

/** Where a missing joint may be: of the four cells that share a tag, the hottest; of the warmest cells alone. */
function placesOfMissing(maps, joint, floor) {
  let cells = warmCells(maps, joint, floor);
  if (cells.length > WARM_CELLS) {
    const heats = cells.map(([x, y]) => heatAt(maps, joint, x, y)).sort((a, b) => b - a);
    let spare = WARM_CELLS - heats.filter((heat) => heat > heats[WARM_CELLS - 1]).length; // among equals the first
    cells = cells.filter(([x, y]) => {
      const heat = heatAt(maps, joint, x, y);
      return heat > heats[WARM_CELLS - 1] || (heat === heats[WARM_CELLS - 1] && spare-- > 0);
    });
  }
  const hottest = cells.filter(([x, y]) => {
    const own = heatAt(maps, joint, x, y);
    const beside = heatAt(maps, joint, x ^ 1, y);
    const across = heatAt(maps, joint, x ^ 1, y ^ 1);
    return !(beside > own || across > own || heatAt(maps, joint, x, y ^ 1) > own);
  });
  return hottest.map(([x, y]) => spotAt(maps, joint, x, y));
}

/** The nearest whole number, of two as near the even one, as NumPy rounds. */
export function roundEven(value) {
  const floor = Math.floor(value);
  return floor + (value - floor > 0.5 || (value - floor === 0.5 && floor % 2 === 1) ? 1 : 0);
}
