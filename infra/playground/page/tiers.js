/**
 * The three tiers and the modes, as this page names them.
 */

export const TIERS = [
  { name: "draft", about: "the small draft model proposed it" },
  { name: "slim", about: "the slim verifier put it in" },
  { name: "full", about: "the full model chose it itself" },
];

export const MODES = [
  { name: "auto", about: "Exact. The server picks the fastest plan, round by round." },
  { name: "off", about: "Exact. The full model alone, one token after the other." },
  { name: "two_tier", about: "Exact. Draft proposes, full verifies." },
  { name: "three_tier", about: "Exact. Draft proposes, slim screens, full verifies." },
  { name: "cascade", about: "Lossy. Full verifies, but lets good enough drafts pass." },
  { name: "via", about: "Lossy, audited. Slim commits without full where its gate allows." },
];

/** Tiers in the order of a round; what the page does not know comes last. */
export function inOrder(tiers) {
  const known = TIERS.map(({ name }) => name).filter((name) => tiers.includes(name));
  return [...known, ...tiers.filter((tier) => !known.includes(tier))];
}

/** A tier for a style sheet's class; what the page does not know gets a plain look. */
export function tierClass(tier) {
  return TIERS.some((known) => known.name === tier) ? tier : "other";
}
