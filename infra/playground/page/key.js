/**
 * The dialog for the API key. The key is kept for this tab only.
 */

import { keyStore } from "./api.js";
import { byId } from "./dom.js";

export class KeyDialog {
  /** @param {() => void} onChange after another key was given, or the key was forgotten */
  constructor(onChange) {
    this.dialog = byId("key-dialog");
    this.input = byId("key");
    this.button = byId("key-button");
    this.button.addEventListener("click", () => this.ask());
    byId("key-form").addEventListener("submit", () => this.#use(this.input.value.trim(), onChange));
    byId("key-forget").addEventListener("click", () => {
      this.dialog.close();
      this.#use("", onChange);
    });
  }

  /** @param {string} [problem] with the key that was given */
  ask(problem = "") {
    this.button.hidden = false;
    if (problem) byId("key-reason").textContent = problem;
    this.input.value = keyStore.get();
    if (!this.dialog.open) this.dialog.showModal();
  }

  #use(key, onChange) {
    keyStore.set(key);
    onChange();
  }
}
