// The face detector around a network in YuNet's form. Twin of mien/runtime/detect.py; what it knows of the network comes
// from its spec and from `look`, both written into page.json by Python.
import { resized } from './pixels.js';

export const STRIDES = [8, 16, 32];
export const OUTPUTS = STRIDES.flatMap((stride) => ['cls', 'obj', 'bbox', 'kps'].map((part) => `${part}_${stride}`));

/** The scale of the first look at a picture, and the one at which faces of min_size are found. */
export function scales(image, spec, look) {
  const longest = Math.max(image.width, image.height);
  const pixels = image.width * image.height;
  const panorama = longest > 3 * Math.min(image.width, image.height);
  const side = panorama ? Math.max(spec.long_side, look.panorama) : spec.long_side;
  const scale = Math.min(1, Math.max(spec.long_side / longest, side / Math.sqrt(2 * pixels)));
  const wanted = look.min_size ? Math.max(scale, Math.min(2, look.sure / look.min_size)) : scale;
  const most = Math.min(look.longest / longest, Math.sqrt(look.pixels / pixels));
  return [Math.min(scale, most), Math.min(wanted, most)];
}

/** The faces of a picture, the largest first: [{box, score, landmarks}]. run: (Float32Array, height, width) -> twelve arrays. */
export async function detect(image, spec, look, run) {
  const [plain, wanted] = scales(image, spec, look);
  const near = resized(image, plain);
  const found = await lookAt(near, 0, image, spec.threshold, run);
  if (wanted > plain) {
    const close = await lookAt(resized(image, wanted), 0, image, spec.threshold, run);
    found.push(...close.filter((one) => size(one.box) * plain < 2 * look.sure));
  }
  const longest = Math.max(near.width, near.height);
  if (longest > spec.largest) {
    const far = resized(near, Math.min(1, look.small / longest));
    found.push(...(await lookAt(far, look.border, image, spec.threshold, run)));
  }
  const faces = suppress(found, spec.overlap);
  return faces.sort((a, b) => size(b.box) - size(a.box));
}

const size = (box) => Math.max(box[2] - box[0], box[3] - box[1]);

async function lookAt(seen, border, image, threshold, run) {
  const width = Math.ceil((seen.width + 2 * border) / 32) * 32;
  const height = Math.ceil((seen.height + 2 * border) / 32) * 32;
  const outputs = await run(planes(seen, border, width, height), height, width);
  const [sx, sy] = [image.width / seen.width, image.height / seen.height];
  return decode(outputs, width, threshold).map(({ box, score, landmarks }) => ({
    box: box.map((edge, i) => (edge - border) * (i % 2 ? sy : sx)),
    score,
    landmarks: landmarks.map(([x, y]) => [(x - border) * sx, (y - border) * sy]),
  }));
}

/** The picture as the network takes it: float32 planes blue, green, red, 0..255, on black of the size given. */
function planes({ data, width, height, step }, border, outWidth, outHeight) {
  const plane = outWidth * outHeight;
  const blob = new Float32Array(3 * plane);
  for (let y = 0; y < height; y++) {
    let to = (y + border) * outWidth + border;
    for (let x = 0, from = y * width * step; x < width; x++, from += step, to++) {
      blob[to] = data[from + 2];
      blob[plane + to] = data[from + 1];
      blob[2 * plane + to] = data[from];
    }
  }
  return blob;
}

const clipped = (value) => Math.min(Math.max(value, 0), 1);

/** The twelve arrays (in the order of OUTPUTS, of one picture `width` pixels wide) as detections in its pixels. */
export function decode(outputs, width, threshold) {
  const found = [];
  STRIDES.forEach((stride, level) => {
    const [cls, obj, box, kps] = outputs.slice(4 * level, 4 * level + 4);
    const columns = Math.floor(width / stride);
    for (let cell = 0; cell < cls.length; cell++) {
      const score = Math.sqrt(clipped(cls[cell]) * clipped(obj[cell]));
      if (score < threshold) continue;
      const [column, row] = [cell % columns, Math.floor(cell / columns)];
      const x = (column + box[4 * cell]) * stride;
      const y = (row + box[4 * cell + 1]) * stride;
      const [w, h] = [(Math.exp(box[4 * cell + 2]) * stride) / 2, (Math.exp(box[4 * cell + 3]) * stride) / 2];
      const landmarks = [0, 1, 2, 3, 4].map((point) => [
        (kps[10 * cell + 2 * point] + column) * stride,
        (kps[10 * cell + 2 * point + 1] + row) * stride,
      ]);
      found.push({ box: [x - w, y - h, x + w, y + h], score, landmarks });
    }
  });
  return found;
}

const area = ([x0, y0, x1, y1]) => Math.max(x1 - x0, 0) * Math.max(y1 - y0, 0);

/** What two boxes share, as [intersection over union, share of the smaller one]. */
export function shared(a, b) {
  const both = area([Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])]);
  const [first, second] = [area(a), area(b)];
  return [both / Math.max(first + second - both, 1e-9), both / Math.max(Math.min(first, second), 1e-9)];
}

/** One detection a face, the best first: drops what overlaps a better one, or lies mostly inside it. */
export function suppress(found, overlap) {
  const order = [...found].sort((a, b) => b.score - a.score).slice(0, 5000);
  const keep = [];
  for (const one of order) {
    const taken = keep.some((other) => {
      const [union, inside] = shared(other.box, one.box);
      return union >= overlap || inside >= 0.7;
    });
    if (!taken) keep.push(one);
  }
  return keep;
}

