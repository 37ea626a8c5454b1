// The one crop, in JavaScript: a face in a picture -> a chip, as a CropSpec says. Twin of mien/vision/align.py;
// tests/web hold the two together to 2 grey levels.
import { roundEven, shrunk } from './pixels.js';

/** Whether this file can cut chips as the spec wants; the server can cut them all. */
export function canCrop(spec) {
  return spec.mask === 'none';
}

/** The map [a, b, c, d, e, f] from picture to chip: x' = ax + by + c, y' = dx + ey + f; pixel i covers [i, i + 1]. */
export function cropMatrix(face, spec) {
  if (spec.align === 'box') return boxMatrix(face.box, spec);
  const wanted = spec.points.map(([x, y]) => [
    ((x - 0.5) / (1 + 2 * spec.margin)) * spec.width + spec.width / 2,
    ((y - 0.5) / (1 + 2 * spec.margin)) * spec.height + spec.height / 2,
  ]);
  const count = spec.align === 'eyes' ? 2 : 5;
  return similarity(face.landmarks.slice(0, count), wanted.slice(0, count));
}

function boxMatrix([x0, y0, x1, y1], spec) {
  const ratio = spec.width / spec.height;
  const height = Math.max(y1 - y0, (x1 - x0) / ratio);
  if (!(height > 0)) throw new Error("the face's box spans nothing");
  const x = (x0 + x1) / 2 + height * ratio * spec.shift[0];
  const y = (y0 + y1) / 2 + height * spec.shift[1];
  const scale = spec.height / (height * (1 + 2 * spec.margin));
  return [scale, 0, spec.width / 2 - scale * x, 0, scale, spec.height / 2 - scale * y];
}

