// onnxruntime-web as the page has it, for node: one thread, its wasm from beside it (VENDOR names the folder).
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const ort = await import(pathToFileURL(`${process.env.VENDOR}/ort.wasm.bundle.min.mjs`).href);
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmBinary = readFileSync(`${process.env.VENDOR}/ort-wasm-simd-threaded.wasm`);
export const { InferenceSession, Tensor } = ort;
