// A take on the page: its picture, sentences, numbers and buttons.

import { call, settings } from "./speech.js";
import { Picture } from "./picture.js";
import { RATE } from "./take.js";

const still = matchMedia("(prefers-reduced-motion: reduce)");
const STAGES = ["semantic", "coarse", "fine", "codec"];

const seconds = (value) => (value < 10 ? `${value.toFixed(2)} s` : `${value.toFixed(1)} s`);
export const clock = (value) => {
  const whole = Math.round(value);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  if (!parts[0]) parts.shift();
  return parts.map((part, i) => (i ? String(part).padStart(2, "0") : part)).join(":");
};
const exact = (value) => (value < 60 ? `${value.toFixed(1)} s` : clock(value));

export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// 16-bit samples with the head of a wav file.
export function wavOf(sound) {
  const head = new DataView(new ArrayBuffer(44)), size = sound.length * 2;
  const text = (at, word) => [...word].forEach((c, i) => head.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF"); head.setUint32(4, 36 + size, true); text(8, "WAVEfmt ");
  head.setUint32(16, 16, true); head.setUint16(20, 1, true); head.setUint16(22, 1, true);
  head.setUint32(24, RATE, true); head.setUint32(28, RATE * 2, true); head.setUint16(32, 2, true); head.setUint16(34, 16, true);
  text(36, "data"); head.setUint32(40, size, true);
  return new Blob([head, sound.blob()], { type: "audio/wav" });
}

export class Card {
  // actions: {again(take, fresh), keep(take), remove(take), name(take)}
  constructor(take, player, actions, format) {
    this.take = take;
    this.player = player;
    this.actions = actions;
    this.node = document.querySelector("#take").content.firstElementChild.cloneNode(true);
    this.shown = 0;
    const find = (selector) => this.node.querySelector(selector);
    this.find = find;
    const title = `Take ${take.number}`;
    find("h2").textContent = title;
    this.node.setAttribute("aria-label", title);
    const [first] = take.parts;
    const cast = [...new Set(take.parts.map((part) => part.speaker).filter(Boolean))];
    const what = cast.length ? cast.join(", ") : first.voice || "default";
    find(".what").textContent = `${what} · seed ${first.seed}${take.parts.length > 1 ? ` · ${take.parts.length} parts` : ""}`;
    this.picture = new Picture(find("canvas"), take.sound);
    this.slider = find(".picture");
    this.slider.setAttribute("aria-label", `Position in ${title}`);
    const select = find(".download select");
    select.append(...settings.formats.map((name) => new Option(name, name, false, name === format)));
    select.setAttribute("aria-label", `Format of the download of ${title}`);

    this.#onClick(".play", () => this.#toggle());
    this.#onClick(".again", () => actions.again(take, false));
    this.#onClick(".another", () => actions.again(take, true));
    this.#onClick(".keep", () => actions.keep(take));
    this.#onClick(".remove", () => actions.remove(take));
    this.#onClick(".resume", () => { take.retryAt === null ? take.start() : take.tryNow(); });
    this.#onClick(".download button", () => this.#download(select.value));
    this.#onSeek();
    for (const name of ["change", "sound"]) take.addEventListener(name, () => this.#plan());
    this.onPlayer = () => this.#plan();
    player.addEventListener("change", this.onPlayer);
    this.observer = new ResizeObserver(() => this.#plan());
    this.observer.observe(this.slider);
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.dark.addEventListener("change", this.onPlayer);
    this.#plan();
  }

  close() {
    this.player.removeEventListener("change", this.onPlayer);
    this.dark.removeEventListener("change", this.onPlayer);
    this.observer.disconnect();
    this.closed = true;
    this.node.remove();
  }

  #onClick(selector, act) {
    const button = this.find(selector);
    button.addEventListener("click", act);
  }

  get #mine() { return this.player.take === this.take; }

  #toggle() {
    if (this.#mine && this.player.playing) this.player.pause();
    else this.player.play(this.take);
  }

  #onSeek() {
    const to = (event) => {
      const { left, width } = this.slider.getBoundingClientRect();
      const at = ((event.clientX - left) / width) * this.picture.span(this.take.finished) * RATE;
      this.player.seek(this.take, Math.round(Math.max(0, Math.min(at, this.take.sound.length))));
    };
    this.slider.addEventListener("pointerdown", (event) => { this.slider.setPointerCapture(event.pointerId); to(event); });
    this.slider.addEventListener("pointermove", (event) => { if (event.buttons) to(event); });
    this.slider.addEventListener("keydown", (event) => {
      const now = this.#mine ? this.player.position : 0, all = this.take.sound.length;
      const target = {
        ArrowLeft: now - RATE, ArrowDown: now - RATE, ArrowRight: now + RATE, ArrowUp: now + RATE,
        PageDown: now - 10 * RATE, PageUp: now + 10 * RATE, Home: 0, End: all,
      }[event.key];
      if (event.key === " ") this.#toggle();
      else if (target === undefined) return;
      else this.player.seek(this.take, Math.max(0, Math.min(target, all)));
      event.preventDefault();
    });
  }

  #plan() {
    if (this.planned || this.closed) return;
    this.planned = true;
    const show = () => { this.planned = false; if (!this.closed) this.#show(); };
    // A tab in the background draws no frames, and must not fall behind.
    if (document.hidden) setTimeout(show, 250);
    else requestAnimationFrame(show);
  }

  #show() {
    const { take, player } = this;
    const mine = this.#mine, position = mine ? player.position : null;
    this.picture.draw(take.finished, position, take.segments.map(({ start }) => start));
    this.slider.setAttribute("aria-valuemax", take.duration.toFixed(1));
    this.slider.setAttribute("aria-valuenow", ((position || 0) / RATE).toFixed(1));
    this.slider.setAttribute("aria-valuetext", `${exact((position || 0) / RATE)} of ${exact(take.duration)}`);
    const play = this.find(".play");
    const playing = mine && player.playing;
    play.textContent = playing ? "Pause" : "Play";
    play.disabled = !take.sound.length && !playing;
    const dry = playing && player.waiting && take.sound.length && take.active;
    this.find(".time").textContent = `${exact((position || 0) / RATE)} / ${exact(take.duration)}${dry ? ", waiting for more" : ""}`;
    this.#showSentences(position);
    this.#showNumbers();
    this.#showProgress();
    this.find(".trouble").textContent = this.#trouble();
    const resume = this.find(".resume");
    resume.hidden = !(take.retryAt !== null || ["ready", "failed", "stopped"].includes(take.state));
    resume.textContent = take.retryAt !== null || take.state === "failed" ? "Try again" : "Go on";
    this.find(".keep").disabled = !take.voice;
    this.find(".download button").disabled = !(take.finished && take.sound.length) || this.encoding;
    this.find(".again").disabled = this.find(".another").disabled = take.active;
    if (playing || take.active) this.#plan();
  }

  #trouble() {
    const { take } = this;
    if (this.encodeError) return this.encodeError;
    if (take.retryAt !== null) {
      const left = Math.max(0, Math.ceil((take.retryAt - performance.now()) / 1000));
      return `${take.waitReason} Trying again in ${left} s.`;
    }
    if (take.state === "failed") return take.error.message;
    return "";
  }

  #showSentences(position) {
    const box = this.find(".sentences"), { take } = this;
    if (this.shown < take.segments.length) {
      box.querySelector(".rest")?.remove();
      for (; this.shown < take.segments.length; this.shown++) {
        const { text, start, speaker } = take.segments[this.shown];
        const before = take.segments[this.shown - 1];
        if (speaker && before?.speaker !== speaker) {
          const who = document.createElement("bdi");
          who.className = "who";
          who.textContent = speaker;
          if (this.shown) box.append(document.createElement("br"));
          box.append(who, " ");
        } else if (this.shown && before.part !== take.segments[this.shown].part) box.append(document.createElement("br"));
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = text;
        button.dir = "auto";
        button.addEventListener("click", () => {
          if (this.#mine && this.player.playing) this.player.seek(take, start);
          else this.player.play(take, start);
        });
        box.append(button, " ");
        // What has a direction of its own does not count for that of the box.
        if (!this.shown) box.dir = getComputedStyle(button).direction;
      }
    }
    const now = position === null ? -1 : take.segments.findLastIndex(({ start }) => start <= position);
    if (now === this.lit) return;
    const buttons = box.querySelectorAll("button");
    buttons[this.lit]?.removeAttribute("aria-current");
    this.lit = now;
    const button = buttons[now];
    if (!button) return;
    button.setAttribute("aria-current", "true");
    if (box.scrollHeight > box.clientHeight) {
      const top = button.offsetTop - box.offsetTop - box.clientHeight / 3;
      box.scrollTo({ top, behavior: still.matches ? "instant" : "smooth" });
    }
  }

  #showNumbers() {
    const { take } = this, rows = [];
    if (take.active && take.ahead !== null) rows.push(["In the queue", take.ahead ? `${take.ahead} before you` : "next"]);
    if (take.firstSound !== null) rows.push(["First sound after", seconds(take.firstSound)]);
    if (take.factor !== null) {
      rows.push(["Real-time factor", `${take.factor.toFixed(2)}`]);
      rows.push(["Sound", exact(take.duration)]);
      rows.push(["Made in", exact(take.active ? take.seconds : take.lastSoundAt)]);
    }
    if (take.source) rows.push([`Beside take ${take.source.number}`, this.#compared()]);
    const text = JSON.stringify(rows);
    if (text !== this.numbers) {
      this.numbers = text;
      this.find(".numbers").replaceChildren(...rows.map(([name, value]) => {
        const row = document.createElement("div"), dt = document.createElement("dt"), dd = document.createElement("dd");
        dt.textContent = name;
        dd.textContent = value;
        row.className = name.startsWith("Beside") ? "wide" : "";
        row.append(dt, dd);
        return row;
      }));
    }
    const stages = Object.entries(take.stages).sort(([a], [b]) => STAGES.indexOf(a) - STAGES.indexOf(b));
    const key = JSON.stringify(stages);
    if (key === this.stages || !stages.length) return;
    this.stages = key;
    const bar = this.find(".stages");
    bar.hidden = false;
    bar.setAttribute("aria-label", `Work by stage: ${stages.map(([name, value]) => `${name} ${seconds(value)}`).join(", ")}`);
    const legend = [];
    bar.replaceChildren(...stages.map(([name, value], i) => {
      const part = document.createElement("i");
      part.className = `s${i}`;
      part.style.flexGrow = value;
      const entry = document.createElement("span"), box = document.createElement("i");
      box.className = `s${i}`;
      entry.append(box, `${name} ${seconds(value)}`);
      legend.push(entry);
      return part;
    }));
    this.find(".legend").replaceChildren(...legend, "(stages overlap)");
  }

  #compared() {
    const { take } = this;
    if (take.state !== "done" || take.source.state !== "done") return "…";
    this.differs ??= take.sound.difference(take.source.sound);
    return this.differs < 0 ? "the same samples" : `differs after ${seconds(this.differs / RATE)}`;
  }

  #showProgress() {
    const { take } = this, bar = this.find("progress"), left = this.find(".left");
    const many = take.parts.length > 1 && take.state !== "done";
    bar.hidden = !many;
    bar.value = take.share;
    bar.setAttribute("aria-label", `Take ${take.number}`);
    let text = "";
    if (many && take.active && take.share > 0 && take.made) {
      const done = take.share - (take.restored || 0);
      // Of less there is little to tell from.
      if (done < 0.03) text = `${Math.round(take.share * 100)} %`;
      else text = `${Math.round(take.share * 100)} %, about ${clock((take.seconds * (1 - take.share)) / done)} left`;
    } else if (many) text = `${Math.round(take.share * 100)} %`;
    if (text !== left.textContent) left.textContent = text;
  }

  async #download(format) {
    const { take } = this, name = `barkfast-${take.number}-${take.parts[0].seed}.${format === "opus" ? "ogg" : format}`;
    this.encodeError = "";
    if (format === "wav") return download(wavOf(take.sound), name);
    if (format === "pcm") return download(take.sound.blob(), name);
    this.encoding = true;
    this.#plan();
    try {
      const response = await call(`web/encode?format=${encodeURIComponent(format)}`, { method: "POST", body: take.sound.blob() });
      download(await response.blob(), name);
    } catch (error) {
      this.encodeError = error.message;
    }
    this.encoding = false;
    this.#plan();
  }
}
