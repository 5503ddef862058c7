// An exported network in a browser: an image in, people out. ofa_pose/runtime.py in JavaScript, on onnxruntime-web.

import { boxRound, decode, roundEven } from "./decode.js";

const MULTIPLE = 32; // of both input sides
const MOST_ASPECT = 8; // a longer image is shrunk further
const FILL = [124, 116, 104]; // RGB beyond the image: zero after the network's normalisation

/**
 * Load the model of an exported folder.
 * @param {string | URL} folder its address, which ends in a slash; model.json and the model are in it.
 * @param {string | URL} runtime the address of onnxruntime-web's files, which ends in a slash.
 * @param {string} [backend] "webgpu" or "wasm"; default: WebGPU where there is one that works, else WASM.
 * @returns {Promise<Model>}
 * @throws {Error} whose message is a sentence for people: what could not be loaded, or that there is no such backend.
 */
export async function load(folder, runtime, backend) {
  if (![undefined, "webgpu", "wasm"].includes(backend)) throw new Error(`There is no backend "${backend}".`);
  const settings = await (await get(new URL("model.json", folder))).json();
  const content = new Uint8Array(await (await get(new URL(settings.model, folder))).arrayBuffer());
  const gpu = backend !== "wasm" && (await navigator.gpu?.requestAdapter().catch(() => null));
  if (backend === "webgpu" && !gpu) throw new Error("This browser offers no WebGPU here.");
  if (gpu) {
    try {
      return await started("webgpu", content, settings, runtime);
    } catch (error) {
      if (backend) throw error;
    }
  }
  return started("wasm", content, settings, runtime);
}

async function get(address) {
  const answer = await fetch(address).catch(() => ({ ok: false, status: "no answer" }));
  if (!answer.ok) throw new Error(`${address} could not be loaded (${answer.status}).`);
  return answer;
}

/** A model that has computed something. */
async function started(backend, content, settings, runtime) {
  const address = new URL(`ort.${backend}.min.mjs`, runtime);
  const ort = await import(address).catch(() => {
    throw new Error(`onnxruntime-web could not be loaded from ${runtime}.`);
  });
  ort.env.wasm.wasmPaths = String(runtime);
  ort.env.logLevel = "error";
  let model;
  try {
    const session = await ort.InferenceSession.create(content, { executionProviders: [backend] });
    model = new Model(ort, session, backend, settings);
    await model.compute(new Float32Array(3 * model.resolution ** 2), model.resolution, model.resolution);
  } catch (error) {
    throw new Error(`The model could not be started on ${backend} (${error.message}).`);
  }
  return model;
}

/**
 * A loaded model.
 * @property {string} backend "webgpu" or "wasm"; threads: how many WASM computes in.
 * @property {number} resolution the network's own: the short side of its input in pixels.
 * @property {{name: string, joints: string[], limbs: number[][], flip_pairs: number[][]}} skeleton limbs and pairs are
 *     indices of joints.
 */
export class Model {
  constructor(ort, session, backend, settings) {
    this.ort = ort;
    this.session = session;
    this.backend = backend;
    this.threads = backend === "wasm" ? ort.env.wasm.numThreads : undefined;
    const { spec, skeleton, decode: options, grouping_order: order } = settings;
    const indices = (pairs) => pairs.map((names) => names.map((name) => skeleton.joints.indexOf(name)));
    this.resolution = spec.resolution;
    this.skeleton = { ...skeleton, limbs: indices(skeleton.limbs), flip_pairs: indices(skeleton.flip_pairs) };
    this.options = { ...options, order };
    this.last = Promise.resolve(); // a session computes one input at a time
  }

  /**
   * The people on an image, best first, all candidates among them: `score` says how sure each is.
   * @param {ImageData} image RGBA.
   * @param {number} [resolution] what its short side is scaled to, in pixels.
   * @returns {Promise<{people: import("./decode.js").Pose[], input: number[], ms: {prepare: number, network: number,
   *     decode: number}}>} people: places in image pixels; input: the width and height of the network's input.
   */
  async find(image, resolution = this.resolution) {
    const start = performance.now();
    const frame = inputFrame(image.width, image.height, resolution);
    const planes = warp(image, frame);
    const prepared = performance.now();
    const { low, high } = await this.compute(planes, frame.width, frame.height);
    const computed = performance.now();
    const people = decode(low, high, this.options).map((person) => inImage(person, frame));
    const ms = { prepare: prepared - start, network: computed - prepared, decode: performance.now() - computed };
    return { people, input: [frame.width, frame.height], ms };
  }

  /** The maps "low" and "high" of an input: Float32Array (3, height, width), RGB from 0 to 255. */
  async compute(planes, width, height) {
    const image = new this.ort.Tensor("float32", planes, [1, 3, height, width]);
    const run = () => this.session.run({ [this.session.inputNames[0]]: image });
    this.last = this.last.then(run, run);
    return this.last;
  }
}

/** A person with places in image pixels; a joint of all zeros stays so. */
function inImage({ score, keypoints }, { scale, left, top }) {
  const moved = keypoints.map(([x, y, heat]) => {
    return x || y || heat ? [(x - left) / scale, (y - top) / scale, heat] : [0, 0, 0];
  });
  return { score, box: boxRound(moved), keypoints: moved };
}

/**
 * How an image lies in the network's input: input = image · scale + [left, top], as ofa_pose/pose/geometry.py has it.
 * @returns {{width: number, height: number, scale: number, left: number, top: number}} of the input, in input pixels.
 */
