"""Laws of `top`: what it shows is what /ready says, and a server that goes away ends nothing."""

from __future__ import annotations

import io
import json
import signal

import pytest
from rich.console import Console
from typer.testing import CliRunner

from cluster.__main__ import cli
from cluster.console.fleet import fleet_of
from cluster.console.frame import frame
from cluster.console.look import Away, Look, Watcher
from cluster.console.screenful import Screenful
from cluster.errors import ConfigError
from tests.console.stub import CARD, endpoint, status, worker
from tests.console.terminal import on_terminal


def test_one_frame_tells_pools_workers_requests_plan_and_audit():
    with endpoint() as stub:
        shown = CliRunner().invoke(cli, ["top", "--url", stub.url, "--once"])
    assert shown.exit_code == 0, shown.output
    assert "\x1b" not in shown.stdout
    text = " ".join(shown.stdout.split())
    for told in (
        "degraded (without draft) 3 running, 7 queued - tokens/s plan two_tier",
        "large 2/2 42 % 10 % 3 1",
        "cheap 0/1 -",
        "large-2 full cpu 42 % 3 1 2 12.3 ms 1.1 ms 2 late, slow",
        "cheap-1 cheap no node has L4",
        "100 tokens in 40 rounds; of the drafted tokens judged 75 % kept",
        "rounds of auto: two_tier 30, off 10; predicted a token: off 31.0 ms, two_tier 21.0 ms",
        "audit of via: level 1 of 4, 9 of 500 tokens differ, bound 0.0310 (epsilon 0.02)",
    ):
        assert told in text


@pytest.mark.parametrize("width", [44, 60, 80, 120])
def test_a_narrow_terminal_loses_columns_and_no_figure_is_folded(width: int):
    drawn = io.StringIO()
    console = Console(file=drawn, width=width)
    console.print(frame(Look(fleet_of(status()), 0.0), "http://x"))
    lines = drawn.getvalue().splitlines()
    (large,) = (line for line in lines if line.startswith(" large "))
    assert large.split()[1:3] == ["2/2", "42"]
    (slow,) = (line for line in lines if line.startswith(" large-2 "))
    assert slow.rstrip().endswith("2 late, slow")


@pytest.mark.parametrize(("lines", "workers"), [(24, 2), (24, 40), (30, 40), (12, 3)])
def test_a_low_terminal_counts_the_workers_it_leaves_out_and_keeps_the_keys(lines, workers):
    names = [f"w-{i:02d}" for i in range(workers)]
    unwell = {names[-1]: {"slow": True}, names[-2]: {"late": 1}}
    all_of_them = [worker(name, "large", ["full"], **unwell.get(name, {})) for name in names]
    look = Look(fleet_of(status(workers=all_of_them)), 0.0)
    drawn = io.StringIO()
    console = Console(file=drawn, width=80, height=lines)
    console.print(Screenful(look, "http://x"), end="")
    rows = drawn.getvalue().splitlines()
    assert len(rows) <= lines
    assert rows[-1].startswith("q ends")
    shown = [row.split()[0] for row in rows if row.startswith(" w-")]
    if lines == 12:
        assert "a taller terminal shows more" in rows[-1]
    elif workers > 2:
        left_out = sorted(set(unwell) - set(shown))
        assert not left_out or set(shown) <= set(unwell), "the unwell come first"
        (more,) = (row for row in rows if "more worker" in row)
        assert more.split()[1] == str(workers - len(shown))
        assert f"{len(left_out) or 'none'} of them unwell" in more
        assert any("audit of via" in row for row in rows)
    else:
        assert set(shown) == set(names)


def test_json_is_one_object_and_nothing_else():
    with endpoint() as stub:
        shown = CliRunner().invoke(cli, ["top", "--url", f"{stub.url}/v1", "--json"])
        assert shown.exit_code == 0
        told = json.loads(shown.stdout)
        assert (told["url"], told["state"], told["running"]) == (stub.url, "degraded", 3)
    assert told["workers"][1]["health"] == "2 late, slow"
    assert told["costs"]["kept_frac"] == 0.75


def test_the_key_is_sent_where_there_is_one():
    with endpoint() as stub:
        CliRunner().invoke(cli, ["top", "--url", stub.url, "--json", "--api-key", "k"])
        assert stub.keys == ["Bearer k"]


