// The page: what to say and how, and the takes that came of it.

import { Card, download } from "./card.js";
import { Player } from "./player.js";
import { SpeechError, call, key, settings } from "./speech.js";
import { forget, loadJob, loadPart, saveJob, savePart } from "./store.js";
import { Take, drawSeed } from "./take.js";
import { commandOf, parseDialogue, splitText } from "./text.js";
import { VoicePicker } from "./voices.js";

const $ = (selector) => document.querySelector(selector);
const TAGS = ["[laughs]", "[sighs]", "[gasps]", "[clears throat]", "[music]", "…", "♪", "CAPITALS"];
// Two hours and more of sound: what a browser can hold.
const MOST_LONG = 100_000;
const MOST_FILE = 2_000_000;
const MOST_SEED = 2 ** 53 - 1;

const player = new Player();
const picker = new VoicePicker(player);
const cards = new Map();
const voiceOf = new Map();
let kind = "text", voice = "default", about = null, current = null, pieces = { text: "", parts: [] };

const say = (text) => { $("#news").textContent = text; };
const complain = (text) => { $("#trouble").textContent = text; };

// --- the server

async function greet() {
  try {
    about = await (await call("version")).json();
    $("#about").textContent = [about.model, about.engine && `${about.engine} engine`, about.dtype].filter(Boolean).join(" · ");
    await picker.load();
    if (settings.loading) {
      // The page was opened before the model was there.
      const page = new DOMParser().parseFromString(await (await call("./")).text(), "text/html");
      Object.assign(settings, JSON.parse(page.querySelector('meta[name="settings"]').content));
    }
    complain("");
  } catch (error) {
    if (error.kind === "key") return askKey(greet);
    $("#about").textContent = error.kind === "full" ? "Loading the model …" : error.message;
    setTimeout(greet, (error.wait || 2) * 1000);
  }
}

function askKey(then) {
  const dialog = $("#key-dialog");
  if (dialog.open) return;
  $("#key").value = "";
  dialog.returnValue = "cancel";
  dialog.showModal();
  dialog.addEventListener("close", () => {
    if (dialog.returnValue !== "use" || !$("#key").value) return complain("Without a key this server does not speak. Reload the page to enter one.");
    key.set($("#key").value);
    complain("");
    then();
  }, { once: true });
}

// --- what to say

const areas = { text: $("#text"), dialogue: $("#dialogue"), long: $("#long") };

function partsOf(seed) {
  const text = areas[kind].value;
  if (kind === "dialogue") {
    const { lines, problem } = parseDialogue(text);
    if (problem) throw new SpeechError("input", problem);
    return lines.map((line, i) => ({ text: line.text, speaker: line.speaker, voice: voiceOf.get(line.speaker) || nextVoice(line.speaker), seed: seed + i }));
  }
  if (!text.trim()) throw new SpeechError("input", "There is nothing to say yet. Type some text first.");
  if (kind === "text") {
    const n = [...text].length;
    if (n <= settings.max_input) return [{ text, voice, seed }];
  }
  if ([...text].length > MOST_LONG) {
    throw new SpeechError("input", `The text has more than ${MOST_LONG} characters, too many for a browser. Use: barkfast say --file`);
  }
  const parts = splitLong(text).map((part, i) => ({ text: part, voice, seed: seed + i }));
  if (!parts.length) throw new SpeechError("input", "There is nothing to pronounce in this text.");
  return parts;
}

function splitLong(text) {
  if (pieces.text !== text) pieces = { text, parts: splitText(text) };
  return pieces.parts;
}

function optionsOf() {
  return {
    mode: $("#mode").value,
    text_temp: Number($("#text-temp").value),
    waveform_temp: Number($("#waveform-temp").value),
    speed: Number($("#speed").value),
  };
}

function seedOf() {
  const text = $("#seed").value.trim();
  if (!text) return drawSeed();
  if (!/^\d+$/.test(text) || Number(text) > MOST_SEED) {
    throw new SpeechError("input", `The seed is “${text}”. It must be a whole number from 0 to ${MOST_SEED}, or empty to draw one.`);
  }
  return Number(text);
}

function count() {
  const show = (name, text, over) => {
    const node = $(`#${name}-count`);
    node.textContent = text;
    node.classList.toggle("over", over);
  };
  const n = [...areas.text.value].length;
  const more = n > settings.max_input;
  show("text", `${n.toLocaleString("en")} / ${settings.max_input.toLocaleString("en")}${more ? ", spoken in parts" : ""}`, false);
  const { lines } = parseDialogue(areas.dialogue.value);
  show("dialogue", `${lines.length} ${lines.length === 1 ? "line" : "lines"}`, false);
  if (kind === "long") {
    const all = [...areas.long.value].length;
    // About 15 characters a second.
    const minutes = Math.max(1, Math.round(all / 15 / 60));
    show("long", `${all.toLocaleString("en")} characters${all ? `, about ${minutes} min` : ""}`, all > MOST_LONG);
  }
  if (kind === "dialogue") showCast(lines);
}

