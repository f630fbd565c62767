/**
 * Server-sent events out of a response's body. It knows nothing of what they say.
 */

/**
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<string>} The data of each event that is complete.
 */
export async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const frames = (held + value).split("\n\n");
      held = frames.pop();
      for (const frame of frames) yield dataOf(frame);
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

function dataOf(frame) {
  const lines = frame.split("\n").filter((line) => line.startsWith("data:"));
  return lines.map((line) => line.slice(5).trimStart()).join("\n");
}
