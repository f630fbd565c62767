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
    this.reason = byId("key-reason");
    this.usual = this.reason.textContent;
    this.button.addEventListener("click", () => this.ask());
    byId("key-form").addEventListener("submit", (event) => {
      const key = this.input.value.trim();
      if (keyStore.fits(key)) return this.#use(key, onChange);
      event.preventDefault();
      this.reason.textContent = "A key has no such characters: a request cannot carry them. Was something else pasted?";
    });
    byId("key-forget").addEventListener("click", () => {
      this.dialog.close();
      this.#use("", onChange);
    });
  }

  /** @param {string} [problem] with the key that was given, if one was */
  ask(problem = "") {
    this.button.hidden = false;
    this.reason.textContent = (keyStore.get() && problem) || this.usual;
    this.input.value = keyStore.get();
    if (!this.dialog.open) this.dialog.showModal();
  }

  #use(key, onChange) {
    keyStore.set(key);
    onChange();
  }
}
