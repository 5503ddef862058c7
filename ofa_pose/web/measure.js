/**
 * Times the models beside this page in this browser; `ofa-pose latency import results.csv` makes a table of it.
 *
 * A small network, the anchor, runs in turns with each of the others, and what is kept of these is how long they took by
 * its time. A browser does not say the processor's time, and its clock is coarse: so samples are long, and what makes the
 * device slower for a while (warmth, other programs, a core that two share) is divided out, as the anchor loses it alike.
 */

const WARM_UP = 2; // runs of a visit that do not count
const LEAST_SAMPLES = 5; // of a visit
const ALIKE = 0.02; // share by which the mean of samples may be off, for no more to be taken
const VISIT_MS = 400; // that those of a piece and of the anchor take together at most
const NET_MS = 1600; // that those of a whole network and of the anchor take: pieces are many, and their errors cancel
const STEPS = 40; // of the clock that a sample lasts at least
const SAMPLE_MS = 20; // that it lasts at least: longer than a scheduler lets one program run
const FIRST_MS = 1000; // that the anchor runs first: engines compile anew what runs often
const LONG_MS = 100; // after a sample that lasts longer the page may react
const DRIFT = 0.2; // of the anchor, that is warned of
const ANCHOR = "anchor";
const NOISE = Float32Array.from({ length: 4096 }, () => 2 * Math.random() - 1);

/** The element of an id. */
const $ = (id) => document.getElementById(id);

/** A fault with a sentence for the user. */
class Fault extends Error {}

/**
 * What was measured, kept by the browser as it grows, so that it survives a reload.
 *
 * Each visit is an entry of its own: [number of the subject, ratio, ms of the anchor].
 */
class Results {
  /**
   * @param {string} id of the bundle
   * @param {string[]} names of what is timed, in the order of their numbers
   */
  constructor(id, names) {
    this.key = `ofa-pose latency 2 ${id}`; // 2: of the entries
    this.names = names;
    this.anchor = [];
    this.ratios = new Map(names.map((name) => [name, []]));
    this.visits = 0;
    this.header = JSON.parse(localStorage.getItem(this.key));
    for (let kept; this.header && (kept = localStorage.getItem(`${this.key} ${this.visits}`)); ) {
      this.#add(...JSON.parse(kept));
    }
  }

  begin(header) {
    this.#keep(this.key, header);
    this.header = header;
  }

  /** Keep what `Runtime.visit` found. */
  append(name, { ratio, anchor }) {
    const entry = [this.names.indexOf(name), digits(ratio), digits(anchor)];
    this.#keep(`${this.key} ${this.visits}`, entry);
    this.#add(...entry);
  }

  forget() {
    for (; this.visits > 0; this.visits--) localStorage.removeItem(`${this.key} ${this.visits - 1}`);
    localStorage.removeItem(this.key);
  }

  /** How many timings there are, of how many. */
  get done() {
    return [...this.ratios.values()].reduce((sum, seen) => sum + seen.length, 0);
  }

  get total() {
    return this.names.length * (this.header?.rounds ?? 0);
  }

  /** The text of results.csv. */
  csv() {
    const rows = [[ANCHOR, this.anchor], ...this.ratios].flatMap(([name, seen]) => seen.map((one) => `${name},${one}`));
    return [`# ${JSON.stringify(this.header)}`, ...rows, ""].join("\n");
  }

  #add(number, ratio, anchor) {
    this.ratios.get(this.names[number]).push(ratio);
    this.anchor.push(anchor);
    this.visits += 1;
  }

  #keep(key, value) {
    try {
      localStorage.setItem(key, JSON.stringify(value));
    } catch (error) {
      throw new Fault(`This browser does not keep the results (${error.message}): free its storage, or leave private mode.`);
    }
  }
}

/** Networks, and parts of such, that run on onnxruntime-web. */
class Runtime {
  /**
   * @param {"wasm" | "webgpu"} backend
   * @param {number} threads of WASM; more than one need a page that is isolated from other origins
   */
  static async open(backend, threads) {
    if (backend === "webgpu" && !(await navigator.gpu?.requestAdapter())) {
      throw new Fault("This browser has no WebGPU on this page (it needs https or localhost, too): choose WASM.");
    }
    const address = new URL(document.querySelector("meta[name=onnxruntime-web]").content, location.href).href;
    let ort;
    try {
      ort = await import(`${address}ort.${backend}.min.mjs`);
    } catch (error) {
      throw new Fault(`onnxruntime-web could not be loaded from ${address} (${error.message}).`);
    }
    Object.assign(ort.env.wasm, { wasmPaths: address, numThreads: threads });
    ort.env.logLevel = "error";
    return new Runtime(ort, backend);
  }

