// Waveform and spectrogram of a sound that grows.

import { RATE } from "./take.js";

const SIZE = 512;
const BANDS = 64;
// Columns that are kept; beyond them every two become one, so that any length fits.
const MOST = 4096;
const window_ = Float32Array.from({ length: SIZE }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / SIZE));
const cosines = Float32Array.from({ length: SIZE / 2 }, (_, i) => Math.cos((2 * Math.PI * i) / SIZE));
const sines = Float32Array.from({ length: SIZE / 2 }, (_, i) => -Math.sin((2 * Math.PI * i) / SIZE));

// The power of each frequency of SIZE samples, in place.
function power(real, imaginary) {
  for (let i = 1, j = 0; i < SIZE; i++) {
    let bit = SIZE >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) [real[i], real[j]] = [real[j], real[i]];
  }
  for (let half = 1; half < SIZE; half *= 2) {
    const step = SIZE / (2 * half);
    for (let start = 0; start < SIZE; start += 2 * half) {
      for (let k = 0; k < half; k++) {
        const a = start + k, b = a + half, c = cosines[k * step], s = sines[k * step];
        const re = real[b] * c - imaginary[b] * s, im = real[b] * s + imaginary[b] * c;
        real[b] = real[a] - re; imaginary[b] = imaginary[a] - im;
        real[a] += re; imaginary[a] += im;
      }
    }
  }
  for (let i = 0; i <= SIZE / 2; i++) real[i] = real[i] ** 2 + imaginary[i] ** 2;
}

const mel = (hertz) => 2595 * Math.log10(1 + hertz / 700);
const hertz = (value) => 700 * (10 ** (value / 2595) - 1);
const edges = Array.from({ length: BANDS + 1 }, (_, i) =>
  Math.round((hertz((mel(RATE / 2) * i) / BANDS) / RATE) * SIZE));

function parseColour(text) {
  const [r, g, b] = text.trim().match(/[\da-f]{2}/gi).map((pair) => parseInt(pair, 16));
  return [r, g, b];
}

export class Picture {
  constructor(canvas, sound) {
    this.canvas = canvas;
    this.sound = sound;
    this.read = 0;
    // Samples of a column.
    this.hop = 256;
    this.n = 0;
    this.peaks = new Float32Array(2 * MOST);
    this.levels = new Uint8Array(MOST * BANDS);
    this.image = document.createElement("canvas");
    this.image.width = MOST;
    this.image.height = BANDS;
    this.drawn = 0;
    this.real = new Float32Array(SIZE);
    this.imaginary = new Float32Array(SIZE);
  }

