// Reads a clip or the camera while it plays: the newest frame as soon as the one before is read; others pass by.
import { Kept, grown } from './rows.js';
import { nextFrame } from './sources.js';
import { Tracks } from './track.js';

const SIDE = 1280; // pixels: frames are read at most this large

export class Moving {
  /** source: {video, mirrored, stop}; threshold: as Tracks takes it; seen: ({faces, frame, seconds, took, rate, again}) => void, after each read frame; again: a clip began anew. */
  constructor(source, name, engine, threshold, seen, failed) {
    const { video, mirrored, stop: release } = source; // under another name, or it would hide our stop
    Object.assign(this, { video, mirrored, release, name, engine, seen, failed, kept: new Kept(), tracks: new Tracks(threshold), seconds: -1, running: true, rate: 0 });
    const scale = Math.min(1, SIDE / Math.max(this.video.videoWidth, this.video.videoHeight));
    this.scale = scale;
    this.frame = document.createElement('canvas');
    this.frame.width = Math.round(this.video.videoWidth * scale);
    this.frame.height = Math.round(this.video.videoHeight * scale);
    this.pen = this.frame.getContext('2d', { willReadFrequently: true });
    this.began = performance.now();
    this.wait();
  }

  wait() {
    if (this.running) nextFrame(this.video, (seconds) => this.step(seconds));
  }

  async step(shown) {
    if (!this.running) return;
    const start = performance.now();
    const seconds = this.video.srcObject ? (start - this.began) / 1000 : shown;
    if (seconds === this.seconds) {
      this.wait(); // the same frame once more
      return;
    }
    try {
      this.pen.drawImage(this.video, 0, 0, this.frame.width, this.frame.height);
      const answer = await this.engine.read(this.frame, { live: true });
      if (!this.running) return;
      this.keep(answer, seconds, start);
    } catch (error) {
      this.stop();
      this.failed(error);
      return;
    }
    this.wait();
  }

  keep(answer, seconds, start) {
    const again = seconds < this.seconds;
    if (again) Object.assign(this, { kept: new Kept(), tracks: new Tracks(this.tracks.threshold) });
    this.seconds = seconds;
    const faces = this.tracks.follow(answer.faces, seconds);
    // A browser tells a frame's time and not its number, so the table has none.
    this.kept.add({ image: this.name, index: '', seconds, faces: faces.map((face) => grown(face, this.scale)) });
    const now = performance.now();
    if (this.last) this.rate = this.rate ? 0.9 * this.rate + 100 / (now - this.last) : 1000 / (now - this.last);
    this.last = now;
    this.seen({ faces, frame: this.frame, seconds, took: now - start, rate: this.rate, side: answer.side, again });
  }

  stop() {
    if (!this.running) return;
    this.running = false;
    this.release();
  }
}
