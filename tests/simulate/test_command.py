"""Laws of `simulate` as a command: fleet files, errors that name the key, tables, benches."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import psutil
import pytest
import yaml
from typer.testing import CliRunner

from cluster.__main__ import cli
from cluster.advice.bench_check import read_bench
from cluster.advice.calibration import Calibration, Places, write
from cluster.advice.fleet import Fleet, load_fleet
from cluster.config import ROOT, ConfigError
from cluster.simulate.bench import meet
from cluster.simulate.report import ROOFLINE
from cluster.simulate.sources import of_calibration, of_fleet, two_tier
from policies.rounds import Outlook, outlook
from policies.vocabulary import PlanKind, Tier
from tests.cluster.test_advise import bench, calibrated

FLEETS = ROOT / "config" / "fleets"
SIMULATE = {
    "traffic": {"requests": 40, "per_second": 20, "output_tokens": 20},
    "cheap": {"workers": 1},
    "large": {"workers": 1, "slots": 16},
}


def described(**changes) -> dict:
    raw = yaml.safe_load((FLEETS / "l4-h100.yaml").read_text())
    return raw | {"simulate": SIMULATE} | changes


def run(*args):
    return CliRunner().invoke(cli, ["simulate", *map(str, args)], catch_exceptions=True)


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(described()))
    return path


@pytest.mark.parametrize(("name", "cards"), [("thousand", 1000), ("hundred", 104)])
def test_the_examples_load_and_have_as_many_cards_as_they_say(name, cards):
    setup = of_fleet(load_fleet(FLEETS / f"{name}.yaml"))
    assert setup.cheap is not None
    assert (
        setup.large.workers * setup.large.cards + setup.cheap.workers * setup.cheap.cards == cards
    )


def test_one_run_prints_three_fleets_and_draws_them(small, tmp_path):
    plot = tmp_path / "plot.png"
    found = run(small, "--plot", plot)
    assert found.exit_code == 0, found.output
    for part in ("auto", "off", "two_tier", ROOFLINE):
        assert part in " ".join(found.output.split())
    assert plot.read_bytes().startswith(b"\x89PNG")
    first_words = [line.split()[0] for line in found.stdout.splitlines() if line.strip()]
    assert [first_words.count(name) for name in ("auto", "off", "two_tier")] == [1, 1, 1]
    assert len(first_words) == 6, "title, headings, rule and a line a fleet"


def test_ctrl_c_ends_the_simulations_of_all_processes(tmp_path):
    """thousand.yaml takes minutes: who stops it is not to wait for them."""
    out = tmp_path / "out.json"
    command = [sys.executable, "-m", "cluster", "simulate", str(FLEETS / "thousand.yaml")]
    command += ["--jobs", "2", "--out", str(out)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        start_new_session=True,
        # Shells have it ignored in what they start in the background, tests for example.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    family = psutil.Process(process.pid)
    try:
        while len(family.children()) < 3:  # two simulations and multiprocessing's own helper
            assert process.poll() is None
            time.sleep(0.05)
        children = family.children()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: all of the group get it
        said, told = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, said) == (130, "")
    assert told.endswith("viaserve: interrupted\n")
    assert "Traceback" not in told
    assert psutil.wait_procs(children, timeout=10)[1] == []
    assert not out.exists()


def test_json_has_the_figures_in_units(small):
    found = run(small, "--json", "--fleets", "off", "--requests", 10)
    [outcome] = json.loads(found.stdout)["outcomes"]
    assert outcome["requests"] == 10
    assert outcome["shares"] == {"off": 1.0}
    assert outcome["workers"].keys() == {"large"}
    assert 0 < outcome["ttft_s"]["p50"] <= outcome["ttft_s"]["p99"]
    for name in ("token_s", "gap_s"):
        assert 0 < outcome[name]["p50"] <= outcome[name]["p99"]
    assert 0 < outcome["util_frac"]["large"] <= 1.01


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("traffic", "per_second"), 0, "simulate.traffic.per_second"),
        (("traffic", "per_second"), float("inf"), "simulate.traffic.per_second.*finite"),
        (("traffic", "output_tokens"), 1e300, "simulate.traffic.output_tokens.*1000000"),
        (("traffic", "requests"), 10**30, "simulate.traffic.requests.*10000000"),
        (("large", "workers"), 10**30, "simulate.large.workers.*100000"),
        (("large",), [], "simulate.large: must be a mapping"),
        (("traffic", "colour"), 1, "simulate.traffic.colour"),
        (("traffic", "swing"), 1.0, "simulate.traffic.swing"),
        (("large", "workers"), 0, "simulate.large.workers"),
        (("cheap", "max_workers"), 0, "simulate.cheap"),
        (("autoscale",), {"target_frac": 2}, "simulate.autoscale.target_frac"),
    ],
)
def test_a_fault_in_the_file_names_its_key(tmp_path, path, value, named):
    raw = json.loads(json.dumps(described()))
    at = raw["simulate"]
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    file = tmp_path / "fleet.yaml"
    file.write_text(yaml.safe_dump(raw))
    with pytest.raises(ConfigError, match=named):
        load_fleet(file)


@pytest.mark.parametrize("name", ["default", "two-pools"])
def test_a_config_is_no_fleet_file_and_is_told_so(name):
    with pytest.raises(ConfigError, match="this is a config, for `serve`"):
        load_fleet(ROOT / "config" / f"{name}.yaml")


def test_what_cannot_be_simulated_is_said():
    with pytest.raises(ConfigError, match="simulate"):
        of_fleet(load_fleet(FLEETS / "l4-h100.yaml"))
    own = {"memory_bandwidth_gb_per_s": 300, "bf16_tflop_per_s": 100}
    pools = described()["pools"] | {"cheap": own}
    with pytest.raises(ConfigError, match=r"pools\.cheap\.memory_gb"):
        of_fleet(Fleet.model_validate(described(pools=pools)))
    small = described()["pools"] | {"large": {"card": "L4", "price_per_hour": 1}}
    with pytest.raises(ConfigError, match=r"pools\.large: the weights leave no room"):
        of_fleet(Fleet.model_validate(described(pools=small)))


def test_faults_of_options_are_one_line(small, tmp_path):
    for args, named in (
        ((small, "--fleets", "auto,nothing"), "nothing"),
        ((small, "--plot", tmp_path / "no" / "plot.png"), "no such folder"),
        ((small, "--plot", tmp_path), "is a folder; give a file"),
        ((small, "--bench", small, "--plot", tmp_path / "plot.png"), "--plot: for fleet files"),
        ((small, "--requests", 1), "simulate more requests"),
    ):
        found = run(*args)
        assert isinstance(found.exception, ConfigError)
        assert named in str(found.exception)


def test_the_two_tier_fleet_plays_the_length_that_the_cost_model_finds():
    fleet = Fleet.model_validate(described())
    plan = two_tier(of_fleet(fleet), fleet.source()).plan
    assert plan is not None
    assert plan.kind is PlanKind.TWO_TIER
    model = fleet.source().model_at(8)
    costs = [model.cost(type(plan)(plan.kind, g, g), 8) for g in (plan.gamma, 1, 8)]
    assert costs[0] == min(costs)


def answers(count=40, length=50) -> tuple[Places, ...]:
    """As the toy calibration's rates say, place by place."""
    rng = random.Random(0)

    def seen(rate: float, longest: int) -> Outlook:
        return outlook([rng.random() < rate for _ in range(length)], longest)

    return tuple(
        Places(100, length, seen(0.7, 8), seen(0.75, 8), seen(0.95, 16), None) for _ in range(count)
    )