function nextVoice(name) {
  // A voice that nobody in the cast has yet, of Suno's ten English speakers if they are there.
  const taken = new Set(voiceOf.values());
  const known = picker.voices.map(({ id }) => id);
  const wanted = [...settings.own.filter((id) => id.startsWith("v2/en_speaker_")), ...settings.own, ...known];
  const chosen = wanted.find((id) => !taken.has(id)) || wanted[0] || "default";
  voiceOf.set(name, chosen);
  return chosen;
}

function showCast(lines) {
  const names = [...new Set(lines.map((line) => line.speaker))];
  const list = $("#cast");
  if (JSON.stringify(names) === list.dataset.names) return;
  list.dataset.names = JSON.stringify(names);
  list.replaceChildren(...names.map((name) => {
    const row = document.createElement("li"), who = document.createElement("bdi"), button = document.createElement("button");
    who.textContent = name;
    button.type = "button";
    button.className = "select";
    const show = () => {
      button.textContent = voiceOf.get(name) || "default";
      button.setAttribute("aria-label", `Voice of ${name}: ${button.textContent}`);
    };
    button.addEventListener("click", async () => {
      const chosen = await picker.ask(voiceOf.get(name));
      if (chosen) { voiceOf.set(name, chosen); show(); }
    });
    if (!voiceOf.has(name) && picker.voices.length) nextVoice(name);
    show();
    row.append(who, button);
    return row;
  }));
}

// --- speaking

function add(take, { play = true } = {}) {
  const card = new Card(take, player, { again, keep, remove }, $("#format").value);
  cards.set(take, card);
  $("#takes").prepend(card.node);
  let told = "";
  const tell = () => {
    const words = {
      making: take.firstSound === null ? `Take ${take.number} is on its way.` : `Take ${take.number} speaks.`,
      done: `Take ${take.number} is done: ${take.duration.toFixed(1)} seconds of sound.`,
      stopped: `Take ${take.number} was stopped.`,
      failed: "",
    }[take.state];
    if (words !== undefined && words !== told) say(told = words);
    if (take === current) {
      $("#stop").disabled = !take.active;
      // A failure stands in the take too; here it is read aloud.
      if (take.error) complain(take.error.message);
      else if (take.retryAt !== null) complain(take.waitReason);
      else complain("");
    }
    if (take.error?.kind === "key") askKey(() => take.start());
  };
  take.addEventListener("change", tell);
  if (play) {
    current?.stop();
    current = take;
    player.unlock();
    take.start();
    player.play(take, 0);
  }
  return card;
}

async function speak() {
  complain("");
  let take;
  try {
    take = new Take(kind, partsOf(seedOf()), optionsOf());
  } catch (error) {
    complain(error.message);
    return;
  }
  if (kind === "long") await keepJob(take);
  add(take);
}

function stop() {
  current?.stop();
  player.pause();
}

function again(take, fresh) { add(take.again(fresh)); }

function remove(take) {
  take.stop();
  player.drop(take);
  cards.get(take).close();
  cards.delete(take);
  if (take.stored) forget().catch(() => {});
  if (current === take) { current = null; $("#stop").disabled = true; say(""); complain(""); }
  areas[kind].focus();
}

async function keep(take) {
  const bytes = Uint8Array.from(atob(take.voice), (c) => c.charCodeAt(0));
  const file = new Blob([bytes], { type: "application/octet-stream" });
  const name = `take-${take.number}-${take.parts[0].seed}`;
  try {
    if (settings.allow_upload) {
      setVoice(await picker.upload(name, file));
      say(`The voice is on the server as ${voice}, and chosen.`);
      return;
    }
  } catch (error) {
    complain(`The server did not store the voice: ${error.message}`);
  }
  download(file, `${name}.npz`);
  say(`The voice is in ${name}.npz. Use it as voice= in Python, or with barkfast say --voice.`);
}

// --- long texts

async function keepJob(take) {
  const parts = take.parts.map(({ text, voice: name, seed }) => ({ text, voice: name, seed }));
  try {
    await saveJob({ parts, options: take.options });
  } catch {
    // Without a database (a private window) it only does not survive a reload.
    return;
  }
  watch(take);
}

function watch(take) {
  for (const other of cards.keys()) other.stored = false;
  take.stored = true;
  take.addEventListener("part", ({ detail: part }) => {
    if (!take.stored) return;
    const segments = part.segments.map(({ text, start }) => ({ text, start }));
    savePart(take.parts.indexOf(part), take.sound.read(part.start, part.length), segments).catch(() => {});
  });
}

