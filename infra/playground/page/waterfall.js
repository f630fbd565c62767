/**
 * The waterfall of a request: when which tier worked on it. Bars for the eye, an arrow-key walk
 * for the keyboard, and the same as a table.
 */

import { el, svg } from "./dom.js";
import { counted, mark, milliseconds } from "./figures.js";
import { lanesOf, lengthOf, placeOf, ticksOf, whoOf } from "./lanes.js";
import { tierClass } from "./tiers.js";

const ROW = 22;
const AXIS = 20;
const ZOOMS = [1, 2, 4, 8, 16];

/**
 * @param {import("./lanes.js").Span[]} timeline
 * @param {boolean} isCut whether the answer had more spans than it tells
 * @returns {HTMLElement}
 */
export function waterfall(timeline, isCut) {
  return new Waterfall(timeline, isCut).node;
}

class Waterfall {
  constructor(timeline, isCut) {
    this.spans = [...timeline].sort((one, other) => one.start_ms - other.start_ms);
    this.lengthMs = lengthOf(this.spans);
    this.bars = new Map();
    this.at = -1;
    this.zoom = 0;
    this.told = el("p", { class: "told", role: "status" }, "Point at a bar, or use the arrow keys.");
    this.drawing = this.#draw();
    const scroller = el("div", { class: "scroller" }, this.drawing);
    const chart = el("div", { class: "waterfall" }, this.#labels(), scroller);
    const steps = `${isCut ? "the first " : ""}${counted(this.spans.length, "step")}`;
    const name = `Timeline: ${steps}, ${milliseconds(this.lengthMs)}`;
    this.node = el(
      "details",
      { open: true },
      el("summary", {}, name),
      chart,
      el("div", { class: "under" }, this.told, this.#zoomButtons()),
      tableOf(this.spans),
    );
  }

  #labels() {
    const names = this.lanes.map(({ name, place }) => {
      return el("li", {}, el("span", {}, name), " ", el("small", {}, place));
    });
    return el("ul", { class: "lanes" }, ...names);
  }

  #draw() {
    this.lanes = lanesOf(this.spans);
    const height = AXIS + this.lanes.length * ROW;
    const ticks = ticksOf(this.lengthMs).map((ms) => this.#tick(ms, height));
    const bars = this.lanes.flatMap((lane, row) => lane.spans.map((span) => this.#bar(span, row)));
    return svg(
      "svg",
      {
        height,
        width: "100%",
        tabindex: 0,
        role: "img",
        "aria-label": "Waterfall of the rounds; left and right walk through its steps",
        onkeydown: (event) => this.#walk(event),
        onpointerover: (event) => this.#pointed(event),
      },
      ...ticks,
      ...bars,
    );
  }

  #percent(ms) {
    return `${(100 * ms) / this.lengthMs}%`;
  }

  #tick(ms, height) {
    const x = this.#percent(ms);
    return svg(
      "g",
      { class: "tick" },
      svg("line", { x1: x, x2: x, y1: AXIS - 4, y2: height }),
      svg("text", { x, y: AXIS - 8, dx: 2 }, mark(ms)),
    );
  }

  /** Pale: from asked to answered; full colour, at its end: computing. */
  #bar(span, row) {
    const y = AXIS + row * ROW + 3;
    const busyMs = Math.min(span.busy_ms, span.ms);
    const around = this.#rect(span.start_ms, span.ms, y, "whole");
    const inside = this.#rect(span.start_ms + span.ms - busyMs, busyMs, y, "busy");
    const kind = `bar ${tierClass(span.tier)} ${span.span}`;
    const bar = svg("g", { class: kind, "data-round": span.round }, around, inside);
    this.bars.set(bar, span);
    return bar;
  }

  #rect(startMs, ms, y, kind) {
    const rect = svg("rect", { class: kind, x: this.#percent(startMs), y, height: ROW - 6, rx: 2 });
    rect.style.width = `max(1.5px, ${this.#percent(ms)})`;
    return rect;
  }

  #pointed(event) {
    const bar = event.target.closest(".bar");
    if (bar) this.#tell(bar);
  }

  #walk(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const last = this.spans.length - 1;
    const at = Math.min(Math.max(this.at + step, 0), last);
    const [bar] = [...this.bars].find(([, span]) => span === this.spans[at]);
    this.#tell(bar);
    bar.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  #tell(bar) {
    const span = this.bars.get(bar);
    this.at = this.spans.indexOf(span);
    for (const other of this.bars.keys()) {
      other.classList.toggle("alike", this.bars.get(other).round === span.round);
    }
    this.drawing.classList.add("pointed");
    this.told.textContent = sentenceOf(span);
  }

  #zoomButtons() {
    const button = (text, label, by) => {
      return el("button", { type: "button", class: "quiet", "aria-label": label, onclick: () => this.#zoomBy(by) }, text);
    };
    return el("p", { class: "zoom" }, button("−", "Zoom out", -1), button("+", "Zoom in", 1));
  }

  #zoomBy(step) {
    this.zoom = Math.min(Math.max(this.zoom + step, 0), ZOOMS.length - 1);
    this.drawing.style.width = `${100 * ZOOMS[this.zoom]}%`;
  }
}

function sentenceOf(span) {
  const { round, batch, rows, committed } = span;
  const times = `from ${milliseconds(span.start_ms)} for ${milliseconds(span.ms)}`;
  if (span.span === "queue") return `In the queue · ${times}`;
  return [
    `Round ${round}, ${span.span}`,
    `${whoOf(span)} on ${placeOf(span)}`,
    times,
    `computing ${milliseconds(span.busy_ms)} for ${counted(batch, "session")}`,
    rows ? counted(rows, "row") : null,
    committed ? `${committed} committed` : null,
  ]
    .filter(Boolean)
    .join(" · ");
}

const COLUMNS = [
  ["Round", (span) => span.round],
  ["Step", (span) => span.span],
  ["Tier", whoOf],
  ["Worker", placeOf],
  ["Start ms", (span) => span.start_ms.toFixed(1)],
  ["ms", (span) => span.ms.toFixed(1)],
  ["Busy ms", (span) => span.busy_ms.toFixed(1)],
  ["Sessions", (span) => span.batch],
  ["Rows", (span) => span.rows],
  ["Committed", (span) => span.committed],
];

/** Built when it is first opened. */
function tableOf(spans) {
  const holder = el("div", { class: "scroller", tabindex: 0, role: "region", "aria-label": "Timeline as a table" });
  const fill = () => {
    if (holder.firstChild) return;
    const head = el("tr", {}, ...COLUMNS.map(([name]) => el("th", { scope: "col" }, name)));
    const rows = spans.map((span) => {
      return el("tr", {}, ...COLUMNS.map(([, of]) => el("td", {}, String(of(span)))));
    });
    holder.append(el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows)));
  };
  return el("details", { class: "as-table", ontoggle: fill }, el("summary", {}, "As a table"), holder);
}
