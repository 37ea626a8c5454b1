// Marks on pictures: a box and a word while looking; bars and the affect dot too on the picture to keep.

export const percent = (share) => `${Math.round(100 * share)} %`;
export const signed = (value) => (value === null ? '?' : `${value < 0 ? '−' : '+'}${Math.abs(value).toFixed(2)}`);
export const css = (palette, label, alpha = 1) => `rgb(${(palette[label] ?? palette.unknown).join(' ')} / ${alpha})`;

/** Whether an answer is certain, or there is none that could be. */
export const sure = ({ label, certain }) => certain || label === 'unknown';
/** The label of an expression, as `mien predict` says it. */
export const named = (expression) => (sure(expression) ? expression.label : `${expression.label} (not certain)`);

const read = (face) => face.calm ?? face.expression;

/** The box of a face as drawn: in a mirrored picture the sides change places. */
function placed(face, width, mirrored) {
  const [x0, y0, x1, y1] = face.box;
  return mirrored ? [width - x1, y0, width - x0, y1] : [x0, y0, x1, y1];
}

/** Draw a source (picture or video frame) and its faces onto a canvas of the source's size. */
export function show(canvas, source, faces, palette, { mirrored = false, chosen = null } = {}) {
  const pen = canvas.getContext('2d');
  const { width, height } = canvas;
  pen.save();
  if (mirrored) pen.setTransform(-1, 0, 0, 1, width, 0);
  pen.drawImage(source, 0, 0, width, height);
  pen.restore();
  const unit = Math.max(Math.min(width, height) / 36, 11);
  const boxes = faces.map((face) => placed(face, width, mirrored));
  const taken = [];
  faces.forEach((face, i) => outline(pen, boxes[i], css(palette, read(face).label), unit, face === chosen || faces.length === 1));
  const first = (i) => (faces[i] === chosen ? 0 : 1);
  for (const i of faces.map((_, i) => i).sort((a, b) => first(a) - first(b))) {
    const size = Math.min(unit, Math.max((boxes[i][2] - boxes[i][0]) / 5, 0.62 * unit));
    tag(pen, boxes[i], faces[i], palette, size, [width, height], taken);
  }
}

function outline(pen, [x0, y0, x1, y1], colour, unit, strong) {
  const line = Math.max(2, unit / (strong ? 5 : 8));
  pen.lineWidth = line * 1.8;
  pen.strokeStyle = 'rgb(0 0 0 / 35%)';
  pen.beginPath();
  pen.roundRect(x0, y0, x1 - x0, y1 - y0, unit / 2);
  pen.stroke();
  pen.lineWidth = line;
  pen.strokeStyle = colour;
  pen.stroke();
}

/** The label below a box, or above it, where no other label stands. */
function tag(pen, [x0, y0, , y1], face, palette, unit, [width, height], taken) {
  const { label, confidence } = read(face);
  const text = confidence === null ? label : `${named(read(face))} ${percent(confidence)}`;
  pen.font = `600 ${unit.toFixed(1)}px system-ui, sans-serif`;
  const wide = pen.measureText(text).width + 1.9 * unit;
  const x = Math.min(Math.max(x0, 0), Math.max(width - wide, 0));
  const places = [Math.min(y1 + unit / 4, height - 1.6 * unit), Math.max(y0 - 1.75 * unit, 0)];
  const y = places.find((top) => !taken.some((other) => overlap(other, [x, top, x + wide, top + 1.5 * unit]) > 0));
  if (y === undefined) return;
  taken.push([x, y, x + wide, y + 1.5 * unit]);
  pen.fillStyle = 'rgb(20 22 26 / 82%)';
  pen.beginPath();
  pen.roundRect(x, y, wide, 1.5 * unit, unit / 2);
  pen.fill();
  pen.fillStyle = css(palette, label);
  pen.beginPath();
  pen.arc(x + 0.75 * unit, y + 0.75 * unit, 0.32 * unit, 0, 7);
  pen.fill();
  pen.fillStyle = '#fff';
  pen.textBaseline = 'middle';
  pen.fillText(text, x + 1.35 * unit, y + 0.78 * unit);
}

const overlap = (a, b) =>
  Math.max(Math.min(a[2], b[2]) - Math.max(a[0], b[0]), 0) * Math.max(Math.min(a[3], b[3]) - Math.max(a[1], b[1]), 0);

