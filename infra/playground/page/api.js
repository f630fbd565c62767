/**
 * The server's HTTP API, and everything that can go wrong with it as one kind of error.
 */

import { eventsOf } from "./events.js";

const KEY = "viaserve.key";

/** The API key of this tab. */
export const keyStore = {
  /** Whether a header can carry it. */
  fits: (key) => /^[\t\x20-\x7e\x80-\xff]*$/.test(key),
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (key) => (key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY)),
};

/**
 * A request that did not end as it should. `kind`: refused (the server said no), failed (it
 * broke off with an error), lost (the connection broke), unreachable, stopped (by the user).
 */
export class Failure extends Error {
  constructor(kind, message, { status = null, param = null, code = null, retryAfterS = null } = {}) {
    super(message);
    Object.assign(this, { kind, status, param, code, retryAfterS });
  }

  /** What it is, in a few words. */
  get title() {
    if (this.kind === "refused") return titleOf(this.status);
    return {
      failed: "The server broke off",
      lost: "The connection broke",
      unreachable: "The server cannot be reached",
      stopped: "Stopped",
    }[this.kind];
  }
}

function titleOf(status) {
  if (status === 401) return "The API key is missing or wrong (401)";
  if (status === 429) return "The server is full (429)";
  if (status === 503) return "The server cannot serve now (503)";
  return status < 500 ? `The request was refused (${status})` : `The server failed (${status})`;
}

/** GET something as JSON, whatever the status. @returns {Promise<{status: number, value: any}>} */
export async function get(path, signal = null) {
  const response = await ask(path, { signal });
  return { status: response.status, value: await response.json().catch(() => null) };
}

/** The name under which to ask for the model. Throws Failure. */
export async function servedModel() {
  const response = await ask("v1/models", {});
  if (!response.ok) throw await refusalOf(response);
  return (await response.json()).data[0].id;
}

/**
 * A chat completion, streamed. Throws Failure.
 * @param {Object} body
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<Object>} Chunks, the one that finishes the answer at last.
 */
export async function* chat(body, signal) {
  const response = await ask("v1/chat/completions", {
    method: "POST",
    body: JSON.stringify({ ...body, stream: true }),
    signal,
  });
  if (!response.ok) throw await refusalOf(response);
  const events = eventsOf(response.body);
  for (;;) {
    const { done, value } = await next(events, signal);
    if (done) throw new Failure("lost", "It ended before the answer was complete.");
    if (value === "[DONE]") return;
    const chunk = JSON.parse(value);
    if (chunk.error) throw new Failure("failed", chunk.error.message, { code: chunk.error.code });
    yield chunk;
  }
}

async function next(events, signal) {
  try {
    return await events.next();
  } catch {
    if (signal.aborted) throw new Failure("stopped", "");
    throw new Failure("lost", "It ended before the answer was complete.");
  }
}

async function ask(path, options) {
  const headers = options.body ? { "Content-Type": "application/json" } : {};
  const key = keyStore.get();
  if (key) headers.Authorization = `Bearer ${key}`;
  try {
    return await fetch(new URL(path, document.baseURI), { ...options, headers });
  } catch {
    if (options.signal?.aborted) throw new Failure("stopped", "");
    throw new Failure("unreachable", "Is it still running? The page goes on looking for it.");
  }
}

async function refusalOf(response) {
  const { error } = (await response.json().catch(() => null)) ?? {};
  const seconds = Number(response.headers.get("Retry-After"));
  return new Failure("refused", error?.message ?? response.statusText, {
    status: response.status,
    param: error?.param ?? null,
    code: error?.code ?? null,
    retryAfterS: seconds > 0 ? seconds : null,
  });
}
