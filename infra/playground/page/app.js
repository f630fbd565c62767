/**
 * The page: puts its parts together, and knows which element is which.
 */

import { get, servedModel } from "./api.js";
import { Chat } from "./chat.js";
import { byId, el } from "./dom.js";
import { Fleet } from "./fleet.js";
import { KeyDialog } from "./key.js";
import { Settings } from "./settings.js";
import { TIERS } from "./tiers.js";

const EXAMPLES = [
  "Repeat this list twice: red, green, blue, red, green, blue.",
  "Write three sentences about the sea.",
  "What is the capital of France, and what is it known for?",
];
const STATES = {
  ok: "ready",
  degraded: "ready, a tier is missing",
  loading: "loading",
  unreachable: "cannot be reached",
};

const prompt = byId("prompt");
const settings = new Settings(byId("settings"));
const key = new KeyDialog(findModel);
let model = "";
let asked = false;

const chat = new Chat(byId("turns"), settings, {
  model: () => model,
  onBusy: showBusy,
  onFailure: (failure) => {
    if (failure.status === 401) key.ask("The server did not take this key.");
  },
});

new Fleet(byId("fleet"), (state) => {
  const node = byId("state");
  node.dataset.state = state;
  if (node.textContent !== STATES[state]) node.textContent = STATES[state] ?? state;
  if (!model && !asked && state !== "unreachable") findModel();
});

/** Asks under which name the model is served, and once for the key if it takes one to know. */
async function findModel() {
  try {
    model = await servedModel();
    byId("model").textContent = model;
    const { value } = await get("version");
    byId("model").title = `${value.dtype ?? ""}, context ${value.context ?? "?"}, viaserve ${value.version}`;
  } catch (failure) {
    if (failure.status === 401 && !asked) key.ask();
    asked ||= failure.status === 401;
  }
}

function showBusy(busy) {
  const [goes, comes] = busy ? ["send", "stop"] : ["stop", "send"];
  const isHeld = document.activeElement === byId(goes);
  byId(goes).hidden = true;
  byId(comes).hidden = false;
  if (isHeld) (busy ? byId("stop") : prompt).focus(); // a keyboard's place never goes with a button
}

function send() {
  const text = prompt.value.trim();
  if (text && chat.send(text)) {
    prompt.value = "";
    byId("start")?.remove();
  }
}

function showStart() {
  const buttons = EXAMPLES.map((text) => {
    const choose = () => {
      prompt.value = text;
      prompt.focus();
    };
    return el("button", { type: "button", class: "quiet", onclick: choose }, text);
  });
  const start = el(
    "div",
    { id: "start", class: "start" },
    el("p", {}, "Each token shows which tier brought it. In exact modes all of them are the full model's choice."),
    el("div", { class: "examples" }, ...buttons),
  );
  byId("turns").append(start);
}

function showLegend() {
  const box = el("input", { type: "checkbox", id: "tint", checked: true });
  const tint = () => document.body.classList.toggle("plain", !box.checked);
  box.addEventListener("change", tint);
  const names = TIERS.map(({ name, about }) => {
    return el("li", { title: about }, el("span", { class: `token ${name}` }, name));
  });
  byId("legend").append(
    el("p", { class: "check" }, box, el("label", { for: "tint" }, "Mark tiers")),
    el("ul", { "aria-label": "Tiers" }, ...names),
  );
}

prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && chat.busy) chat.stop();
});
byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
byId("stop").addEventListener("click", () => {
  chat.stop();
  prompt.focus();
});
byId("new").addEventListener("click", () => {
  chat.clear();
  showStart();
  prompt.focus();
});

const wide = matchMedia("(min-width: 900px)").matches;
for (const panel of ["settings-panel", "fleet-panel"]) byId(panel).open = wide;
showLegend();
showStart();
prompt.focus();
