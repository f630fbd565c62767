/**
 * The panel of pools and workers, from what /ready says; asked again while anybody can see it.
 */

import { get } from "./api.js";
import { el } from "./dom.js";
import { counted, seconds, share } from "./figures.js";
import { shortId } from "./lanes.js";
import { inOrder } from "./tiers.js";

const EVERY_MS = 2000;

export class Fleet {
  /**
   * @param {HTMLElement} node
   * @param {(state: string) => void} onState ok, degraded, loading or unreachable
   */
  constructor(node, onState) {
    this.node = node;
    this.onState = onState;
    document.addEventListener("visibilitychange", () => this.#look());
    this.#look();
  }

  async #look() {
    clearTimeout(this.timer);
    if (document.hidden || this.looking) return;
    this.looking = true;
    const found = await get("ready", AbortSignal.timeout(5 * EVERY_MS)).catch(() => null);
    this.looking = false;
    this.timer = setTimeout(() => this.#look(), EVERY_MS);
    this.onState(found === null ? "unreachable" : (found.value?.status ?? "loading"));
    if (found === null) this.#showOld();
    else if (found.value?.workers) this.node.replaceChildren(...sectionsOf(found.value));
  }

  #showOld() {
    if (!this.node.firstChild || this.node.querySelector(".note")) return;
    this.node.prepend(el("p", { class: "note" }, "As last seen, before the server went away."));
  }
}

function sectionsOf(status) {
  const pools = status.pools ?? [];
  return [overall(status), ...pools.map((pool) => poolOf(pool, status.workers))];
}

function overall({ running, queued, auto, audit, why }) {
  const rows = [];
  if (running !== undefined) rows.push(["Requests", `${running} running, ${queued} queued`]);
  if (auto) rows.push(["Plan of auto", planOf(auto)]);
  if (audit?.rows) {
    rows.push(["Audit of via", `below ${share(audit.bound)} differ, level ${audit.level} of ${audit.levels}`]);
  }
  if (why) rows.push(["Note", why]);
  return el("dl", { class: "facts" }, ...rows.flatMap(([name, text]) => [el("dt", {}, name), el("dd", {}, text)]));
}

function planOf({ in_force: now, token_s: costs }) {
  const cost = costs?.[now];
  return cost ? `${now}, ${seconds(cost)} a token` : now;
}

function poolOf(pool, workers) {
  const own = workers.filter((worker) => worker.pool === pool.name);
  const complete = pool.running >= pool.wanted;
  const missing = pool.missing.map(({ worker_id: id, why }) => el("li", { class: "warn" }, `${shortId(id)}: ${why}`));
  return el(
    "section",
    { class: "pool" },
    el(
      "h3",
      {},
      pool.name,
      el("span", { class: complete ? "badge good" : "badge warn" }, `${pool.running} of ${counted(pool.wanted, "worker")}`),
    ),
    pool.tiers ? el("p", { class: "tiers" }, ...inOrder(pool.tiers).map((tier) => el("span", { class: `tier ${tier}` }, tier))) : null,
    bar(pool.util_frac ?? null, "Busy"),
    pool.sessions === undefined ? null : el("p", { class: "load" }, loadOf(pool)),
    el("ul", { class: "workers" }, ...own.map(workerOf), ...missing),
  );
}

function loadOf({ sessions, waiting, step_s: step, kv_frac: kv }) {
  return `${counted(sessions, "session")}, ${waiting} waiting, step ${seconds(step)}, KV ${share(kv)}`;
}

function workerOf(worker) {
  const flags = ["slow", "late", "draining"].filter((flag) => worker[flag]);
  const { util_mean_frac: util = null, util_of: of } = worker.probe ?? {};
  const said = [
    worker.device,
    util === null ? null : `${share(util)} of ${of ?? "its device"}`,
    counted(worker.sessions, "session"),
    counted(worker.steps, "step"),
  ];
  return el(
    "li",
    {},
    el("code", { title: worker.worker_id }, shortId(worker.worker_id)),
    ` ${said.filter(Boolean).join(", ")} `,
    ...flags.map((flag) => el("span", { class: "badge warn" }, flag)),
  );
}

function bar(frac, name) {
  if (frac === null) return null;
  const fill = el("span", { class: "fill" });
  fill.style.width = `${Math.min(100 * frac, 100)}%`;
  return el("p", { class: "busy-bar" }, `${name} ${share(frac)}`, el("span", { class: "track" }, fill));
}
