// The table: one row a face and frame, in the columns that Python's tables have; and handing files to the user.

const POINTS = ['left_eye', 'right_eye', 'nose', 'left_mouth', 'right_mouth'];

/** The value of one column for one face (null: the frame has none); '' for what is unknown. */
function value(column, label, rows, { image, index, seconds }, face, number) {
  const always = { image, index, seconds, ...rows };
  if (column in always) return always[column];
  if (!face) return '';
  const read = face.expression;
  const edge = ['x0', 'y0', 'x1', 'y1'].indexOf(column);
  if (edge >= 0) return face.box[edge];
  if (label !== undefined) return read.probabilities[label] ?? '';
  const point = POINTS.findIndex((name) => column.startsWith(name));
  if (point >= 0) return face.landmarks ? face.landmarks[point][column.endsWith('_x') ? 0 : 1] : '';
  const plain = { face: number, track: face.track, score: face.score };
  if (column === 'certain') return read.certain ? 1 : 0;
  return plain[column] ?? read[column] ?? '';
}

/** One cell, quoted where it must be; a text as it is, so that it still names its file. */
function cell(content) {
  const text = typeof content === 'number' ? String(Math.round(content * 1e4) / 1e4) : String(content);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** frames: [{image, index, seconds, faces}] -> CSV, as Python's tables are; a frame without a face has a row. */
export function csv(frames, { columns, rows, model }) {
  const shares = columns.filter((column) => column.startsWith('p_'));
  const labels = columns.map((column) => model.spec.labels[shares.indexOf(column)]);
  const lines = [columns.join(',')];
  for (const frame of frames) {
    const faces = frame.faces.length ? frame.faces : [null];
    for (const [number, face] of faces.entries()) {
      lines.push(columns.map((column, i) => cell(value(column, labels[i], rows, frame, face, number))).join(','));
    }
  }
  return `${lines.join('\n')}\n`;
}

/** The frames of something that moves, for its table: the newest `most`; `left`: how many older ones were left out. */
export class Kept {
  constructor(most = 50_000) {
    Object.assign(this, { most, frames: [], left: 0 });
  }

  add(frame) {
    if (this.frames.push(frame) <= this.most) return;
    this.frames.shift();
    this.left++;
  }
}

/** A face of a picture that was shown smaller, in pixels of the file or clip. */
export function grown(face, scale) {
  const back = (part) => Math.round((part / scale) * 100) / 100;
  return { ...face, box: face.box.map(back), landmarks: face.landmarks && face.landmarks.map((point) => point.map(back)) };
}

/** Let the browser save a blob under a name. */
export function save(blob, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
