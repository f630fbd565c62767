"""A start as `serve` tells it, without a server: run by test_checklist on a terminal and a pipe."""

from __future__ import annotations

from cluster.console.look import Away, Watcher
from cluster.console.start import Stage
from cluster.console.tellers import teller_here
from tests.console.stub import endpoint, status


def main() -> None:
    loading = {"worker_id": "cheap-1", "placed": True, "why": "loads"}
    told = status(status="loading", tiers={"draft": False, "full": True})
    told["pools"][1]["missing"].append(loading)
    told["pools"][1]["wanted"] = 2
    with endpoint() as stub, teller_here() as teller:
        for stage in (Stage.CONFIG, Stage.MODEL, Stage.RAY, Stage.APPLICATION, Stage.WORKERS):
            teller.begin(stage, "a note" if stage is Stage.MODEL else "")
        teller.saw(told, ["draft"])
        teller.saw(status(), [])
        teller.begin(Stage.ENDPOINT)
        teller.ready("http://here", 12.3, ["a model", "  large-1: cpu"])
        if teller.watches:
            teller.looked(Watcher(stub.url).look())
            teller.looked(Away("no server answers at here"))
        teller.stopping()


if __name__ == "__main__":
    main()
