// A take: one or more parts that are spoken one after the other into one sound, which grows while it is made.

import { SpeechError, settings, speak } from "./speech.js";

export const RATE = settings.sample_rate;
const BLOCK = 1 << 18;
// Parts that are made at once: the one that is heard and the next, once so much of the text before has been begun.
// Earlier it would take the time of what is heard.
const AT_ONCE = 2;
const BEGUN = 0.7;
const PAUSE_S = 0.35;
const SEEDS = 2 ** 32;

export const drawSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

const lengthOf = (segments) => segments.reduce((sum, { text }) => sum + text.length, 0);

// 16-bit samples in blocks, so that growing copies nothing.
export class Sound {
  constructor() {
    this.blocks = [];
    this.length = 0;
  }

  append(samples) {
    let taken = 0;
    while (taken < samples.length) {
      const at = this.length % BLOCK;
      if (at === 0) this.blocks.push(new Int16Array(BLOCK));
      const n = Math.min(BLOCK - at, samples.length - taken);
      this.blocks.at(-1).set(samples.subarray(taken, taken + n), at);
      this.length += n;
      taken += n;
    }
  }

  // The samples [start, start + n), as far as there are any.
  read(start, n) {
    const out = new Int16Array(Math.max(0, Math.min(n, this.length - start)));
    for (let done = 0; done < out.length; ) {
      const at = (start + done) % BLOCK;
      const m = Math.min(BLOCK - at, out.length - done);
      out.set(this.blocks[Math.floor((start + done) / BLOCK)].subarray(at, at + m), done);
      done += m;
    }
    return out;
  }

  blob() {
    const pieces = this.blocks.map((block, i) => block.subarray(0, Math.min(BLOCK, this.length - i * BLOCK)));
    return new Blob(pieces);
  }

  // The first sample that differs, or -1.
  difference(other) {
    const n = Math.min(this.length, other.length);
    for (let i = 0; i < n; i++) {
      if (this.blocks[Math.floor(i / BLOCK)][i % BLOCK] !== other.blocks[Math.floor(i / BLOCK)][i % BLOCK]) return i;
    }
    return this.length === other.length ? -1 : n;
  }
}

let counted = 0;

// Events: change (state, numbers), sound (more samples), part (a part is complete).
export class Take extends EventTarget {
  // parts: [{text, voice, seed, speaker?}]; options: {mode, text_temp, waveform_temp, speed}; kind: text, dialogue, long.
  constructor(kind, parts, options, source = null) {
    super();
    this.number = ++counted;
    this.kind = kind;
    this.options = options;
    this.source = source;
    this.parts = parts.map((part) => ({ ...part, chunks: [], segments: [], got: 0, done: false, running: false }));
    this.sound = new Sound();
    // {text, start, speaker, part}: start in samples of the take.
    this.segments = [];
    this.state = "ready";
    this.error = null;
    this.ahead = null;
    this.voice = null;
    this.stages = {};
    this.firstSound = null;
    // Seconds of making, without pauses between tries.
    this.spent = 0;
    // Samples made by requests of this page: a restored take has more in its sound.
    this.made = 0;
    this.current = 0;
    this.retryAt = null;
    this.starting = null;
  }

  get duration() { return this.sound.length / RATE; }
  get finished() { return this.state === "done" || this.state === "stopped" || this.state === "failed"; }
  get active() { return this.state === "making" || this.state === "waiting"; }
  get seconds() { return this.spent + (this.began === undefined ? 0 : (performance.now() - this.began) / 1000); }
  // Seconds of making per second of sound, as of the latest sound.
  get factor() { return this.made ? this.lastSoundAt / (this.made / RATE) : null; }

  start() {
    this.abort = new AbortController();
    this.error = null;
    this.retryAt = null;
    this.state = "making";
    this.began = performance.now();
    this.#pump();
    this.#changed();
  }

  stop() {
    if (!this.active) return;
    this.#end("stopped");
  }

