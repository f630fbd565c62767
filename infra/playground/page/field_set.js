/**
 * A group of labelled inputs from a table of fields: their values, and errors beside them.
 */

import { el } from "./dom.js";

export class FieldSet {
  /**
   * @param {string} legend
   * @param {import("./fields.js").Field[]} fields
   * @param {string} prefix of the inputs' ids
   * @param {Object<string, string>} [values] instead of the table's
   */
  constructor(legend, fields, prefix, values = {}) {
    this.fields = fields;
    this.rows = new Map(fields.map((field) => [field.name, row(field, prefix, values)]));
    const rows = [...this.rows.values()].map(({ node }) => node);
    const grid = el("div", { class: "fields" }, ...rows);
    this.about = el("p", { class: "about" });
    this.node = el("fieldset", {}, el("legend", {}, legend), grid, this.about);
    for (const kind of ["input", "change"]) {
      this.node.addEventListener(kind, (event) => this.#edited(event.target));
    }
    this.#show();
  }

  /** What is not empty, as the request has it. What is no number goes as it is: the server says. */
  read() {
    const given = {};
    for (const field of this.fields) {
      const { node, input } = this.rows.get(field.name);
      const text = input.value.trim();
      if (node.hidden || text === "") continue;
      given[field.name] = field.kind === "choice" || !isNumber(text) ? text : Number(text);
    }
    return given;
  }

  /** The first field whose value this page cannot send, with the reason, or null. */
  unsendable() {
    for (const { name } of this.fields.filter((field) => field.kind === "integer")) {
      const value = Number(this.rows.get(name).input.value);
      if (Number.isInteger(value) && !Number.isSafeInteger(value)) {
        return { name, message: "A browser counts to 9007199254740991 only." };
      }
    }
    return null;
  }

  /** @returns {boolean} Whether there is such a field. */
  showError(name, message) {
    const found = this.rows.get(name);
    if (!found) return false;
    found.input.setAttribute("aria-invalid", "true");
    found.error.textContent = message;
    return true;
  }

  clearErrors() {
    for (const found of this.rows.values()) clearError(found);
  }

  /** Moves the focus to the first field with an error. */
  focusError() {
    const wrong = [...this.rows.values()].find(({ error }) => error.textContent);
    wrong?.input.focus();
  }

  #edited(input) {
    for (const found of this.rows.values()) if (found.input === input) clearError(found);
    this.#show();
  }

  #show() {
    const mode = this.rows.get("mode")?.input.value;
    for (const field of this.fields) {
      this.rows.get(field.name).node.hidden = !(field.modes?.includes(mode) ?? true);
    }
    const modes = this.fields.find((field) => field.name === "mode")?.choices ?? [];
    this.about.textContent = modes.find(({ name }) => name === mode)?.about ?? "";
  }
}

function clearError({ input, error }) {
  input.removeAttribute("aria-invalid");
  error.textContent = "";
}

function isNumber(text) {
  return Number.isFinite(Number(text));
}

function row(field, prefix, values) {
  const id = `${prefix}-${field.name}`;
  const errorId = `${id}-error`;
  const input = inputOf(field, { id, name: field.name, "aria-describedby": errorId });
  input.value = values[field.name] ?? field.value ?? "";
  const error = el("p", { id: errorId, class: "error", role: "alert" });
  const node = el("div", { class: "field" }, el("label", { for: id, title: field.name }, field.label), input, error);
  return { node, input, error };
}

function inputOf(field, attributes) {
  if (field.kind === "choice") {
    const options = field.choices.map(({ name }) => {
      return el("option", { value: name }, name || "server's");
    });
    return el("select", attributes, ...options);
  }
  const keyboard = field.kind === "integer" ? "numeric" : "decimal";
  const empty = field.empty ?? "server's";
  return el("input", { ...attributes, inputmode: keyboard, placeholder: empty });
}
