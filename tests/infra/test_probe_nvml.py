"""Laws of the probe against the real bindings and a fake driver (fake_nvml.c)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
UUIDS = (
    "GPU-11111111-0000-0000-0000-000000000000",
    "GPU-22222222-0000-0000-0000-000000000000",
)
INSTANCES = {3: "MIG-33333333-0000-0000-0000-000000000000", 5: "MIG-55555555-0000-0000-0000-0"}
CARD = {
    "name": "NVIDIA Fake 80GB",
    "util_pct": 50,
    "memory_busy_pct": 30,
    "memory_used_bytes": 20 << 30,
    "memory_total_bytes": 80 << 30,
    "power_mw": 350_500,
    "power_limit_mw": 700_000,
    "temperature_c": 61,
}
SAMPLE = {"sample": True}
Sampled = Callable[..., list[dict[str, Any]]]


def card(number: int, **more: object) -> str:
    """A whole card's lines; dots in a key are written as __."""
    fields = {"uuid": UUIDS[number], **CARD, **more}
    return "".join(f"{number}.{key.replace('__', '.')} {value}\n" for key, value in fields.items())


def divided(number: int, **more: object) -> str:
    """A card in MIG mode with two instances, in slots 3 and 5, as NVML answers about it."""
    not_supported = {"error__nvmlDeviceGetUtilizationRates": 3}
    lines = card(number, mig=1, mig_slots=7, **not_supported, **more)
    for slot, uuid in INSTANCES.items():
        values = {
            "uuid": uuid,
            "name": "NVIDIA Fake 80GB MIG 1g.10gb",
            "gpu_instance": 10 + slot,
            "compute_instance": 0,
            "memory_used_bytes": slot << 30,
            "memory_total_bytes": 10 << 30,
            "error.nvmlDeviceGetUtilizationRates": 3,
            "error.nvmlDeviceGetPowerUsage": 3,
        }
        lines += "".join(f"{number}.mig{slot}.{key} {value}\n" for key, value in values.items())
    return lines


def driver(*cards: str, **more: object) -> dict[str, str]:
    """The step that makes the driver answer so; dots in a key are written as __."""
    lines = "".join(f"{key.replace('__', '.')} {value}\n" for key, value in more.items())
    return {"driver": f"cards {len(cards)}\n{lines}{''.join(cards)}"}


