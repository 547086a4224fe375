// Plays one take at a time through WebAudio, while it is still being made.

import { RATE } from "./take.js";

// Seconds of sound before playing begins, and after it has run dry once.
const CUSHION_S = 0.3;
const DRY_CUSHION_S = 0.6;
// Seconds that are scheduled ahead: timers of a tab in the background come once a second.
const AHEAD_S = 2;
const PIECE_S = 0.5;

// Event: change.
export class Player extends EventTarget {
  constructor() {
    super();
    this.take = null;
    this.playing = false;
    this.waiting = false;
    // {when, sample, n, node} that are scheduled.
    this.spans = [];
    this.onSound = () => this.#pump();
  }

  // To be called by a click: browsers let no page sound by itself.
  unlock() {
    this.context ??= new AudioContext({ sampleRate: RATE });
    if (this.context.state === "suspended") this.context.resume();
  }

  play(take, from = null) {
    this.unlock();
    const start = from ?? (take === this.take && this.position < take.sound.length ? this.position : 0);
    this.#silence();
    if (this.take !== take) {
      this.take?.removeEventListener("sound", this.onSound);
      take.addEventListener("sound", this.onSound);
      this.take = take;
    }
    this.cursor = Math.max(0, Math.min(start, take.sound.length));
    this.cushion = CUSHION_S;
    this.playing = this.waiting = true;
    this.timer ??= setInterval(() => this.#pump(), 100);
    this.#pump();
    this.#changed();
  }

  pause() {
    if (!this.playing) return;
    this.cursor = this.position;
    this.#rest();
  }

  // Go to a sample of a take; what plays goes on from there.
  seek(take, sample) {
    if (this.playing && this.take === take) this.play(take, sample);
    else if (this.take === take) { this.cursor = sample; this.#changed(); }
    else {
      this.pause();
      this.take?.removeEventListener("sound", this.onSound);
      this.take = take;
      take.addEventListener("sound", this.onSound);
      this.cursor = sample;
      this.#changed();
    }
  }

  drop(take) {
    if (this.take !== take) return;
    this.pause();
    take.removeEventListener("sound", this.onSound);
    this.take = null;
  }

  // The sample that is heard now.
  get position() {
    if (!this.playing || !this.context) return this.cursor ?? 0;
    const now = this.context.currentTime;
    let heard = this.waiting ? this.cursor : null;
    for (const { when, sample, n } of this.spans) {
      if (when <= now) heard = sample + Math.min(n, Math.round((now - when) * RATE));
    }
    return heard ?? this.spans[0]?.sample ?? this.cursor;
  }

  #pump() {
    if (!this.playing) return;
    const { take, context } = this;
    const now = context.currentTime;
    this.spans = this.spans.filter(({ when, n }) => when + n / RATE > now - 0.2);
    const ready = () => take.sound.length - this.cursor;
    if (!this.waiting && this.when < now) {
      // Run dry, or at the end.
      if (take.finished && ready() <= 0) {
        this.cursor = take.sound.length;
        this.#rest();
        return;
      }
      this.waiting = true;
      this.cushion = DRY_CUSHION_S;
      this.#changed();
    }
    if (this.waiting) {
      if (take.finished && ready() <= 0) {
        this.#rest();
        return;
      }
      if (!take.finished && ready() < this.cushion * RATE) return;
      this.waiting = false;
      this.when = now + 0.03;
      this.#changed();
    }
    while (ready() > 0 && this.when - now < AHEAD_S) {
      const samples = take.sound.read(this.cursor, PIECE_S * RATE);
      const buffer = context.createBuffer(1, samples.length, RATE);
      const channel = buffer.getChannelData(0);
      for (let i = 0; i < samples.length; i++) channel[i] = samples[i] / 32767;
      const node = context.createBufferSource();
      node.buffer = buffer;
      node.connect(context.destination);
      node.start(this.when);
      this.spans.push({ when: this.when, sample: this.cursor, n: samples.length, node });
      this.cursor += samples.length;
      this.when += samples.length / RATE;
    }
  }

  #silence() {
    for (const { node } of this.spans) node.stop();
    this.spans = [];
  }

  #rest() {
    this.#silence();
    this.playing = this.waiting = false;
    clearInterval(this.timer);
    this.timer = undefined;
    this.#changed();
  }

  #changed() { this.dispatchEvent(new Event("change")); }
}
