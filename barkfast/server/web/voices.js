// The dialog that chooses a voice: by language, with a search and a sample of each.

import { SpeechError, call, settings } from "./speech.js";
import { Take, drawSeed } from "./take.js";

// A sentence of each language that Bark speaks.
const SAMPLES = {
  en: "Hello. This is how I sound.",
  de: "Hallo. So klinge ich.",
  es: "Hola. Así suena mi voz.",
  fr: "Bonjour. Voici ma voix.",
  hi: "नमस्ते। मेरी आवाज़ ऐसी है।",
  it: "Ciao. Questa è la mia voce.",
  ja: "こんにちは。これが私の声です。",
  ko: "안녕하세요. 이것이 제 목소리입니다.",
  pl: "Cześć. Tak brzmi mój głos.",
  pt: "Olá. Esta é a minha voz.",
  ru: "Привет. Так звучит мой голос.",
  tr: "Merhaba. Sesim böyle.",
  zh: "你好。这就是我的声音。",
};
const OWN = "Voices of this model";
const KEPT = "Kept on this server";
const OTHER = "OpenAI’s names, and other names of these voices";
const languages = new Intl.DisplayNames(["en"], { type: "language" });

function languageOf(code) {
  try {
    return languages.of(code);
  } catch {
    return code;
  }
}

const isOther = ({ id }) => Number(id in settings.aliases);

function groupOf(voice) {
  if (voice.id in settings.aliases) return OTHER;
  if (voice.id.includes("_speaker_") && voice.language) return languageOf(voice.language);
  return voice.id === "default" || settings.own.includes(voice.id) ? OWN : KEPT;
}

export class VoicePicker {
  constructor(player) {
    this.player = player;
    this.dialog = document.querySelector("#voices");
    this.search = this.dialog.querySelector("#search");
    this.list = this.dialog.querySelector("#voice-list");
    this.trouble = this.dialog.querySelector("#voice-trouble");
    this.voices = [];
    this.samples = new Map();
    this.search.addEventListener("input", () => this.#show());
    this.search.addEventListener("keydown", (event) => {
      if (!["Enter", "ArrowDown", "Escape"].includes(event.key)) return;
      event.preventDefault();
      // In a search field Escape would only clear it.
      if (event.key === "Escape") return this.dialog.close();
      const first = this.list.querySelector("li button");
      if (event.key === "Enter") first?.click();
      else first?.focus();
    });
    this.list.addEventListener("keydown", (event) => this.#move(event));
    this.dialog.addEventListener("close", () => {
      this.sample?.stop();
      if (this.sample) this.player.drop(this.sample);
      this.resolve?.(this.chosen);
      this.resolve = null;
    });
    this.#addUpload();
  }

  async load() {
    const known = await (await call("v1/audio/voices")).json();
    this.voices = known.data;
    if (this.dialog.open) this.#show();
  }

  // Ask for a voice. Resolves with its name, or null if none was chosen.
  ask(current) {
    this.current = current;
    this.chosen = null;
    this.search.value = "";
    this.trouble.textContent = "";
    this.#show();
    this.dialog.showModal();
    this.search.focus();
    this.list.querySelector('[aria-pressed="true"]')?.scrollIntoView({ block: "center" });
    return new Promise((resolve) => { this.resolve = resolve; });
  }

  // Group -> voices, in the order in which they are shown.
  #groups() {
    const groups = new Map([[OWN, []], [KEPT, []]]);
    for (const voice of [...this.voices].sort((a, b) => isOther(a) - isOther(b))) {
      const group = groupOf(voice);
      if (!groups.has(group)) groups.set(group, []);
      groups.get(group).push(voice);
    }
    return groups;
  }

  #show() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const nodes = [];
    let found = 0;
    for (const [group, voices] of this.#groups()) {
      const near = voices.filter(({ id, language }) => {
        const text = `${id} ${group} ${language ? languageOf(language) : ""}`.toLowerCase();
        return words.every((word) => text.includes(word));
      });
      if (!near.length) continue;
      found += near.length;
      const title = document.createElement("h3");
      title.textContent = group;
      const list = document.createElement("ul");
      list.setAttribute("aria-label", group);
      list.append(...near.map((voice) => this.#row(voice)));
      nodes.push(title, list);
    }
    this.list.replaceChildren(...nodes);
    document.querySelector("#no-voice").textContent = found ? "" : "No voice has all of these words.";
  }

  #row(voice) {
    const row = document.createElement("li");
    const choose = document.createElement("button");
    choose.type = "button";
    const name = document.createElement("bdi");
    name.textContent = voice.id;
    choose.append(name);
    const stands = voice.id === "default" ? settings.default : settings.aliases[voice.id];
    if (stands) {
      const same = document.createElement("bdi");
      same.className = "hint";
      same.textContent = `  ${stands}`;
      choose.append(same);
    }
    choose.setAttribute("aria-pressed", String(voice.id === this.current));
    choose.addEventListener("click", () => { this.chosen = voice.id; this.dialog.close(); });
    const sample = document.createElement("button");
    sample.type = "button";
    sample.className = "quiet";
    sample.textContent = "Sample";
    sample.setAttribute("aria-label", `Sample of ${voice.id}`);
    sample.addEventListener("click", () => this.#play(voice));
    row.append(choose, sample);
    return row;
  }

  #move(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const kind = event.target.matches("li button:first-child") ? "li button:first-child" : "li button:last-child";
    const buttons = [...this.list.querySelectorAll(kind)];
    const next = buttons[buttons.indexOf(event.target) + step];
    (next || (step < 0 ? this.search : null))?.focus();
  }

  // Each sample is made once.
  #play(voice) {
    this.trouble.textContent = "";
    this.sample?.stop();
    let take = this.samples.get(voice.id);
    if (!take || take.state !== "done") {
      const text = SAMPLES[voice.language] || SAMPLES.en;
      take = new Take("sample", [{ text, voice: voice.id, seed: drawSeed() }], { mode: "low_latency" });
      take.addEventListener("change", () => { if (this.sample === take) this.trouble.textContent = take.error?.message || take.waitReason || ""; });
      this.samples.set(voice.id, take);
      take.start();
    }
    this.sample = take;
    this.player.play(take, 0);
  }

  #addUpload() {
    const input = this.dialog.querySelector("#upload-file");
    this.dialog.querySelector("#upload").hidden = !settings.allow_upload;
    this.dialog.querySelector("#upload-choose").addEventListener("click", () => input.click());
    input.addEventListener("change", async () => {
      const [file] = input.files;
      input.value = "";
      if (!file) return;
      try {
        await this.upload(file.name.replace(/\.npz$/i, ""), file);
        this.trouble.textContent = "";
        this.#show();
      } catch (error) {
        this.trouble.textContent = error.message;
      }
    });
  }

  // Store a voice on the server. Raises: SpeechError.
  async upload(name, file) {
    const head = new Uint8Array(await file.slice(0, 4).arrayBuffer());
    if (head[0] !== 0x50 || head[1] !== 0x4b) {
      throw new SpeechError("refused", `${file.name || name} is no voice: a voice is a .npz file with three arrays of tokens.`);
    }
    // What the server takes as a name.
    const kept = name.replace(/[^A-Za-z0-9_-]+/g, "-").replace(/^[-_]+/, "").slice(0, 64) || "voice";
    const headers = { "Content-Type": "application/octet-stream" };
    await call(`v1/audio/voices?name=${encodeURIComponent(kept)}`, { method: "POST", headers, body: file });
    await this.load();
    return kept;
  }
}
