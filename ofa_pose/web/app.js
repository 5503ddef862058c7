// The page: a camera, a photo or a video in, people drawn over it.

import { drawPoses } from "./draw.js";
import { load } from "./model.js";

const RESOLUTIONS = [128, 160, 192, 224, 256, 320, 384, 448, 512];
const MOST_PIXELS = 16e6; // of a canvas on a phone; a larger photo is shrunk
const MOST_SHOWN = 1600; // pixels of the longer side of the picture on the page
const RATE_OVER = 2000; // ms over which frames a second are counted
const CAMERA_SIZE = { width: { ideal: 640 }, height: { ideal: 480 } };

const part = (id) => document.getElementById(id);
const picture = part("picture");
const video = part("video");
const source = document.createElement("canvas"); // what the network is given, in its full size

let model;
let shown = null; // {kind: "photo" | "frame", name, scale, width, height, people}
let stream = 0; // the number of the camera or film that runs now; another number ends it
let track = null; // of the camera

start();

async function start() {
  if (location.protocol === "file:") return;
  try {
    const runtime = new URL(document.querySelector('meta[name="onnxruntime-web"]').content, location.href);
    const backend = new URLSearchParams(location.search).get("backend") ?? undefined;
    model = await load(new URL("./", location.href), runtime, backend);
  } catch (error) {
    say("");
    return complain(error.message);
  }
  const { name, joints } = model.skeleton;
  part("description").textContent = `${count(joints.length, "joint", "joints")} (${name}), on this device alone`;
  part("joints").textContent = joints.join(", ");
  part("backend").textContent = model.backend === "webgpu" ? "WebGPU" : "WASM";
  if (model.threads) part("threads").textContent = `runs on (${count(model.threads, "thread", "threads")})`;
  for (const side of [...new Set([...RESOLUTIONS, model.resolution])].sort((a, b) => a - b)) {
    const text = side === model.resolution ? `${side} (own)` : `${side}`;
    part("resolution").append(new Option(text, side, false, side === model.resolution));
  }
  for (const id of ["camera", "photo", "film"]) part(id).disabled = false;
  part("camera").onclick = startCamera;
  part("photo").onclick = () => part("photo-file").click();
  part("film").onclick = () => part("film-file").click();
  part("photo-file").onchange = ({ target }) => chosen(target, showPhoto);
  part("film-file").onchange = ({ target }) => chosen(target, startFilm);
  part("stop").onclick = () => stop();
  part("save").onclick = save;
  part("facing").onchange = () => track && startCamera();
  part("resolution").onchange = () => shown?.kind === "photo" && findInPhoto();
  part("threshold").oninput = () => {
    part("threshold-shown").textContent = threshold().toFixed(2);
    if (shown) show();
  };
  say("Choose the camera, a photo or a video. None is sent anywhere.");
}

function say(text) {
  part("status").textContent = text;
}

function complain(text) {
  part("problem").textContent = text;
}

function threshold() {
  return Number(part("threshold").value);
}

function people() {
  return shown.people.filter(({ score }) => score >= threshold());
}

function count(number, one, many) {
  return `${number} ${number === 1 ? one : many}`;
}

function chosen(input, use) {
  const [file] = input.files;
  input.value = ""; // so that the same file can be chosen again
  if (file) use(file);
}

async function showPhoto(file) {
  stop("");
  complain("");
  const number = stream;
  say(`Reading ${file.name} …`);
  const options = { imageOrientation: "from-image", colorSpaceConversion: "none" };
  const bitmap = await createImageBitmap(file, options).catch(() => null);
  if (number !== stream) return bitmap?.close(); // something else was chosen meanwhile
  if (!bitmap) {
    say("");
    return complain(`${file.name} is not an image that this browser reads.`);
  }
  const { width, height } = bitmap;
  const scale = Math.min(1, Math.sqrt(MOST_PIXELS / (width * height)));
  take(bitmap, Math.round(width * scale), Math.round(height * scale));
  bitmap.close();
  shown = { kind: "photo", name: file.name, width, height, scale: source.width / width, people: [] };
  await findInPhoto();
}

async function findInPhoto() {
  const photo = shown;
  try {
    await findPeople();
  } catch (error) {
    if (shown !== photo) return;
    say("");
    return complain(`The network failed on this photo (${error.message}).`);
  }
  if (shown !== photo) return;
  part("rate").textContent = "–";
  part("save").hidden = false;
  say(`${photo.name}: ${count(people().length, "person", "people")}`);
}

/** Copy an image or a video's frame into the source, in this size. */
function take(image, width, height) {
  [source.width, source.height] = [width, height];
  source.getContext("2d", { willReadFrequently: true }).drawImage(image, 0, 0, width, height);
}

