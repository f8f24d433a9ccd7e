// Numbers as people read them.

export function ms(value) {
  if (value === null || value === undefined) return "-";
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en");
  return value.toFixed(Math.abs(value) < 10 ? 2 : Math.abs(value) < 100 ? 1 : 0);
}

export function count(value) {
  if (value === null || value === undefined) return "-";
  if (Number.isInteger(value) || value >= 1000) return Math.round(value).toLocaleString("en");
  return value.toFixed(value < 10 ? 2 : 1);
}

// A share as a percentage; never rounded up to all of it.
export function percent(share, digits) {
  if (share === null || share === undefined) return "-";
  const text = (100 * share).toFixed(digits).replace(/^-(0(\.0*)?)$/, "$1");
  const all = (100).toFixed(digits);
  return share < 1 && text === all ? (100 - 10 ** -digits).toFixed(digits) + " %" : text + " %";
}

export function span(seconds) {
  const whole = Math.floor(seconds);
  const units = [
    ["d", Math.floor(whole / 86400)],
    ["h", Math.floor(whole / 3600) % 24],
    ["min", Math.floor(whole / 60) % 60],
    ["s", whole % 60],
  ];
  let first = units.findIndex(([, n]) => n > 0);
  if (first < 0) first = 3;
  const shown = units.slice(first, first + 2).filter(([, n]) => n > 0);
  return shown.map(([unit, n]) => `${n} ${unit}`).join(" ") || "0 s";
}

export function clock(seconds) {
  return new Date(1000 * seconds).toLocaleTimeString("en-GB");
}
