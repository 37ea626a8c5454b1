// Runs the models away from the page's own thread, so that it stays quick. Messages in: {open: site}, {id, picture, live};
// out: {opened} or {refused}, {id, answer} or {id, error}.
import * as ort from './vendor/ort.wasm.bundle.min.js';
import { Reader } from './reader.js';

const ENOUGH = 45; // milliseconds that finding faces may take on a moving picture
const COARSEST = 192; // pixels of the long side

let reader = null;
let side = 0;

/** Throws where the policy that came with this file forbids WebAssembly; the engine would say so in two hundred words. */
function mayCompile() {
  try {
    new WebAssembly.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]));
  } catch {
    throw new Error("the web server's Content-Security-Policy forbids WebAssembly: its script-src must have 'wasm-unsafe-eval'");
  }
}

async function open(site) {
  mayCompile();
  ort.env.wasm.numThreads = 1; // more threads need headers that a static site cannot count on
  ort.env.wasm.wasmPaths = { wasm: new URL('./vendor/ort-wasm-simd-threaded.wasm', import.meta.url).href };
  const fetchBytes = async (file) => {
    const answer = await fetch(new URL(file, import.meta.url));
    if (!answer.ok) throw new Error(`${file}: ${answer.status} ${answer.statusText}`);
    return answer.arrayBuffer();
  };
  reader = await Reader.open(site, ort, fetchBytes);
  side = site.detector ? site.detector.spec.long_side : 0;
  const small = { data: new Uint8ClampedArray(64 * 64 * 3), width: 64, height: 64, step: 3 };
  await reader.read(small); // the first run is slow: let it not be the user's
}

/** A coarser look at moving pictures where this machine is slow, a finer one where it has time. */
function adapt(milliseconds) {
  const finest = reader.site.detector.spec.long_side;
  const wanted = side * Math.sqrt(ENOUGH / Math.max(milliseconds, 1));
  side = Math.round(Math.min(finest, Math.max(Math.min(COARSEST, finest), 0.7 * side + 0.3 * wanted)));
}

async function read(picture, live) {
  const detector = reader.detector && reader.site.detector;
  if (!detector || !live) return reader.read(picture);
  const coarse = { ...detector, spec: { ...detector.spec, long_side: Math.round(side / 32) * 32 } };
  const answer = await new Reader({ ...reader.site, detector: coarse }, ort, reader.model, reader.detector).read(picture);
  adapt(answer.detect);
  return { ...answer, side: coarse.spec.long_side };
}

let last = Promise.resolve();

self.onmessage = ({ data }) => {
  last = last.then(async () => {
    try {
      if (data.open) {
        await open(data.open);
        self.postMessage({ opened: true });
      } else {
        self.postMessage({ id: data.id, answer: await read(data.picture, data.live) });
      }
    } catch (error) {
      self.postMessage(data.open ? { refused: String(error.message || error) } : { id: data.id, error: String(error.message || error) });
    }
  });
};
