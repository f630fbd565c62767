"""What a URL of HTTP looks like, wherever one is given: in options and in the config."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit


def http_url(text: str) -> SplitResult | None:
    """Its parts; None where it is none, or has no host or no port that can be."""
    try:
        parts = urlsplit(text)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port beyond 65535, half an IPv6 address
        return None
    return parts if known else None
