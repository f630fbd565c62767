/**
 * One answer on the page: text by tier, figures while it runs, what went wrong, its rounds.
 */

import { el } from "./dom.js";
import { counted, decimal, seconds, share } from "./figures.js";
import { tierClass } from "./tiers.js";
import { waterfall } from "./waterfall.js";

const FIGURES = [
  { name: "First token", title: "Seconds until the first token was here", of: (a) => seconds(a.firstTokenS) },
  { name: "Tokens/s", title: "After the first chunk of tokens", of: (a) => decimal(a.tokensPerS, 1) },
  { name: "Tokens", title: "Stop token included", of: (a) => String(a.tokens.length) },
  { name: "Rounds", title: "Propose, verify, commit", of: (a) => String(a.summary?.rounds ?? "–") },
  { name: "Drafts kept", title: "Of the drafted tokens that were judged", of: (a) => share(a.kept) },
  {
    name: "Full passes/token",
    title: "Forward passes of the full model for each token, the prompt's not counted",
    of: (a) => decimal(a.fullPassesPerToken),
  },
];

export class AnswerView {
  /**
   * @param {import("./answer.js").Answer} answer
   * @param {() => void} retry
   */
  constructor(answer, retry) {
    this.answer = answer;
    this.retry = retry;
    this.label = el("h3", {}, answer.mode);
    this.badges = el("p", { class: "badges" });
    this.body = el("p", { class: "text", "aria-live": "polite", "aria-busy": "true" });
    this.trouble = el("div", { class: "trouble", role: "alert" });
    this.values = FIGURES.map(() => el("dd", {}));
    const pairs = FIGURES.map(({ name, title }, i) => {
      return el("div", { title }, el("dt", {}, name), this.values[i]);
    });
    this.rounds = el("div", { class: "rounds" });
    this.node = el(
      "article",
      { class: "answer" },
      el("header", {}, this.label, this.badges),
      this.body,
      this.trouble,
      el("dl", { class: "figures" }, ...pairs),
      this.rounds,
    );
    this.update();
  }

  /** @param {{id: number, tier: string, text: string}[]} tokens that are new */
  append(tokens) {
    const from = this.answer.tokens.length - tokens.length;
    this.body.append(...tokens.map((token, i) => tokenNode(token, from + i)));
    const last = this.answer.tokens.at(-1);
    if (!tokens.length && last) this.body.lastChild.textContent = last.text;
    this.update();
  }

  update() {
    this.node.dataset.state = this.answer.state;
    FIGURES.forEach(({ of }, i) => (this.values[i].textContent = of(this.answer)));
  }

  /** Once it has ended, one way or another. */
  finish() {
    this.update();
    this.body.setAttribute("aria-busy", "false");
    this.badges.replaceChildren(...badgesOf(this.answer));
    if (this.answer.failure) this.#explain(this.answer.failure);
    const { timeline = [], timeline_truncated: isCut = false } = this.answer.summary ?? {};
    if (timeline.length) this.rounds.append(waterfall(timeline, isCut));
  }

  /** Marks the first token that the other answer has not. */
  markDifference(at) {
    this.body.children[at]?.classList.add("difference");
  }

  #explain(failure) {
    const number = this.answer.tokens.length;
    const arrived = number ? ` ${counted(number, "token")} had arrived.` : "";
    this.trouble.append(
      el("p", {}, el("strong", {}, `${failure.title}.`), ` ${failure.message}${arrived}`),
    );
    if (failure.param) this.trouble.append(el("p", {}, "Parameter: ", el("code", {}, failure.param)));
    if (failure.kind !== "stopped") this.trouble.append(this.#retryButton(failure.retryAfterS ?? 0));
  }

  /** Where the server said when to come back, not before. */
  #retryButton(waitS) {
    const button = el("button", { type: "button", class: "quiet", onclick: this.retry }, "");
    const count = (left) => {
      button.disabled = left > 0;
      button.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
      if (left > 0) setTimeout(count, 1000, left - 1);
    };
    count(waitS);
    return button;
  }
}

function tokenNode(token, index) {
  const title = `token ${index + 1}: ${token.tier}, id ${token.id}`;
  return el("span", { class: `token ${tierClass(token.tier)}`, title }, token.text);
}

function badgesOf({ summary, finish, seed }) {
  if (!summary) return [];
  const { plan } = summary;
  const seen = summary.exact ? "exact" : lossOf(summary);
  const shape = plan.kind === "off" ? plan.kind : `${plan.kind}, gamma ${plan.gamma}, block ${plan.block}`;
  return [
    badge(seen, summary.exact ? "good" : "warn", "Whether each token is the full model's own choice"),
    badge(shape, "", `Plan of the last round: ${plan.reason}`),
    badge(`seed ${seed}`, "", "The same seed gives the same answer in every exact mode"),
    ...(finish === "length" ? [badge("cut at max tokens", "")] : []),
    ...(summary.audit ? [auditBadge(summary.audit)] : []),
  ];
}

function lossOf({ unseen, lenient }) {
  const parts = [unseen ? `${unseen} unseen` : null, lenient ? `${lenient} lenient` : null];
  return `lossy: ${parts.filter(Boolean).join(", ")}`;
}

function auditBadge({ bound, confidence, level, levels }) {
  const title = `At most so many tokens differ from full's, with ${share(confidence)} confidence`;
  return badge(`audit: below ${share(bound)}, level ${level} of ${levels}`, "", title);
}

function badge(text, kind, title = null) {
  return el("span", { class: `badge ${kind}`, title }, text);
}
