// How the server does: /metrics every two seconds, as numbers and plots of the last ten minutes.

const EVERY_S = 2, KEPT = 301;
const WIDTH = 600, HEIGHT = 160, LEFT = 44, BOTTOM = 20;
const SVG = "http://www.w3.org/2000/svg";

// Name and labels -> value, of Prometheus' text.
function parse(text) {
  const values = new Map();
  for (const line of text.split("\n")) {
    const match = /^(\w+)(\{.*\})? (\S+)$/.exec(line);
    if (match) values.set(match[1] + (match[2] || ""), Number(match[3]));
  }
  return values;
}

const megabytes = (value) => `${Math.round(value / 1e6).toLocaleString("en")} MB`;
const plain = (value) => String(Math.round(value * 100) / 100);

// Looks over which means are taken.
const SMOOTH = 5;

// Each plot: its lines as [name, function of a look and the one before], how values are written, the least top.
const PLOTS = [
  { title: "Requests", lines: [["running", (now) => now.get("barkfast_requests_running")], ["waiting", (now) => now.get("barkfast_requests_waiting")], ["slots", (now) => now.get("barkfast_slots")]], write: plain, top: 1 },
  { title: "Real-time factor", note: "Seconds of a request for a second of sound, of those that ended in the last ten seconds. Below 1 is faster than speech.", lines: [["requests", (now, before) => mean(now, before, "barkfast_real_time_factor")]], write: plain, top: 1, gaps: true },
  { title: "Sound in a second", note: "Seconds of sound in a second, over ten seconds; a request counts at its end.", lines: [["seconds per second", (now, before) => before && rise(now, before, "barkfast_audio_seconds_total") / (now.at - before.at)]], write: plain, top: 1 },
  { title: "Memory", lines: [["engine", (now) => now.get('barkfast_memory_bytes{process="engine"}')], ["server", (now) => now.get('barkfast_memory_bytes{process="server"}')]], write: megabytes, top: 1e6 },
];

// A server that was started again counts from 0.
function rise(now, before, name) {
  return Math.max(0, (now.get(name) || 0) - (before.get(name) || 0));
}

function mean(now, before, name) {
  const n = before ? rise(now, before, `${name}_count`) : 0;
  return n > 0 ? rise(now, before, `${name}_sum`) / n : null;
}

const looks = [];

function element(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// A round number at or above a value.
function roundUp(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].find((step) => step * unit >= value * 0.9999) * unit;
}

function makePlot(plot) {
  const card = document.createElement("section");
  card.className = "card";
  const title = document.createElement("h2");
  title.textContent = plot.title;
  card.setAttribute("aria-label", plot.title);
  plot.svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": plot.title });
  plot.key = document.createElement("p");
  plot.key.className = "key";
  card.append(title, plot.svg, plot.key);
  if (plot.note) {
    const note = document.createElement("p");
    note.className = "hint";
    note.textContent = plot.note;
    card.append(note);
  }
  plot.series = plot.lines.map(() => []);
  return card;
}