const mean = (points, axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length;

/** The turn, scale and shift that take the source points closest to the target points: S. Umeyama, IEEE TPAMI 13(4), 1991. */
export function similarity(source, target) {
  const from = [mean(source, 0), mean(source, 1)];
  const to = [mean(target, 0), mean(target, 1)];
  let spread = 0;
  let cos = 0;
  let sin = 0;
  source.forEach((point, i) => {
    const [ax, ay] = [point[0] - from[0], point[1] - from[1]];
    const [bx, by] = [target[i][0] - to[0], target[i][1] - to[1]];
    spread += ax * ax + ay * ay;
    cos += ax * bx + ay * by;
    sin += ax * by - ay * bx;
  });
  if (!(spread > 1e-9)) throw new Error("the face's landmarks coincide or are not numbers");
  cos /= spread;
  sin /= spread;
  return [cos, -sin, to[0] - cos * from[0] + sin * from[1], sin, cos, to[1] - sin * from[0] - cos * from[1]];
}

/** The face whose crop is exactly the whole picture: for pictures that already are faces. */
export function framed(image, spec) {
  const sides = [image.width, image.height];
  const inner = sides.map((side) => side / (1 + 2 * spec.margin));
  const start = sides.map((side, i) => (side - inner[i]) / 2 - (spec.align === 'box' ? inner[i] * spec.shift[i] : 0));
  const landmarks = spec.points
    ? spec.points.map((point) => point.map((part, i) => ((part - 0.5) / (1 + 2 * spec.margin) + 0.5) * sides[i]))
    : null;
  return { box: [start[0], start[1], start[0] + inner[0], start[1] + inner[1]], score: 1, landmarks };
}

/** The chip: {data: Uint8ClampedArray RGB, width, height, step: 3}, without a border. */
export function crop(image, face, spec) {
  const { width, height } = spec;
  return recoloured(warped(image, cropMatrix(face, spec), width, height), spec.colour);
}

function inverse([a, b, c, d, e, f]) {
  const det = a * e - b * d;
  const [ia, ib, id, ie] = [e / det, -b / det, -d / det, a / det];
  return [ia, ib, -(ia * c + ib * f), id, ie, -(id * c + ie * f)];
}

/** The part of the picture that the chip sees, with a margin: [x, y, width, height]. */
function region(image, matrix, width, height, scale) {
  const [a, b, c, d, e, f] = inverse(matrix);
  const corners = [[0, 0], [width, 0], [0, height], [width, height]];
  const xs = corners.map(([x, y]) => a * x + b * y + c);
  const ys = corners.map(([x, y]) => d * x + e * y + f);
  const pad = 2 + 2 / Math.max(scale, 1e-6);
  const part = (values, limit) => {
    const low = Math.min(Math.max(Math.floor(Math.min(...values) - pad), 0), limit - 1);
    return [low, Math.min(Math.max(Math.ceil(Math.max(...values) + pad), low + 1), limit) - low];
  };
  const [left, wide] = part(xs, image.width);
  const [top, high] = part(ys, image.height);
  return [left, top, wide, high];
}

/** Shrink the region around the face by area if the chip is smaller, then sample it once, bilinearly. */
function warped(image, matrix, width, height) {
  const scale = Math.hypot(matrix[0], matrix[3]);
  const part = region(image, matrix, width, height, scale);
  const [left, top, wide, high] = part;
  const factor = Math.min(scale, 1);
  const small = [Math.max(1, roundEven(wide * factor)), Math.max(1, roundEven(high * factor))];
  const seen = shrunk(image, part, ...small);
  const [a, b, c, d, e, f] = matrix;
  const shifted = [a, b, c + a * left + b * top, d, e, f + d * left + e * top];
  const [sx, sy] = [wide / small[0], high / small[1]];
  const [ia, ib, ic, id, ie, jf] = inverse([a * sx, b * sy, shifted[2], d * sx, e * sy, shifted[5]]);
  const out = new Uint8ClampedArray(width * height * 3);
  for (let row = 0, at = 0; row < height; row++) {
    for (let column = 0; column < width; column++, at += 3) {
      const [x, y] = [column + 0.5, row + 0.5];
      sample(seen, ia * x + ib * y + ic - 0.5, id * x + ie * y + jf - 0.5, out, at);
    }
  }
  return { data: out, width, height, step: 3 };
}

/** One pixel between four, at the point (x, y) where pixel i is the point i; outside, the edge repeats. */
function sample({ data, width, height }, x, y, out, at) {
  const [x0, y0] = [Math.floor(x), Math.floor(y)];
  const [u, v] = [x - x0, y - y0];
  const left = Math.min(Math.max(x0, 0), width - 1);
  const right = Math.min(Math.max(x0 + 1, 0), width - 1);
  const upper = Math.min(Math.max(y0, 0), height - 1) * width;
  const lower = Math.min(Math.max(y0 + 1, 0), height - 1) * width;
  for (let k = 0; k < 3; k++) {
    const above = data[(upper + left) * 3 + k] * (1 - u) + data[(upper + right) * 3 + k] * u;
    const below = data[(lower + left) * 3 + k] * (1 - u) + data[(lower + right) * 3 + k] * u;
    out[at + k] = above * (1 - v) + below * v;
  }
}

function recoloured(chip, colour) {
  if (colour === 'rgb') return chip;
  const tone = colour === 'grey' ? luma : lightness;
  const { data } = chip;
  for (let at = 0; at < data.length; at += 3) {
    data[at] = data[at + 1] = data[at + 2] = tone(data[at], data[at + 1], data[at + 2]);
  }
  return chip;
}

/** ITU-R BT.601. */
const luma = (red, green, blue) => 0.299 * red + 0.587 * green + 0.114 * blue;

/** CIE L* of sRGB (IEC 61966-2-1), 0..255. */
function lightness(red, green, blue) {
  const linear = (byte) => (byte <= 10.31475 ? byte / 3294.6 : ((byte / 255 + 0.055) / 1.055) ** 2.4);
  const y = 0.212671 * linear(red) + 0.71516 * linear(green) + 0.072169 * linear(blue);
  return 2.55 * (y > 0.008856 ? 116 * Math.cbrt(y) - 16 : 903.3 * y);
}
