// Asks the server for its status each second and shows it.
import { Chart, colour, rampColour } from "./charts.js";
import { clock, count, ms, percent, span } from "./words.js";

const EVERY_MS = 1000;
const TIMEOUT_MS = 5000;
const KEPT = 900; // samples
const EVENTS = 30;
const FINAL = "final";

const get = (id) => document.getElementById(id);
const histories = new Map(); // samples by model, oldest first
let asked_ms = -Infinity; // when the server last answered
let gone_s = null; // since when it does not
let latest = null; // its last status

const plain = (value) => count(value);
const share = (value, axis) => percent(value, axis && Number.isInteger(100 * value) ? 0 : 1);
const charts = {
  latency: new Chart(get("latency"), (v) => ms(v), { clip: true }),
  exits: new Chart(get("exits"), (v, axis) => percent(v, axis ? 0 : 1)),
  disagreement: new Chart(get("disagreement"), share),
  thresholds: new Chart(get("thresholds"), (v) => (v ?? null) === null ? "-" : v.toFixed(2), { least: 0.1 }),
  rate: new Chart(get("rate"), plain),
  waiting: new Chart(get("waiting"), plain, { least: 4 }),
};

const key = (model) => `${model.name}/${model.version}`;

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// ---- what the server says -------------------------------------------------------------------

