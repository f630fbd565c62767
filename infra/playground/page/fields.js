/**
 * What can be set, as a table. Limits are not here: the server knows them, and says so.
 */

import { MODES } from "./tiers.js";

const DRAFTS = ["auto", "two_tier", "three_tier", "cascade", "via"];

/**
 * `kind`: number, integer or choice. An empty field is left out of the request: the server's
 * default. `modes`: those that it belongs to; all of them without it.
 * @typedef {{name: string, label: string, kind: string, value?: string, empty?: string,
 *   choices?: {name: string, about?: string}[], modes?: string[]}} Field
 */

/** @type {Field[]} Of the request itself. */
export const SAMPLING = [
  { name: "temperature", label: "Temperature", kind: "number", value: "0.7" },
  { name: "top_p", label: "Top p", kind: "number", empty: "1" },
  { name: "max_tokens", label: "Max tokens", kind: "integer", value: "120" },
  { name: "seed", label: "Seed", kind: "integer", empty: "new each time" },
];

/** @type {Field[]} Of its `viaserve` object. */
export const PLAN = [
  { name: "mode", label: "Mode", kind: "choice", value: "auto", choices: MODES },
  { name: "gamma", label: "Draft length", kind: "integer", modes: DRAFTS },
  { name: "block", label: "Block", kind: "integer", modes: ["auto", "three_tier", "via"] },
  { name: "alpha", label: "Leniency alpha", kind: "number", modes: ["cascade"] },
  {
    name: "gate",
    label: "Gate",
    kind: "choice",
    value: "",
    choices: [{ name: "" }, { name: "ratio" }, { name: "margin" }],
    modes: ["via"],
  },
  { name: "theta_accept", label: "Accept from", kind: "number", modes: ["via"] },
  { name: "theta_escalate", label: "Escalate below", kind: "number", modes: ["via"] },
  { name: "margin", label: "Margin", kind: "number", modes: ["via"] },
];