/** Find the people on the source, and show them. */
async function findPeople() {
  const [current, resolution] = [shown, Number(part("resolution").value)];
  const image = source.getContext("2d").getImageData(0, 0, source.width, source.height);
  const found = await model.find(image, resolution);
  if (shown !== current) return;
  shown.people = found.people.map(({ score, box, keypoints }) => ({
    score,
    box: box.map((length) => length / shown.scale),
    keypoints: keypoints.map(([x, y, heat]) => [x / shown.scale, y / shown.scale, heat]),
  }));
  part("network").textContent = found.ms.network.toFixed(1);
  part("decoder").textContent = found.ms.decode.toFixed(1);
  part("input").textContent = found.input.join("×");
  show();
}

/** The source and the people on it. */
function show() {
  const scale = Math.min(1, MOST_SHOWN / Math.max(source.width, source.height));
  const [width, height] = [Math.round(source.width * scale), Math.round(source.height * scale)];
  if (picture.width !== width) picture.width = width;
  if (picture.height !== height) picture.height = height;
  const context = picture.getContext("2d");
  context.drawImage(source, 0, 0, width, height);
  const sure = people();
  drawPoses(context, sure, model.skeleton, threshold(), scale * shown.scale);
  part("people").textContent = sure.length;
  picture.setAttribute("aria-label", `${shown.name}, ${count(sure.length, "person", "people")} drawn over it`);
  picture.hidden = false;
}

async function startCamera() {
  stop("");
  complain("");
  if (!navigator.mediaDevices?.getUserMedia) {
    return complain(
      isSecureContext
        ? "This browser offers no camera."
        : "A browser gives a camera to secure pages alone: open this one over https, or as http://localhost.",
    );
  }
  const number = ++stream;
  say("Waiting for the camera …");
  let media;
  try {
    const facingMode = { ideal: part("facing").value };
    media = await navigator.mediaDevices.getUserMedia({ audio: false, video: { facingMode, ...CAMERA_SIZE } });
  } catch (error) {
    if (number !== stream) return;
    say("");
    return complain(cameraProblem(error));
  }
  if (number !== stream) return media.getTracks().forEach((one) => one.stop());
  [track] = media.getVideoTracks();
  track.onended = () => number === stream && stop("The camera ended.");
  picture.classList.toggle("mirrored", track.getSettings().facingMode === "user");
  video.srcObject = media;
  await follow(number, "camera");
}

function cameraProblem({ name, message }) {
  const sentences = {
    NotAllowedError: "The camera was not allowed: allow it for this page in the browser's settings, and try again.",
    NotFoundError: "There is no camera.",
    OverconstrainedError: "There is no such camera.",
    NotReadableError: "The camera is in use by another program, or does not answer.",
  };
  return sentences[name] ?? `The camera could not be opened (${message}).`;
}

async function startFilm(file) {
  stop("");
  complain("");
  const number = ++stream;
  video.src = URL.createObjectURL(file);
  await follow(number, file.name);
}

/** Find the people in one frame after another until another stream is started, this one is stopped or it ends. */
async function follow(number, name) {
  try {
    await video.play();
  } catch (error) {
    if (number === stream) {
      stop("");
      complain(`${name === "camera" ? "The camera" : name} cannot be played (${error.message}).`);
    }
    return;
  }
  part("stop").hidden = false;
  say(`Running: ${name}`);
  shown = { kind: "frame", name, scale: 1, width: video.videoWidth, height: video.videoHeight, people: [] };
  const times = [];
  let [frames, last] = [0, -1];
  try {
    while (number === stream && !video.ended) {
      await new Promise(nextFrame);
      if (number !== stream || video.paused || video.currentTime === last || !video.videoWidth) continue;
      last = video.currentTime;
      take(video, video.videoWidth, video.videoHeight);
      await findPeople();
      if (number !== stream) return;
      frames++;
      times.push(performance.now());
      while (times.length > 2 && times[0] < times.at(-1) - RATE_OVER) times.shift();
      const rate = (1000 * (times.length - 1)) / (times.at(-1) - times[0]);
      part("rate").textContent = times.length > 1 ? rate.toFixed(1) : "–";
      video.dataset.frames = frames;
    }
    if (number === stream) stop(`${name}: the end, after ${count(frames, "frame", "frames")}`);
  } catch (error) {
    if (number !== stream) return;
    stop("");
    complain(`The network failed on this frame (${error.message}).`);
  }
}

/** Call back when the video shows another frame, or pauses, as it does at its end. */
function nextFrame(callback) {
  video.onpause = callback;
  if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(callback);
  else requestAnimationFrame(callback);
}

/** End the camera or film; `text` takes the place of the status. */
function stop(text = "Stopped.") {
  stream++;
  track?.stop();
  track = null;
  video.pause();
  if (video.src) URL.revokeObjectURL(video.src);
  video.srcObject = null;
  video.removeAttribute("src");
  if (shown?.kind === "photo") shown = null;
  picture.classList.remove("mirrored");
  part("stop").hidden = true;
  part("save").hidden = true;
  say(text);
}

/** The poses of the photo as a file: people as `Poses.save` of ofa_pose writes them, places in the photo's pixels. */
function save() {
  const { name, width, height } = shown;
  const content = JSON.stringify({ file: name, width, height, people: people() }, null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "application/json" }));
  link.download = `${name.replace(/\.[^.]*$/, "")}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // Safari reads it later
}
