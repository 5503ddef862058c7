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
export function warp({ data, width, height }, frame) {
  const size = frame.width * frame.height;
  const planes = new Float32Array(3 * size);
  FILL.forEach((value, channel) => planes.fill(value, channel * size, (channel + 1) * size));
  const across = samples(width, frame.scale, frame.width - frame.left);
  const down = samples(height, frame.scale, frame.height - frame.top);
  const row = new Float32Array(3 * width);
  for (let y = 0; y < down.count; y++) {
    row.fill(0);
    for (let k = down.start[y]; k < down.start[y + 1]; k++) {
      const weight = down.weight[k];
      for (let x = 0, from = 4 * down.pixel[k] * width; x < 3 * width; x += 3, from += 4) {
        row[x] += weight * data[from];
        row[x + 1] += weight * data[from + 1];
        row[x + 2] += weight * data[from + 2];
      }
    }
    const start = (y + frame.top) * frame.width + frame.left;
    for (let x = 0; x < across.count; x++) {
      let [red, green, blue] = [0, 0, 0];
      for (let k = across.start[x]; k < across.start[x + 1]; k++) {
        const [weight, from] = [across.weight[k], 3 * across.pixel[k]];
        red += weight * row[from];
        green += weight * row[from + 1];
        blue += weight * row[from + 2];
      }
      planes[start + x] = Math.round(red);
      planes[size + start + x] = Math.round(green);
      planes[2 * size + start + x] = Math.round(blue);
    }
  }
  return planes;
}

/**
 * Which pixels of a line of `length` an enlarged or shrunk line is made of, at most `most` of its pixels: pixel i is the
 * sum of weight[k] · line[pixel[k]] for k from start[i] to start[i + 1].
 */
function samples(length, scale, most) {
  const whole = Math.max(1, roundEven(length * scale));
  const step = length * scale < 1 ? length : 1 / scale; // a line thinner than a pixel becomes one
  const count = Math.min(whole, most);
  const [start, pixel, weight] = [[0], [], []];
  for (let i = 0; i < count; i++) {
    if (scale > 1) {
      const at = Math.min(Math.max((i + 0.5) * step - 0.5, 0), length - 1);
      const near = Math.min(Math.floor(at), Math.max(0, length - 2));
      pixel.push(near, Math.min(near + 1, length - 1));
      weight.push(1 - (at - near), at - near);
    } else {
      const [begin, end] = [i * step, Math.min((i + 1) * step, length)];
      for (let at = Math.floor(begin); at < end && at < length; at++) {
        pixel.push(at);
        weight.push((Math.min(at + 1, end) - Math.max(at, begin)) / (end - begin));
      }
    }
    start.push(pixel.length);
  }
  return { count, start: Int32Array.from(start), pixel: Int32Array.from(pixel), weight: Float64Array.from(weight) };
}
