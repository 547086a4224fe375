// The client of POST v1/audio/speech: one request as a sequence of events, and errors in words.

export const settings = JSON.parse(document.querySelector('meta[name="settings"]').content);
const KEY = "barkfast-key";

export const key = {
  get: () => sessionStorage.getItem(KEY) || "",
  set: (value) => sessionStorage.setItem(KEY, value),
};

// kind: full (429, 503: worth asking again after `wait` seconds), key (401), refused, gone, cut.
export class SpeechError extends Error {
  constructor(kind, message, wait = null) {
    super(message);
    this.kind = kind;
    this.wait = wait;
  }
}

export async function call(path, options = {}) {
  const headers = { ...options.headers };
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new SpeechError("gone", "The server cannot be reached. Is it still running?");
  }
  if (response.ok) return response;
  let message = `The server answered with status ${response.status}.`;
  try {
    message = (await response.json()).error.message || message;
  } catch {
    // A proxy's error, say, has another body.
  }
  const wait = Number(response.headers.get("Retry-After")) || null;
  if (response.status === 429) throw new SpeechError("full", "The server is full.", wait || 2);
  if (response.status === 503 && wait) throw new SpeechError("full", `The server cannot speak now: ${message}.`, wait);
  if (response.status === 401) throw new SpeechError("key", "This server asks for an API key.");
  throw new SpeechError("refused", message);
}

// The body of a request, as every client would send it.
export function bodyOf(part, options) {
  const body = { input: part.text, voice: part.voice, mode: options.mode };
  if (part.seed !== undefined) body.seed = part.seed;
  for (const [name, usual] of [["text_temp", 0.7], ["waveform_temp", 0.7], ["speed", 1]]) {
    if (options[name] !== undefined && options[name] !== usual) body[name] = options[name];
  }
  return body;
}

function samplesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new Int16Array(bytes.buffer, 0, bytes.length >> 1);
}

// Speak one part. Calls on.queued, sentence, stages, voice and samples as they come; returns at the end.
export async function speak(part, options, signal, on) {
  const body = { ...bodyOf(part, options), response_format: "pcm", stream_format: "sse", timestamps: true, progress: true };
  const response = await call("v1/audio/speech", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const cut = () => new SpeechError("cut", "The sound broke off: the server ended the connection.");
  let pending = "";
  for (;;) {
    let read;
    try {
      read = await reader.read();
    } catch (error) {
      if (signal.aborted) throw error;
      throw cut();
    }
    if (read.done) throw cut();
    pending += read.value;
    const blocks = pending.split("\n\n");
    pending = blocks.pop();
    for (const block of blocks) {
      if (!block.startsWith("data: ")) continue;
      const event = JSON.parse(block.slice(6));
      switch (event.type) {
        case "speech.queued": on.queued(event.ahead); break;
        case "speech.sentence": on.sentence(event); break;
        case "speech.stages": on.stages(event.seconds); break;
        case "speech.voice": on.voice(event.npz); break;
        case "speech.audio.delta": on.samples(samplesOf(event.audio)); break;
        case "speech.audio.done": return;
        case "error": throw new SpeechError("cut", `The sound broke off: ${event.error.message}`);
      }
    }
  }
}
