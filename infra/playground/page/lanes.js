/**
 * A request's spans as lanes of a waterfall. Values only, no view.
 *
 * @typedef {{span: string, tier: string|null, pool: string|null, worker: string|null,
 *   round: number|null, start_ms: number, ms: number, busy_ms: number|null, batch: number|null,
 *   rows: number|null, committed: number|null}} Span
 */

const ORDER = ["draft", "slim", "full"];

/** @param {Span[]} spans @returns {number} Milliseconds that the waterfall shows. */
export function lengthOf(spans) {
  return Math.max(1, ...spans.map((span) => span.start_ms + span.ms));
}

/**
 * A lane for the queue, then one for each tier and worker, in the order of the tiers.
 * @param {Span[]} spans
 * @returns {{name: string, place: string, tier: string|null, spans: Span[]}[]}
 */
export function lanesOf(spans) {
  const lanes = new Map();
  for (const span of spans) {
    const key = JSON.stringify([span.tier, span.pool, span.worker]);
    if (!lanes.has(key)) lanes.set(key, { ...nameOf(span), tier: span.tier, spans: [] });
    lanes.get(key).spans.push(span);
  }
  return [...lanes.values()].sort((one, other) => rank(one) - rank(other));
}

function nameOf({ span, tier, pool, worker }) {
  const place = [pool, worker ? shortId(worker) : null].filter(Boolean).join(" ");
  return { name: tier ?? (worker ? "all tiers" : span), place };
}

function rank({ tier, place }) {
  if (tier === null) return place ? ORDER.length : -1;
  return ORDER.indexOf(tier);
}

/** Enough of a worker's id to tell it from others. */
export function shortId(id) {
  return id.length > 10 ? id.slice(-6) : id;
}

/** Round times for an axis of so many milliseconds, about five of them. */
export function ticksOf(lengthMs) {
  const rough = lengthMs / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  return Array.from({ length: Math.floor(lengthMs / step) + 1 }, (_, i) => i * step);
}