  constructor(ort, backend) {
    this.ort = ort;
    this.backend = backend;
    this.sampleMs = Math.max(STEPS * clockStep(), SAMPLE_MS);
    this.models = new Map();
  }

  get name() {
    return `onnxruntime-web-${this.backend} ${this.ort.env.versions.web}`;
  }

  /** Load the anchor, and run it until engines have compiled what runs often. */
  async warm(anchor) {
    this.anchor ??= await this.#loaded(anchor);
    for (const end = performance.now() + FIRST_MS; performance.now() < end; ) await this.anchor.run(1);
    this.anchor.count = await this.#repetitions(this.anchor.run);
  }

  /**
   * How long a subject takes by the anchor's time, and the anchor's milliseconds. Short ones are repeated until they
   * make a sample.
   *
   * @param {{model: string, inputs: Object<string, [number, number]>}} subject file, and (channels, side) of each input
   * @param {number} most milliseconds that the samples take together
   */
  async visit(subject, most) {
    const [{ run, release }, anchor] = [await this.#loaded(subject), this.anchor];
    try {
      const count = await this.#repetitions(run);
      const [ratios, end] = [[], performance.now() + most];
      const beside = [await timed(anchor.run, anchor.count)];
      while (ratios.length < LEAST_SAMPLES || (middle(ratios).error > ALIKE && performance.now() < end)) {
        const ms = await timed(run, count);
        beside.push(await timed(anchor.run, anchor.count));
        ratios.push((2 * ms) / (beside.at(-1) + beside.at(-2)));
        if (ms > LONG_MS) await pause();
      }
      return { ratio: (middle(ratios).mean * anchor.count) / count, anchor: middle(beside).mean / anchor.count };
    } finally {
      await release();
    }
  }

  /** How many runs make a sample. */
  async #repetitions(run) {
    await run(WARM_UP);
    let [count, ms] = [1, await timed(run, 1)];
    while (ms < this.sampleMs) {
      count = Math.ceil(count * Math.min(Math.max((1.2 * this.sampleMs) / (ms || 1e-9), 1.5), 8));
      ms = await timed(run, count);
    }
    return count;
  }

  /** What runs a subject so many times, and what gives back its memory. */
  async #loaded(subject) {
    const options = { executionProviders: [this.backend] };
    if (this.backend === "webgpu") options.preferredOutputLocation = "gpu-buffer";
    const bytes = await this.#bytes(subject.model);
    const session = await this.ort.InferenceSession.create(bytes, options);
    const device = this.backend === "webgpu" ? await this.ort.env.webgpu.device : null;
    const feeds = Object.fromEntries(
      Object.entries(subject.inputs).map(([name, [channels, side]]) => [name, this.#input([1, channels, side, side], device)]),
    );
    const run = async (count) => {
      for (let left = count; left > 0; left--) {
        const outputs = await session.run(feeds);
        if (device) for (const one of Object.values(outputs)) one.dispose();
      }
      await device?.queue.onSubmittedWorkDone();
    };
    const release = async () => {
      for (const one of Object.values(feeds)) one.dispose();
      await session.release();
    };
    return { run, release };
  }

  /** A tensor of noise; on a GPU it lies there already, as what a network's piece reads. */
  #input(dims, device) {
    const data = Float32Array.from({ length: dims.reduce((one, other) => one * other) }, (_, i) => NOISE[i % NOISE.length]);
    if (!device) return new this.ort.Tensor("float32", data, dims);
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    const buffer = device.createBuffer({ size: Math.ceil(data.byteLength / 16) * 16, usage });
    device.queue.writeBuffer(buffer, 0, data);
    return this.ort.Tensor.fromGpuBuffer(buffer, { dataType: "float32", dims, dispose: () => buffer.destroy() });
  }

  async #bytes(model) {
    if (!this.models.has(model)) this.models.set(model, await (await fetched(`models/${model}`)).arrayBuffer());
    return this.models.get(model);
  }
}

