"""The page's files, read once: body, headers, and the path under which the page asks for each.

It knows no web framework. Only what lies in `page/` can be had: there is no look-up by path.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parent / "page"
_INDEX = "index.html"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Nothing but the page's own files and the API beside it; no inline script or style.
_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "object-src 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Kept, and asked for again: a new version of the server shows at once.
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file. `headers` has everything but its length; `etag` is among them."""

    path: str
    body: bytes
    etag: str
    headers: dict[str, str]

    def is_known(self, if_none_match: str) -> bool:
        """Whether a client with this If-None-Match has it already."""
        tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
        return self.etag in tags or "*" in tags


def read_assets() -> list[Asset]:
    """All files: the page at `/`, what it loads below `/playground/`."""
    return [_asset(file) for file in sorted(_FOLDER.iterdir()) if file.suffix in _TYPES]


def _asset(file: Path) -> Asset:
    body = file.read_bytes()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    path = "/" if file.name == _INDEX else f"/playground/{file.name}"
    headers = _HEADERS | {"Content-Type": _TYPES[file.suffix], "ETag": etag}
    return Asset(path, body, etag, headers)
