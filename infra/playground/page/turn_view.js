/**
 * A turn on the page: the prompt, an answer or two, and whether two are the same.
 */

import { compare } from "./answer.js";
import { AnswerView } from "./answer_view.js";
import { el } from "./dom.js";
import { counted, decimal } from "./figures.js";

export class TurnView {
  /**
   * @param {import("./chat.js").Turn} turn
   * @param {() => void} retry
   */
  constructor(turn, retry) {
    this.turn = turn;
    this.answers = turn.answers.map((answer) => new AnswerView(answer, retry));
    this.verdict = el("p", { class: "verdict", role: "status" });
    this.node = el(
      "section",
      { class: turn.answers.length > 1 ? "turn two" : "turn" },
      el("h2", { class: "question" }, turn.prompt),
      this.verdict,
      el("div", { class: "answers" }, ...this.answers.map((view) => view.node)),
    );
  }

  /** Once all answers have ended. */
  finish({ inTurn }) {
    if (this.turn.answers.length < 2) return;
    const [one, other] = this.turn.answers;
    const found = compare(one, other);
    this.verdict.dataset.kind = found.kind;
    this.verdict.textContent = verdictOf(found, one) + (inTurn ? paceOf(one, other) : "");
    if (found.kind === "differ") this.answers.forEach((view) => view.markDifference(found.at));
  }
}

function verdictOf({ kind, at }, { tokens }) {
  if (kind === "same") return `✓ Identical: the same ${counted(tokens.length, "token")}.`;
  if (kind === "differ") return `≠ They differ from token ${at + 1} on.`;
  return at ? `The same ${counted(at, "token")} so far; one is not complete.` : "Not compared: one is missing.";
}

function paceOf(one, other) {
  if (!one.tokensPerS || !other.tokensPerS) return "";
  const [fast, slow] = one.tokensPerS >= other.tokensPerS ? [one, other] : [other, one];
  const ratio = decimal(fast.tokensPerS / slow.tokensPerS);
  return ` After the first token ${fast.mode} is ${ratio} times as fast as ${slow.mode}.`;
}