def passing(seconds: float) -> dict[str, float]:
    """The step in which time passes."""
    return {"pass_s": seconds}


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """fake_nvml.c as a library; skips without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc) to build the fake driver with")
    built = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    source = Path(__file__).with_name("fake_nvml.c")
    subprocess.run(
        [compiler, "-Wall", "-Werror", "-shared", "-fPIC", "-o", built, source], check=True
    )
    return built


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Path, Sequence[Any], Mapping[str, str]], Any]:
    """Runs the steps with the library of a folder, and gives the samples."""

    def run(folder: Path, steps: Sequence[Any], environ: Mapping[str, str]) -> Any:
        ours = {k: v for k, v in os.environ.items() if not k.startswith(("CUDA", "NVIDIA"))}
        ours |= {"LD_LIBRARY_PATH": str(folder), "FAKE_NVML": str(tmp_path / "driver"), **environ}
        done = subprocess.run(
            [sys.executable, "-m", "tests.infra.probe_child"],
            input=json.dumps(steps),
            env=ours,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


@pytest.fixture
def sampled(library: Path, run: Any) -> Sampled:
    """The samples of the steps, of cards `ordinals` under CUDA_VISIBLE_DEVICES `visible`."""

    def sampled(*steps: Any, visible: str | None = None, ordinals: Sequence[int] = (0,)) -> Any:
        environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
        return run(library.parent, [list(ordinals), *steps], environ)

    return sampled


def test_every_field_of_a_card_arrives_in_its_unit(sampled: Sampled):
    [seen] = sampled(driver(card(0)), SAMPLE)
    assert (seen["source"], seen["note"], seen["util_of"]) == ("nvml", "", "gpu")
    assert (seen["util_frac"], seen["util_mean_frac"]) == (0.5, 0.5)
    assert seen["cards"] == [
        {
            "uuid": UUIDS[0],
            "name": "NVIDIA Fake 80GB",
            "util_frac": 0.5,
            "memory_busy_frac": 0.3,
            "memory_used_bytes": 20 << 30,
            "memory_total_bytes": 80 << 30,
            "power_w": 350.5,
            "power_limit_w": 700.0,
            "temperature_c": 61,
            "throttle_reasons": [],
            "mig": False,
            "gpu_instance": None,
            "compute_instance": None,
            "missing": [],
        }
    ]


def test_each_sample_asks_anew_and_the_mean_follows(sampled: Sampled):
    busy = driver(card(0, util_pct=100))
    first, second, later = sampled(
        driver(card(0)), SAMPLE, busy, passing(1), SAMPLE, passing(1000), SAMPLE
    )
    assert [s["util_frac"] for s in (first, second, later)] == [0.5, 1.0, 1.0]
    assert 0.5 < second["util_mean_frac"] < 0.6
    assert later["util_mean_frac"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (0x001, []),
        (0x004, ["power cap"]),
        (0x045, ["power cap", "hardware thermal slowdown"]),
        (0x80000008, ["hardware slowdown", "reason 0x80000000"]),
    ],
)
def test_throttling_is_told_in_words_and_idleness_is_none(
    sampled: Sampled, mask: int, words: list[str]
):
    [seen] = sampled(driver(card(0, clocks_event_reasons=mask)), SAMPLE)
    assert seen["cards"][0]["throttle_reasons"] == words


@pytest.mark.parametrize(
    ("function", "fields"),
    [
        ("nvmlDeviceGetUtilizationRates", ["util_frac", "memory_busy_frac"]),
        ("nvmlDeviceGetMemoryInfo", ["memory_used_bytes", "memory_total_bytes"]),
        ("nvmlDeviceGetPowerUsage", ["power_w"]),
        ("nvmlDeviceGetEnforcedPowerLimit", ["power_limit_w"]),
        ("nvmlDeviceGetCurrentClocksEventReasons", ["throttle_reasons"]),
        ("nvmlDeviceGetName", ["name"]),
    ],
)
@pytest.mark.parametrize(("code", "words"), [(3, "Not Supported"), (4, "Insufficient Permissions")])
def test_field_that_the_card_does_not_tell_is_none_and_named(
    sampled: Sampled, function: str, fields: list[str], code: int, words: str
):
    whole, lacking = sampled(
        driver(card(0)), SAMPLE, driver(card(0, **{f"error__{function}": code})), SAMPLE
    )
    expected = whole["cards"][0] | dict.fromkeys(fields)
    [missing] = lacking["cards"][0]["missing"]
    assert lacking["cards"][0] == expected | {"missing": [missing]}
    assert missing.endswith(f": {words}")
    assert lacking["source"] == "nvml"


def test_without_gpu_utilisation_the_step_loop_counts_and_the_sample_says_so(sampled: Sampled):
    lacking = card(0, error__nvmlDeviceGetUtilizationRates=3)
    _, seen = sampled(driver(lacking), SAMPLE, passing(1), SAMPLE)
    assert (seen["source"], seen["util_of"], seen["util_frac"]) == ("nvml", "step loop", 0.25)
    assert "without utilisation" in seen["note"]


def test_older_drivers_way_is_taken_where_the_newer_is_not_known(sampled: Sampled):
    [seen] = sampled(driver(card(0), error__nvmlDeviceGetTemperatureV=13), SAMPLE)
    assert seen["cards"][0]["temperature_c"] == 61
    assert seen["cards"][0]["missing"] == []


def test_lost_driver_falls_back_to_the_host_and_comes_back(sampled: Sampled):
    lost = driver(card(0), error__nvmlInitWithFlags=9, lost_after=0)
    steps = [driver(card(0)), SAMPLE, lost, passing(1), SAMPLE, passing(1), SAMPLE]
    # Failed twice: the second wait is two seconds long.
    steps += [driver(card(0)), passing(1), SAMPLE, passing(1), SAMPLE]
    before, gone, away, waiting, back = sampled(*steps)
    assert before["source"] == "nvml"
    assert {seen["source"] for seen in (gone, away, waiting)} == {"host"}
    assert back["source"] == "nvml"
    assert gone["note"] == "no NVML: GPU is lost"
    assert away["note"] == waiting["note"] == "no NVML: Driver Not Loaded"
    assert (gone["util_of"], gone["util_frac"], gone["cards"]) == ("step loop", 0.25, [])
    assert (gone["process_cpus"], gone["machine_cpu_frac"]) == (0.0, 0.5)
    assert (back["note"], back["cards"]) == ("", before["cards"])
    assert gone["util_mean_frac"] == 0.25, "the GPU's mean does not run on into the host's"


def test_waits_for_a_driver_double_up_to_a_bound(sampled: Sampled):
    lost = driver(card(0), error__nvmlInitWithFlags=9)
    tries = [SAMPLE] + [step for wait in (1, 2, 4, 8, 8) for step in (passing(wait), SAMPLE)]
    early = [driver(card(0)), passing(7.5), SAMPLE, passing(0.5), SAMPLE]
    seen = sampled(lost, *tries, *early)
    assert [s["source"] for s in seen] == ["host"] * 7 + ["nvml"]


@pytest.mark.parametrize("answers", range(12))
def test_card_may_be_lost_between_any_two_answers(sampled: Sampled, answers: int):
    lost = driver(card(0), lost_after=answers)
    seen, back = sampled(lost, SAMPLE, driver(card(0)), passing(8), SAMPLE)
    assert (seen["source"], seen["note"], seen["cards"]) == ("host", "no NVML: GPU is lost", [])
    assert back["source"] == "nvml"


def test_card_that_answers_no_question_is_lost(sampled: Sampled):
    """999 is NVML_ERROR_UNKNOWN: one field may give it, not all of them."""
    asked = (
        *("UtilizationRates", "MemoryInfo", "PowerUsage", "EnforcedPowerLimit"),
        *("TemperatureV", "CurrentClocksEventReasons"),
    )
    mute = {f"error__nvmlDeviceGet{what}": 999 for what in asked}
    one_answer = driver(card(0, **(mute | {"error__nvmlDeviceGetTemperatureV": 0})))
    silent, answering = sampled(driver(card(0, **mute)), SAMPLE, one_answer, passing(1), SAMPLE)
    assert (silent["source"], silent["note"]) == ("host", "no NVML: Unknown Error")
    assert (answering["source"], answering["cards"][0]["temperature_c"]) == ("nvml", 61)


def test_without_the_library_the_host_is_sampled_until_it_is_there(
    library: Path, run: Any, tmp_path: Path
):
    # An empty file, so that a real driver's library further along the path is not found.
    (tmp_path / "libnvidia-ml.so.1").touch()
    steps = [[0], driver(card(0)), SAMPLE, {"install": str(library)}, passing(1), SAMPLE]
    without, there = run(tmp_path, steps, {})
    assert (without["source"], without["cards"]) == ("host", [])
    assert without["note"] == "no NVML: NVML Shared Library Not Found"
    assert (there["source"], there["note"]) == ("nvml", "")


@pytest.mark.parametrize(
    ("visible", "cards"),
    [
        (None, [0, 1]),
        ("0,1", [0, 1]),
        ("1,0", [1, 0]),
        (" 1 , 0", [1, 0]),
        (f"{UUIDS[1]},{UUIDS[0]}", [1, 0]),
        ("GPU-2,GPU-1111", [1, 0]),
        (f"1,{UUIDS[0]}", [1, 0]),
    ],
)
def test_cards_are_those_of_the_process_in_its_order(
    sampled: Sampled, visible: str | None, cards: list[int]
):
    both = driver(card(0, util_pct=20), card(1, util_pct=80))
    [seen] = sampled(both, SAMPLE, visible=visible, ordinals=(0, 1))
    assert [c["uuid"] for c in seen["cards"]] == [UUIDS[n] for n in cards]
    assert [c["util_frac"] for c in seen["cards"]] == [(0.2, 0.8)[n] for n in cards]
    assert seen["util_frac"] == 0.5
    [second] = sampled(both, SAMPLE, visible=visible, ordinals=(1,))
    assert [c["uuid"] for c in second["cards"]] == [UUIDS[cards[1]]]


@pytest.mark.parametrize("visible", ["", "-1", "0", "0,-1,1", "0,2,1", "0,GPU-,1", "0,GPU-9,1"])
def test_card_that_the_process_is_not_given_is_not_looked_at(sampled: Sampled, visible: str):
    """CUDA sees nothing of what follows an entry that names no card, or more than one."""
    [seen] = sampled(driver(card(0), card(1)), SAMPLE, visible=visible, ordinals=(1,))
    assert (seen["source"], seen["cards"]) == ("host", [])
    assert "no card number 1" in seen["note"]
    assert f"CUDA_VISIBLE_DEVICES={visible!r}" in seen["note"]


@pytest.mark.parametrize(
    ("visible", "slot"),
    [
        (None, 3),
        ("0", 3),
        (UUIDS[0], 3),
        (INSTANCES[3], 3),
        (INSTANCES[5], 5),
        (f"MIG-{UUIDS[0]}/15/0", 5),
    ],
)
def test_mig_instance_is_sampled_with_its_own_memory_and_its_cards_power(
    sampled: Sampled, visible: str | None, slot: int
):
    _, seen = sampled(driver(divided(0)), SAMPLE, passing(1), SAMPLE, visible=visible)
    [instance] = seen["cards"]
    assert instance["uuid"] == INSTANCES[slot]
    assert instance["mig"] is True
    assert (instance["gpu_instance"], instance["compute_instance"]) == (10 + slot, 0)
    assert instance["memory_used_bytes"] == slot << 30
    assert instance["memory_total_bytes"] == 10 << 30
    assert (instance["power_w"], instance["temperature_c"]) == (350.5, 61)
    assert (instance["util_frac"], instance["memory_busy_frac"]) == (None, None)
    assert instance["missing"] == ["util_frac, memory_busy_frac: Not Supported"]
    assert (seen["util_of"], seen["util_frac"]) == ("step loop", 0.25)


def test_mig_instance_that_is_not_there_is_not_replaced_by_another(sampled: Sampled):
    [seen] = sampled(driver(divided(0)), SAMPLE, visible=f"MIG-{UUIDS[0]}/1/0")
    assert (seen["source"], seen["cards"]) == ("host", [])


def test_card_that_knows_nothing_of_mig_is_whole(sampled: Sampled):
    names = ("IsMigDeviceHandle", "GetMaxMigDeviceCount", "GetMigMode")
    unknown = {f"error__nvmlDevice{name}": 13 for name in names}
    [seen] = sampled(driver(card(0), **unknown), SAMPLE)
    [whole] = seen["cards"]
    assert (whole["mig"], whole["gpu_instance"], whole["missing"]) == (False, None, [])


@pytest.mark.parametrize(
    ("visible", "cards"), [(None, (0, 1)), ("1", (1,)), ("", ()), (f"{UUIDS[1]},0", (1, 0))]
)
def test_inventory_is_of_all_cards_that_a_process_here_would_see(sampled: Sampled, visible, cards):
    here = driver(card(0), card(1), driver_version="580.95")
    [seen] = sampled(here, {"inventory": True}, visible=visible)
    assert seen["driver"] == "580.95"
    assert [found["uuid"] for found in seen["cards"]] == [UUIDS[number] for number in cards]


def test_inventory_says_in_a_line_why_there_is_none(sampled: Sampled):
    [seen] = sampled(driver(card(0), error__nvmlInitWithFlags=9), {"inventory": True})
    assert seen["why"] == "Driver Not Loaded"
