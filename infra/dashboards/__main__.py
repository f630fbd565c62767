"""`python -m infra.dashboards`: writes the dashboards' JSON; with `--check` only compares it."""

from __future__ import annotations

import sys
from pathlib import Path

from infra.dashboards.boards import BOARDS

FOLDER = Path(__file__).parent / "json"


def main(args: list[str]) -> int:
    """Exit status: 1 where `--check` finds a file that is not what the code makes, 2 for a
    wrong call."""
    if args not in ([], ["--check"]):
        print("usage: python -m infra.dashboards [--check]", file=sys.stderr)
        return 2
    try:
        from infra.dashboards.grafana import to_json
    except ModuleNotFoundError as error:
        print(f"{error}: run `make env-dev`, it has grafana-foundation-sdk", file=sys.stderr)
        return 2
    stale = 0
    FOLDER.mkdir(exist_ok=True)
    for board in BOARDS:
        path, text = FOLDER / f"{board.name}.json", to_json(board)
        if path.is_file() and path.read_text() == text:
            continue
        stale += 1
        print(f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
        if not args:
            path.write_text(text)
    return 1 if args and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