def measured(length=50, **more) -> tuple[Calibration, dict]:
    """A calibration with answers of `length` tokens and what a bench would print if its cost
    model were the truth."""
    quick = dict.fromkeys(Tier, 1e-6)
    found = calibrated(prefill_token_s=quick, answers=answers(length=length), **more)
    report = bench(found)
    report["modes"] = [row | {"requests": 40, "tokens": 40 * length} for row in report["modes"]]
    return found, report


def test_a_bench_that_is_as_the_cost_model_says_is_met():
    """Sessions in lockstep against sessions that come and go: not the same, but near. (`auto`
    probes and changes plans: no cost model says what that costs.) The answers are long, for a
    prompt costs a forward that the cost model leaves out."""
    met = meet(*measured(length=200))
    assert {each.mode for each in met} >= {"off", "two_tier", "three_tier"}
    for each in (each for each in met if each.mode != "auto"):
        errors = each.errors()
        assert errors["tokens_per_s"] is not None
        assert errors["token_s"] is not None
        assert abs(errors["tokens_per_s"]) < 0.25, each
        assert abs(errors["token_s"]) < 0.25, each


def test_one_worker_of_all_tiers_is_met_in_its_own_layout():
    found, report = measured()
    together = replace(found, served=replace(found.served, one_worker=True))
    setup = of_calibration(together)
    assert setup.cheap is None
    assert set(setup.large.tiers) == set(Tier)
    report = bench(together)
    report["modes"] = [row | {"requests": 40, "tokens": 2000} for row in report["modes"]]
    for each in meet(together, report):
        assert each.concurrency > 1 or abs(each.errors()["tokens_per_s"] or 0.0) < 0.25, each


