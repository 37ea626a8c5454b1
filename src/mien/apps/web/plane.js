// The circumplex: a dot for each face, a short trail behind each.
import { css, signed } from './draw.js';

const RADIUS = 92;
const TRAIL = 24;
const NS = 'http://www.w3.org/2000/svg';

function element(name, attributes, text = '') {
  const node = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
}

export class Plane {
  constructor(svg, palette) {
    Object.assign(this, { svg, palette, spots: new Map() });
    svg.append(
      element('circle', { class: 'rim', r: RADIUS }),
      element('circle', { class: 'rim', r: RADIUS / 2, 'stroke-dasharray': '2 4' }),
      element('line', { class: 'axis', x1: -RADIUS, x2: RADIUS }),
      element('line', { class: 'axis', y1: -RADIUS, y2: RADIUS }),
      element('text', { x: 0, y: -RADIUS - 8 }, 'aroused'),
      element('text', { x: 0, y: RADIUS + 17 }, 'calm'),
      element('text', { transform: `translate(${RADIUS + 13} 0) rotate(90)` }, 'pleasant'),
      element('text', { transform: `translate(${-RADIUS - 13} 0) rotate(-90)` }, 'unpleasant'),
    );
    this.clear();
  }

  clear() {
    for (const { spot, trail } of this.spots.values()) {
      spot.remove();
      trail.remove();
    }
    this.spots.clear();
    this.svg.setAttribute('aria-label', 'Circumplex of affect: no face');
  }

  /** Show these faces; `chosen` (a face) stands out. */
  update(faces, chosen) {
    const seen = new Set();
    faces.forEach((face, number) => {
      const { valence, arousal, label } = face.calm ?? face.expression;
      if (valence === null || arousal === null) return;
      const key = face.track ?? number;
      seen.add(key);
      const far = Math.max(1, Math.hypot(valence, arousal));
      this.move(key, (RADIUS * valence) / far, (-RADIUS * arousal) / far, css(this.palette, label), face === chosen);
    });
    for (const [key, { spot, trail }] of this.spots) {
      if (seen.has(key)) continue;
      spot.remove();
      trail.remove();
      this.spots.delete(key);
    }
    const read = chosen && (chosen.calm ?? chosen.expression);
    this.svg.setAttribute('aria-label', read ? `Circumplex: valence ${signed(read.valence)}, arousal ${signed(read.arousal)}` : 'Circumplex of affect: no face');
  }

  move(key, x, y, colour, chosen) {
    if (!this.spots.has(key)) {
      const made = { spot: element('circle', { class: 'spot' }), trail: element('polyline', { class: 'trail' }), points: [] };
      this.svg.append(made.trail, made.spot);
      this.spots.set(key, made);
    }
    const { spot, trail, points } = this.spots.get(key);
    points.push(`${x.toFixed(1)},${y.toFixed(1)}`);
    if (points.length > TRAIL) points.shift();
    trail.setAttribute('points', points.join(' '));
    trail.setAttribute('stroke', colour);
    spot.setAttribute('r', chosen ? 10 : 7);
    spot.setAttribute('fill', colour);
    spot.style.transform = `translate(${x}px, ${y}px)`;
    spot.classList.toggle('chosen', chosen);
  }
}