/**
 * Time every subject until it has all rounds.
 *
 * @param {{header: object, subjects: Object<string, object>}} manifest `subjects`: what `Runtime.visit` takes, by name
 * @param {() => void} shown called after each visit
 */
async function sweep(runtime, { header, subjects }, results, shown) {
  const nets = { ...header.nets, ...header.checks };
  await visible();
  for (let round = 0; round < results.header.rounds; round++) {
    const waiting = shuffled(results.names.filter((name) => results.ratios.get(name).length <= round));
    while (waiting.length) {
      const [name, times] = [waiting.at(-1), hidings];
      const found = await runtime.visit(subjects[name], name in nets ? NET_MS : VISIT_MS);
      await pause();
      if (hidings > times || document.visibilityState === "hidden") {
        await visible(); // browsers slow down what is not seen: once more
        continue;
      }
      waiting.pop();
      results.append(name, found);
      shown();
    }
  }
}

/** Milliseconds of so many runs. */
async function timed(run, count) {
  const start = performance.now();
  await run(count);
  return performance.now() - start;
}

/** What the clock advances by, in milliseconds. */
function clockStep() {
  const steps = [];
  for (let last = performance.now(); steps.length < 15; ) {
    const now = performance.now();
    if (now > last) steps.push(now - last);
    last = now;
  }
  return median(steps);
}

function median(values) {
  return [...values].sort((one, other) => one - other)[values.length >> 1];
}

/** The mean of the middle half of some values, and by what share it may be off. */
function middle(values) {
  const quarter = values.length >> 2;
  const inner = [...values].sort((one, other) => one - other).slice(quarter, values.length - quarter);
  const mean = inner.reduce((sum, one) => sum + one, 0) / inner.length;
  return { mean, error: (inner.at(-1) - inner[0]) / mean / Math.sqrt(values.length) };
}

function shuffled(values) {
  const left = [...values];
  return values.map(() => left.splice(Math.floor(Math.random() * left.length), 1)[0]);
}

/** A number with the digits that results.csv has. */
function digits(value) {
  return Number(value.toPrecision(6));
}

/** Let the page react. */
function pause() {
  return new Promise((resolve) => setTimeout(resolve));
}

async function fetched(path) {
  const answer = await fetch(path).catch((error) => ({ ok: false, statusText: error.message }));
  if (!answer.ok) throw new Fault(`${path} could not be loaded (${answer.status ?? ""} ${answer.statusText}): copy the bundle again.`);
  return answer;
}

let hidings = 0; // how often the page was hidden

/** Wait until the page is seen. */
async function visible() {
  while (document.visibilityState === "hidden") {
    $("status").textContent = "Paused: browsers slow down pages that are not seen. Keep this one in front.";
    await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
  }
  await keepAwake();
}

/** Keep the screen on, where the browser can, and say what is going on. */
async function keepAwake() {
  const lock = await navigator.wakeLock?.request("screen").catch(() => null);
  $("status").textContent = lock
    ? "Measuring. Keep this page in front, and do nothing else on the device."
    : "Measuring. Keep this page in front and the screen on, and do nothing else on the device.";
}

