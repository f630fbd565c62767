"""The part of the config that says where traces go, and which requests have one."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from cluster.config_lossy import Section
from cluster.urls import http_url
from infra.tracing import TracingSettings

_HTTP_PATH = "/v1/traces"
_NAME = re.compile(r"[A-Za-z0-9._-]+")


class TracingConfig(Section):
    """Traces by OTLP; see docs/traces.md."""

    exporter: Literal["none", "otlp-grpc", "otlp-http"] = "none"
    """How spans go out."""
    endpoint: str | None = None
    """Where to: a URL, https for TLS. Null: where OpenTelemetry's environment variables say, by
    default to this host, port 4317 for gRPC and 4318 for HTTP."""
    sample_frac: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.1
    """Share of the requests that are traced, of those whose caller has not decided by
    `traceparent`."""
    headers: dict[str, str] = Field(default={}, repr=False)
    """Sent with every export, as a key for the collector."""
    service_name: Annotated[str, Field(min_length=1)] = "viaserve"
    """Name of the service in the traces."""

    @field_validator("endpoint")
    @classmethod
    def _is_url(cls, endpoint: str | None) -> str | None:
        if endpoint is None:
            return None
        parts = http_url(endpoint)
        if (
            parts is None
            or parts.query
            or parts.fragment
            or " " in endpoint
            or not endpoint.isprintable()
        ):
            raise ValueError("should be a URL like http://collector:4317, https for TLS")
        return endpoint

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            # What gRPC takes; the HTTP exporter would fail at each export, where nobody looks.
            if not _NAME.fullmatch(name):
                raise ValueError(f"'{name}' should be a header's name: letters, digits, - _ .")
            if not value.isascii() or not value.isprintable() or value != value.strip():
                raise ValueError(f"'{name}' should be a header's value in printable ASCII")
        # gRPC refuses capitals; HTTP does not mind.
        return {name.lower(): value for name, value in headers.items()}

    @model_validator(mode="after")
    def _somebody_exports(self) -> TracingConfig:
        if self.exporter == "none" and (self.endpoint or self.headers):
            raise ValueError("endpoint and headers need exporter: otlp-grpc or otlp-http")
        return self

    def settings(self) -> TracingSettings:
        """The same as the tracer knows it."""
        endpoint = self.endpoint
        if endpoint and self.exporter == "otlp-http" and urlsplit(endpoint).path in ("", "/"):
            endpoint = endpoint.rstrip("/") + _HTTP_PATH
        return TracingSettings(
            exporter=self.exporter,
            endpoint=endpoint,
            sample_frac=self.sample_frac,
            headers=tuple(self.headers.items()),
            service_name=self.service_name,
        )
