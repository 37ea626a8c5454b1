// The last half minute of one face: expressions as stacked bands, valence and arousal as lines below.
import { css, percent, signed, sure } from './draw.js';

const SPAN = 30; // seconds
const GAP = 2.0; // seconds without an answer that break the bands

export class Timeline {
  /** threshold: the confidence from which an answer is certain; 0: all are. */
  constructor(canvas, keys, labels, palette, threshold) {
    Object.assign(this, { canvas, labels, palette, still: matchMedia('(prefers-reduced-motion: reduce)') });
    for (const label of labels) keys.append(this.key(label, css(palette, label)));
    keys.append(this.key('valence', null, 'solid'), this.key('arousal', null, 'dotted'));
    if (threshold) keys.append(this.key('not certain', 'var(--ink)'));
    this.clear();
    new ResizeObserver(() => this.shown && this.paint()).observe(canvas); // a clip that has ended draws no more by itself
  }

  key(text, colour, form) {
    const item = document.createElement('li');
    const mark = document.createElement('i');
    if (colour) mark.style.setProperty('--colour', colour);
    else {
      mark.className = 'line';
      mark.style.setProperty('--form', form);
    }
    item.append(mark, text);
    return item;
  }

  clear() {
    this.points = new Map();
    this.shown = null;
  }

  add(faces, seconds) {
    for (const { track, calm } of faces) {
      if (!this.points.has(track)) this.points.set(track, []);
      const points = this.points.get(track);
      if (points.length && seconds < points.at(-1).seconds) points.length = 0; // the clip was turned back
      points.push({ seconds, ...calm });
      while (points.length && points[0].seconds < seconds - SPAN - 1) points.shift();
    }
    for (const [track, points] of this.points) if (points.at(-1).seconds < seconds - SPAN) this.points.delete(track);
  }

  /** Draw the face of one track up to now; once a second where motion is unwanted. */
  draw(track, seconds) {
    if (this.still.matches && track === this.shown?.track && Math.abs(seconds - this.shown.seconds) < 1) return;
    this.shown = { track, seconds };
    this.paint();
  }

  paint() {
    const { track, seconds } = this.shown;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    const pen = this.canvas.getContext('2d');
    pen.scale(ratio, ratio);
    const style = getComputedStyle(this.canvas);
    const colours = { ink: style.color, line: style.getPropertyValue('--line'), dim: style.getPropertyValue('--dim') };
    const bands = Math.round(height * 0.56);
    const points = this.points.get(track) ?? [];
    const start = Math.max(seconds, SPAN) - SPAN;
    const x = (at) => ((at - start) / SPAN) * width;
    this.frame(pen, width, height, bands, start, x, colours);
    for (const run of runs(points)) {
      this.bands(pen, run, x, bands);
      this.doubts(pen, run, x, bands, colours.ink);
      this.line(pen, run, x, bands, height, 'valence', [], colours.ink);
      this.line(pen, run, x, bands, height, 'arousal', [2, 3], colours.ink);
    }
    this.canvas.setAttribute('aria-label', spoken(points));
  }

  frame(pen, width, height, bands, start, x, { line, dim }) {
    pen.strokeStyle = line;
    pen.strokeRect(0.5, 0.5, width - 1, bands - 1);
    const middle = bands + (height - bands - 16) / 2 + 4;
    pen.beginPath();
    pen.moveTo(0, middle);
    pen.lineTo(width, middle);
    pen.stroke();
    pen.fillStyle = dim;
    pen.font = '11px system-ui, sans-serif';
    const step = width < 500 ? 10 : 5;
    for (let at = Math.ceil(start / step) * step; at < start + SPAN; at += step) pen.fillText(`${at} s`, x(at) + 2, height - 2);
    pen.textAlign = 'right';
    pen.fillText('+1', width, bands + 13);
    pen.fillText('−1', width, height - 16);
    pen.textAlign = 'left';
  }

  bands(pen, run, x, height) {
    const below = run.map(() => 0);
    for (const label of this.labels) {
      pen.fillStyle = css(this.palette, label);
      pen.beginPath();
      run.forEach((point, i) => pen.lineTo(x(point.seconds), height * (1 - below[i])));
      run.forEach((point, i) => (below[i] += point.probabilities[label] ?? 0));
      for (let i = run.length - 1; i >= 0; i--) pen.lineTo(x(run[i].seconds), height * (1 - below[i]));
      pen.fill();
    }
  }

  /** A line below the bands where the answer is not certain: until the next one. */
  doubts(pen, run, x, top, ink) {
    pen.fillStyle = ink;
    run.forEach((point, i) => {
      const until = run[i + 1]?.seconds ?? point.seconds;
      if (!sure(point)) pen.fillRect(x(point.seconds), top, Math.max(x(until) - x(point.seconds), 1), 4);
    });
  }

  line(pen, run, x, bands, height, name, dash, ink) {
    const room = height - bands - 16;
    pen.strokeStyle = ink;
    pen.lineWidth = 2;
    pen.setLineDash(dash);
    pen.beginPath();
    for (const point of run) if (point[name] !== null) pen.lineTo(x(point.seconds), bands + 4 + (room * (1 - point[name])) / 2);
    pen.stroke();
    pen.setLineDash([]);
  }
}

/** The stretches without gaps. */
function runs(points) {
  const found = [];
  for (const point of points) {
    const last = found.at(-1);
    if (last && point.seconds - last.at(-1).seconds < GAP) last.push(point);
    else found.push([point]);
  }
  return found;
}

/** What the picture shows, in words. */
function spoken(points) {
  if (!points.length) return 'Timeline: nothing yet';
  const mean = (pick) => points.reduce((sum, point) => sum + (pick(point) ?? 0), 0) / points.length;
  const labels = Object.keys(points[0].probabilities).map((label) => [label, mean((point) => point.probabilities[label])]);
  const most = labels.sort((a, b) => b[1] - a[1]).slice(0, 2).map(([label, share]) => `${label} ${percent(share)}`);
  const span = Math.round(points.at(-1).seconds - points[0].seconds);
  return `Timeline, the last ${span} seconds: mean ${most.join(', ')}; valence ${signed(mean((p) => p.valence))}, arousal ${signed(mean((p) => p.arousal))}`;
}
