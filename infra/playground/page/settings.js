/**
 * The settings panel: sampling for both answers, a plan for each, and how two are run.
 */

import { el } from "./dom.js";
import { FieldSet } from "./field_set.js";
import { PLAN, SAMPLING } from "./fields.js";

export class Settings {
  /** @param {HTMLFormElement} form */
  constructor(form) {
    this.both = checkbox("both", "Two modes side by side");
    this.inTurn = checkbox("in-turn", "One after the other, so that speeds compare");
    this.plans = [
      new FieldSet("Mode", PLAN, "first"),
      new FieldSet("Second answer", PLAN, "second", { mode: "off" }),
    ];
    this.sampling = new FieldSet("Sampling", SAMPLING, "sampling");
    const [first, second] = this.plans;
    form.append(first.node, this.both.node, this.inTurn.node, second.node, this.sampling.node);
    form.addEventListener("submit", (event) => event.preventDefault());
    this.both.input.addEventListener("change", () => this.#show());
    this.#show();
  }

  /**
   * What to ask for, a request for each column; null where a field must be put right first.
   * @returns {{inTurn: boolean, requests: Object[]}|null}
   */
  read() {
    this.#sets.forEach((set) => set.clearErrors());
    const wrong = this.sampling.unsendable();
    if (wrong) {
      this.sampling.showError(wrong.name, wrong.message);
      this.focusError();
      return null;
    }
    const sampling = { seed: newSeed(), ...this.sampling.read() };
    const plans = this.both.input.checked ? this.plans : this.plans.slice(0, 1);
    const asks = { provenance: true, token_ids: true, timeline: true };
    return {
      inTurn: this.inTurn.input.checked,
      requests: plans.map((plan) => ({ ...sampling, viaserve: { ...plan.read(), ...asks } })),
    };
  }

  /** Shows what the server says of a parameter beside it, if it is one of the panel's. */
  showError(param, column, message) {
    const name = param.replace("max_completion_tokens", "max_tokens");
    const [set, field] = name.startsWith("viaserve.")
      ? [this.plans[column], name.slice("viaserve.".length)]
      : [this.sampling, name];
    return set.showError(field, message);
  }

  /** Moves the focus to the first field with an error. */
  focusError() {
    this.#sets.forEach((set) => set.focusError());
  }

  get #sets() {
    return [this.sampling, ...this.plans];
  }

  #show() {
    const both = this.both.input.checked;
    this.inTurn.node.hidden = !both;
    this.plans[1].node.hidden = !both;
    this.plans[0].node.querySelector("legend").textContent = both ? "First answer" : "Mode";
  }
}

function checkbox(id, label) {
  const input = el("input", { type: "checkbox", id });
  return { input, node: el("p", { class: "check" }, input, el("label", { for: id }, label)) };
}

/** Drawn here, so that two answers share it and it can be shown exactly. */
function newSeed() {
  return crypto.getRandomValues(new Uint32Array(1))[0];
}
