"""Laws of `advise` as a command: fleet files, checks against a bench, tables, plots."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cluster.__main__ import cli
from cluster.advice.advise_report import ROOFLINE
from cluster.advice.bench_check import check, read_bench
from cluster.advice.calibration import (
    Agreement,
    Calibration,
    Hop,
    Served,
    Settings,
    StepTime,
    write,
)
from cluster.advice.fleet import cards, load_fleet
from cluster.config import ROOT, ConfigError
from policies.costs import cheapest
from policies.rounds import Curves
from policies.vocabulary import Plan, PlanKind, Tier

EXAMPLE = ROOT / "config" / "fleets" / "l4-h100.yaml"
FULL_S, SLIM_S, DRAFT_S = 0.040, 0.020, 0.004


def steps(tier: Tier, seconds: float) -> list[StepTime]:
    sizes = [(1, 1), (1, 16), (4, 4), (4, 64)]
    return [StepTime(tier, s, r, seconds * (1 + r / 100), seconds) for s, r in sizes]


def calibrated(**more: Any) -> Calibration:
    """A trio with a good draft and a cheap slim."""
    times = {Tier.FULL: FULL_S, Tier.SLIM: SLIM_S, Tier.DRAFT: DRAFT_S}
    return Calibration(
        **{
            "served": Served("toy", "f", "float32", "model", 4, 8, 8, 16, 4),
            "settings": Settings("p.jsonl", 1, 8, 0.0, 0, 64, 1, dict.fromkeys(times, 1)),
            "agreement": Agreement(99, 0.7, 0.75, 0.95, ()),
            "categories": {},
            "curves": Curves(),
            "hit_frac": 1.0,
            "length_frac": 1.0,
            "steps": tuple(s for tier, seconds in times.items() for s in steps(tier, seconds)),
            "lookup_s": None,
            "hop": Hop(0.001, 0.0005, "measured"),
            "prompt_tokens": 100.0,
            "prefill_token_s": {Tier.FULL: 0.002, Tier.SLIM: 0.001, Tier.DRAFT: 0.0002},
        }
        | more
    )


def row(found: Calibration, mode: str, load: int, plan: Plan) -> dict[str, Any]:
    """What a bench would print if the prediction were true: 50 tokens an answer."""
    prefill = found.prefill_token_s
    token_s = found.model_at(load).cost(plan, load)
    prompts = load * found.prompt_tokens
    behind_s = prompts * sum(prefill[tier] for tier in plan.kind.tiers)
    whole_s = prompts * prefill[Tier.FULL] + behind_s + 50 * token_s
    decode = {"p50": token_s + behind_s / 49, "p90": 1.0}
    figures = {"requests": 2, "errors": 0, "tokens": 100, "token_s": decode}
    return {
        "mode": mode,
        "concurrency": load,
        "tokens_per_s": load * 50 / whole_s,
        **figures,
    }


def bench(found: Calibration, gamma: int | None = None, block: int | None = None) -> dict[str, Any]:
    rows = []
    for load in (1, 4):
        model = found.model_at(load)
        best = min((cheapest(model, k, load, 8, 16) for k in KINDS), key=lambda pair: pair[1])[0]
        plans = {
            "off": Plan(PlanKind.OFF),
            "two_tier": Plan(PlanKind.TWO_TIER, gamma or 4, gamma or 4),
            "three_tier": Plan(PlanKind.THREE_TIER, gamma or 4, block or 8),
            "auto": best,
        }
        rows += [row(found, mode, load, plan) for mode, plan in plans.items()]
    return {"options": {"gamma": gamma, "block": block, "random_plan": False}, "modes": rows}


KINDS = (PlanKind.OFF, PlanKind.TWO_TIER, PlanKind.THREE_TIER)


@pytest.mark.parametrize(("gamma", "block"), [(None, None), (2, 5)])
def test_a_bench_that_behaves_as_predicted_has_no_error(gamma, block):
    found = calibrated()
    checks = check(found, bench(found, gamma, block))
    assert [(c.concurrency, c.mode) for c in checks] == [
        (load, mode) for load in (1, 4) for mode in ("two_tier", "three_tier", "auto")
    ]
    for each in checks:
        assert each.error_frac == pytest.approx(0, abs=1e-9)
        assert each.decode_error_frac == pytest.approx(0, abs=1e-9)
        assert each.predicted_tokens_per_s == pytest.approx(each.measured_tokens_per_s)


def test_the_error_is_that_of_the_ratio():
    found = calibrated()
    report = bench(found)
    two = report["modes"][1]
    report["modes"] = [report["modes"][0], two | {"tokens_per_s": 2 * two["tokens_per_s"]}]
    [each] = check(found, report)
    assert each.error_frac == pytest.approx(-0.5)


def test_lossy_modes_and_those_without_off_beside_them_are_left_out():
    found = calibrated()
    report = bench(found)
    plain, two = report["modes"][:2]
    report["modes"] = [plain, two | {"mode": "via"}, two | {"concurrency": 2}]
    assert check(found, report) == ()
    with pytest.raises(ConfigError, match="mode off is not among"):
        check(found, report | {"modes": [two]})
    with pytest.raises(ConfigError, match="random plan"):
        check(found, report | {"options": {"random_plan": True}})


def test_a_tier_that_was_not_calibrated_is_told():
    found = calibrated(steps=tuple(steps(Tier.FULL, FULL_S) + steps(Tier.DRAFT, DRAFT_S)))
    with pytest.raises(ConfigError, match="three_tier needs tiers that were not calibrated"):
        check(found, bench(calibrated()))


def test_the_bench_is_read_from_all_that_it_printed(tmp_path):
    path = tmp_path / "bench.txt"
    options = '{"random_plan": false, "gamma": null, "block": null}'
    path.write_text('table\n{"options": ' + options + ', "modes": [], "failed": false}\n\n')
    assert read_bench(path)["modes"] == []
    for text in ("table only\n", '{"modes": []}\n', "{broken\n"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="no JSON line of"):
            read_bench(path)
    path.write_bytes(b"\x89PNG\xff")
    with pytest.raises(ConfigError, match="not text"):
        read_bench(path)


def run(*arguments: object) -> str:
    done = CliRunner().invoke(cli, ["advise", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_says_all_of_it_and_draws(tmp_path):
    found = calibrated()
    write(found, tmp_path / "c.json")
    (tmp_path / "bench.txt").write_text(json.dumps(bench(found)) + "\n")
    prices = ("--price-cheap", 1, "--price-large", 10)
    plot = tmp_path / "advice.png"
    given = (tmp_path / "c.json", "--loads", "4,1", "--bench", tmp_path / "bench.txt", *prices)
    told = run(*given, "--plot", plot)
    assert "from measured step times" in told
    assert "Against the bench" in told
    assert plot.read_bytes().startswith(b"\x89PNG")
    answer = json.loads(run(*given, "--json"))
    assert answer["format"] == "viaserve-advice-1"
    assert [load["load"] for load in answer["loads"]] == [1, 4]
    assert len(answer["checks"]) == 6
    assert all(p["price_per_mtok"] > 0 for load in answer["loads"] for p in load["plans"])


def test_a_fleets_advice_says_that_nobody_measured_it(tmp_path):
    told = run("--fleet", EXAMPLE, "--loads", "1,32", "--plot", tmp_path / "fleet.png")
    assert ROOFLINE in told
    assert "never" in told
    assert json.loads(run("--fleet", EXAMPLE, "--json"))["basis"] == ROOFLINE


def example(**more: Any) -> dict[str, Any]:
    return yaml.safe_load(EXAMPLE.read_text()) | more


def test_published_figures_have_a_source_and_positive_values():
    for figures in cards().values():
        assert figures["source"]
        assert figures["memory_bandwidth_gb_per_s"] > 0
        assert figures["bf16_tflop_per_s"] > 0


def test_a_card_is_its_published_figures_and_ones_own_stand_before(tmp_path):
    raw = example()
    raw["pools"]["large"] = {"card": "H100-SXM", "cards": 2, "bf16_tflop_per_s": 800}
    path = tmp_path / "fleet.yaml"
    path.write_text(yaml.safe_dump(raw))
    hardware = load_fleet(path).pools.large.hardware()
    assert (hardware.bandwidth_bytes_per_s, hardware.flop_per_s) == (3.35e12, 8e14)
    assert hardware.cards == 2


def test_a_fleet_without_slim_has_two_kinds_of_plans(tmp_path):
    raw = example()
    del raw["models"]["slim"]
    path = tmp_path / "fleet.yaml"
    path.write_text(yaml.safe_dump(raw))
    answer = json.loads(run("--fleet", path, "--loads", "1", "--json"))
    [load] = answer["loads"]
    assert [plan["plan"]["kind"] for plan in load["plans"]] == ["off", "two_tier"]
    assert load["slim_pays"] is None


def test_a_folder_gives_the_models_size(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(2_000))
    shape = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32}
    shape |= {"num_hidden_layers": 3, "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(shape))
    raw = example()
    raw["models"]["draft"] = {"folder": str(folder), "weight_bits": 8}
    path = tmp_path / "fleet.yaml"
    path.write_text(yaml.safe_dump(raw))
    size = load_fleet(path).models.draft.size()
    assert (size.parameters, size.weight_bytes) == (1_000, 1_000)
    assert size.kv_bytes_per_token == 2 * 2 * 3 * 2 * 8


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ({"pools": {"cheap": {"card": "B9000"}}}, "pools.cheap.card: B9000 is not among L4, A10G"),
        ({"pools": {"cheap": {"cards": 2}}}, "pools.cheap: give card, or memory_bandwidth"),
        ({"acceptance": {"a0": 1.5}}, "acceptance.a0: Input should be less than or equal to 1"),
        ({"latency_ms": 1}, "latency_ms: no such key here"),
        ({"models": {"full": {"folder": "x", "parameters_billion": 1}}}, "models.full: give eith"),
        ({"models": {"full": {"parameters_billion": 1}}}, "models.full: kv_bytes_per_token is"),
        ({"context_tokens": 0}, "context_tokens: Input should be greater than or equal to 1"),
    ],
)
def test_a_bad_fleet_file_names_the_key_and_what_is_allowed(tmp_path, damage, told):
    path = tmp_path / "fleet.yaml"
    path.write_text(yaml.safe_dump(example(**damage)))
    with pytest.raises(ConfigError, match=told) as fault:
        load_fleet(path)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "give either a calibration or --fleet"),
        (["c.json", "--fleet", "f.yaml"], "give either a calibration or --fleet"),
        (["none.json"], "calibration none.json: No such file"),
        (["--fleet", "none.yaml"], "fleet none.yaml: No such file"),
        (["--fleet", str(EXAMPLE), "--bench", "b"], "--bench: needs a calibration"),
        (["--fleet", str(EXAMPLE), "--loads", "1,0"], "--loads 1,0: give numbers from 1 up"),
        (["--fleet", str(EXAMPLE), "--plot", "/none/x.png"], "no such folder"),
    ],
)
def test_a_users_fault_is_one_readable_line(given, told):
    done = CliRunner().invoke(cli, ["advise", *given])
    assert isinstance(done.exception, ConfigError)
    assert told in str(done.exception)
    assert "\n" not in str(done.exception)