  #end(state, error = null) {
    this.spent = this.seconds;
    this.began = undefined;
    clearTimeout(this.retry);
    this.retryAt = null;
    this.ahead = null;
    this.error = error;
    this.state = state;
    this.abort.abort();
    this.#changed();
    this.dispatchEvent(new Event("sound"));
  }

  #changed() { this.dispatchEvent(new Event("change")); }

  // Start parts while there is room.
  #pump() {
    if (this.state !== "making" || this.retryAt !== null) return;
    let running = this.parts.filter((part) => part.running).length;
    for (const [i, part] of this.parts.entries()) {
      if (i < this.current || part.done || part.running) continue;
      const before = this.parts[i - 1];
      if (running >= AT_ONCE || (before && !before.done && lengthOf(before.segments) < BEGUN * before.text.length)) break;
      running++;
      this.#run(part);
    }
  }

  async #run(part) {
    part.running = true;
    // The same seed gives the same samples, so a second try goes on where the first was cut.
    let skip = part.got;
    let known = part.segments.length;
    const started = performance.now();
    const { signal } = this.abort;
    try {
      await speak(part, this.options, signal, {
        queued: (ahead) => { this.ahead = ahead; this.#changed(); },
        sentence: ({ text, start_s: start }) => {
          if (known-- <= 0) part.segments.push({ text, start: Math.round(start * RATE) });
        },
        stages: (seconds) => { part.stages = seconds; this.#sumStages(); },
        voice: (npz) => { this.voice ??= npz; },
        samples: (samples) => {
          const fresh = samples.subarray(Math.min(skip, samples.length));
          skip -= samples.length - fresh.length;
          if (!fresh.length) return;
          this.ahead = null;
          this.firstSound ??= (performance.now() - started) / 1000;
          part.got += fresh.length;
          part.chunks.push(fresh);
          this.made += fresh.length;
          this.lastSoundAt = this.seconds;
          this.#collect();
          this.#pump();
        },
      });
      part.done = true;
      part.running = false;
      this.#collect();
      this.#pump();
    } catch (error) {
      part.running = false;
      if (signal.aborted) return;
      this.#fail(error);
    }
  }

  #fail(error) {
    if (!(error instanceof SpeechError)) console.error(error);
    if (error.kind === "full") {
      // Others of this take may go on; the part is tried again.
      this.retryAt = performance.now() + error.wait * 1000;
      this.waitReason = error.message;
      clearTimeout(this.retry);
      this.retry = setTimeout(() => this.tryNow(), error.wait * 1000);
      this.#changed();
      return;
    }
    this.#end("failed", error);
  }

  tryNow() {
    clearTimeout(this.retry);
    this.retryAt = null;
    this.#pump();
    this.#changed();
  }

  // Move what has come into the sound, in the order of the parts.
  #collect() {
    while (this.current < this.parts.length) {
      const part = this.parts[this.current];
      part.start ??= this.sound.length;
      for (const segment of part.segments) {
        if (segment.placed) continue;
        segment.placed = true;
        this.segments.push({ text: segment.text, start: part.start + segment.start, part, speaker: part.speaker });
      }
      for (const chunk of part.chunks) this.sound.append(chunk);
      part.chunks.length = 0;
      if (!part.done) break;
      this.current++;
      part.length = this.sound.length - part.start;
      this.dispatchEvent(new CustomEvent("part", { detail: part }));
      if (this.current < this.parts.length) this.sound.append(new Int16Array(Math.round(PAUSE_S * RATE)));
    }
    this.dispatchEvent(new Event("sound"));
    if (this.current === this.parts.length) this.#end("done");
    else this.#changed();
  }

  // A part that was made before a reload.
  restore(samples, segments) {
    const part = this.parts[this.current];
    Object.assign(part, { done: true, got: samples.length, chunks: [samples], segments });
    if (this.current + 1 < this.parts.length) {
      // As #collect, but nothing is told and nothing ends.
      part.start = this.sound.length;
      for (const { text, start } of segments) this.segments.push({ text, start: part.start + start, part });
      this.sound.append(samples);
      this.sound.append(new Int16Array(Math.round(PAUSE_S * RATE)));
      part.chunks = [];
      this.current++;
    } else {
      this.abort = new AbortController();
      this.#collect();
    }
  }

  #sumStages() {
    this.stages = {};
    for (const part of this.parts) {
      for (const [stage, seconds] of Object.entries(part.stages || {})) {
        this.stages[stage] = (this.stages[stage] || 0) + seconds;
      }
    }
    this.#changed();
  }

  // The share of the text that is done, by characters.
  get share() {
    const all = this.parts.reduce((sum, part) => sum + part.text.length, 0);
    // Of a part that is under way, the sentences before the one that is made now.
    const done = ({ done: whole, text, segments }) =>
      whole ? text.length : Math.min(text.length, lengthOf(segments.slice(0, -1)));
    return this.parts.reduce((sum, part) => sum + done(part), 0) / all;
  }

  // A new take of the same text: with other seeds, or the same for the same samples.
  again(fresh) {
    const base = drawSeed();
    const parts = this.parts.map(({ text, voice, seed, speaker }, i) => ({
      text, voice, speaker, seed: fresh ? (base + i) % SEEDS : seed,
    }));
    return new Take(this.kind === "long" ? "text" : this.kind, parts, this.options, fresh ? null : this);
  }
}
