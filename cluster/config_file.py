"""The one YAML file: a Serve config file whose application arguments are ours.

Below this module nothing is read from files by name again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cluster.config import IMPORT_PATH, Config, explain, parse
from cluster.errors import ConfigError


class HttpOptions(BaseModel):
    """Serve's HTTP options; these two are read here, the others are as Serve has them."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """Where the endpoint listens; 0.0.0.0 for every interface."""
    port: Annotated[int, Field(strict=True, ge=1, le=65535)] = 8000
    """Its port."""

    @model_validator(mode="after")
    def _others_are_serves(self) -> HttpOptions:
        if self.model_extra:
            from ray.serve.config import HTTPOptions  # slow, and rarely needed

            # Serve itself drops what it does not know.
            _known_to_serve(self.model_extra, HTTPOptions)
            HTTPOptions.model_validate(self.model_extra)
        return self


class ServeFile(BaseModel):
    """A Serve config file (ray.serve.schema.ServeDeploySchema) with one application of ours."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    http_options: dict[str, Any] = {}
    applications: list[dict[str, Any]]

    @model_validator(mode="after")
    def _others_are_serves(self) -> ServeFile:
        others = (self.model_extra or {}).keys() - {"proxy_location"}
        if others:
            from ray.serve.schema import ServeDeploySchema  # slow, and rarely needed

            _known_to_serve(others, ServeDeploySchema)
        return self

    @property
    def args(self) -> dict[str, Any]:
        """Our part of it."""
        return self.applications[0].get("args") or {}


def _known_to_serve(names: Iterable[str], section: type[BaseModel]) -> None:
    known = section.model_fields.keys()
    if unknown := sorted(set(names) - known):
        raise ValueError(f"{unknown[0]}: no such key here, only {', '.join(sorted(known))}")


def load(path: Path, overrides: Sequence[str] = ()) -> tuple[Config, dict[str, Any]]:
    """The config of a file with `key.path=value` overrides, and its HTTP options.

    `http.KEY=value` overrides the HTTP options. ConfigError in one line.
    """
    try:
        raw = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"config {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not text, or no such date
        raise ConfigError(f"config {path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"config {path}: not a mapping")
    args, http = raw, {}
    if "applications" in raw:
        try:
            file = ServeFile.model_validate(raw)
        except ValidationError as error:
            raise ConfigError(f"config {path}: {explain(error)}") from error
        if not file.applications or file.applications[0].get("import_path") != IMPORT_PATH:
            raise ConfigError(f"config {path}: applications.0.import_path must be {IMPORT_PATH}")
        args, http = file.args, file.http_options
    if not isinstance(args, dict):
        raise ConfigError(f"config {path}: applications.0.args: not a mapping")
    if "models" in args and "model" not in args:
        raise ConfigError(
            f"config {path}: this is a fleet file, for `advise` and `simulate`; "
            "`serve` reads a config, as config/default.yaml"
        )
    tree = {"http": dict(http), **args}
    for override in overrides:
        _set(tree, override)
    http = tree.pop("http")
    source = f"{path} with --set" if overrides else str(path)
    if not isinstance(http, dict):
        raise ConfigError(f"config {path}: http: not a mapping")
    try:
        HttpOptions.model_validate(http)
    except ValidationError as error:
        raise ConfigError(f"config {source}: {explain(error, 'http.')}") from error
    return parse(tree, source), http


def _set(tree: dict[str, Any], override: str) -> None:
    path, equals, value = override.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {override}: give key.path=value, like model.dtype=float32")
    node = tree
    for key in keys[:-1]:
        node = node.setdefault(key, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {override}: {key} is not a section")
    try:
        node[keys[-1]] = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"--set {override}: the value is not YAML") from error
