// Who is who from frame to frame, and calmer numbers: boxes near each other are one person; answers are averaged over a
// third of a second. Only for the page's moving pictures.

const PATIENCE = 2.0; // seconds that a face may be missed
const CONSTANT = 0.33; // seconds: the time constant of the averages

const REACH = 0.75; // of a face's side: how far it may move between two looks

/** How near two boxes are: 1 for the same middle, 0 at the reach. */
function near(a, b) {
  const side = Math.max(a[2] - a[0], a[3] - a[1], b[2] - b[0], b[3] - b[1]);
  const apart = Math.hypot(a[0] + a[2] - b[0] - b[2], a[1] + a[3] - b[1] - b[3]) / 2;
  return 1 - apart / (REACH * side);
}

const mix = (old, now, part) => (old === null || now === null ? now : old + part * (now - old));

/** An expression between an older and a newer one; it is certain from the threshold on, as each of them. */
function blended(old, now, part, threshold) {
  if (!old) return now;
  const shares = Object.entries(now.probabilities).map(([label, share]) => [label, mix(old.probabilities[label] ?? share, share, part)]);
  const best = shares.reduce((a, b) => (b[1] > a[1] ? b : a), ['unknown', -1]);
  return {
    ...now,
    label: best[0],
    confidence: best[1] < 0 ? null : best[1],
    certain: best[1] >= 0 && best[1] >= threshold,
    probabilities: Object.fromEntries(shares),
    valence: mix(old.valence, now.valence, part),
    arousal: mix(old.arousal, now.arousal, part),
  };
}

export class Tracks {
  /** threshold: the confidence from which the model's makers call an answer certain. */
  constructor(threshold = 0) {
    this.threshold = threshold;
    this.known = [];
    this.count = 0;
  }

  /** The same faces, in the same order, each with its track number; `calm` holds the averaged expression. */
  follow(faces, seconds) {
    this.known = this.known.filter((one) => seconds - one.seconds < PATIENCE && seconds >= one.seconds);
    const free = new Set(this.known);
    const pairs = faces.flatMap((face, i) => this.known.map((one) => [near(one.box, face.box), i, one]));
    const mine = new Map();
    for (const [nearness, i, one] of pairs.sort((a, b) => b[0] - a[0])) {
      if (nearness > 0 && !mine.has(i) && free.delete(one)) mine.set(i, one);
    }
    return faces.map((face, i) => {
      const one = mine.get(i) ?? { track: ++this.count, expression: null, weight: 0, seconds };
      const weight = one.weight * Math.exp(-(seconds - one.seconds) / CONSTANT) + 1; // each reading counts once, the first too
      const calm = blended(one.expression, face.expression, 1 / weight, this.threshold);
      Object.assign(one, { box: face.box, expression: calm, weight, seconds });
      if (!mine.has(i)) this.known.push(one);
      return { ...face, track: one.track, calm };
    });
  }
}
