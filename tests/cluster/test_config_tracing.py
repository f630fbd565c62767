"""Laws of the config's section `tracing`: bad values are named, good ones arrive."""

from __future__ import annotations

import pytest

from cluster.config import DEFAULT_CONFIG, ConfigError
from cluster.config_file import load


def settings(*overrides: str):
    config, _ = load(DEFAULT_CONFIG, [f"tracing.{override}" for override in overrides])
    return config.tracing.settings()


def test_nothing_is_traced_by_default():
    assert settings().exporter == "none"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("http://c:4318", "http://c:4318/v1/traces"),
        ("http://c:4318/", "http://c:4318/v1/traces"),
        ("https://c/otlp/v1/traces", "https://c/otlp/v1/traces"),
    ],
)
def test_http_endpoint_may_be_the_collector_or_the_path_of_its_traces(given, sent):
    assert settings("exporter=otlp-http", f"endpoint={given}").endpoint == sent


def test_all_of_it_arrives():
    got = settings(
        "exporter=otlp-grpc",
        "endpoint=http://c:4317",
        "sample_frac=0.25",
        "headers={Api-Key: abc}",
        "service_name=chat",
    )
    assert (got.exporter, got.endpoint, got.sample_frac) == ("otlp-grpc", "http://c:4317", 0.25)
    assert (got.headers, got.service_name) == ((("api-key", "abc"),), "chat")
    assert "abc" not in repr(got)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["exporter=zipkin"], "tracing.exporter: Input should be 'none', 'otlp-grpc'"),
        (["exporter=otlp-http", "endpoint=collector:4318"], "tracing.endpoint: should be a URL"),
        (["exporter=otlp-http", "endpoint='http://c:x'"], "tracing.endpoint: should be a URL"),
        (["exporter=otlp-http", "sample_frac=10"], "tracing.sample_frac: Input should be less"),
        (["exporter=otlp-http", "sample_frac=true"], "tracing.sample_frac: Input should be a"),
        (["exporter=otlp-http", "headers={a: 'é'}"], "tracing.headers: 'a' should be a header"),
        (["exporter=otlp-http", "headers={'a b': c}"], "tracing.headers: 'a b' should be a header"),
        (["exporter=otlp-http", "headers={a: 'b '}"], "tracing.headers: 'a' should be a header"),
        (["exporter=otlp-http", "endpoint='http://a b:1'"], "tracing.endpoint: should be a URL"),
        (["exporter=otlp-http", "endpoint='http://c/?key=1'"], "tracing.endpoint: should be a URL"),
        (["exporter=otlp-http", "rate=1"], "tracing.rate: no such key here"),
        (["exporter=otlp-http", "service_name=''"], "tracing.service_name: "),
        (["endpoint=http://c:4317"], "tracing: endpoint and headers need exporter"),
    ],
)
def test_a_bad_value_is_named(overrides, named):
    with pytest.raises(ConfigError, match="tracing") as error:
        settings(*overrides)
    assert named in str(error.value)
