/**
 * A request's spans as lanes of a waterfall. Values only, no view.
 *
 * @typedef {{span: string, tier: string|null, pool: string, worker: string, round: number,
 *   start_ms: number, ms: number, busy_ms: number, batch: number, rows: number,
 *   committed: number}} Span
 */

const ORDER = ["queue", "draft", "slim", "full", "all tiers"];

/** @param {Span[]} spans @returns {number} Milliseconds that the waterfall shows. */
export function lengthOf(spans) {
  return Math.max(1, ...spans.map((span) => span.start_ms + span.ms));
}

/**
 * A lane for the queue, then one for each tier and worker, in the order of the tiers.
 * @param {Span[]} spans
 * @returns {{name: string, place: string, spans: Span[]}[]}
 */
export function lanesOf(spans) {
  const lanes = new Map();
  for (const span of spans) {
    const lane = { name: whoOf(span), place: placeOf(span) };
    const key = JSON.stringify(lane);
    if (!lanes.has(key)) lanes.set(key, { ...lane, spans: [] });
    lanes.get(key).spans.push(span);
  }
  return [...lanes.values()].sort((one, other) => rank(one) - rank(other));
}

/** Who worked: a tier; several in one call that could not be told apart; nobody. */
export function whoOf({ span, tier }) {
  return tier ?? (span === "queue" ? "queue" : "all tiers");
}

/** The worker; none in the queue. */
export function placeOf({ span, pool, worker }) {
  return span === "queue" ? "" : `${pool} ${shortId(worker)}`;
}

function rank({ name }) {
  return ORDER.indexOf(name);
}

/** Enough of a worker's id to tell it from others. */
export function shortId(id) {
  return id.length > 10 ? id.slice(-6) : id;
}

/** Round times for an axis of so many milliseconds, about five of them, none close to its end. */
export function ticksOf(lengthMs) {
  const rough = lengthMs / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  return Array.from({ length: Math.floor((0.92 * lengthMs) / step) + 1 }, (_, i) => i * step);
}
