/**
 * Numbers as text.
 */

export function seconds(value) {
  if (value === null) return "–";
  return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(value < 10 ? 2 : 1)} s`;
}

export function milliseconds(value) {
  if (value >= 10000) return `${(value / 1000).toFixed(1)} s`;
  return value < 10 ? `${value.toFixed(1)} ms` : `${Math.round(value)} ms`;
}

/** A mark on an axis: no more digits than it takes. */
export function mark(valueMs) {
  return valueMs < 1000 ? `${Number(valueMs.toPrecision(3))} ms` : `${Number((valueMs / 1000).toPrecision(3))} s`;
}

export function share(value) {
  return value === null || value === undefined ? "–" : `${Math.round(value * 100)} %`;
}

export function decimal(value, digits = 2) {
  return value === null ? "–" : value.toFixed(digits);
}

export function counted(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}
