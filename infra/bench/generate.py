"""`python -m infra.bench.generate MODEL_DIR DTYPE`: greedy `generate`, JSON lines in and out.

The child of the bench's in-process baseline. It knows a model directory and nothing of any
server. It says {"ready": true} once loaded, then answers each {"content", "max_tokens",
"ignore_eos"} with {"text", "tokens", "e2e_s", "chunk_s"} or {"error"}.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.generation.streamers import BaseStreamer


class Stopwatch(BaseStreamer):
    """Notes when each token comes; the first call brings the prompt."""

    def __init__(self, start: float) -> None:
        self.start = start
        self.seen_prompt = False
        self.times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        """Called with the new token of the one sequence."""
        if self.seen_prompt:
            self.times.append(time.perf_counter() - self.start)
        self.seen_prompt = True

    def end(self) -> None:
        """Nothing is left to flush."""


class Generator:
    """A loaded model and its tokenizer."""

    def __init__(self, model_dir: str, dtype: str) -> None:
        local = {"local_files_only": True}
        self.tokenizer = AutoTokenizer.from_pretrained(model_dir, **local)
        loaded = AutoModelForCausalLM.from_pretrained(model_dir, dtype=dtype, **local)
        self.model: Any = loaded.eval()
        self.eos_token_id = self.model.generation_config.eos_token_id

    def answer(self, content: str, max_tokens: int, ignore_eos: bool) -> dict[str, Any]:
        """One chat turn. With `ignore_eos` the end token is a token like any other."""
        start = time.perf_counter()
        prompt = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        )
        stopwatch = Stopwatch(start)
        self.model.generation_config.eos_token_id = None if ignore_eos else self.eos_token_id
        with torch.inference_mode():
            ids = self.model.generate(
                **prompt, max_new_tokens=max_tokens, do_sample=False, streamer=stopwatch
            )
        new = ids[0, prompt["input_ids"].shape[1] :]
        return {
            "text": self.tokenizer.decode(new, skip_special_tokens=True),
            "tokens": len(new),
            "e2e_s": time.perf_counter() - start,
            "chunk_s": stopwatch.times,
        }


def main() -> None:
    """Serve the lines of stdin; stray prints of the libraries go to stderr."""
    out, sys.stdout = sys.stdout, sys.stderr

    def say(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=out, flush=True)

    try:
        generator = Generator(sys.argv[1], sys.argv[2])
        say({"ready": True})
        for line in sys.stdin:
            say(generator.answer(**json.loads(line)))
    except Exception as error:
        say({"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]})
        sys.exit(1)


if __name__ == "__main__":
    main()
