// Pictures as plain arrays, and the two ways mien resizes them: twins of OpenCV's INTER_AREA and INTER_LINEAR.
// A picture is {data, width, height, step}: bytes row by row, `step` of them a pixel (RGB or RGBA; what follows RGB is not read).

/** Round half to even, as Python does. */
export function roundEven(value) {
  const low = Math.floor(value);
  const rest = value - low;
  if (rest !== 0.5) return Math.round(value);
  return low % 2 === 0 ? low : low + 1;
}

/** The picture at a scale: by area from a half down, bilinear above; sides of at least one pixel. */
export function resized(image, scale) {
  if (scale === 1) return image;
  const width = Math.max(1, roundEven(image.width * scale));
  const height = Math.max(1, roundEven(image.height * scale));
  const whole = [0, 0, image.width, image.height];
  return scale <= 0.5 ? shrunk(image, whole, width, height) : stretched(image, width, height);
}

/** What each target pixel of one axis takes: [first source pixel, weights], the weights summing to 1. */
function areaTaps(from, to) {
  const scale = from / to;
  const taps = [];
  for (let i = 0; i < to; i++) {
    const start = i * scale;
    const end = Math.min(start + scale, from);
    const first = Math.min(Math.floor(start + 1e-9), from - 1);
    const weights = [];
    for (let j = first; j < end - 1e-9; j++) weights.push(Math.min(j + 1, end) - Math.max(j, start));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    taps.push([first, Float32Array.from(weights, (weight) => weight / total)]);
  }
  return taps;
}

/** A region [x, y, width, height] of a picture, averaged by area into RGB of the size given (not larger than the region). */
export function shrunk(image, [left, top, fromWidth, fromHeight], width, height) {
  const { data, step } = image;
  const across = areaTaps(fromWidth, width);
  const down = areaTaps(fromHeight, height);
  const out = new Uint8ClampedArray(width * height * 3);
  const row = new Float32Array(width * 3);
  const sum = new Float32Array(width * 3);
  let held = -1;
  for (let y = 0; y < height; y++) {
    const [first, weights] = down[y];
    sum.fill(0);
    for (let k = 0; k < weights.length; k++) {
      if (held !== first + k) {
        averageRow(data, ((top + first + k) * image.width + left) * step, step, across, row);
        held = first + k;
      }
      const weight = weights[k];
      for (let i = 0; i < row.length; i++) sum[i] += weight * row[i];
    }
    out.set(sum, y * width * 3); // a clamped array rounds half to even
  }
  return { data: out, width, height, step: 3 };
}

function averageRow(data, start, step, across, row) {
  for (let x = 0, i = 0; x < across.length; x++, i += 3) {
    const [first, weights] = across[x];
    let red = 0;
    let green = 0;
    let blue = 0;
    for (let k = 0, at = start + first * step; k < weights.length; k++, at += step) {
      const weight = weights[k];
      red += weight * data[at];
      green += weight * data[at + 1];
      blue += weight * data[at + 2];
    }
    row[i] = red;
    row[i + 1] = green;
    row[i + 2] = blue;
  }
}

/** For each target pixel of one axis: the two source pixels between which it lies, and how far along. */
function linearTaps(from, to) {
  const low = new Int32Array(to);
  const high = new Int32Array(to);
  const share = new Float32Array(to);
  for (let i = 0; i < to; i++) {
    const at = Math.min(Math.max((i + 0.5) * (from / to) - 0.5, 0), from - 1);
    low[i] = Math.floor(at);
    high[i] = Math.min(low[i] + 1, from - 1);
    share[i] = at - low[i];
  }
  return { low, high, share };
}

/** The whole picture, bilinearly, as RGB of the size given. */
export function stretched(image, width, height) {
  const { data, step } = image;
  const x = linearTaps(image.width, width);
  const y = linearTaps(image.height, height);
  const out = new Uint8ClampedArray(width * height * 3);
  for (let row = 0, at = 0; row < height; row++) {
    const upper = y.low[row] * image.width;
    const lower = y.high[row] * image.width;
    const v = y.share[row];
    for (let column = 0; column < width; column++, at += 3) {
      const a = (upper + x.low[column]) * step;
      const b = (upper + x.high[column]) * step;
      const c = (lower + x.low[column]) * step;
      const d = (lower + x.high[column]) * step;
      const u = x.share[column];
      for (let k = 0; k < 3; k++) {
        const above = data[a + k] + u * (data[b + k] - data[a + k]);
        const below = data[c + k] + u * (data[d + k] - data[c + k]);
        out[at + k] = above + v * (below - above);
      }
    }
  }
  return { data: out, width, height, step: 3 };
}
