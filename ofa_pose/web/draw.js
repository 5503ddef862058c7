// Poses over an image, as ofa_pose/pose/draw.py draws them.

const GOLDEN_RATIO = 0.6180339887; // steps of it round the hue circle keep any number of people apart
const FIRST_HUE = 0.95;
const OUTLINE = "rgb(25 25 25)";
const LINE_OF_PERSON = 0.022; // a line's width by the person's extent,
const LINE_OF_IMAGE = 0.012; // at most by the image's short side
const SIDES = { 1: 0.62, 0: 0.5, "-1": 0.35 }; // lightness of the left side, the middle, the right side

/**
 * Draw people's joints of at least `threshold` and the limbs between them.
 * @param {CanvasRenderingContext2D} context
 * @param {import("./decode.js").Pose[]} people places in image pixels; the first comes on top.
 * @param {{limbs: number[][], flip_pairs: number[][]}} skeleton limbs and pairs as indices of joints.
 * @param {number} threshold
 * @param {number} scale canvas pixels per image pixel.
 */
export function drawPoses(context, people, skeleton, threshold, scale) {
  const side = {};
  for (const [left, right] of skeleton.flip_pairs) [side[left], side[right]] = [1, -1];
  const sideOf = (...joints) => Math.sign(joints.reduce((sum, joint) => sum + (side[joint] ?? 0), 0));
  context.lineCap = "round";
  for (let number = people.length - 1; number >= 0; number--) {
    const hue = 360 * ((FIRST_HUE + number * GOLDEN_RATIO) % 1);
    const paint = (...joints) => `hsl(${hue} 90% ${100 * SIDES[sideOf(...joints)]}%)`;
    const places = people[number].keypoints.map(([x, y, score]) => {
      return score > 0 && score >= threshold ? [x * scale, y * scale] : null;
    });
    const seen = places.filter(Boolean);
    if (!seen.length) continue;
    const extent = Math.max(...[0, 1].map((axis) => range(seen.map((place) => place[axis]))));
    const { width: across, height: down } = context.canvas;
    const width = Math.max(1.5, Math.min(LINE_OF_PERSON * extent, LINE_OF_IMAGE * Math.min(across, down)));
    const rim = Math.max(1, width / 3);
    for (const under of [true, false]) {
      context.lineWidth = width + (under ? 2 * rim : 0);
      for (const [a, b] of skeleton.limbs) {
        if (!places[a] || !places[b]) continue;
        context.strokeStyle = under ? OUTLINE : paint(a, b);
        context.beginPath();
        context.moveTo(...places[a]);
        context.lineTo(...places[b]);
        context.stroke();
      }
    }
    places.forEach((place, joint) => {
      if (!place) return;
      context.fillStyle = paint(joint);
      context.strokeStyle = OUTLINE;
      context.lineWidth = rim;
      context.beginPath();
      context.arc(...place, 1.1 * width + rim / 2, 0, 2 * Math.PI);
      context.fill();
      context.stroke();
    });
  }
}

function range(values) {
  return Math.max(...values) - Math.min(...values);
}