@pytest.mark.parametrize("how", ["--once", "--json"])
def test_nobody_there_is_exit_code_1(how: str):
    with endpoint() as stub:
        gone = stub.url
    shown = CliRunner().invoke(cli, ["top", "--url", gone, how])
    assert shown.exit_code == 1
    assert f"no server answers at {gone}" in (shown.stdout if how == "--json" else shown.stderr)


@pytest.mark.parametrize("page", ["no JSON", {"status": "ok"}, [], None])
def test_another_server_is_told_apart(page: object):
    with endpoint(ready=page) as stub, pytest.raises(Away, match="/ready"):
        Watcher(stub.url).look()


def test_without_a_terminal_top_asks_for_once_or_json():
    shown = CliRunner().invoke(cli, ["top"])
    assert isinstance(shown.exception, ConfigError)


def test_speed_is_tokens_over_the_time_between_two_looks():
    now = [10.0]
    with endpoint() as stub:
        watcher = Watcher(stub.url, clock=lambda: now[0])
        assert watcher.look().tokens_per_s is None
        now[0], stub.pages["/ready"] = 12.0, status(tokens=150)
        assert watcher.look().tokens_per_s == 25.0
        now[0], stub.pages["/ready"] = 13.0, status(tokens=70)
        assert watcher.look().tokens_per_s == 0.0, "another router, or one that began anew"


def test_a_server_that_has_just_begun_is_a_fleet_too():
    silent = {"workers": [], "waiting": [], "why": "no router answers"}
    told = {"status": "loading", "tiers": {"full": False}, "pools": [], **silent}
    fleet = fleet_of(told)
    assert (fleet.state, fleet.why, fleet.running) == ("loading", "no router answers", None)


def test_a_pool_that_nobody_uses_has_no_time_of_a_step():
    idle = {"name": "large", "wanted": 1, "running": 1, "missing": [], "queue_s": 0.0}
    (pool,) = fleet_of(status(pools=[idle | {"step_s": 0.0}])).pools
    assert (pool.step_s, pool.queue_s) == (None, 0.0)


def test_a_card_names_the_device_and_what_holds_it_down_is_its_health():
    probe = {"util_mean_frac": 0.9, "util_of": "gpu", "cards": [CARD, CARD]}
    told = status(workers=[worker("a", "large", ["full"], device="cuda:0", probe=probe)])
    (seen,) = fleet_of(told).workers
    assert (seen.device, seen.health) == ("NVIDIA L4", "power cap")


def test_live_view_survives_a_server_that_goes_away_and_q_ends_it():
    with endpoint() as stub:
        url = stub.url
        with on_terminal("-m", "cluster", "top", "--url", url, "--every-s", "0.1") as terminal:
            assert "large-2" in terminal.until("audit of via")
            stub.pages["/ready"] = "gone mad"
            terminal.until("without JSON; trying again")
            stub.pages["/ready"] = status(running=99)
            terminal.until("99 running")
            terminal.press("q")
            assert terminal.end() == 0
            assert terminal.drawn.count("\x1b[?1049l") == 1, "the screen is given back"


def test_ctrl_c_ends_the_live_view_as_q_does():
    with endpoint() as stub, on_terminal("-m", "cluster", "top", "--url", stub.url) as terminal:
        terminal.until("q ends")
        terminal.child.send_signal(signal.SIGINT)
        assert terminal.end() == 0


def test_sigterm_gives_the_screen_back():
    with endpoint() as stub, on_terminal("-m", "cluster", "top", "--url", stub.url) as terminal:
        terminal.until("q ends")
        terminal.child.send_signal(signal.SIGTERM)
        assert terminal.end() == 128 + signal.SIGTERM
        assert terminal.drawn.count("\x1b[?1049l") == 1
        assert terminal.drawn.count("\x1b[?25h") == 1, "the cursor, too"


def test_ctrl_z_gives_the_screen_back_and_going_on_takes_it_again():
    with endpoint() as stub, on_terminal("-m", "cluster", "top", "--url", stub.url) as terminal:
        terminal.until("q ends")
        # The terminal's child leads its session: nobody could wake it, so it is not stopped.
        terminal.child.send_signal(signal.SIGTSTP)
        terminal.until_drawn("\x1b[?1049h", 2)
        assert terminal.drawn.count("\x1b[?1049l") == 1
        terminal.press("q")
        assert terminal.end() == 0
        assert terminal.drawn.count("\x1b[?1049l") == 2
