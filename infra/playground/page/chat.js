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

  /**
   * @param {string} prompt
   * @param {TurnView|null} [instead] a turn that this one takes the place of
   * @returns {boolean} Whether it was sent.
   */
  send(prompt, instead = null) {
    const asked = this.busy ? null : this.settings.read();
    if (asked === null) return false;
    if (instead) this.#drop(instead);
    const answers = asked.requests.map(({ seed, viaserve }, column) => {
      return new Answer(column, viaserve.mode, seed);
    });
    const bodies = asked.requests.map((request, column) => {
      return { model: this.around.model(), messages: this.#messages(prompt, column), ...request };
    });
    const turn = { prompt, answers };
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
    const view = new TurnView(turn, () => this.send(turn.prompt, view));
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
    view.update();
    let failure = null;
    try {
      for await (const chunk of chat(body, signal)) {
        this.#following(() => view.append(answer.take(chunk, performance.now())));
      }
    } catch (error) {
      failure = error instanceof Failure ? error : new Failure("failed", String(error));
    }
    answer.end(failure);
    this.#following(() => view.finish());
  }

  /** Changes the page, and keeps its end in sight for who is looking at it. */
  #following(change) {
    const isPage = getComputedStyle(this.node).overflowY === "visible"; // on narrow screens
    const scroller = isPage ? document.scrollingElement : this.node;
    const { scrollHeight, scrollTop, clientHeight } = scroller;
    const isAtEnd = scrollHeight - scrollTop - clientHeight < 80;
    change();
    if (isAtEnd) scroller.scrollTop = scroller.scrollHeight;
  }

  #showErrors({ answers }) {
    for (const { failure, column } of answers.filter((answer) => answer.state === "failed")) {
      if (failure.param) this.settings.showError(failure.param, column, failure.message);
      this.around.onFailure(failure);
    }
  }

  #drop(view) {
    this.turns = this.turns.filter((turn) => turn !== view.turn);
    view.node.remove();
  }
}

function user(content) {
  return { role: "user", content };
}
