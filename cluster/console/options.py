"""The options that several commands share: one name, one meaning, one check.

Exit codes of every command: 0 where all is well, 1 where something that was measured or
checked failed, 2 where the user's own fault is told in one line, 130 after Ctrl-C. With `--json`
stdout holds one JSON line and nothing else; progress goes to stderr.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cluster.errors import ConfigError
from cluster.files import DEFAULT_CONFIG
from cluster.urls import http_url

DEFAULT_URL = "http://127.0.0.1:8000"
MODEL_HELP = "A model folder, a GGUF file, or `default`, the embedded model."
DTYPE_HELP = "auto, float32, bfloat16 or float16; auto: bfloat16 where the processor has it."

PromptsOption = Annotated[Path, typer.Option(help="JSON lines with `turns`; the first is asked.")]
LimitOption = Annotated[
    int | None, typer.Option(min=1, help="So many of the prompts, spread over the file.")
]
SeedOption = Annotated[int, typer.Option(help="Of everything that is drawn.")]
MaxTokensOption = Annotated[int, typer.Option(help="Of each answer.")]
TemperatureOption = Annotated[float, typer.Option(help="Of each answer; 0: greedy.")]


def _check_url(url: str | None) -> str | None:
    # `localhost:8000` would be taken for a scheme, and told as one that nobody supports.
    if url is not None and http_url(url) is None:
        raise typer.BadParameter(f"{url} is no URL; give one like {DEFAULT_URL}")
    return url


UrlOption = Annotated[str, typer.Option(help="The endpoint.", callback=_check_url)]
LookedAtOption = Annotated[
    str | None, typer.Option("--url", help="A running endpoint to look at.", callback=_check_url)
]
ApiKeyOption = Annotated[
    str, typer.Option(envvar="VIASERVE_API_KEY", help="Where the endpoint asks for one.")
]
TimeoutOption = Annotated[float, typer.Option(help="Of one request.")]
WarmupOption = Annotated[int, typer.Option(help="Uncounted requests of each mode.")]
GammaOption = Annotated[int | None, typer.Option(help="Draft length.")]
BlockOption = Annotated[int | None, typer.Option(help="Block length.")]

ConfigOption = Annotated[Path, typer.Option(help="The YAML config.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="key.path=value, over the file; repeatable.")
]
AddressOption = Annotated[
    str | None, typer.Option(help="A running Ray cluster; default: an own one here.")
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
ThreadsOption = Annotated[int, typer.Option(min=0, help="Compute threads; 0: all cores.")]

OutOption = Annotated[Path | None, typer.Option(help="Write the JSON line into this file too.")]
PlotOption = Annotated[Path | None, typer.Option(help="Write plots there: a PNG, PDF or SVG.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Only one JSON line on stdout; the rest is on stderr.")
]

CONFIG = DEFAULT_CONFIG
PICTURES = (".png", ".pdf", ".svg")


def numbers(option: str, text: str) -> tuple[int, ...]:
    """Whole numbers from 1 up, each once, in their order; ConfigError where the text has
    others."""
    try:
        found = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise ConfigError(f"{option} {text}: give numbers from 1 up, like 1,2,4,8")
    return found


def names(text: str) -> tuple[str, ...]:
    """Of a comma-separated option, each without the spaces around it."""
    return tuple(name.strip() for name in text.split(","))


def fractions(option: str, text: str) -> tuple[float, ...]:
    """Numbers as they stand there, none for an empty text; ConfigError where it has others."""
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise ConfigError(f"{option} {text}: give numbers like 0.9,0.7") from None


def check_file(option: str, file: Path | None) -> None:
    """ConfigError where such a file cannot be written: told before the work, not after."""
    if file is None:
        return
    folder = file.absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"{option} {file}: no such folder")
    if file.is_dir():
        raise ConfigError(f"{option} {file}: is a folder; give a file")
    if not os.access(file if file.exists() else folder, os.W_OK):
        raise ConfigError(f"{option} {file}: may not be written")


def check_plot(file: Path | None) -> None:
    """The same of `--plot`, and ConfigError where it is to be no picture."""
    check_file("--plot", file)
    if file is not None and file.suffix.lower() not in PICTURES:
        raise ConfigError(f"--plot {file}: give a file that ends in {', '.join(PICTURES)}")


def give(text: str, line: str, *, json_only: bool, out: Path | None = None) -> None:
    """A result: the text for people unless `json_only`, else the JSON line; into `out` as well.
    ConfigError where that cannot be written."""
    print(line if json_only else text)
    if out is not None:
        try:
            out.write_text(line + "\n")
        except OSError as error:
            raise ConfigError(f"--out {out}: {error.strerror}") from error
