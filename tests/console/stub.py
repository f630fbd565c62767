"""A small HTTP server that answers /ready, /health and /version as an endpoint does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cluster import __version__

CARD = {"name": "NVIDIA L4", "throttle_reasons": ["power cap"]}


def worker(worker_id: str, pool: str, tiers: list[str], **more: Any) -> dict[str, Any]:
    probe = {"util_frac": 0.5, "util_mean_frac": 0.42, "util_of": "step loop", "cards": []}
    told = {
        "worker_id": worker_id,
        "pool": pool,
        "tiers": tiers,
        "device": "cpu",
        "sessions": 3,
        "waiting": 1,
        "in_flight": 2,
        "late": 0,
        "draining": False,
        "slow": False,
        "steps": 1234,
        "step_s": 0.0123,
        "hop_s": 0.0011,
        "probe": probe,
    }
    return told | more


def status(tokens: int = 100, **more: Any) -> dict[str, Any]:
    """A server of two pools, one of which lacks a worker."""
    large = {"util_frac": 0.42, "kv_frac": 0.1, "sessions": 3, "waiting": 1, "price": 1.5}
    told = {
        "status": "degraded",
        "tiers": {"draft": False, "full": True},
        "running": 3,
        "queued": 7,
        "steps_in_flight": 2,
        "costs": {
            **{"rounds": 40, "draft_tokens": 200, "draft_judged": 80, "slim_rows": 0},
            **{"slim_passes": 0, "full_rows": 150, "full_passes": 50, "from_draft": 60},
            **{"from_slim": 0, "from_full": tokens - 60, "unseen": 0, "lenient": 0},
        },
        "workers": [
            worker("large-1", "large", ["full"]),
            worker("large-2", "large", ["full"], late=2, slow=True),
        ],
        "pools": [
            {"name": "large", "wanted": 2, "running": 2, "missing": []} | large,
            {
                "name": "cheap",
                "wanted": 1,
                "running": 0,
                "missing": [{"worker_id": "cheap-1", "placed": False, "why": "no node has L4"}],
            },
        ],
        "auto": {
            "in_force": "two_tier",
            "rounds": {"two_tier: best": 30, "off: probe": 10},
            "token_s": {"off": 0.031, "two_tier": 0.021},
        },
        "audit": {
            **{"level": 1, "levels": 4, "rows": 500, "disagreements": 9},
            **{"bound": 0.031, "confidence": 0.95, "epsilon": 0.02},
        },
    }
    return told | more


class Stub:
    """`pages`: bodies by path, taken anew for each request."""

    def __init__(self, server: ThreadingHTTPServer, pages: dict[str, Any]) -> None:
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        self.pages = pages
        self.keys: list[str | None] = []
        self.asked = threading.Event()


@contextmanager
def endpoint(**pages: Any) -> Iterator[Stub]:
    """A server with these pages; by default those of `status`."""
    bodies = {
        "/ready": status(),
        "/health": {"status": "ok"},
        "/version": {"version": __version__, "model": "m", "dtype": "float32", "row_invariant": 1},
    } | {f"/{name}": body for name, body in pages.items()}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            stub.keys.append(self.headers.get("Authorization"))
            stub.asked.set()
            body = stub.pages.get(self.path)
            text = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(200 if body is not None else 404)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub = Stub(server, bodies)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