  #colours() {
    const style = getComputedStyle(document.documentElement);
    const get = (name) => style.getPropertyValue(name);
    const key = get("--accent") + get("--field");
    if (key === this.key) return;
    this.key = key;
    this.drawn = 0;
    this.accent = get("--accent");
    this.ink = get("--ink");
    this.line = get("--line");
    const short = (text) => (text.trim().length === 4 ? text.trim().replace(/[\da-f]/gi, "$&$&") : text);
    const stops = ["--field", "--accent", "--ink"].map((name) => parseColour(short(get(name))));
    this.lut = Array.from({ length: 256 }, (_, i) => {
      const at = (i / 255) ** 1.4 * 1.45, low = Math.min(1, Math.floor(at)), share = Math.min(1, at - low);
      return stops[low].map((value, c) => Math.round(value + (stops[low + 1][c] - value) * share));
    });
  }

  // Read what has come.
  grow() {
    while (this.read + this.hop + SIZE <= this.sound.length + SIZE / 2 && this.read + this.hop <= this.sound.length) {
      if (this.n === MOST) this.#halve();
      const samples = this.sound.read(Math.max(0, this.read), Math.max(SIZE, this.hop));
      let low = 0, high = 0;
      for (let i = 0; i < Math.min(this.hop, samples.length); i++) {
        if (samples[i] < low) low = samples[i];
        if (samples[i] > high) high = samples[i];
      }
      this.peaks[2 * this.n] = low / 32768;
      this.peaks[2 * this.n + 1] = high / 32768;
      for (let i = 0; i < SIZE; i++) this.real[i] = ((samples[i] || 0) / 32768) * window_[i];
      this.imaginary.fill(0);
      power(this.real, this.imaginary);
      for (let band = 0; band < BANDS; band++) {
        let most = 0;
        for (let i = edges[band]; i < Math.max(edges[band] + 1, edges[band + 1]); i++) most = Math.max(most, this.real[i]);
        const decibel = 10 * Math.log10(most / SIZE + 1e-9);
        this.levels[this.n * BANDS + band] = Math.max(0, Math.min(255, (decibel + 60) * 4.2));
      }
      this.n++;
      this.read += this.hop;
    }
  }

  #halve() {
    for (let i = 0; i < MOST / 2; i++) {
      this.peaks[2 * i] = Math.min(this.peaks[4 * i], this.peaks[4 * i + 2]);
      this.peaks[2 * i + 1] = Math.max(this.peaks[4 * i + 1], this.peaks[4 * i + 3]);
      for (let band = 0; band < BANDS; band++) {
        const a = this.levels[2 * i * BANDS + band], b = this.levels[(2 * i + 1) * BANDS + band];
        this.levels[i * BANDS + band] = Math.max(a, b);
      }
    }
    this.n = MOST / 2;
    this.hop *= 2;
    this.drawn = 0;
  }

  // Seconds that the width stands for: with room while the sound grows.
  span(finished) {
    const seconds = this.sound.length / RATE;
    if (finished) return Math.max(seconds, 0.5);
    let room = 4;
    while (room < seconds + 0.5) room *= 1.5;
    return room;
  }

  draw(finished, position, starts) {
    this.#colours();
    this.grow();
    const { canvas, image } = this;
    const scale = devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * scale), height = Math.round(canvas.clientHeight * scale);
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    const ink = image.getContext("2d");
    if (this.n > this.drawn) {
      const data = ink.createImageData(this.n - this.drawn, BANDS);
      for (let x = 0; x < data.width; x++) {
        for (let band = 0; band < BANDS; band++) {
          const at = 4 * ((BANDS - 1 - band) * data.width + x);
          const [r, g, b] = this.lut[this.levels[(this.drawn + x) * BANDS + band]];
          data.data[at] = r; data.data[at + 1] = g; data.data[at + 2] = b; data.data[at + 3] = 255;
        }
      }
      ink.putImageData(data, this.drawn, 0);
      this.drawn = this.n;
    }
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    const span = this.span(finished) * RATE;
    const column = (width * this.hop) / span;
    const split = Math.round(height * 0.38), middle = split / 2;
    if (this.n) context.drawImage(image, 0, 0, this.n, BANDS, 0, split, this.n * column, height - split);
    context.fillStyle = this.accent;
    // One bar for a pixel, over the columns in it.
    for (let x = 0; x < Math.min(width, this.n * column); x++) {
      let low = 0, high = 0;
      const first = Math.floor(x / column);
      for (let i = first; i <= Math.min(this.n - 1, Math.max(first, Math.ceil((x + 1) / column) - 1)); i++) {
        low = Math.min(low, this.peaks[2 * i]);
        high = Math.max(high, this.peaks[2 * i + 1]);
      }
      const top = middle - Math.min(1, high * 1.6) * middle, bottom = middle - Math.max(-1, low * 1.6) * middle;
      context.fillRect(x, top, 1, Math.max(scale, bottom - top));
    }
    context.fillStyle = this.ink;
    for (const start of starts) context.fillRect(Math.round((start / span) * width), 0, scale, 4 * scale);
    if (position !== null) context.fillRect(Math.round((position / span) * width) - scale / 2, 0, 1.5 * scale, height);
  }
}
