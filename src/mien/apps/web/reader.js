// The reader: detector + classifier, from a picture to faces in mien's one JSON form (see FaceRecord in /schema/openapi.json).
import { canCrop, crop, framed } from './crop.js';
import { OUTPUTS, detect } from './detect.js';

const BATCH = 16;

export class Reader {
  /**
   * site: what page.json says (model and detector with their specs).
   * ort: onnxruntime-web.  fetchBytes: name -> Promise<Uint8Array | ArrayBuffer> of a model file.
   */
  static async open(site, ort, fetchBytes) {
    if (!canCrop(site.model.spec.crop)) throw new Error(`this page cannot cut chips as ${site.model.spec.name} wants them`);
    const options = { executionProviders: ['wasm'], graphOptimizationLevel: 'all' };
    const load = async (file) => ort.InferenceSession.create(new Uint8Array(await fetchBytes(file)), options);
    const model = await load(site.model.file);
    const detector = site.detector ? await load(site.detector.file) : null;
    return new Reader(site, ort, model, detector);
  }

  constructor(site, ort, model, detector) {
    Object.assign(this, { site, ort, model, detector });
    this.spec = site.model.spec;
  }

  /** picture ({data, width, height, step}) -> {faces, detect, classify}: FaceRecords, largest first, and milliseconds. */
  async read(image) {
    const start = performance.now();
    const found = await this.find(image);
    const between = performance.now();
    const faces = [];
    for (let i = 0; i < found.length; i += BATCH) faces.push(...(await this.classify(image, found.slice(i, i + BATCH))));
    return { faces, detect: between - start, classify: performance.now() - between };
  }

  async find(image) {
    if (!this.detector) return [framed(image, this.spec.crop)];
    const { spec, look } = this.site.detector;
    return detect(image, spec, look, (blob, height, width) => this.runDetector(blob, height, width));
  }

  async runDetector(blob, height, width) {
    const tensor = new this.ort.Tensor('float32', blob, [1, 3, height, width]);
    const found = await this.detector.run({ [this.detector.inputNames[0]]: tensor }, OUTPUTS);
    return OUTPUTS.map((name) => found[name].data);
  }

  async classify(image, found) {
    const { width, height } = this.spec.crop;
    const plane = width * height;
    const chips = new Float32Array(found.length * 3 * plane);
    found.forEach((face, n) => {
      const { data } = crop(image, face, this.spec.crop);
      for (let i = 0; i < plane; i++) {
        for (let k = 0; k < 3; k++) chips[(3 * n + k) * plane + i] = data[3 * i + k];
      }
    });
    const tensor = new this.ort.Tensor('float32', chips, [found.length, 3, height, width]);
    const { probabilities, affect } = await this.model.run({ chips: tensor }, ['probabilities', 'affect']);
    const count = this.spec.labels.length;
    const given = probabilities.data.length / found.length;
    if (given !== count) throw new Error(`the model file gives ${given} probabilities, its description has ${count} labels: reload the page; if that does not help, tell whoever runs it`);
    return found.map((face, n) => {
      const shares = probabilities.data.slice(n * count, (n + 1) * count);
      return record(face, expression(shares, affect.data.slice(2 * n, 2 * n + 2), this.spec));
    });
  }
}

const rounded = (value, digits) => Math.round(value * 10 ** digits) / 10 ** digits;
const known = (value) => (Number.isFinite(value) ? rounded(value, 4) : null);

/** An ExpressionRecord. */
export function expression(shares, [valence, arousal], { labels, threshold }) {
  const sure = shares.every(Number.isFinite);
  let best = 0;
  shares.forEach((share, i) => (best = share > shares[best] ? i : best));
  const bounded = (value) => known(Math.min(Math.max(value, -1), 1));
  return {
    label: sure ? labels[best] : 'unknown',
    confidence: sure ? known(shares[best]) : null,
    certain: sure && shares[best] >= threshold,
    probabilities: sure ? Object.fromEntries(labels.map((label, i) => [label, known(shares[i])])) : {},
    valence: bounded(valence),
    arousal: bounded(arousal),
  };
}

function record({ box, score, landmarks }, read) {
  const points = landmarks ? landmarks.map((point) => point.map((part) => rounded(part, 2))) : null;
  return { box: box.map((edge) => rounded(edge, 2)), score: rounded(score, 4), landmarks: points, track: null, expression: read };
}
