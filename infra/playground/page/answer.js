/**
 * One answer as it grows: its tokens with their tiers, what it took, how it ended. No view.
 */

export class Answer {
  /**
   * @param {number} column 0, or 1 for the second of two side by side
   * @param {string} mode as asked for
   * @param {number} seed
   */
  constructor(column, mode, seed) {
    this.column = column;
    this.mode = mode;
    this.seed = seed;
    /** waiting, running, done, or ended without being done: failed, stopped */
    this.state = "waiting";
    /** @type {{id: number, tier: string, text: string}[]} */
    this.tokens = [];
    this.finish = null;
    this.failure = null;
    /** The final `viaserve` object. */
    this.summary = null;
    this.times = { begin: null, first: null, last: null, numFirst: 0 };
  }

  get text() {
    return this.tokens.map((token) => token.text).join("");
  }

  get ended() {
    return this.state === "done" || this.state === "failed" || this.state === "stopped";
  }

  begin(nowMs) {
    this.state = "running";
    this.times.begin = nowMs;
  }

  /** @returns {Array} The tokens that the chunk brought. */
  take(chunk, nowMs) {
    const [choice] = chunk.choices;
    const extra = chunk.viaserve ?? {};
    const text = choice.delta.content ?? "";
    const fresh = tokensOf(text, extra);
    if (!fresh.length && this.tokens.length) this.tokens.at(-1).text += text;
    if (fresh.length) {
      if (this.times.first === null) {
        this.times.first = nowMs;
        this.times.numFirst = fresh.length;
      }
      this.times.last = nowMs;
      this.tokens.push(...fresh);
    }
    if (choice.finish_reason) {
      this.finish = choice.finish_reason;
      this.summary = extra;
    }
    return fresh;
  }

  /** @param {import("./api.js").Failure|null} failure */
  end(failure) {
    this.failure = failure;
    this.state = failure === null ? "done" : failure.kind === "stopped" ? "stopped" : "failed";
  }

  /** Seconds to the first token, or null. */
  get firstTokenS() {
    return this.times.first === null ? null : (this.times.first - this.times.begin) / 1000;
  }

  /** Tokens per second after the first chunk of tokens, or null. */
  get tokensPerS() {
    const { first, last, numFirst } = this.times;
    if (first === null || last <= first) return null;
    return (this.tokens.length - numFirst) / ((last - first) / 1000);
  }

  /** Of the drafted tokens that were judged, the share that was committed; or null. */
  get kept() {
    const judged = this.summary?.draft_judged;
    return judged ? this.summary.tokens_by_tier.draft / judged : null;
  }

  /** Passes of the full model for each token, or null. */
  get fullPassesPerToken() {
    if (!this.summary || !this.tokens.length) return null;
    return this.summary.full_passes / this.tokens.length;
  }
}

/** A chunk's text cut into its tokens' shares: `chars` counts characters, not UTF-16 units. */
function tokensOf(text, { tiers = [], chars = [], token_ids: ids = [] }) {
  const characters = Array.from(text);
  let from = 0;
  return tiers.map((tier, i) => {
    const to = i === tiers.length - 1 ? characters.length : from + chars[i];
    const piece = characters.slice(from, to).join("");
    from = to;
    return { id: ids[i], tier, text: piece };
  });
}

/**
 * How two answers to the same request compare.
 * @returns {{kind: "same"|"differ"|"open", at: number}} `at`: tokens that are equal from the
 *   start; open: one of them is not done, and so far they are equal.
 */
export function compare(one, other) {
  const shorter = Math.min(one.tokens.length, other.tokens.length);
  let at = 0;
  while (at < shorter && one.tokens[at].id === other.tokens[at].id) at += 1;
  if (at < shorter) return { kind: "differ", at };
  if (one.state !== "done" || other.state !== "done") return { kind: "open", at };
  return { kind: one.tokens.length === other.tokens.length ? "same" : "differ", at };
}
