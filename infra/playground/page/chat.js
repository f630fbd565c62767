/**
 * The conversation: sends prompts, one or two requests each, and can stop them.
 *
 * @typedef {{prompt: string, answers: Answer[]}} Turn
 */

import { Failure, chat } from "./api.js";
import { Answer } from "./answer.js";
import { TurnView } from "./turn_view.js";

export class Chat {
  /**
   * @param {HTMLElement} node where turns are shown
   * @param {import("./settings.js").Settings} settings
   * @param {{model: () => string, onBusy: (busy: boolean) => void,
   *   onFailure: (failure: Failure) => void}} around
   */
  constructor(node, settings, around) {
    this.node = node;
    this.settings = settings;
    this.around = around;
    /** @type {Turn[]} */
    this.turns = [];
    this.aborter = null;
  }

  get busy() {
    return this.aborter !== null;
  }

  /** @returns {boolean} Whether it was sent. */
  send(prompt) {
    const asked = this.busy ? null : this.settings.read();
    if (asked === null) return false;
    const answers = asked.requests.map(({ seed, viaserve }, column) => {
      return new Answer(column, viaserve.mode, seed);
    });
    const turn = { prompt, answers };
    const bodies = asked.requests.map((request, column) => {
      return { model: this.around.model(), messages: this.#messages(prompt, column), ...request };
    });
    this.turns.push(turn);
    this.#play(turn, bodies, asked.inTurn);
    return true;
  }

  stop() {
    this.aborter?.abort();
  }

  clear() {
    this.stop();
    this.turns = [];
    this.node.replaceChildren();
  }

  /** What was said before in this column; turns without an answer are left out. */
  #messages(prompt, column) {
    const said = this.turns.flatMap(({ prompt: content, answers }) => {
      const { text } = answers[column] ?? answers[0];
      return text ? [user(content), { role: "assistant", content: text }] : [];
    });
    return [...said, user(prompt)];
  }

  async #play(turn, bodies, inTurn) {
    const aborter = new AbortController();
    this.aborter = aborter;
    this.around.onBusy(true);
    const view = new TurnView(turn, () => this.#retry(turn, view));
    this.node.append(view.node);
    view.node.scrollIntoView({ block: "start" });
    const play = (answer) => this.#answer(view.answers[answer.column], bodies[answer.column], aborter.signal);
    if (inTurn) for (const answer of turn.answers) await play(answer);
    else await Promise.all(turn.answers.map(play));
    view.finish({ inTurn });
    this.aborter = null;
    this.around.onBusy(false);
    this.#showErrors(turn);
  }

  async #answer(view, body, signal) {
    const { answer } = view;
    answer.begin(performance.now());
    let failure = null;
    try {
      for await (const chunk of chat(body, signal)) {
        view.append(answer.take(chunk, performance.now()));
        this.#follow();
      }
    } catch (error) {
      failure = error instanceof Failure ? error : new Failure("failed", String(error));
    }
    answer.end(failure);
    view.finish();
    this.#follow();
  }

  /** Keeps the end in sight for who is looking at it. */
  #follow() {
    const { scrollHeight, scrollTop, clientHeight } = this.node;
    if (scrollHeight - scrollTop - clientHeight < 120) this.node.scrollTop = scrollHeight;
  }

  #showErrors({ answers }) {
    for (const { failure, column } of answers.filter((answer) => answer.state === "failed")) {
      if (failure.param) this.settings.showError(failure.param, column, failure.message);
      this.around.onFailure(failure);
    }
  }

  /** A turn that failed, asked again with the settings of now, in its place at the end. */
  #retry(turn, view) {
    if (this.busy) return;
    this.turns = this.turns.filter((other) => other !== turn);
    view.node.remove();
    this.send(turn.prompt);
  }
}

function user(content) {
  return { role: "user", content };
}