function drawPlot(plot) {
  const width = plot.svg.clientWidth || WIDTH, height = plot.svg.clientHeight || HEIGHT;
  plot.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const known = plot.series.flat().filter((value) => value !== null);
  const top = roundUp(Math.max(plot.top, ...known)), inner = width - LEFT, depth = height - BOTTOM;
  // Minutes that the width stands for.
  const whole = [1, 2, 5, 10].find((minutes) => looks.length <= (minutes * 60) / EVERY_S + 1) || 10;
  const steps = (whole * 60) / EVERY_S;
  const x = (i) => width - (inner * (looks.length - 1 - i)) / steps, y = (value) => 4 + (depth - 4) * (1 - value / top);
  const nodes = [];
  for (const share of [0, 0.5, 1]) {
    nodes.push(element("line", { class: "grid", x1: LEFT, x2: width, y1: y(share * top), y2: y(share * top) }));
    nodes.push(element("text", { x: LEFT - 6, y: y(share * top) + 4, "text-anchor": "end" }, plot.write(share * top).replace(" MB", "")));
  }
  for (const [share, anchor] of [[1, "start"], [0.5, "middle"], [0, "end"]]) {
    const text = share ? `${whole * share} min ago` : "now";
    nodes.push(element("text", { x: width - inner * share, y: height - 4, "text-anchor": anchor }, text));
  }
  plot.series.forEach((values, n) => {
    let path = "", pen = "M", from = null;
    values.forEach((value, i) => {
      // Where nothing ended there is nothing to show: the next value is joined by a line, and alone it is a dot.
      if (value === null) { if (!plot.gaps) pen = "M"; return; }
      path += `${pen}${x(i).toFixed(1)} ${y(value).toFixed(1)}`;
      if (from === null) path += "h0.01";
      pen = "L";
      from = i;
    });
    if (path) nodes.push(element("path", { class: `line l${n}`, d: path }));
  });
  plot.svg.replaceChildren(...nodes);
  const now = plot.lines.map(([name], n) => [name, plot.series[n].findLast((value) => value !== null)]);
  const words = now.map(([name, value]) => `${name} ${value === undefined ? "none yet" : plot.write(value)}`);
  plot.svg.setAttribute("aria-label", `${plot.title}: ${words.join(", ")}`);
  plot.key.replaceChildren(...words.map((text, n) => {
    const entry = document.createElement("span"), box = document.createElement("i");
    box.className = `b${n}`;
    entry.append(box, text);
    return entry;
  }));
}

function showNumbers(now) {
  const outcome = (name) => now.get(`barkfast_requests_total{outcome="${name}"}`) || 0;
  const average = (name) => {
    const n = now.get(`${name}_count`);
    return n ? now.get(`${name}_sum`) / n : null;
  };
  const first = average("barkfast_time_to_first_audio_seconds"), factor = average("barkfast_real_time_factor");
  const rows = [
    ["Running", now.get("barkfast_requests_running")],
    ["Waiting", now.get("barkfast_requests_waiting")],
    ["Slots", now.get("barkfast_slots")],
    ["Done", outcome("done")],
    ["Cancelled", outcome("cancelled")],
    ["Refused", outcome("refused")],
    ["Failed", outcome("failed")],
    ["Sound in all", `${Math.round(now.get("barkfast_audio_seconds_total") || 0).toLocaleString("en")} s`],
    ["Mean first sound", first === null ? "none yet" : `${first.toFixed(2)} s`],
    ["Mean real-time factor", factor === null ? "none yet" : factor.toFixed(2)],
  ];
  document.querySelector("#numbers").replaceChildren(...rows.map(([name, value]) => {
    const row = document.createElement("div"), dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = value ?? "unknown";
    row.append(dt, dd);
    return row;
  }));
}

async function look() {
  const state = document.querySelector("#state");
  let words;
  try {
    const response = await fetch("metrics");
    if (!response.ok) throw new Error(`status ${response.status}`);
    const now = parse(await response.text());
    now.at = performance.now() / 1000;
    const before = looks.at(-SMOOTH) || looks[0];
    looks.push(now);
    if (looks.length > KEPT) looks.shift();
    for (const plot of PLOTS) {
      plot.lines.forEach(([, read], n) => {
        const value = read(now, before);
        plot.series[n].push(Number.isFinite(value) ? value : null);
        if (plot.series[n].length > KEPT) plot.series[n].shift();
      });
      drawPlot(plot);
    }
    showNumbers(now);
    words = now.get("barkfast_engine_healthy") ? "The engine works." : "The engine does not run now.";
  } catch {
    words = "The server cannot be reached. Trying again.";
  }
  if (words !== state.textContent) state.textContent = words;
  setTimeout(look, EVERY_S * 1000);
}

document.querySelector("#plots").append(...PLOTS.map(makePlot));
addEventListener("resize", () => PLOTS.forEach(drawPlot));
look();