async function restore() {
  const job = await loadJob().catch(() => null);
  if (!job) return;
  const take = new Take("long", job.parts, job.options);
  for (let i = 0; i < take.parts.length; i++) {
    const part = await loadPart(i).catch(() => null);
    if (!part) break;
    take.restore(part.samples, part.segments);
  }
  take.restored = take.share;
  watch(take);
  add(take, { play: false });
  take.addEventListener("change", () => { if (take.active) current = take; });
  if (take.state !== "done") select("long");
  areas.long.value = job.parts.map((part) => part.text).join("\n\n");
  count();
  say(take.state === "done" ? "The long text from before is still here." : "A long text from before is not done. “Go on” speaks the rest.");
}

async function readFile(file) {
  complain("");
  if (!file) return;
  if (!/\.(txt|md|markdown|text)$/i.test(file.name)) return complain(`${file.name} is no text file. Choose one that ends in .txt or .md.`);
  if (file.size > MOST_FILE) return complain(`${file.name} is too long for a browser. Use: barkfast say --file`);
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
  } catch {
    return complain(`${file.name} is not UTF-8 text. Convert it first.`);
  }
  if (text.includes("\0")) return complain(`${file.name} is no text file.`);
  if (!text.trim()) return complain(`${file.name} is empty.`);
  areas.long.value = text;
  count();
  say(`${file.name} was read.`);
}

// --- controls

function select(name) {
  kind = name;
  for (const tab of document.querySelectorAll('[role="tab"]')) {
    const on = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", String(on));
    tab.tabIndex = on ? 0 : -1;
    $(`#panel-${tab.id.slice(4)}`).hidden = !on;
  }
  $("#voice-field").hidden = name === "dialogue";
  $(".skip").href = `#${name}`;
  complain("");
  count();
}

function setVoice(name) {
  voice = name;
  $("#voice-name").textContent = name;
}

function insert(tag) {
  const area = areas.text, { selectionStart: a, selectionEnd: b, value } = area;
  const chosen = value.slice(a, b);
  let text = tag;
  if (tag === "♪") text = `♪ ${chosen} ♪`;
  else if (tag === "CAPITALS") {
    if (!chosen) return say("Select the words to stress first.");
    text = chosen.toLocaleUpperCase();
  } else {
    if (a && !/\s$/.test(value.slice(0, a)) && tag !== "…") text = ` ${text}`;
    if (!/^\s/.test(value.slice(b))) text += " ";
  }
  area.focus();
  // The only way that can be undone.
  if (!document.execCommand("insertText", false, text)) area.setRangeText(text, a, b, "end");
  if (tag === "♪" && !chosen) area.setSelectionRange(a + 2, a + 2);
  count();
}

async function copy(what, button) {
  complain("");
  try {
    const options = optionsOf(), seed = $("#seed").value.trim() ? seedOf() : undefined;
    const parts = partsOf(seed ?? 0).map((part) => (seed === undefined ? { ...part, seed: undefined } : part));
    // Names that only a server gives stand for the model's own.
    const own = (name) => (name === "default" ? settings.default : settings.aliases[name] || name);
    const text = commandOf(what, parts, options, $("#format").value, about?.model, own);
    await navigator.clipboard.writeText(text);
    say(`Copied as ${button.textContent}.`);
  } catch (error) {
    complain(error instanceof SpeechError ? error.message : "The browser did not let this page copy.");
  }
}

function start() {
  $("#mode").value = settings.mode;
  $("#format").append(...settings.formats.map((name) => new Option(name)));
  $(".tags").append(...TAGS.map((tag) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = tag;
    button.addEventListener("click", () => insert(tag));
    return button;
  }));
  for (const area of Object.values(areas)) area.addEventListener("input", count);
  for (const range of document.querySelectorAll('input[type="range"]')) {
    const show = () => { range.nextElementSibling.textContent = Number(range.value).toFixed(2); };
    range.addEventListener("input", show);
    show();
  }
  $("#speak").addEventListener("click", speak);
  $("#stop").addEventListener("click", stop);
  $("#voice").addEventListener("click", async () => { const chosen = await picker.ask(voice); if (chosen) setVoice(chosen); });
  for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () => copy(button.dataset.copy, button));

  const tabs = [...document.querySelectorAll('[role="tab"]')];
  for (const tab of tabs) {
    tab.addEventListener("click", () => select(tab.id.slice(4)));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length];
      select(next.id.slice(4));
      next.focus();
    });
  }
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]")) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); speak(); }
    if (event.key === "Escape") stop();
  });

  const drop = $("#panel-long");
  drop.addEventListener("dragover", (event) => { event.preventDefault(); $("#drop").classList.add("over"); });
  drop.addEventListener("dragleave", () => $("#drop").classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    $("#drop").classList.remove("over");
    const [file] = event.dataTransfer.files;
    if (file) readFile(file);
    else complain("That was no file.");
  });
  $("#choose").addEventListener("click", () => $("#file").click());
  $("#file").addEventListener("change", () => { readFile($("#file").files[0]); $("#file").value = ""; });
  count();
  greet();
  restore();
}

start();