/** A new canvas with everything that was read, to keep. */
export function annotated(source, width, height, faces, palette) {
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const pen = canvas.getContext('2d');
  pen.drawImage(source, 0, 0, width, height);
  const taken = faces.map((face) => face.box);
  for (const face of faces) outline(pen, face.box, css(palette, read(face).label), Math.max(Math.min(width, height) / 36, 11), true);
  for (const face of [...faces].reverse()) {
    const side = Math.max(face.box[2] - face.box[0], face.box[3] - face.box[1]);
    const unit = Math.max(Math.min(side / 10, Math.min(width, height) / 38), Math.min(width, height) / 64, 9);
    const size = [14.5 * unit, (sure(read(face)) ? 5.6 : 7.2) * unit];
    const spot = place(face.box, size, [width, height], taken);
    taken.push([spot[0], spot[1], spot[0] + size[0], spot[1] + size[1]]);
    panel(pen, spot, size, unit, read(face), palette);
  }
  return canvas;
}

/** Where a panel covers least: below, above, right or left of the box, inside the picture. */
function place([x0, y0, x1, y1], [wide, high], [width, height], taken) {
  const middle = (x0 + x1 - wide) / 2;
  const spots = [[middle, y1 + 4], [middle, y0 - high - 4], [x1 + 4, y0], [x0 - wide - 4, y0], [x1 + 4, y1 - high], [x0 - wide - 4, y1 - high]];
  const inside = spots.map(([x, y]) => [Math.min(Math.max(x, 0), Math.max(width - wide, 0)), Math.min(Math.max(y, 0), Math.max(height - high, 0))]);
  const cost = ([x, y]) => taken.reduce((sum, other) => sum + overlap([x, y, x + wide, y + high], other), 0);
  return inside.reduce((best, spot) => (cost(spot) < cost(best) ? spot : best));
}

function panel(pen, [x, y], [wide, high], unit, expression, palette) {
  const { probabilities, label, valence, arousal } = expression;
  pen.fillStyle = 'rgb(22 24 28 / 85%)';
  pen.beginPath();
  pen.roundRect(x, y, wide, high, unit / 2);
  pen.fill();
  pen.font = `${unit}px system-ui, sans-serif`;
  pen.textBaseline = 'top';
  const top = Object.entries(probabilities).sort((a, b) => b[1] - a[1]).slice(0, 3);
  top.forEach(([name, share], row) => {
    const at = y + 0.5 * unit + row * 1.6 * unit;
    pen.fillStyle = '#fff';
    pen.fillText(name, x + 0.6 * unit, at);
    pen.textAlign = 'right';
    pen.fillText(percent(share), x + 9.2 * unit, at);
    pen.textAlign = 'left';
    pen.fillStyle = 'rgb(255 255 255 / 27%)';
    pen.fillRect(x + 0.6 * unit, at + 1.15 * unit, 8.6 * unit, 0.2 * unit);
    pen.fillStyle = css(palette, name);
    pen.fillRect(x + 0.6 * unit, at + 1.15 * unit, 8.6 * unit * share, 0.2 * unit);
  });
  if (!sure(expression)) {
    pen.fillStyle = 'rgb(255 255 255 / 70%)';
    pen.fillText('not certain', x + 0.6 * unit, y + (0.5 + 3 * 1.6) * unit);
  }
  if (valence !== null && arousal !== null) circle(pen, x + wide - 2.6 * unit, y + high / 2, 2.1 * unit, valence, arousal, css(palette, label));
}

function circle(pen, x, y, radius, valence, arousal, colour) {
  const far = Math.max(1, Math.hypot(valence, arousal));
  pen.strokeStyle = 'rgb(255 255 255 / 35%)';
  pen.lineWidth = Math.max(1, radius / 14);
  pen.beginPath();
  pen.arc(x, y, radius, 0, 7);
  pen.moveTo(x - radius, y);
  pen.lineTo(x + radius, y);
  pen.moveTo(x, y - radius);
  pen.lineTo(x, y + radius);
  pen.stroke();
  pen.fillStyle = colour;
  pen.beginPath();
  pen.arc(x + (radius * valence) / far, y - (radius * arousal) / far, Math.max(2, radius / 6), 0, 7);
  pen.fill();
}