def test_answers_are_as_long_as_measured_or_as_asked():
    found, report = measured()
    found = replace(found, settings=replace(found.settings, max_tokens=60))
    report["options"]["max_tokens"] = 30
    for each in meet(found, report):
        # 30 tokens an answer: the first alone, then bursts or rounds.
        assert each.simulated.ttft_s is not None
        assert each.simulated.token_s is not None
        answer_s = each.simulated.ttft_s.p50 + 29 * each.simulated.token_s.p50
        tokens_per_s = each.concurrency * 30 / answer_s
        assert each.simulated.tokens_per_s == pytest.approx(tokens_per_s, rel=0.25)


def test_without_answers_there_is_nothing_to_play():
    with pytest.raises(ConfigError, match="run `calibrate` again"):
        of_calibration(calibrated())


def test_the_command_meets_a_bench(tmp_path):
    found, report = measured()
    calibration, printed = tmp_path / "calibration.json", tmp_path / "bench.txt"
    write(found, calibration)
    printed.write_text("a table\n" + json.dumps(report) + "\n")
    shown = run(calibration, "--bench", printed)
    assert shown.exit_code == 0, shown.output
    assert "measured" in shown.output
    assert len(shown.output.strip().splitlines()) == 2 + len(report["modes"])
    [first, *_] = json.loads(run(calibration, "--bench", printed, "--json").stdout)
    assert first["mode"] == "off"
    assert abs(first["error_frac"]["tokens_per_s"]) < 0.25
    assert first["simulated"]["ttft_s"]["p50"] > 0


@pytest.mark.parametrize(
    ("at", "value", "says"),
    [
        (("options",), None, "options must have random_plan"),
        (("options", "gamma"), "4", "options.gamma must be null or from 1 up"),
        (("modes",), "off", "modes must be a list of mappings"),
        (("modes", 0, "mode"), None, "modes.0.mode must be a name"),
        (("modes", 0, "concurrency"), "one", "modes.0.concurrency must be above 0"),
        (("modes", 0, "tokens_per_s"), 0, "modes.0.tokens_per_s must be above 0"),
        (("modes", 0, "token_s"), 3, "modes.0.token_s must be a mapping"),
    ],
)
def test_a_bench_of_another_shape_names_its_key(tmp_path, at, value, says):
    _, report = measured()
    node = report = json.loads(json.dumps(report))
    for key in at[:-1]:
        node = node[key]
    node[at[-1]] = value
    file = tmp_path / "bench.txt"
    file.write_text(json.dumps(report))
    with pytest.raises(ConfigError, match=says):
        read_bench(file)


def test_a_bench_that_is_no_text_is_refused(tmp_path):
    file = tmp_path / "bench.txt"
    file.write_bytes(bytes(range(256)))
    with pytest.raises(ConfigError, match="not text"):
        read_bench(file)


def test_a_fleet_that_is_named_twice_plays_once(small):
    found = run(small, "--fleets", "off, off", "--json")
    assert found.exit_code == 0, found.output
    assert [each["name"] for each in json.loads(found.stdout)["outcomes"]] == ["off"]
