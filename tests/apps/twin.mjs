// Does with the page's JavaScript what a job (JSON: argv[2]) asks, and prints JSON. Pictures are files of raw RGB bytes.
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const job = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const page = (name) => import(pathToFileURL(`${job.web}/${name}`).href);
const { crop, cropMatrix, framed } = await page('crop.js');
const { decode, suppress } = await page('detect.js');
const { resized } = await page('pixels.js');
const { Kept, csv } = await page('rows.js');
const { Tracks } = await page('track.js');
const picture = ({ file, bytes, width, height, step = 3 }) => ({
  data: file ? readFileSync(file) : Buffer.from(bytes, 'base64'), width, height, step,
});
const plain = ({ data, width, height }) => ({ width, height, data: Buffer.from(data).toString('base64') });

const tasks = {
  crop: ({ image, face, spec }) => ({ ...plain(crop(picture(image), face, spec)), matrix: cropMatrix(face, spec) }),
  framed: ({ shape, spec }) => framed({ height: shape[0], width: shape[1] }, spec),
  resize: ({ image, scale }) => plain(resized(picture(image), scale)),
  decode: ({ outputs, width, threshold, overlap }) => suppress(decode(outputs, width, threshold), overlap),
  keep: ({ frames, most }) => {
    const kept = new Kept(most);
    frames.forEach((frame) => kept.add(frame));
    return { frames: kept.frames, left: kept.left };
  },
  table: ({ site, frames }) => csv(frames, site),
  broken: async ({ message }) => {
    let worker;
    globalThis.Worker = class {
      constructor() {
        worker = this;
      }

      postMessage({ open }) {
        if (open) queueMicrotask(() => this.onmessage({ data: { opened: true } }));
      }
    };
    const { openEngine } = await page('engine.js');
    const engine = await openEngine({ engine: true });
    const canvas = { getContext: () => ({ getImageData: () => ({ data: new Uint8Array(4), width: 1, height: 1 }) }) };
    const said = (reading) => reading.catch((error) => error.message);
    const first = said(engine.read(canvas));
    worker.onerror({ message });
    return [await first, await said(engine.read(canvas))];
  },
  annotated: async ({ faces }) => {
    const words = [];
    const pen = new Proxy({}, { get: (_, name) => (...given) => name === 'fillText' && words.push(given[0]), set: () => true });
    globalThis.document = { createElement: () => ({ getContext: () => pen }) };
    (await page('draw.js')).annotated(null, 640, 480, faces, { unknown: [0, 0, 0] });
    return words;
  },
  picture: async ({ width, height, room }) => {
    const pen = (canvas) => ({
      fillRect() {}, drawImage() {}, getImageData: () => ({ data: [255, 255, 255, canvas.width * canvas.height > room ? 0 : 255] }),
    });
    const canvas = () => ({ getContext() { return room ? pen(this) : null; } });
    Object.assign(globalThis, { document: { createElement: canvas }, createImageBitmap: async () => ({ width, height, close() {} }) });
    const { pictureOf } = await page('sources.js');
    return pictureOf({ name: 'a.jpg' }).then(({ scale }) => scale, (error) => error.message);
  },
  follow: ({ frames, threshold }) => {
    const tracks = new Tracks(threshold);
    return frames.map(({ faces, seconds }) => tracks.follow(faces, seconds));
  },
  read: async ({ site, image, models }) => {
    const ort = await page('vendor/ort.wasm.bundle.min.mjs');
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmBinary = readFileSync(`${job.web}/vendor/ort-wasm-simd-threaded.wasm`);
    const { Reader } = await page('reader.js');
    const reader = await Reader.open(site, ort, async (file) => readFileSync(models[file]));
    return (await reader.read(picture(image))).faces;
  },
};

const answers = [];
for (const task of job.tasks) answers.push(await tasks[task.do](task));
console.log(JSON.stringify(answers));
