// Texts: dialogues, long texts in parts, and what was asked as commands of other clients.

import { bodyOf, key, settings } from "./speech.js";

// Characters of a part of a long text, about two minutes: what a reload loses at most.
const PART = Math.min(settings.max_input, 1500);

// Lines "NAME: text", as `barkfast say --script` reads them: other lines continue the one before, # begins a comment.
export function parseDialogue(text) {
  const lines = [];
  for (const [i, line] of text.split("\n").entries()) {
    if (!line.trim() || line.trimStart().startsWith("#")) continue;
    const cue = /^(\p{L}[^:：\n]{0,39}?)\s*[:：]\s*(.*)$/u.exec(line);
    if (cue) lines.push({ speaker: cue[1], text: cue[2].trim(), number: i + 1 });
    else if (lines.length) lines.at(-1).text = `${lines.at(-1).text}\n${line.trim()}`.trim();
    else return { lines: [], problem: `Line ${i + 1} has no speaker. Write NAME: what is said.` };
  }
  const empty = lines.find((line) => !line.text);
  const long = lines.find((line) => [...line.text].length > settings.max_input);
  if (empty) return { lines, problem: `Line ${empty.number}: ${empty.speaker} says nothing.` };
  if (long) return { lines, problem: `Line ${long.number} has more than ${settings.max_input} characters.` };
  return { lines, problem: lines.length ? null : "There is no dialogue yet. Write NAME: what is said." };
}

const count = (text) => [...text].length;

// A text in parts of at most `most` characters: whole paragraphs, else whole sentences, else words.
export function splitText(text, most = PART) {
  const parts = [];
  let part = "", fenced = false;
  const add = (piece, joint) => {
    if (part && count(part) + joint.length + count(piece) > most) { parts.push(part); part = ""; }
    part = part ? part + joint + piece : piece;
  };
  const cut = (piece, marks) => {
    if (count(piece) <= most) return add(piece, "\n\n");
    const [mark, ...finer] = marks;
    if (!mark) {
      const characters = [...piece];
      for (let i = 0; i < characters.length; i += most) add(characters.slice(i, i + most).join(""), "");
      return;
    }
    for (const smaller of piece.split(mark)) if (smaller.trim()) (count(smaller) <= most ? add(smaller, " ") : cut(smaller, finer));
  };
  let block = [];
  const flush = () => { if (block.join("").trim()) cut(block.join("\n"), [/(?<=[.!?…。！？])\s+|(?<=[。！？])/u, /\s+/u]); block = []; };
  for (const line of text.replace(/\r\n?/g, "\n").split("\n")) {
    // Code in Markdown is left out by the server: it must stay in one part.
    if (/^\s*(```|~~~)/.test(line)) fenced = !fenced;
    if (!fenced && !line.trim()) flush();
    else block.push(line);
  }
  flush();
  if (part) parts.push(part);
  // What cannot be pronounced is no part: a line of stars, say.
  return parts.filter((one) => /[\p{L}\p{N}[♪♫]/u.test(one));
}

// --- copies

const shell = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
const origin = () => new URL("v1", document.baseURI).href;

// voiceName: the model's own name of a voice, which `barkfast say` knows; null for one that only the server knows.
export function commandOf(kind, parts, options, format, model, voiceName) {
  const bodies = parts.map((part) => ({ ...bodyOf(part, options), response_format: format }));
  const file = (i) => (parts.length === 1 ? `speech.${format}` : `speech-${String(i + 1).padStart(2, "0")}.${format}`);
  if (kind === "curl") {
    const head = key.get() ? ' -H "Authorization: Bearer $API_KEY"' : "";
    return bodies.map((body, i) =>
      `curl ${origin()}/audio/speech${head} -H 'Content-Type: application/json' \\\n  -d ${shell(JSON.stringify(body))} \\\n  -o ${file(i)}`).join("\n");
  }
  if (kind === "python") {
    const ours = (body) => {
      const { input, voice, response_format, speed, ...rest } = body;
      return { openai: { model: "tts-1", voice: voice || "default", input, response_format, ...(speed && { speed }) }, rest };
    };
    const literal = (value) => JSON.stringify(value);
    const dict = (value) => `{${Object.entries(value).map(([k, v]) => `${literal(k)}: ${literal(v)}`).join(", ")}}`;
    const head = `from openai import OpenAI\n\n` +
      `client = OpenAI(base_url=${literal(origin())}, api_key=${key.get() ? 'os.environ["API_KEY"]' : '"none"'})\n`;
    const top = key.get() ? "import os\n\n" : "";
    if (bodies.length === 1) {
      const { openai, rest } = ours(bodies[0]);
      const args = Object.entries(openai).map(([k, v]) => `    ${k}=${literal(v)},`).join("\n");
      return `${top}${head}speech = client.audio.speech.with_streaming_response.create(\n${args}\n    extra_body=${dict(rest)},\n)\n` +
        `with speech as response:\n    response.stream_to_file(${literal(file(0))})\n`;
    }
    const rows = bodies.map((body) => `    ${dict(body)},`).join("\n");
    return `${top}${head}parts = [\n${rows}\n]\nfor i, part in enumerate(parts, 1):\n` +
      `    asked = {name: part.pop(name) for name in ("input", "voice", "response_format")}\n` +
      `    with client.audio.speech.with_streaming_response.create(model="tts-1", **asked, extra_body=part) as response:\n` +
      `        response.stream_to_file(f"speech-{i:02}.${format}")\n`;
  }
  const flags = [];
  if (model) flags.push(`--model ${shell(model)}`);
  if (parts[0].seed !== undefined) flags.push(`--seed ${parts[0].seed}`);
  if (options.text_temp !== 0.7) flags.push(`--text-temp ${options.text_temp}`);
  if (options.waveform_temp !== 0.7) flags.push(`--waveform-temp ${options.waveform_temp}`);
  flags.push(`-o speech.${{ opus: "ogg", aac: "mp3", pcm: "wav" }[format] || format}`);
  const voice = (name) => (voiceName(name) ? `--voice ${shell(voiceName(name))}` : null);
  const speakers = [...new Map(parts.filter((part) => part.speaker).map((part) => [part.speaker, part.voice]))];
  if (speakers.length) {
    const cast = speakers.map(([name, v]) => `--cast ${shell(`${name}=${voiceName(v) || v || "VOICE"}`)}`);
    return heredoc(`barkfast say --script - ${[...cast, ...flags].join(" ")}`,
      parts.map((part) => `${part.speaker}: ${part.text.replaceAll("\n", "\n  ")}`).join("\n"));
  }
  const all = [voice(parts[0].voice), ...flags].filter(Boolean).join(" ");
  const text = parts.map((part) => part.text).join("\n\n");
  if (parts.length === 1 && !text.includes("\n") && !text.startsWith("-")) return `barkfast say ${shell(text)} --overflow split ${all}`;
  return heredoc(`barkfast say --file - ${all}`, text);
}

function heredoc(command, text) {
  let mark = "END";
  while (text.split("\n").includes(mark)) mark += "_";
  return `${command} <<'${mark}'\n${text}\n${mark}`;
}
