// Reads faces' expressions with a mien model file and nothing but ONNX Runtime.
//   node read.mjs MODEL.onnx CHIP.ppm ...     chips: binary PPM of the model's size, cut by `python chip.py`
// Prints one JSON line a chip. The engine is onnxruntime-node, or the module that ORT names (onnxruntime-web does as well).
import { readFileSync } from 'node:fs';

const ort = await import(process.env.ORT || 'onnxruntime-node');
const [file, ...chips] = process.argv.slice(2);
if (!chips.length) throw new Error('usage: node read.mjs MODEL.onnx CHIP.ppm ...');

// JavaScript's ONNX Runtime does not show a file's metadata; the JSON beside it says the same.
const spec = JSON.parse(readFileSync(file.replace(/\.onnx$/, '.json'), 'utf8'));
const { width, height } = spec.crop;
const plane = width * height;

/** The RGB bytes of a binary PPM. */
function pixels(path) {
  const bytes = readFileSync(path);
  const [head, w, h] = /^P6\s+(\d+)\s+(\d+)\s+255\s/.exec(bytes.toString('latin1')) ?? [''];
  if (Number(w) !== width || Number(h) !== height) throw new Error(`${path}: not a binary PPM of ${width}x${height}`);
  return bytes.subarray(head.length);
}

// All there is to preparing: RGB 0..255 as float32, one colour plane after the other.
const input = new Float32Array(chips.length * 3 * plane);
chips.map(pixels).forEach((rgb, n) => {
  for (let i = 0; i < 3 * plane; i++) input[3 * n * plane + (i % 3) * plane + Math.floor(i / 3)] = rgb[i];
});

const session = await ort.InferenceSession.create(readFileSync(file));
const tensor = new ort.Tensor('float32', input, [chips.length, 3, height, width]);
const { probabilities, affect } = await session.run({ chips: tensor });
chips.forEach((chip, n) => {
  const shares = spec.labels.map((label, i) => [label, probabilities.data[n * spec.labels.length + i]]);
  const [valence, arousal] = affect.data.slice(2 * n, 2 * n + 2);
  const [label] = shares.reduce((best, share) => (share[1] > best[1] ? share : best));
  console.log(JSON.stringify({ chip, label, probabilities: Object.fromEntries(shares), valence, arousal }));
});
