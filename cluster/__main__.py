"""The command line: `python -m cluster …`. Slow imports come when a command runs."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, Any

import typer

from cluster import __version__
from cluster.advice.advise_command import advise
from cluster.advice.calibrate_command import calibrate
from cluster.bench_command import bench
from cluster.console.options import (
    CONFIG,
    AddressOption,
    ConfigOption,
    JsonOption,
    OutOption,
    SetOption,
    check_file,
    give,
)
from cluster.console.top_command import top
from cluster.doctor.command import doctor
from cluster.quality.command import quality
from cluster.simulate.command import simulate
from cluster.trio.commands import corpus, distill, heal
from cluster.trio.routes.command import route

FAULT = 2
"""The exit code of a user's own fault, told in one line."""
INTERRUPTED = 130
"""That after Ctrl-C, as shells have it; typer returns it too."""

_UsageError: Any = typer.BadParameter.__base__  # typer names only this one of them


def fetch() -> None:
    """Make the embedded default model in the cache folder, once; print where it is."""
    from cluster.fetch import fetch_default

    print(fetch_default(progress=lambda line: typer.echo(line, err=True)))


def serve(
    config: ConfigOption = CONFIG, set_: SetOption = None, address: AddressOption = None
) -> None:
    """Serve in the foreground until Ctrl-C or SIGTERM."""
    from cluster.console.start import Stage
    from cluster.console.tellers import teller_here

    with teller_here() as teller:
        teller.begin(Stage.CONFIG, str(config))
        from cluster.config_file import load

        parsed, http = load(config, set_ or [])  # before the slow imports: a fault is told at once
        from cluster.serving import run

        run(parsed, http, address, teller)


def hop(
    count: Annotated[int, typer.Option(min=10, help="Calls to time.")] = 2000,
    out: OutOption = None,
    json_only: JsonOption = False,
) -> None:
    """Time an empty step from a router to a worker and back, on a Ray of its own."""
    check_file("--out", out)
    from cluster.hop import measure, render, to_json

    taken = measure(count)
    give(render(taken), to_json(taken), json_only=json_only, out=out)


def config_reference() -> None:
    """Print every key of the config with type, default and meaning, as Markdown."""
    from cluster.reference import reference

    print(reference(), end="")


def version() -> None:
    """Print the version."""
    print(__version__)


COMMANDS = {
    "Serve and watch": (serve, top, doctor),
    "Measure": (bench, quality, hop),
    "Plan a fleet": (calibrate, advise, simulate),
    "Make a trio": (corpus, route, heal, distill),
    "This installation": (fetch, config_reference, version),
}
"""By the heading that the help shows them under."""

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for heading, commands in COMMANDS.items():
    for command in commands:
        cli.command(rich_help_panel=heading)(command)


def main() -> None:
    """Run the command line; Ctrl-C, the user's and the files' faults are one line, not a trace."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        code = _run()
    except KeyboardInterrupt:  # outside of a command, as when the slow imports of errors come
        code = INTERRUPTED
    if code == INTERRUPTED:
        typer.echo("viaserve: interrupted", err=True)
    raise SystemExit(code)


def _run() -> Any:
    """The exit code, or None. Faults leave as SystemExit."""
    try:
        code = cli(standalone_mode=False)
        sys.stdout.flush()  # here a full disk can still be told
        return code
    except _UsageError as error:
        if len(sys.argv) == 1:  # the help is the error's text
            error.show()
            raise SystemExit(FAULT) from None
        raise _told(f"{error.format_message()} (see --help)") from None
    except _user_errors() as error:
        raise _told(str(error)) from None
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EDQUOT):
            raise
        # What could not be written is tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if error.errno == errno.EPIPE:  # as `| head`: nobody reads on, and nothing is wrong
            raise SystemExit(1) from None
        raise _told(f"{error.filename or 'stdout'}: {error.strerror}") from None


def _told(line: str) -> SystemExit:
    typer.echo(f"viaserve: {line}", err=True)
    return SystemExit(FAULT)


def _user_errors() -> tuple[type[Exception], ...]:
    """What is the user's or the files' fault; imported only once something failed."""
    from actors.engine.route import ModelError
    from cluster.errors import ConfigError
    from cluster.fetch import FetchError
    from infra.bench import BenchError

    return ConfigError, ModelError, FetchError, BenchError


if __name__ == "__main__":
    main()
