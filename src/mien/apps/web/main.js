// The page: what the user does -> what is read -> what is shown.
import { annotated, show } from './draw.js';
import { openEngine } from './engine.js';
import { Moving } from './moving.js';
import { Panel, keyOf } from './panel.js';
import { Plane } from './plane.js';
import { csv, grown, save } from './rows.js';
import { cameraOf, clipOf, pictureOf } from './sources.js';
import { Timeline } from './timeline.js';

const SAID = 3; // files that could not be read and are named

const find = (id) => document.getElementById(id);
const seen = (id, visible) => (find(id).hidden = !visible);

/** Say something in the notice at the top; '' takes it away. */
function notice(text) {
  find('notice-text').textContent = text;
  seen('notice', text);
}

/** Ask for the server's key. */
function askKey() {
  notice('This server wants a key.');
  seen('key-field', true);
  find('key').focus();
  return new Promise((resolve) => {
    find('notice').onsubmit = (event) => {
      event.preventDefault();
      seen('key-field', false);
      notice('');
      resolve(find('key').value);
    };
  });
}

class Page {
  constructor(site, engine) {
    Object.assign(this, { site, engine, pictures: [], at: 0, moving: null, chosen: null, now: null, work: 0, lost: false });
    const { labels } = site.model.spec;
    this.panel = new Panel(find, labels, site.palette, (key) => this.choose(key));
    this.plane = new Plane(find('plane'), site.palette);
    this.timeline = new Timeline(find('timeline'), find('keys'), labels, site.palette, site.model.spec.threshold);
    this.wire();
  }

  wire() {
    const on = (id, call) => find(id).addEventListener('click', call);
    on('choose', () => find('files').click());
    on('camera', () => this.toggleCamera());
    on('play', () => this.togglePlay());
    on('before', () => this.turn(-1));
    on('after', () => this.turn(1));
    on('save-table', () => this.saveTable());
    on('save-picture', () => this.savePicture());
    on('example', async () => {
      const answer = await fetch('example.jpg').catch(() => null);
      if (!answer?.ok) return notice('The example does not come: is the web server still there? Pictures of your own are read all the same.');
      return this.take([new File([await answer.blob()], 'example.jpg', { type: 'image/jpeg' })]);
    });
    find('files').addEventListener('change', ({ target }) => {
      this.take([...target.files]);
      target.value = '';
    });
    addEventListener('paste', ({ clipboardData }) => clipboardData.files.length && this.take([...clipboardData.files]));
    addEventListener('keydown', ({ key }) => key === 'Escape' && this.halt());
    this.drops();
    for (const id of ['choose', 'camera']) find(id).disabled = false;
    seen('example', this.site.example);
  }

  drops() {
    addEventListener('dragover', (event) => {
      event.preventDefault();
      find('stage').classList.add('over');
    });
    addEventListener('dragleave', ({ relatedTarget }) => relatedTarget || find('stage').classList.remove('over'));
    addEventListener('drop', (event) => {
      event.preventDefault();
      find('stage').classList.remove('over');
      if (event.dataTransfer.files.length) this.take([...event.dataTransfer.files]);
    });
  }

  /** Read what the user gave: a clip, or any number of pictures. */
  async take(files) {
    this.lost = false;
    notice('');
    const clip = files.find((file) => file.type.startsWith('video/'));
    if (clip) {
      const others = files.length - 1;
      if (others) notice(`${clip.name} alone is read, ${others} more ${others === 1 ? 'file is' : 'files are'} left out: give clips one at a time, and pictures without a clip.`);
      return this.start(() => clipOf(clip), clip.name, 'play');
    }
    this.halt();
    const mine = this.work;
    const [read, problems] = [[], []];
    seen('busy', true);
    for (const file of files) {
      try {
        const { canvas, scale } = await pictureOf(file);
        const { faces, detect, classify } = await this.engine.read(canvas);
        if (mine !== this.work) return undefined;
        read.push({ file, scale, faces, took: detect + classify });
        if (read.length === 1) {
          Object.assign(this, { pictures: read, at: 0 }); // what was on the screen stays until there is something else
          this.showPicture(canvas);
        } else canvas.width = canvas.height = 0; // a phone has no room for many: the file is decoded again when it is looked at
        this.pageNumbers();
      } catch (error) {
        problems.push(error.message);
      }
    }
    if (mine !== this.work) return undefined;
    seen('busy', false);
    const more = problems.length - SAID;
    if (problems.length) notice(problems.slice(0, SAID).join(' ') + (more > 0 ? ` And ${more} more.` : ''));
    return undefined;
  }

  pageNumbers() {
    seen('pages', this.pictures.length > 1);
    find('page').textContent = `${this.at + 1} of ${this.pictures.length}`;
  }

  async turn(step) {
    const { pictures } = this;
    const at = (this.at + step + pictures.length) % pictures.length;
    this.at = at;
    this.pageNumbers();
    if (this.lost) notice(''); // it was of the picture before
    this.lost = false;
    try {
      const { canvas } = await pictureOf(pictures[at].file);
      if (pictures !== this.pictures || at !== this.at) return; // turned on meanwhile
      this.chosen = null;
      this.showPicture(canvas);
    } catch (error) {
      if (pictures !== this.pictures || at !== this.at) return;
      this.lost = true;
      notice(error.message);
    }
  }

  /** canvas: with the picture that is looked at. */
  showPicture(canvas) {
    const { faces, took, file } = this.pictures[this.at];
    seen('time', false);
    this.plane.clear();
    this.display({ faces, frame: canvas, speed: `${Math.round(took)} ms`, name: file.name });
    this.panel.say(faces, false);
  }

