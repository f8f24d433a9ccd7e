// Charts over time. A chart is made anew when its lines change, else it is given new data.
/* global uPlot */

const HEIGHT = 180;
const FONT = '11px system-ui, "DejaVu Sans", sans-serif';
const GAP_S = 10; // without a sample a line is broken

function variable(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// The colour of a ramp, the same in every chart: from green (early) to violet (late).
export function rampColour(position, ramps) {
  const hue = ramps < 2 ? 200 : 150 + (140 * position) / (ramps - 1);
  return `hsl(${hue} ${variable("--ramp-strong")} ${variable("--ramp-light")})`;
}

export const colour = {
  accent: () => variable("--accent"),
  second: () => variable("--second"),
  vanilla: () => variable("--vanilla"),
  bad: () => variable("--bad"),
  final: () => variable("--final"),
};

// Columns of samples, with a break where samples are missing.
export function columns(samples, readers) {
  const data = [[], ...readers.map(() => [])];
  let last = null;
  for (const sample of samples) {
    if (last !== null && sample.at_s - last > GAP_S) {
      data[0].push(last + 1);
      for (const column of data.slice(1)) column.push(null);
    }
    last = sample.at_s;
    data[0].push(last);
    readers.forEach((read, n) => data[n + 1].push(read(sample) ?? null));
  }
  return data;
}

// What most of the values stay below; Infinity if the others do not stand out from it.
function usual(lines) {
  const values = lines.flat().filter((value) => value !== null).sort((a, b) => a - b);
  const bound = 1.25 * values[Math.floor(0.9 * values.length)];
  return values.at(-1) > 2 * bound ? bound : Infinity;
}

export class Chart {
  // figure: its element; format: of the values on the axis and in the legend.
  // clip: rare peaks leave the chart, so that the rest of it can be read.
  constructor(figure, format, { least = 0, clip = false } = {}) {
    this.figure = figure;
    this.format = format;
    this.least = least; // what the axis shows at least
    this.clip = clip;
    this.place = document.createElement("div");
    this.place.className = "plot";
    figure.append(this.place);
    this.plot = null;
    this.kind = "";
    new ResizeObserver(() => this.resize()).observe(this.place);
  }

  resize() {
    if (this.plot) this.plot.setSize({ width: this.place.clientWidth, height: HEIGHT });
  }

  // lines: [{label, stroke, fill?, dash?, width?, read, told?}]; window: [from, to] in seconds.
  draw(samples, lines, window) {
    const data = columns(samples, lines.map((line) => line.read));
    this.window = window;
    this.usual = this.clip ? usual(data.slice(1)) : Infinity;
    this.told = lines.map((line) => columns(samples, [line.told ?? line.read])[1]);
    const kind = JSON.stringify(lines.map((line) => [line.label, line.stroke, line.dash]));
    if (kind !== this.kind) this.make(lines, data);
    else this.plot.setData(data);
    this.kind = kind;
    const end = data[0].length - 1;
    if (end >= 0 && this.plot.cursor.left < 0) this.plot.setLegend({ idx: end }, false);
    this.figure.dataset.points = String(data[0].length);
    const latest = lines.map((line, n) => `${line.label} ${this.format(this.told[n][end])}`);
    this.place.setAttribute("role", "img");
    this.place.setAttribute("aria-label", `Chart over time. Now: ${latest.join(", ")}`);
  }

  make(lines, data) {
    this.plot?.destroy();
    const axis = {
      stroke: variable("--muted"),
      font: FONT,
      grid: { stroke: variable("--grid"), width: 1 },
      ticks: { show: false },
    };
    const options = {
      width: this.place.clientWidth,
      height: HEIGHT,
      cursor: { drag: { x: false, y: false }, sync: { key: "time" }, y: false, points: { size: 6 } },
      scales: {
        x: { time: true, range: () => this.window },
        y: { range: (_, __, most) => [0, Math.max(this.least, Math.min(most || 0, this.usual) * 1.08) || 1] },
      },
      axes: [
        { ...axis, size: 28, space: 70, values: (_, ticks) => ticks.map(shortTime) },
        { ...axis, size: 52, values: (_, ticks) => ticks.map((tick) => this.format(tick, true)) },
      ],
      series: [
        {},
        ...lines.map((line, n) => ({
          label: line.label,
          stroke: line.stroke,
          fill: line.fill,
          dash: line.dash,
          width: line.width ?? 1.75,
          points: { show: false },
          value: (_, __, ___, at) => (at === null ? "" : this.format(this.told[n][at])),
        })),
      ],
    };
    this.plot = new uPlot(options, data, this.place);
  }
}

function shortTime(seconds) {
  const text = new Date(1000 * seconds).toLocaleTimeString("en-GB");
  return text.endsWith(":00") ? text.slice(0, 5) : text;
}