async function ask() {
  const since = Math.ceil((performance.now() - asked_ms) / 1000);
  const samples = Math.min(KEPT, since + 3);
  const known = sessionStorage.getItem("apparate-key");
  const response = await fetch(`apparate/status?history=${samples}`, {
    headers: known ? { "X-API-Key": known } : {},
    cache: "no-store",
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (response.status === 401) return denied(known);
  if (!response.ok) throw new Error(`it answers ${response.status}`);
  const status = await response.json();
  asked_ms = performance.now();
  get("access").hidden = true;
  status.models.forEach(remember);
  latest = status;
  show();
}

function denied(known) {
  get("access").hidden = false;
  get("denied").textContent = known ? "The server does not know this key." : "The server wants an API key.";
}

// The newest samples, beside those that are known.
function remember(model) {
  const { at_s: times, exits, thresholds, ...lines } = model.history;
  const known = histories.get(key(model)) ?? [];
  let last = known.length ? known.at(-1).at_s : -Infinity;
  if (times.length && times.at(-1) < last - 60) { // another process, after its clock was set back
    known.length = 0;
    last = -Infinity;
  }
  const pick = (columns, n) => Object.fromEntries(Object.entries(columns).map(([name, c]) => [name, c[n]]));
  times.forEach((at_s, n) => {
    if (at_s <= last) return;
    known.push({ at_s, ...pick(lines, n), exits: pick(exits, n), thresholds: pick(thresholds, n) });
  });
  histories.set(key(model), known.slice(-KEPT));
}

async function poll() {
  try {
    if (!document.hidden) await ask();
    gone_s = null;
  } catch {
    gone_s ??= Date.now() / 1000;
  }
  const gone = get("gone");
  gone.hidden = gone_s === null;
  if (gone_s !== null) {
    const text = `The server has not answered since ${clock(gone_s)}. What is shown is from before; it is asked every second.`;
    if (gone.textContent !== text) gone.textContent = text;
  }
  get("main").classList.toggle("stale", gone_s !== null);
  setTimeout(poll, EVERY_MS);
}

// ---- what is shown --------------------------------------------------------------------------

function show() {
  const { server, models, unavailable } = latest;
  get("server").textContent = `${server.name} ${server.version}, up ${span(server.uptime_s)}`;
  const lost = get("unavailable");
  lost.hidden = unavailable.length === 0;
  lost.replaceChildren(
    ...unavailable.map((one) => element("li", `${one.name} is not served: ${one.state} ${one.reason}`)),
  );
  get("none").hidden = models.length > 0 || unavailable.length > 0;
  get("all").hidden = models.length === 0;
  choices(models);
  const model = models.find((one) => key(one) === get("model").value);
  if (!model) return;
  document.title = `${model.name}: ${ms(model.latency_ms.p50)} ms, apparate`;
  showNow(model);
  showCharts(model);
  showTables(model);
}

// The models to choose from; the choice stays, and is in the address.
function choices(models) {
  const select = get("model");
  const there = models.map(key);
  const label = (one) => (one.ready ? key(one) : `${key(one)} (not ready)`);
  const labels = models.map(label);
  const shown = [...select.options].map((option) => option.text);
  if (labels.join("\n") === shown.join("\n")) return;
  const wanted = select.value || decodeURIComponent(location.hash.slice(1));
  select.replaceChildren(...models.map((one) => new Option(label(one), key(one))));
  select.value = there.includes(wanted) ? wanted : (there[0] ?? "");
}

function value(id, text, unit, more, className = "") {
  const place = get(id);
  place.replaceChildren(text, ...(unit ? [element("small", ` ${unit}`)] : []));
  get(`${id}-more`).replaceChildren(more);
  place.className = `value ${className}`;
}

function compared(model, which) {
  const now = model.latency_ms[which];
  const vanilla = model.vanilla_ms[which];
  const line = document.createElement("span");
  line.append(`without early answers ${ms(vanilla)}`);
  if (now !== null && vanilla) {
    const saved = 1 - now / vanilla;
    line.append(", ", element("span", `${percent(saved, 0)} saved`, saved > 0.005 ? "good" : ""));
  }
  return line;
}

function showNow(model) {
  for (const which of ["p50", "p95"]) value(which, ms(model.latency_ms[which]), "ms", compared(model, which));
  const early = model.answers ? 1 - model.exits.at(-1).share_lately : null;
  const active = model.exits.filter((one) => one.active && one.exit !== FINAL).length;
  value("early", percent(early, 0), "", `${active} ramps run, ${count(model.answers)} answers in all`);
  const a = model.accuracy;
  const held = a.disagreed <= a.allowed;
  const least = percent(1 - a.max_disagreement, 2);
  const promised = a.promise !== "none";
  const word = !promised ? `aims at ${least}` : held ? `${least} as promised` : `below the promised ${least}`;
  const line = element("span", word, !promised ? "warn" : held ? "good" : "bad");
  const more = document.createElement("span");
  more.append(line, `: ${count(a.disagreed)} of ${count(a.checked)} differ, ${count(Math.floor(a.allowed))} may`);
  value("agreement", percent(a.agreement, 2), "", more);
  value("throughput", count(model.throughput_rps), "per s", `batches of ${count(model.mean_batch)} on average`);
  value("queue", count(model.queue), "waiting", `${count(model.pending_requests)} requests under way`);
}

function showCharts(model) {
  const samples = histories.get(key(model));
  const to = samples.at(-1)?.at_s ?? Date.now() / 1000;
  // what there is, up to the minutes that were chosen
  const first = Math.min(samples[0]?.at_s ?? to, to - 30);
  const window = [Math.max(first, to - 60 * Number(get("minutes").value)), to];
  const shown = samples.filter((sample) => sample.at_s >= window[0]);
  const line = (label, stroke, read, more = {}) => ({ label, stroke, read, ...more });
  const of = (name) => (sample) => sample[name];
  const [accent, second, grey] = [colour.accent(), colour.second(), colour.vanilla()];
  charts.latency.draw(shown, [
    line("p95 without", grey, of("vanilla_p95_ms"), { dash: [2, 3] }),
    line("p50 without", grey, of("vanilla_p50_ms"), { dash: [7, 4] }),
    line("p95", second, of("p95_ms")),
    line("p50", accent, of("p50_ms"), { width: 2.25 }),
  ], window);
  charts.rate.draw(shown, [line("answers/s", accent, of("throughput_rps"), { fill: faint(accent) })], window);
  charts.waiting.draw(shown, [line("waiting", accent, of("queue"), { fill: faint(accent) })], window);
  const most = model.accuracy.max_disagreement;
  charts.disagreement.least = 2 * most;
  charts.disagreement.draw(shown, [
    line(`constraint`, colour.bad(), () => most, { dash: [7, 4] }),
    line("differ", accent, of("disagreement"), { fill: faint(accent) }),
  ], window);
  const ramps = rampsIn(model, shown);
  const tint = (n) => rampColour(n, ramps.length);
  charts.thresholds.draw(
    shown, ramps.map((name, n) => line(name, tint(n), (sample) => sample.thresholds[name])), window);
  charts.exits.draw(shown, stacked([...ramps, FINAL], (n) => n < ramps.length ? tint(n) : colour.final()), window);
}

const faint = (stroke) => `${stroke}24`; // of #rrggbb

// Ramps that were active or were left at, in the model's order.
function rampsIn(model, samples) {
  const names = new Set(samples.flatMap((sample) => Object.keys(sample.thresholds)));
  const known = model.exits.map((one) => one.exit).filter((name) => name !== FINAL);
  return [...known.filter((name) => names.has(name)), ...[...names].filter((name) => !known.includes(name))];
}

// Areas on top of one another; the largest sum is drawn first.
function stacked(names, tint) {
  const sum = (sample, upTo) => {
    if ((sample.exits[FINAL] ?? null) === null) return null;
    return names.slice(0, upTo + 1).reduce((all, name) => all + (sample.exits[name] ?? 0), 0);
  };
  return names.map((name, n) => ({
    label: name, stroke: tint(n), fill: tint(n), width: 1,
    read: (sample) => sum(sample, n), told: (sample) => sample.exits[name] ?? 0,
  })).reverse();
}

// ---- tables ---------------------------------------------------------------------------------

function showTables(model) {
  const exits = model.exits.filter((one) => one.active || one.share_lately || one.stopped);
  const ramps = rampsIn(model, histories.get(key(model)));
  get("ramps").replaceChildren(...exits.map((one) => exitRow(one, ramps)));
  const { control, requests, batches } = model;
  const sizes = Object.entries(batches).map(([size, n]) => `${size}: ${count(n)}`).join(", ");
  const facts = [
    ["Tunings of thresholds", count(control.tunings)],
    ["Changes of ramps", count(control.set_changes)],
    ["Ramps stopped", count(control.ramps_stopped)],
    ["Batches by size", sizes || "-"],
    ["Requests answered", count(requests.answered)],
    ...Object.entries(requests.failed).map(([reason, n]) => [`Not answered: ${reason}`, count(n)]),
  ];
  get("control").replaceChildren(...facts.flatMap(([what, n]) => [element("dt", what), element("dd", n)]));
  const events = model.events.slice(-EVENTS).reverse().map((event) => {
    const line = element("li");
    line.append(element("time", clock(event.at_s)), event.text);
    return line;
  });
  const none = element("li", "Nothing happened yet.");
  get("events").replaceChildren(...(events.length ? events : [none]));
}

function exitRow(one, ramps) {
  const final = one.exit === FINAL;
  const row = element("tr");
  const lately = element("td", undefined, "bar");
  const tint = final ? colour.final() : rampColour(ramps.indexOf(one.exit), ramps.length);
  lately.append(bar(one.share_lately, tint), percent(one.share_lately, 1));
  const name = element("th", one.exit);
  name.scope = "row";
  const saves = one.utility_ms === null ? "-" : `${one.utility_ms > 0 ? "+" : ""}${one.utility_ms.toFixed(2)} ms`;
  const state = final ? "original" : one.active ? "runs" : one.stopped ? "stopped" : "off";
  row.append(
    name, lately, element("td", one.threshold === null ? "-" : one.threshold.toFixed(3), "n"),
    element("td", saves, one.utility_ms > 0 ? "n good" : "n"), element("td", count(one.answers), "n"),
    element("td", state, one.active ? "" : "warn"),
  );
  return row;
}

function bar(part, fill) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("aria-hidden", "true");
  for (const [width, tint] of [["100%", ""], [`${100 * part}%`, fill]]) {
    const rect = document.createElementNS(space, "rect");
    rect.setAttribute("width", width);
    rect.setAttribute("height", "100%");
    rect.setAttribute("rx", "3");
    if (tint) rect.setAttribute("fill", tint);
    svg.append(rect);
  }
  return svg;
}

// ---- start ----------------------------------------------------------------------------------

get("model").addEventListener("change", () => {
  history.replaceState(null, "", `#${encodeURIComponent(get("model").value)}`);
  show();
});
get("minutes").addEventListener("change", () => latest && show());
get("access").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("apparate-key", get("key").value);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const chart of Object.values(charts)) chart.kind = "";
  if (latest) show();
});
poll();