function duration(seconds) {
  return seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`;
}

function show(results, since = null) {
  const { done, total, anchor } = results;
  $("progress").value = total ? done / total : 0;
  $("done").textContent = total ? `${done} / ${total}` : "–";
  const rate = since && done > since.done ? (performance.now() - since.start) / 1e3 / (done - since.done) : null;
  $("left").textContent = rate === null ? "–" : duration(rate * (total - done));
  $("anchor").textContent = anchor.length ? `${anchor.at(-1).toPrecision(3)} ms` : "–";
  const [first, last] = [anchor.slice(0, 5), anchor.slice(-5)].map((few) => median(few));
  const drift = last / first - 1;
  const change = `${Math.abs(100 * drift).toFixed(0)} % ${drift > 0 ? "slower" : "faster"} than at the start`;
  const cause = drift > 0 ? "it is warm, saves power or does other work" : "it saved power or did other work then";
  $("drift").textContent = Math.abs(drift) > DRIFT ? `The device is ${change}: ${cause}.` : "";
}

function finish(results) {
  $("left").textContent = "0 s";
  $("status").textContent = "Done. Save the results, and take the file home: ofa-pose latency import results.csv";
  $("start").hidden = true;
  $("save").hidden = false;
}

/** A file for the user. */
function save(results) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([results.csv()], { type: "text/csv" }));
  link.download = "results.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Measure what is not there yet, as the form says or the results that there are. */
async function measure(manifest, results, form) {
  const { backend, threads } = form;
  const [which, count] = [backend.value, Number(threads.value)];
  const runtime = await Runtime.open(which, count);
  await runtime.warm(manifest.subjects[ANCHOR]);
  if (!results.header) {
    results.begin({
      ...manifest.header,
      backend: `onnxruntime-web-${which}`,
      runtime: runtime.name,
      threads: count,
      device: form.device.value.trim(),
      cores: navigator.hardwareConcurrency || 1,
      rounds: Number(form.rounds.value),
      date: new Date().toISOString().replace(/\.\d+Z$/, "+00:00"),
      browser: navigator.userAgent,
    });
  } else if (results.header.runtime !== runtime.name) {
    throw new Fault(`The results that there are come from ${results.header.runtime}, this is ${runtime.name}: start anew.`);
  }
  const since = { done: results.done, start: performance.now() };
  await sweep(runtime, manifest, results, () => show(results, since));
  finish(results);
}

/** A name for the device, of what the browser says. */
function deviceName() {
  const system = /\(([^)]*)\)/.exec(navigator.userAgent)?.[1] ?? "a device";
  const browser = /(Firefox|Edg|OPR|SamsungBrowser|Chrome|Version)\/[\d]+/g;
  const found = navigator.userAgent.match(browser)?.at(-1) ?? "";
  return `${system}, ${found.replace("Version", "Safari").replace("/", " ")}`.slice(0, 100);
}

/** Fill the form: with the results that there are, else with the address (?backend=webgpu&rounds=3&device=…). */
function fill(form, header) {
  const given = new URLSearchParams(location.search);
  const most = self.crossOriginIsolated ? navigator.hardwareConcurrency || 1 : 1;
  form.threads.max = most;
  $("threaded").hidden = most === 1 && !header;
  form.device.value = deviceName();
  for (const name of ["device", "backend", "rounds", "threads"]) {
    const known = header && (name === "backend" ? header.backend.replace("onnxruntime-web-", "") : header[name]);
    if (known ?? given.has(name)) form[name].value = known ?? given.get(name);
    if (name === "backend" && !form[name].value) throw new Fault(`There is no backend ${given.get(name)}: wasm or webgpu.`);
  }
}

async function main() {
  const form = $("form");
  const manifest = await (await fetched("manifest.json")).json();
  const { header, subjects } = manifest;
  const names = Object.keys(subjects).filter((name) => name !== ANCHOR);
  const results = new Results(manifest.id, names);
  const nets = Object.keys(header.nets).length + Object.keys(header.checks).length;
  $("about").textContent =
    `${names.length - nets} pieces of networks and ${nets} whole networks of the space ${header.space.name} are timed ` +
    "in this browser. It takes minutes, and goes on where it was when the page is opened again.";
  fill(form.elements, results.header);
  show(results);
  const started = results.header !== null;
  $("anew").hidden = !started;
  $("fields").disabled = started;
  if (started) $("start").textContent = "Go on";
  $("start").disabled = false;
  $("save").addEventListener("click", () => save(results));
  $("anew").addEventListener("click", () => {
    if (!confirm("Forget what was measured?")) return;
    results.forget();
    location.reload();
  });
  document.addEventListener("visibilitychange", () => {
    hidings += document.visibilityState === "hidden";
  });
  if (started && results.done === results.total) finish(results);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    $("error").textContent = "";
    $("fields").disabled = true;
    $("start").hidden = $("anew").hidden = true;
    $("status").textContent = "The runtime is being loaded.";
    await measure(manifest, results, form.elements).catch((error) => {
      failed(error);
      $("start").hidden = false;
      $("fields").disabled = results.header !== null;
      $("start").textContent = results.header ? "Go on" : "Start";
    });
    $("anew").hidden = results.header === null;
  });
}

function failed(error) {
  $("status").textContent = "";
  $("error").textContent = error instanceof Fault ? error.message : `It failed: ${error.message ?? error}. Reload the page to go on.`;
}

main().catch(failed);