  /** Begin to read something that moves. open: () -> Promise of a source; button: the one that belongs to it. */
  async start(open, name, button) {
    this.halt();
    const mine = this.work;
    try {
      const source = await open();
      if (mine !== this.work) return source.stop(); // while the browser asked, the user wished for something else
      this.pictures = [];
      this.chosen = null;
      this.plane.clear();
      this.timeline.clear();
      this.moving = new Moving(source, name, this.engine, this.site.model.spec.threshold, (what) => this.frame(what), (error) => this.stopped(error));
      seen('pages', false);
      seen('time', true);
      seen('play', button === 'play');
      find('play').textContent = 'Pause';
      find('camera').setAttribute('aria-pressed', String(button === 'camera'));
      find('camera').textContent = button === 'camera' ? 'Stop the camera' : 'Camera';
      source.video.onended = () => (find('play').textContent = 'Play again');
    } catch (error) {
      if (mine === this.work) notice(error.message);
    }
    return undefined;
  }

  frame({ faces, frame, seconds, took, rate, side, again }) {
    if (again) {
      this.chosen = null; // faces have new numbers
      this.timeline.clear();
      this.plane.clear();
    }
    const look = side ? `, looking at ${side} px` : '';
    this.display({ faces, frame, speed: `${rate.toFixed(0)} a second, ${Math.round(took)} ms${look}`, name: this.moving.name });
    this.timeline.add(faces, seconds);
    this.showTime();
    this.panel.say(faces, true);
  }

  showTime() {
    const track = this.now.chosen ? this.now.chosen.track : this.chosen;
    this.timeline.draw(track, this.moving.seconds);
    find('who').textContent = track === null ? '' : `face ${track}`;
  }

  display({ faces, frame, speed, name }) {
    const chosen = faces.find((face, i) => keyOf(face, i) === this.chosen) ?? faces[0] ?? null;
    this.now = { faces, frame, chosen, speed, name };
    const view = find('view');
    if (view.width !== frame.width || view.height !== frame.height) Object.assign(view, { width: frame.width, height: frame.height });
    show(view, frame, faces, this.site.palette, { mirrored: !this.pictures.length && Boolean(this.moving?.mirrored), chosen });
    view.setAttribute('aria-label', `${name}: ${faces.length} ${faces.length === 1 ? 'face' : 'faces'}`);
    this.panel.update(faces, chosen, frame);
    this.plane.update(faces, chosen);
    find('speed').textContent = speed;
    seen('empty', false);
    seen('view', true);
    seen('speed', true);
    for (const id of ['save-table', 'save-picture']) find(id).disabled = false;
  }

  choose(key) {
    this.chosen = key;
    if (!this.now) return;
    this.display(this.now);
    if (!this.pictures.length) this.showTime(); // what has ended or waits shows no further frame
  }

  toggleCamera() {
    if (this.moving?.name === 'camera' && this.moving.running) return this.halt();
    return this.start(cameraOf, 'camera', 'camera');
  }

  togglePlay() {
    const { video } = this.moving;
    if (video.paused) video.play();
    else video.pause();
    find('play').textContent = video.paused ? 'Play' : 'Pause';
  }

  /** Stop what moves, and give up what is being opened or read; what was read stays in the table. */
  halt() {
    this.work++; // whoever waits sees by it that another wish has come
    this.moving?.stop();
    seen('busy', false);
    seen('play', false);
    find('camera').setAttribute('aria-pressed', 'false');
    find('camera').textContent = 'Camera';
  }

  stopped(error) {
    this.halt();
    notice(error.message);
  }

  saveTable() {
    const left = this.pictures.length ? 0 : this.moving.kept.left;
    if (left) notice(`The table holds the newest ${this.moving.kept.most} frames; ${left} older ones were left out. mien watch --table keeps all.`);
    const frames = this.pictures.length
      ? this.pictures.map(({ file, faces, scale }) => ({ image: file.name, index: '', seconds: '', faces: faces.map((face) => grown(face, scale)) }))
      : this.moving.kept.frames;
    save(new Blob([csv(frames, this.site)], { type: 'text/csv' }), 'faces.csv');
  }

  savePicture() {
    const { frame, faces, name } = this.now;
    const kept = annotated(frame, frame.width, frame.height, faces, this.site.palette);
    const stem = name.replace(/\.[^.]*$/, '');
    kept.toBlob((blob) => save(blob, `${stem}-mien.png`), 'image/png');
  }
}

/** Say where pictures are read, before any is given. */
function sayWhere(engine) {
  const inside = engine.where === 'browser';
  find('privacy').classList.add(inside ? 'inside' : 'outside');
  if (inside) find('about').append(' Read by onnxruntime-web (MIT, Microsoft).');
  find('privacy-text').textContent = inside
    ? 'Everything runs in this browser: no face leaves this machine.'
    : `Pictures go to the server at ${location.host}, because ${engine.why}.`;
}

function sayAbout({ version, model, detector, server }) {
  const parts = [`mien ${version}`, `model ${model.spec.name}`, detector ? `detector ${detector.spec.name}` : 'no detector: each picture is a face'];
  find('about').textContent = `${parts.join(' · ')}.`;
  if (server) find('about').append(' ', Object.assign(document.createElement('a'), { href: 'schema/openapi.json', textContent: 'The HTTP API' }));
}

async function begin() {
  try {
    const site = await (await fetch('page.json')).json();
    sayAbout(site);
    const engine = await openEngine(site, askKey);
    sayWhere(engine);
    const page = new Page(site, engine);
    document.documentElement.dataset.ready = engine.where;
    return page;
  } catch (error) {
    find('privacy').classList.add('outside');
    find('privacy-text').textContent = 'Not running.';
    notice(`This page cannot read faces here: ${error.message}.`);
    document.documentElement.dataset.ready = 'none';
    return null;
  }
}

begin();
