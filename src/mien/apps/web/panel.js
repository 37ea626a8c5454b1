// The side: which faces there are, what the chosen one shows, and the same in words for screen readers.
import { css, named, percent, signed } from './draw.js';

export const keyOf = (face, number) => face.track ?? number + 1;
const readOf = (face) => face.calm ?? face.expression;
const THUMB = 96;

export class Panel {
  /** choose: called with the key of the face that the user picks. */
  constructor(find, labels, palette, choose) {
    Object.assign(this, { palette, choose, faces: find('faces'), label: find('label'), affect: find('affect'), status: find('status') });
    this.bars = new Map(labels.map((label) => [label, this.bar(find('bars'), label)]));
    this.buttons = new Map();
    this.said = { text: '', at: 0 };
  }

  bar(list, label) {
    const group = document.createElement('div');
    const parts = ['dt', 'dd', 'dd'].map((name) => document.createElement(name));
    const fill = document.createElement('i');
    parts[0].textContent = label;
    parts[1].className = 'bar';
    parts[1].setAttribute('aria-hidden', 'true');
    parts[1].append(fill);
    parts[2].className = 'share';
    parts[2].textContent = '–';
    fill.style.setProperty('--colour', css(this.palette, label));
    group.append(...parts);
    list.append(group);
    return { group, fill, share: parts[2] };
  }

  /** faces: what is in view; chosen: one of them or null; source, from which small pictures are cut. */
  update(faces, chosen, source, scale = 1) {
    this.list(faces, chosen, source, scale);
    const read = chosen && readOf(chosen);
    const known = read && read.confidence !== null;
    this.label.textContent = !read ? 'No face' : known ? `${named(read)} ${percent(read.confidence)}` : 'affect alone';
    this.affect.textContent = read ? `valence ${signed(read.valence)}, arousal ${signed(read.arousal)}` : 'None is found here.';
    for (const [label, { group, fill, share }] of this.bars) {
      const part = read ? read.probabilities[label] : undefined;
      fill.style.setProperty('--share', part ?? 0);
      share.textContent = part === undefined ? '–' : percent(part);
      group.classList.toggle('most', Boolean(known && read.label === label));
    }
  }

  list(faces, chosen, source, scale) {
    const seen = new Set();
    faces.forEach((face, number) => {
      const key = keyOf(face, number);
      seen.add(key);
      const button = this.buttons.get(key) ?? this.button(key);
      button.setAttribute('aria-pressed', String(face === chosen));
      const name = named(readOf(face));
      if (button.dataset.label !== name) {
        button.dataset.label = name;
        button.lastChild.textContent = readOf(face).label;
        button.classList.toggle('unsure', name !== readOf(face).label);
        button.setAttribute('aria-label', `Face ${key}: ${name}`);
      }
      thumb(button.firstChild, source, face.box, scale);
    });
    for (const [key, button] of this.buttons) {
      if (seen.has(key)) continue;
      button.remove();
      this.buttons.delete(key);
    }
  }

  button(key) {
    const button = Object.assign(document.createElement('button'), { type: 'button', className: 'face' });
    const picture = Object.assign(document.createElement('canvas'), { width: THUMB, height: THUMB });
    picture.setAttribute('aria-hidden', 'true');
    button.append(picture, document.createElement('span'));
    button.addEventListener('click', () => this.choose(key));
    this.faces.append(button);
    this.buttons.set(key, button);
    return button;
  }

  /** Say it to screen readers; while things move, only changes and not more often than each four seconds. */
  say(faces, moving) {
    const words = faces.slice(0, 4).map((face) => {
      const { confidence, valence } = readOf(face);
      const label = named(readOf(face));
      return moving ? label : `${label} ${confidence === null ? '' : percent(confidence)}, valence ${signed(valence)}`;
    });
    const text = `${faces.length || 'No'} ${faces.length === 1 ? 'face' : 'faces'}${words.length ? `: ${words.join('; ')}` : ''}`;
    const now = performance.now();
    if (text === this.said.text || (moving && now - this.said.at < 4000)) return;
    this.said = { text, at: now };
    this.status.textContent = text;
  }
}

/** A square around a box, cut from the source. */
function thumb(canvas, source, [x0, y0, x1, y1], scale) {
  const side = 1.25 * Math.max(x1 - x0, y1 - y0) * scale;
  const pen = canvas.getContext('2d');
  pen.clearRect(0, 0, THUMB, THUMB);
  pen.drawImage(source, ((x0 + x1) / 2) * scale - side / 2, ((y0 + y1) / 2) * scale - side / 2, side, side, 0, 0, THUMB, THUMB);
}