export function inputFrame(imageWidth, imageHeight, resolution) {
  const [short, long] = [Math.min(imageWidth, imageHeight), Math.max(imageWidth, imageHeight)];
  const tooLong = long > MOST_ASPECT * short;
  const [numerator, denominator] = tooLong ? [MOST_ASPECT * resolution, long] : [resolution, short];
  const [width, height] = [imageWidth, imageHeight].map(
    (length) => Math.max(1, Math.ceil((length * numerator) / (denominator * MULTIPLE))) * MULTIPLE,
  );
  const scale = numerator / denominator;
  const left = Math.trunc((width - imageWidth * scale) / 2);
  const top = Math.trunc((height - imageHeight * scale) / 2);
  return { width, height, scale, left, top };
}

/**
 * An image as its frame's input: Float32Array (3, frame.height, frame.width), whole numbers from 0 to 255 in RGB. It is
 * sampled as OpenCV does it, by areas where it shrinks and linearly where it grows: a canvas would do it another way in
 * every browser.
 * @param {ImageData} image
 */
export function warp(image, frame) {
  const size = frame.width * frame.height;
  const planes = new Float32Array(3 * size);
  FILL.forEach((value, channel) => planes.fill(value, channel * size, (channel + 1) * size));
  const put = (x, y, red, green, blue) => {
    const at = (y + frame.top) * frame.width + x + frame.left;
    planes[at] = red;
    planes[size + at] = green;
    planes[2 * size + at] = blue;
  };
  const resize = frame.scale > 1 ? enlarge : shrink;
  resize(image, frame.scale, frame.width - frame.left, frame.height - frame.top, put);
  return planes;
}

/** The length of a resized line, at most `most`, and the pixels of the old one per pixel of it; one pixel at least. */
function resized(length, scale, most) {
  const count = Math.min(Math.max(1, roundEven(length * scale)), most);
  return [count, length * scale < 1 ? length : 1 / scale];
}

/**
 * Give `put(x, y, red, green, blue)` the pixels of a shrunk image, each the mean over its area; a copy at scale 1. It is
 * computed in single precision, in OpenCV's order, so that halves are rounded alike.
 */
function shrink({ data, width, height }, scale, mostAcross, mostDown, put) {
  const across = areas(width, ...resized(width, scale, mostAcross));
  const down = areas(height, ...resized(height, scale, mostDown));
  const [row, sum] = [0, 1].map(() => new Float32Array(3 * (across.start.length - 1)));
  const round = scale === 0.5 ? Math.round : roundEven; // as OpenCV, which adds four pixels there
  let last = -1; // the row that was shrunk last: neighbours share one
  for (let y = 0; y + 1 < down.start.length; y++) {
    sum.fill(0);
    for (let k = down.start[y]; k < down.start[y + 1]; k++) {
      if (down.pixel[k] !== last) shrinkRow(data, 4 * width * down.pixel[k], across, row);
      last = down.pixel[k];
      for (let x = 0; x < sum.length; x++) sum[x] += Math.fround(down.weight[k] * row[x]);
    }
    for (let x = 0; x < sum.length; x += 3) {
      put(x / 3, y, round(sum[x]), round(sum[x + 1]), round(sum[x + 2]));
    }
  }
}

/** Shrink the row of RGBA that begins at `begin` to RGB. */
function shrinkRow(data, begin, { start, pixel, weight }, row) {
  row.fill(0);
  for (let x = 0; x + 1 < start.length; x++) {
    for (let k = start[x]; k < start[x + 1]; k++) {
      const from = begin + 4 * pixel[k];
      row[3 * x] += Math.fround(weight[k] * data[from]);
      row[3 * x + 1] += Math.fround(weight[k] * data[from + 1]);
      row[3 * x + 2] += Math.fround(weight[k] * data[from + 2]);
    }
  }
}

/** Pixel i of a shrunk line is the sum of weight[k] · line[pixel[k]] for k from start[i] to start[i + 1]. */
function areas(length, count, step) {
  const [start, pixel, weight] = [[0], [], []];
  for (let i = 0; i < count; i++) {
    const [begin, end] = [i * step, Math.min((i + 1) * step, length)];
    for (let at = Math.floor(begin); at < end; at++) {
      pixel.push(at);
      weight.push((Math.min(at + 1, end) - Math.max(at, begin)) / (end - begin));
    }
    start.push(pixel.length);
  }
  return { start: Int32Array.from(start), pixel: Int32Array.from(pixel), weight: Float32Array.from(weight) };
}

/** As `shrink`, of an enlarged image: linear in whole numbers, shares in 2048ths, as OpenCV has it for 8 bits. */
function enlarge({ data, width, height }, scale, mostAcross, mostDown, put) {
  const across = neighbours(width, ...resized(width, scale, mostAcross));
  const down = neighbours(height, ...resized(height, scale, mostDown));
  const part = (share, value) => (share * (value >> 4)) >> 16;
  down.forEach(([above, below, low], y) => {
    across.forEach(([left, right, far], x) => {
      const corners = [above * width + left, above * width + right, below * width + left, below * width + right];
      const [a, b, c, d] = corners.map((pixel) => 4 * pixel);
      const colour = (channel) => {
        const upper = (2048 - far) * data[a + channel] + far * data[b + channel];
        const lower = (2048 - far) * data[c + channel] + far * data[d + channel];
        return (part(2048 - low, upper) + part(low, lower) + 2) >> 2;
      };
      put(x, y, colour(0), colour(1), colour(2));
    });
  });
}

/** Of each pixel of an enlarged line the two old ones that it lies between, and the share of the second in 2048ths. */
function neighbours(length, count, step) {
  const inside = (pixel) => Math.min(Math.max(pixel, 0), length - 1);
  return Array.from({ length: count }, (_, i) => {
    const at = Math.fround((i + 0.5) * step - 0.5);
    const first = Math.floor(at);
    return [inside(first), inside(first + 1), roundEven((at - first) * 2048)];
  });
}
